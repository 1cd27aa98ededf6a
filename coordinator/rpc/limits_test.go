package rpc_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
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
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/memnet"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/workload"
)

func (w *world) setLimits(edit func(*cluster.Limits)) {
	w.Helper()
	snapshot, err := w.replica.Read(w.Context(), false)
	if err != nil {
		w.Fatal(err)
	}
	settings := snapshot.Settings()
	snapshot.Close()
	edit(&settings.Limits)
	if _, err := w.replica.Propose(w.Context(), command.Record{Changes: []command.Change{{Settings: &settings, Expect: settings.Revision}}}); err != nil {
		w.Fatal(err)
	}
}

func TestAUserWhoAsksTooOftenIsRefusedAndOthersAreNot(t *testing.T) {
	inWorld(t, func(w *world) {
		w.setLimits(func(l *cluster.Limits) { l.UserRequests, l.UserBurst = 2, 5 })
		ask := func(who string) error {
			_, err := claryv1.NewAdminClient(w.as(who)).WhoAmI(w.Context(), &claryv1.WhoAmIRequest{})
			return wire.FromStatus(err)
		}
		before := w.revision()
		taken := 0
		var refusal error
		for range 20 {
			if err := ask(cluster.RoleUser); err != nil {
				refusal = err
				continue
			}
			taken++
		}
		if taken < 5 || taken > 7 || !fault.Is(refusal, fault.Exhausted) || !strings.Contains(refusal.Error(), "limits.user_requests") {
			w.Errorf("%d of 20 were taken: %v", taken, refusal)
		}
		if err := ask(cluster.RoleAdmin); err != nil {
			w.Errorf("another is refused, too: %v", err)
		}
		if after := w.revision(); after != before {
			w.Errorf("what was refused has changed something: revision %d became %d", before, after)
		}
		time.Sleep(time.Second)
		if err := ask(cluster.RoleUser); err != nil {
			w.Errorf("a second later: %v", err)
		}
		w.setLimits(func(l *cluster.Limits) { l.UserRequests = 0 })
		for range 20 {
			if err := ask(cluster.RoleUser); err != nil {
				w.Fatalf("without a limit: %v", err)
			}
		}
	})
}

func TestStreamsOfAUserAreLimitedAndGiveTheirPlaceBack(t *testing.T) {
	inWorld(t, func(w *world) {
		w.setLimits(func(l *cluster.Limits) { l.UserStreams = 2 })
		job := cluster.Job{Name: "one", Kind: cluster.KindProcessing, Owner: "ann", Queue: cluster.DefaultQueue, State: cluster.JobQueued, Attempt: 1}
		if _, err := w.replica.Propose(w.Context(), command.Record{Changes: []command.Change{{Job: &job}}}); err != nil {
			w.Fatal(err)
		}
		watch := func() (end func(), err error) {
			ctx, cancel := context.WithCancel(w.Context())
			stream, err := claryv1.NewJobsClient(w.as(cluster.RoleUser)).Watch(ctx, &claryv1.WatchJobRequest{Name: "one"})
			if err == nil {
				_, err = stream.Recv()
			}
			if err != nil {
				cancel()
			}
			return cancel, wire.FromStatus(err)
		}
		first, err := watch()
		second, err2 := watch()
		if err != nil || err2 != nil {
			w.Fatal(err, err2)
		}
		defer second()
		if _, err := watch(); !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "limits.user_streams") {
			w.Errorf("a third stream: %v", err)
		}
		first()
		synctest.Wait()
		third, err := watch()
		if err != nil {
			w.Fatalf("when one has ended: %v", err)
		}
		third()
	})
}

func TestALargeRequestIsRefusedByTheSettings(t *testing.T) {
	inWorld(t, func(w *world) {
		w.setLimits(func(l *cluster.Limits) { l.RequestBytes = 64 << 10 })
		job := &claryv1.Job{Name: "large", Kind: "training", Spec: make([]byte, 70<<10)}
		_, err := claryv1.NewJobsClient(w.as(cluster.RoleUser)).Submit(w.Context(), &claryv1.SubmitRequest{Job: job})
		if err := wire.FromStatus(err); !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "limits.request_bytes") {
			w.Error(err)
		}
	})
}

func TestWhatASweepsWorkersTellIsNotRefusedForItsNumber(t *testing.T) {
	inWorld(t, func(w *world) {
		w.setLimits(func(l *cluster.Limits) { l.UserRequests, l.UserBurst = 1, 1 })
		for range 20 {
			_, err := claryv1.NewSweepsClient(w.as(cluster.RoleUser)).Ask(w.Context(), &claryv1.AskRequest{Sweep: "none"})
			if err := wire.FromStatus(err); !fault.Is(err, fault.NotFound) {
				t.Fatal(err)
			}
		}
	})
}

