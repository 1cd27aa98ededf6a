package member

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// lifeHeader says with every call of a coordinator to another member of which life of the cluster it is; the
// first life is not said, as earlier builds know no other.
const lifeHeader = "clary-life"

// InLife are the options of a connection on which every call says the caller's life: see cluster.NewLife.
func InLife(life string) []grpc.DialOption {
	if life == "" {
		return nil
	}
	said := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, lifeHeader, life)
	}
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, call grpc.UnaryInvoker, options ...grpc.CallOption) error {
			return call(said(ctx), method, request, answer, conn, options...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, of *grpc.StreamDesc, conn *grpc.ClientConn, method string, stream grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
			return stream(said(ctx), of, conn, method, options...)
		}),
	}
}

// CallersLife is the life of the cluster that the caller of a method says it is of.
func CallersLife(ctx context.Context) string {
	incoming, _ := metadata.FromIncomingContext(ctx)
	if said := incoming.Get(lifeHeader); len(said) > 0 {
		return said[0]
	}
	return ""
}
