package rpc_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/rpc"
	"github.com/clary-ml/clary/coordinator/solo"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/memnet"
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

// What a request costs whoever answers it: one that is taken (a list of 1,000 jobs), and one that a limit refuses.
func BenchmarkRequest(b *testing.B) {
	for _, refused := range []bool{false, true} {
		b.Run(fmt.Sprintf("refused=%t", refused), func(b *testing.B) {
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
			if set.Limits.UserRequests = 0; refused {
				set.Limits.UserRequests, set.Limits.UserBurst = 1, 1
			}
			changes := []command.Change{{Token: &token}, {Settings: &set}}
			for i := range 1000 {
				changes = append(changes, command.Change{Job: &cluster.Job{Name: fmt.Sprint("j", i), Kind: "training", Owner: "ada", Queue: "default", State: cluster.JobQueued, Attempt: 1}})
			}
			if _, err := ledger.Propose(b.Context(), command.Record{Changes: changes}); err != nil {
				b.Fatal(err)
			}
			replica := alone{Ledger: ledger}
			guard := &rpc.Guard{Replica: replica, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
			server := grpc.NewServer(guard.Options()...)
			rpc.Register(server, rpc.Config{Replica: replica, Nodes: rpc.NewNodeCache(replica), Log: guard.Log})
			var net memnet.Network
			listener, err := net.Host("10.0.0.1").Listen("10.0.0.1:1")
			if err != nil {
				b.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- server.Serve(listener) }()
			defer func() { server.Stop(); <-ended }()
			conn, err := grpc.NewClient("passthrough:///10.0.0.1:1", grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(net.Host("10.0.0.2").Dial))
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			ctx := metadata.AppendToOutgoingContext(b.Context(), "authorization", "Bearer "+secret)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := claryv1.NewJobsClient(conn).List(ctx, &claryv1.ListJobsRequest{Stale: true, Limit: 1000}); (err != nil) != refused && !refused {
					b.Fatal(err)
				}
			}
		})
	}
}