// behind is a replica that knows of an earlier state than the leader.
type behind struct {
	alone
	earlier *solo.Ledger
}

func (b behind) Read(ctx context.Context, stale bool) (*state.Snapshot, error) {
	if stale {
		return b.earlier.Read(ctx, stale)
	}
	return b.alone.Read(ctx, stale)
}

func TestWhoIsNotOverALimitIsNotRefusedByACoordinatorThatIsBehind(t *testing.T) {
	open := func(changes ...command.Change) *solo.Ledger {
		ledger, err := solo.Open(filepath.Join(t.TempDir(), "state.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ledger.Close() })
		if _, err := ledger.Propose(t.Context(), command.Record{Changes: changes}); err != nil {
			t.Fatal(err)
		}
		return ledger
	}
	token, secret, err := auth.NewUserToken("ada", cluster.RoleUser, 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	set := cluster.DefaultSettings()
	set.Limits.UserJobs = 1
	job := func(name string) *cluster.Job {
		return &cluster.Job{Name: name, Kind: cluster.KindTraining, Owner: "ada", Queue: cluster.DefaultQueue, State: cluster.JobQueued, Attempt: 1}
	}
	now := open(command.Change{Token: &token}, command.Change{Settings: &set})
	replica := behind{alone{Ledger: now}, open(command.Change{Token: &token}, command.Change{Settings: &set}, command.Change{Job: job("ended-since")})}
	conn := serve(t, replica, nil)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+secret)
	submit := func(name string) error {
		_, err := claryv1.NewJobsClient(conn).Submit(ctx, &claryv1.SubmitRequest{Job: wire.JobToProto(*job(name))})
		return wire.FromStatus(err)
	}
	if err := submit("first"); err != nil {
		t.Errorf("there is room for it: %v", err)
	}
	if err := submit("second"); !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "limits.user_jobs") {
		t.Errorf("one too many: %v", err)
	}
	if err := submit("first"); err != nil {
		t.Errorf("what is there already: %v", err)
	}
}

func TestWhileNothingNewIsTakenWhatIsThereCanBeSeenAndEnded(t *testing.T) {
	ledger, err := solo.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	token, secret, err := auth.NewUserToken("ada", cluster.RoleUser, 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Propose(t.Context(), command.Record{Changes: []command.Change{{Token: &token}}}); err != nil {
		t.Fatal(err)
	}
	var full error
	conn := serve(t, alone{Ledger: ledger}, func() error { return full })
	jobs, ctx := claryv1.NewJobsClient(conn), metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+secret)
	submit := func(name string) error {
		job := cluster.Job{Name: name, Kind: cluster.KindTraining, Owner: "ada", Queue: cluster.DefaultQueue, State: cluster.JobQueued, Attempt: 1}
		_, err := jobs.Submit(ctx, &claryv1.SubmitRequest{Job: wire.JobToProto(job)})
		return wire.FromStatus(err)
	}
	if err := submit("one"); err != nil {
		t.Fatal(err)
	}
	full = fault.New(fault.Exhausted, "the disk of coordinator a is full")
	if err := submit("two"); !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "coordinator a") {
		t.Errorf("a new job: %v", err)
	}
	if _, err := jobs.Get(ctx, &claryv1.GetJobRequest{Name: "one"}); err != nil {
		t.Errorf("seeing one: %v", err)
	}
	if _, err := jobs.Cancel(ctx, &claryv1.CancelJobRequest{Name: "one"}); err != nil {
		t.Errorf("ending one: %v", err)
	}
	full = nil
	if err := submit("two"); err != nil {
		t.Errorf("when there is room: %v", err)
	}
}

// willing is a kind of job that takes every spec and never does anything.
type willing struct{}

func (willing) Check([]byte) cluster.Problems { return nil }

func (willing) Reconcile(workload.View, cluster.Job, int64) workload.Changes {
	return workload.Changes{}
}

// serve has the services answer from a replica. refuses is why nothing new is taken.
func serve(t testing.TB, replica rpc.Replica, refuses func() error) *grpc.ClientConn {
	t.Helper()
	guard := &rpc.Guard{Replica: replica, Now: time.Now, Refuses: refuses, Log: slog.New(slog.DiscardHandler)}
	server := grpc.NewServer(guard.Options()...)
	rpc.Register(server, rpc.Config{
		Replica: replica, Nodes: rpc.NewNodeCache(replica), Kinds: map[cluster.Kind]workload.Kind{cluster.KindTraining: willing{}}, Log: guard.Log,
	})
	var net memnet.Network
	listener, err := net.Host("10.0.0.1").Listen("10.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///10.0.0.1:1", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(net.Host("10.0.0.2").Dial))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		<-ended
	})
	return conn
}
