package quorum_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/quorum"
	"github.com/clary-ml/clary/coordinator/replica"
	"github.com/clary-ml/clary/coordinator/solo"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/memnet"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// voters are the members of a cluster whose leader is "a".
type voters struct {
	*solo.Ledger
	mu      sync.Mutex
	members []replica.Member
}

func (v *voters) Members() ([]replica.Member, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.members), nil
}

func (v *voters) RemoveServer(_ context.Context, id string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.members = slices.DeleteFunc(v.members, func(m replica.Member) bool { return m.ID == id })
	return nil
}

func (v *voters) AddVoter(context.Context, string, string) error        { return nil }
func (v *voters) AddNonvoter(context.Context, string, string) error     { return nil }
func (v *voters) Transfer(context.Context, replica.Member) error        { return nil }
func (v *voters) ProposeHere(context.Context, ...command.Command) error { return nil }
func (v *voters) Stats() replica.Stats                                  { return replica.Stats{} }
func (v *voters) Leader() string                                        { return "a" }
func (v *voters) Leads() bool                                           { return true }
func (v *voters) Format() (int, error)                                  { return command.Format, nil }

// standing answers as a coordinator that is well.
type standing struct {
	claryv1.UnimplementedPeerServer
	leads bool
}

func (s standing) Standing(context.Context, *claryv1.StandingRequest) (*claryv1.StandingResponse, error) {
	return &claryv1.StandingResponse{Version: "v", Format: command.Format, Leads: s.leads}, nil
}

// conns reach everybody but those who are silent.
type conns struct {
	conn   *grpc.ClientConn
	silent string
}

func (c conns) Conn(id string) (*grpc.ClientConn, error) {
	if id == c.silent {
		return nil, fault.New(fault.Unready, "%s is silent", id)
	}
	return c.conn, nil
}

// others are all at one address of a network.
type others struct{ net memnet.Network }

func (o *others) conn(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///10.0.0.1:1", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(o.net.Host("10.0.0.2").Dial))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (o *others) serve(t *testing.T, as standing) {
	t.Helper()
	listener, err := o.net.Host("10.0.0.1").Listen("10.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	claryv1.RegisterPeerServer(server, as)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { server.Stop(); serving.Wait() })
}

func open(t *testing.T, ids ...string) *voters {
	t.Helper()
	ledger, err := solo.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ledger.Close() })
	v := &voters{Ledger: ledger}
	for _, id := range ids {
		v.members = append(v.members, replica.Member{ID: id, Address: id, Voter: true, Leader: id == "a"})
	}
	return v
}

// A connection that has failed rests for up to a second before it is tried again.
func TestWhoIsBackCanLeadThoughTheConnectionToItRests(t *testing.T) {
	var there others
	conn := there.conn(t)
	conn.Connect()
	for state := conn.GetState(); state != connectivity.TransientFailure; state = conn.GetState() {
		conn.WaitForStateChange(t.Context(), state)
	}
	there.serve(t, standing{leads: true})
	desk := quorum.New(quorum.Config{ID: "a", Version: "v", Replica: open(t, "a", "b"), Peers: conns{conn, ""}, Log: slog.New(slog.DiscardHandler)})
	if leads, err := desk.Transfer(t.Context(), "b"); err != nil || leads != "b" {
		t.Errorf("%q leads: %v", leads, err)
	}
}

// Of four, one of whom is silent, one may go. Two may not, whenever they are asked for.
func TestTwoRemovalsAtOnceAreWeighedOneAfterTheOther(t *testing.T) {
	v := open(t, "a", "b", "c", "d")
	var there others
	there.serve(t, standing{})
	met := make(chan struct{}) // whoever weighs waits a little for another that does
	desk := quorum.New(quorum.Config{
		ID: "a", Version: "v", Replica: v, Peers: conns{there.conn(t), "d"}, Log: slog.New(slog.DiscardHandler),
		StoreAt: func() (string, bool) {
			select {
			case met <- struct{}{}:
			case <-met:
			case <-time.After(100 * time.Millisecond):
			}
			return "", false
		},
	})
	errs := make([]error, 2)
	var removing sync.WaitGroup
	for i, id := range []string{"b", "c"} {
		removing.Go(func() { _, _, errs[i] = desk.Remove(t.Context(), id, false) })
	}
	removing.Wait()
	left, _ := v.Members()
	if refused := slices.ContainsFunc(errs, func(err error) bool { return fault.Is(err, fault.Conflict) }); !refused || len(left) != 3 {
		t.Errorf("%v are left: %v", left, errs)
	}
}
