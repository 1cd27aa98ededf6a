// Package client is how programs speak to a Clary cluster: every request that the API
// has, in the cluster's nouns.
//
// A client knows several coordinators and any of them will do: one that cannot be
// reached, or has no leader at the moment, is left for the next one until the
// client's patience ends. Requests are safe to repeat, so a coordinator that dies in
// the middle of one is no reason for an error. Errors carry a kind of internal/fault
// and say what to do.
//
// The server is known by the pin of its cluster's CA and must be a coordinator;
// the caller is known by a token. There is no unencrypted mode.
package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/client/config"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/request"
	"github.com/clary-ml/clary/proto/wire"
)

// Limits of one request.
const (
	// DefaultPatience is how long a request goes on trying when no coordinator can answer:
	// long enough for a new leader to be elected.
	DefaultPatience = 15 * time.Second
	attemptTime     = 10 * time.Second // of one coordinator, before the next one is asked
	firstPause      = 50 * time.Millisecond
	longestPause    = time.Second
	maxMessage      = 64 << 20
	// window is how many bytes a stream may be ahead of its reader. It is fixed: gRPC would
	// find it out with a ping for every message, at the price of a second small call.
	window = 1 << 20
)

// Client speaks to one cluster. Its methods may be called at the same time.
type Client struct {
	peers    []*peer
	next     atomic.Uint32 // index of the peer to ask first
	patience time.Duration
}

// peer is one coordinator.
type peer struct {
	address string
	conn    *grpc.ClientConn
	refused atomic.Pointer[error] // why its certificate was refused, if it was
	// successor is the pin of the CA that has taken the place of the pinned one.
	successor atomic.Pointer[string]
	ends      endings
}

// Option changes how a client behaves.
type Option func(*Client)

// WithPatience sets how long a request goes on trying when no coordinator can answer.
func WithPatience(patience time.Duration) Option {
	return func(c *Client) { c.patience = patience }
}

// Dial makes a client. It connects when it is first used.
func Dial(to config.Context, options ...Option) (*Client, error) {
	if problems := to.Validate(); problems != nil {
		return nil, fault.New(fault.Invalid, "%w", problems)
	}
	c := &Client{patience: DefaultPatience}
	for _, option := range options {
		option(c)
	}
	for _, address := range to.Addresses {
		p, err := newPeer(address, to)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.peers = append(c.peers, p)
	}
	return c, nil
}

func newPeer(address string, to config.Context) (*peer, error) {
	p := &peer{address: address}
	pinned := pki.PinnedTLS(to.CAPin)
	verify := pinned.VerifyConnection
	pinned.VerifyConnection = func(state tls.ConnectionState) error {
		err := verify(state)
		p.refused.Store(nil)
		if err != nil {
			p.refused.Store(&err)
		} else if pin := pki.Successor(state, to.CAPin); pin != "" {
			p.successor.Store(&pin)
		}
		p.ends.seen(state.PeerCertificates)
		return err
	}
	var err error
	p.conn, err = grpc.NewClient("passthrough:///"+address, append(request.DialOptions(),
		grpc.WithTransportCredentials(credentials.NewTLS(pinned)),
		grpc.WithPerRPCCredentials(bearer(to.Token)),
		grpc.WithChainUnaryInterceptor(p.ends.told),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(4*window),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstPause, Multiplier: 1.6, Jitter: 0.2, MaxDelay: longestPause},
			MinConnectTimeout: 3 * time.Second,
		}),
	)...)
	if err != nil {
		return nil, fault.New(fault.Invalid, "address %s: %w", address, err)
	}
	return p, nil
}

// Close ends all connections.
func (c *Client) Close() error {
	var errs []error
	for _, p := range c.peers {
		errs = append(errs, p.conn.Close())
	}
	return errors.Join(errs...)
}

// bearer shows the user's token with every request.
type bearer string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if b == "" {
		return nil, nil
	}
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (bearer) RequireTransportSecurity() bool { return true }

