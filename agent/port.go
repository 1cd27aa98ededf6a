package agent

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/internal/alpn"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/request"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/serving/gateway"
)

// openPort takes the one port on which others reach this node: coordinators for records and hands over
// gRPC, routers for connections to tasks.
func (a *agent) openPort() error {
	listener, err := a.config.network().Listen(a.config.Listen)
	if err != nil {
		return fault.New(fault.Invalid, "--listen: %w", err)
	}
	a.port, a.portAddr = alpn.New(listener, portTLS(a.self.credentials.Get), a.log, alpn.GRPC, gateway.Protocol), listener.Addr()
	return nil
}

// portTLS lets each protocol's clients in, and nobody else.
func portTLS(source pki.Source) *tls.Config {
	config := pki.MutualTLS(source, gateway.Expect)
	routers, coordinators := config.VerifyConnection, pki.MutualTLS(source, pki.ExpectNode(pki.Coordinator)).VerifyConnection
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if state.NegotiatedProtocol == gateway.Protocol {
			return routers(state)
		}
		return coordinators(state)
	}
	return config
}

// portAddress is where others reach this agent's port.
func (a *agent) portAddress() string {
	host, _, _ := net.SplitHostPort(a.config.Listen)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = a.config.Address
	}
	_, port, _ := net.SplitHostPort(a.portAddr.String()) // the real one, if port 0 was asked for
	return net.JoinHostPort(host, port)
}

// serveGRPC answers coordinators, and nobody else, until ctx ends.
func (a *agent) serveGRPC(ctx context.Context) error {
	server := grpc.NewServer(append(request.ServerOptions(),
		grpc.Creds(alpn.Accepted()),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)...)
	claryv1.RegisterTaskLogsServer(server, &taskLogs{agent: a})
	claryv1.RegisterTaskHandsServer(server, newTaskHands(a))
	claryv1.RegisterAgentKeysServer(server, &agentKeys{agent: a})
	claryv1.RegisterAgentDebugServer(server, agentDebug{})
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	defer server.Stop() // the port may have heard of ctx's end first
	err := server.Serve(a.port.On(alpn.GRPC))
	if ctx.Err() != nil {
		return ctx.Err() // the port may have closed its side first, which is no error then
	}
	return err
}

// serveGateway brings routers' connections to this node's tasks, until ctx ends.
func (a *agent) serveGateway(ctx context.Context) error {
	return gateway.New(gateway.Config{Reach: a.tasks.Reach, Log: a.log}).Serve(ctx, a.port.On(gateway.Protocol))
}
