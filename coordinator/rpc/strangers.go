package rpc

import (
	"context"
	"strings"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/tap"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/proto/wire"
)

// maxStrangers is how many calls may be on their way at once of callers whom this coordinator does not know. gRPC reads a whole
// request, of up to member.MaxMessage, before anyone is asked whose it is: strangers can have so many times as much held. They are
// those who join, who show no token, and whose token is unknown here, perhaps since it was made at another coordinator a moment ago.
const maxStrangers = 32

// meet is asked when a call begins, before anything of its request is read. It must not wait.
func (g *Guard) meet(ctx context.Context, call *tap.Info) (context.Context, error) {
	if g.knows(ctx, call.Header) {
		return ctx, nil
	}
	if g.strangers.Add(1) > maxStrangers {
		g.strangers.Add(-1)
		return nil, wire.ToStatus(fault.New(fault.Unready, "this coordinator is busy with %d calls whose callers it does not know yet: try again, or ask another", maxStrangers))
	}
	context.AfterFunc(ctx, func() { g.strangers.Add(-1) })
	return ctx, nil
}

// knows reports whether a caller shows a certificate of the cluster, or a token that is good as far as this coordinator knows.
func (g *Guard) knows(ctx context.Context, header metadata.MD) bool {
	if _, _, err := callingNode(ctx); err == nil {
		return true
	}
	values := header.Get("authorization")
	if len(values) != 1 {
		return false
	}
	presented, err := auth.ParseToken(strings.TrimPrefix(values[0], "Bearer "))
	if err != nil || presented.Kind != cluster.TokenUser {
		return false
	}
	snapshot, err := g.Replica.Read(ctx, true)
	if err != nil {
		return false
	}
	token, known := snapshot.Token(presented.ID)
	_ = snapshot.Close()
	return known && auth.Check(token, presented, g.Now()) == nil
}
