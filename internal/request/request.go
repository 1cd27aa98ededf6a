// Package request gives each request an id that goes with it from the caller through every
// process that has a part in it, so that log lines, errors and the audit of one request can be found
// by one word.
package request

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Header is the metadata key that carries the id.
const Header = "x-request-id"

// TokenEnds is the metadata key of an answer that says when the caller's token ends, if that is soon, in RFC 3339.
const TokenEnds = "x-clary-token-ends"

// MaxID is how long a caller's own id may be, in bytes.
const MaxID = 64

type key struct{}

// NewID makes an id of 12 hexadecimal digits.
func NewID() string {
	random := make([]byte, 6)
	_, _ = rand.Read(random) // never fails
	return hex.EncodeToString(random)
}

// Valid reports whether a caller's id is kept: letters, digits, dots, dashes and underscores, which need
// no quoting in a log.
func Valid(id string) bool {
	if id == "" || len(id) > MaxID {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// With puts an id into a context.
func With(ctx context.Context, id string) context.Context { return context.WithValue(ctx, key{}, id) }

// ID returns the request's id, "" outside of one.
func ID(ctx context.Context) string {
	id, _ := ctx.Value(key{}).(string)
	return id
}

// Accept returns the context of a call that came in: with the caller's id, or one of its own if the
// caller has sent none, or one that is not Valid.
func Accept(ctx context.Context) context.Context {
	if sent := metadata.ValueFromIncomingContext(ctx, Header); len(sent) == 1 && Valid(sent[0]) {
		return With(ctx, sent[0])
	}
	return With(ctx, NewID())
}

// Ensure returns ctx if it has an id, else ctx with a new one: what is tried again keeps its id.
func Ensure(ctx context.Context) context.Context {
	if ID(ctx) != "" {
		return ctx
	}
	return With(ctx, NewID())
}

// send puts the context's id, or a new one, into what goes out with a call.
func send(ctx context.Context) context.Context {
	ctx = Ensure(ctx)
	return metadata.AppendToOutgoingContext(ctx, Header, ID(ctx))
}

// DialOptions have every call of a connection carry the id of the request that it is made for.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
			return invoke(send(ctx), method, request, answer, conn, options...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(send(ctx), desc, conn, method, options...)
		}),
	}
}

// ServerOptions have every call that comes in carry its id in its context.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, message any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			return handle(Accept(ctx), message)
		}),
		grpc.ChainStreamInterceptor(func(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			return handle(server, accepted{stream, Accept(stream.Context())})
		}),
	}
}

type accepted struct {
	grpc.ServerStream
	ctx context.Context
}

func (s accepted) Context() context.Context { return s.ctx }

// LogHandler adds the request's id to each line that is logged with a context that has one.
func LogHandler(to slog.Handler) slog.Handler { return handler{to} }

type handler struct{ slog.Handler }

func (h handler) Handle(ctx context.Context, record slog.Record) error {
	if id := ID(ctx); id != "" {
		record = record.Clone() // another handler may have it too
		record.AddAttrs(slog.String("request", id))
	}
	return h.Handler.Handle(ctx, record)
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs)}
}

func (h handler) WithGroup(name string) slog.Handler { return handler{h.Handler.WithGroup(name)} }
