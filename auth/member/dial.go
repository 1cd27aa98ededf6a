// Package member is how a machine becomes a member of a cluster, and how one member
// calls another: what coordinators and agents share.
package member

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/request"
)

// MaxMessage is the largest message, in bytes, that members accept from one another.
const MaxMessage = 16 << 20

// Window is how many bytes a stream may be ahead of its reader, a connection four times
// as many. It is fixed: gRPC would find it out with a ping for every message, and a ping
// and its answer cost as much as a small call.
const Window = 256 << 10

// grpcProtocol is the ALPN name of HTTP/2.
const grpcProtocol = "h2"

// Dial prepares a connection of one member to another: both show their certificates,
// and the other must be whom expect says.
func Dial(network Network, address string, source pki.Source, expect pki.Expect, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	return dial(network, address, credentials.NewTLS(pki.ClientTLS(source, expect, grpcProtocol)), more...)
}

func dial(network Network, address string, secured credentials.TransportCredentials, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, append(append(request.DialOptions(), more...),
		grpc.WithTransportCredentials(secured),
		grpc.WithContextDialer(network.Dial),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage)),
		grpc.WithStaticStreamWindowSize(Window), grpc.WithStaticConnWindowSize(4*Window),
		grpc.WithConnectParams(grpc.ConnectParams{ // members come back within seconds: look for them as often
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}),
	)...)
	if err != nil {
		return nil, fault.New(fault.Invalid, "address %q: %w", address, err)
	}
	return conn, nil
}