// call asks one coordinator after another until one gives an answer that will not
// change by asking again, the patience ends or ctx does. Attempts are numbered from 1.
func call[T any](ctx context.Context, c *Client, ask func(ctx context.Context, conn *grpc.ClientConn, attempt int) (T, error)) (T, error) {
	var none T
	ctx = request.Ensure(ctx)
	patience, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	pause := firstPause
	for attempt := 1; ; attempt++ {
		index := c.next.Load()
		p := c.peers[int(index)%len(c.peers)]
		limited, done := context.WithTimeout(ctx, attemptTime)
		answer, err := ask(limited, p.conn, attempt)
		done()
		if err == nil {
			return answer, nil
		}
		// A certificate may be refused at one alone: it is not of the CA yet that has taken the place of another.
		elsewhere := p.refused.Load() != nil && attempt < len(c.peers)
		if status.Code(err) == codes.Unimplemented { // while coordinators are upgraded one after the other
			elsewhere = attempt < len(c.peers)
			err = fault.New(fault.Invalid, "%s: its version does not know this request: upgrade the coordinators", p.address)
		}
		if err = p.explain(wire.FromStatus(err)); ctx.Err() != nil || !worthAnother(err) && !elsewhere {
			return none, err
		}
		c.next.CompareAndSwap(index, index+1)
		if attempt%len(c.peers) != 0 {
			continue // the others have not been asked yet
		}
		select {
		case <-patience.Done():
			return none, c.gaveUp(ctx, err)
		case <-time.After(pause):
			pause = min(2*pause, longestPause)
		}
	}
}

// worthAnother reports whether another coordinator, or a later moment, may answer.
func worthAnother(err error) bool {
	return fault.Is(err, fault.Unready) || errors.Is(err, context.DeadlineExceeded)
}

// explain gives a refused certificate its own words: to gRPC it is one more reason why
// a connection failed.
func (p *peer) explain(err error) error {
	if refused := p.refused.Load(); refused != nil && fault.Is(err, fault.Unready) {
		return fault.New(fault.Denied, "%s: %w", p.address, *refused)
	}
	if fault.Is(err, fault.Unready) {
		return fault.New(fault.Unready, "%s: %s", p.address, err)
	}
	return err
}

func (c *Client) gaveUp(ctx context.Context, last error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	addresses := make([]string, len(c.peers))
	for i, p := range c.peers {
		addresses[i] = p.address
	}
	return fault.New(fault.Unready, "no coordinator answered for %s (asked %s): %w: check that they run and that a majority of them can reach each other",
		c.patience.Round(time.Second), strings.Join(addresses, ", "), last)
}

// stream opens a stream at one coordinator after another until once says that it is
// done, it fails for good, or nobody has answered for as long as the patience lasts.
func (c *Client) stream(ctx context.Context, once func(ctx context.Context, p *peer) (done, heard bool, err error)) error {
	ctx = request.Ensure(ctx)
	silentSince := time.Now()
	for failures := 0; ; failures++ {
		index := c.next.Load()
		p := c.peers[int(index)%len(c.peers)]
		done, heard, err := once(ctx, p)
		if done {
			return nil
		}
		if heard {
			silentSince, failures = time.Now(), 0
		}
		elsewhere := p.refused.Load() != nil && failures+1 < len(c.peers)
		if err = p.explain(wire.FromStatus(err)); ctx.Err() != nil || !worthAnother(err) && !elsewhere {
			return err
		}
		c.next.CompareAndSwap(index, index+1)
		if time.Since(silentSince) > c.patience {
			return c.gaveUp(ctx, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(firstPause<<min(failures, 8), longestPause)):
		}
	}
}

// String names the coordinators that the client knows.
func (c *Client) String() string {
	var b strings.Builder
	for i, p := range c.peers {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprint(&b, p.address)
	}
	return b.String()
}
