package rpc_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/rpc"
	"github.com/clary-ml/clary/coordinator/solo"
	"github.com/clary-ml/clary/coordinator/state"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// alone is a replica of one, without a log.
type alone struct {
	*solo.Ledger
	rpc.Replica
}

func (a alone) Read(ctx context.Context, stale bool) (*state.Snapshot, error) {
	return a.Ledger.Read(ctx, stale)
}

func (a alone) Propose(ctx context.Context, commands ...command.Command) ([]command.Result, error) {
	return a.Ledger.Propose(ctx, commands...)
}

func (a alone) Events() *state.Bus { return a.Ledger.Events() }
func (a alone) Leads() bool        { return true }

// What a request costs whoever answers it and whoever asks, together: one that is refused by a limit, the smallest that is taken, counted
// and not, and a list of 1,000 jobs.
func BenchmarkRequest(b *testing.B) {
	whoAmI := func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := claryv1.NewAdminClient(conn).WhoAmI(ctx, &claryv1.WhoAmIRequest{})
		return err
	}
	list := func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := claryv1.NewJobsClient(conn).List(ctx, &claryv1.ListJobsRequest{Stale: true, Limit: 1000})
		return err
	}
	for _, c := range []struct {
		name    string
		rate    int64
		ask     func(context.Context, *grpc.ClientConn) error
		refused bool
	}{
		{"refused", 1, whoAmI, true}, {"small", 1_000_000, whoAmI, false}, {"small, not counted", 0, whoAmI, false}, {"list", 1_000_000, list, false},
	} {
		b.Run(c.name, func(b *testing.B) {
			ledger, err := solo.Open(filepath.Join(b.TempDir(), "state.db"))
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = ledger.Close() }()
			token, secret, err := auth.NewUserToken("ada", cluster.RoleUser, 0, time.Now())
			if err != nil {
				b.Fatal(err)
			}
			set := cluster.DefaultSettings()
			if set.Limits.UserRequests = c.rate; c.refused {
				set.Limits.UserBurst = 1
			}
			changes := []command.Change{{Token: &token}, {Settings: &set}}
			for i := range 1000 {
				changes = append(changes, command.Change{Job: &cluster.Job{Name: fmt.Sprint("j", i), Kind: "training", Owner: "ada", Queue: "default", State: cluster.JobQueued, Attempt: 1}})
			}
			if _, err := ledger.Propose(b.Context(), command.Record{Changes: changes}); err != nil {
				b.Fatal(err)
			}
			conn := serve(b, alone{Ledger: ledger}, nil)
			ctx := metadata.AppendToOutgoingContext(b.Context(), "authorization", "Bearer "+secret)
			b.ReportAllocs()
			for b.Loop() {
				if err := c.ask(ctx, conn); err != nil && !c.refused {
					b.Fatal(err)
				}
			}
		})
	}
}
