package member

import (
	"context"
	"net"
)

// Network is how a member listens and reaches others.
type Network interface {
	Listen(address string) (net.Listener, error)
	Dial(ctx context.Context, address string) (net.Conn, error)
}

// TCP is the machine's own network.
type TCP struct{}

// Listen takes TCP connections.
func (TCP) Listen(address string) (net.Listener, error) { return net.Listen("tcp", address) }

// Dial opens a TCP connection.
func (TCP) Dial(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}
