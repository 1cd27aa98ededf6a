package warden_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/auth/keyring"
	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/solo"
	"github.com/clary-ml/clary/coordinator/warden"
	"github.com/clary-ml/clary/internal/fault"
)

type silent struct{}

func (silent) Conn(id string) (*grpc.ClientConn, error) {
	return nil, fault.New(fault.Unready, "%s is silent", id)
}

// voters are the coordinators beside c1, which leads.
type voters struct {
	mu      sync.Mutex
	ids     []string
	against error // what is said against one's removal
}

func (v *voters) list() ([]string, error) { return append([]string{"c1"}, v.ids...), nil }

func (v *voters) Weigh(_ context.Context, id string, force bool) ([]string, error) {
	if !slices.Contains(v.ids, id) {
		return nil, fault.New(fault.NotFound, "id: there is no coordinator %q", id)
	}
	if v.against != nil && !force {
		return nil, v.against
	}
	return nil, nil
}

func (v *voters) Remove(ctx context.Context, id string, force bool) ([]string, bool, error) {
	if _, err := v.Weigh(ctx, id, force); err != nil {
		return nil, false, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ids = slices.DeleteFunc(v.ids, func(other string) bool { return other == id })
	return nil, false, nil
}

// leads is a warden of the coordinator that leads.
func leads(t *testing.T, v *voters) (*warden.Warden, *solo.Ledger) {
	t.Helper()
	first, err := keyring.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := first.Authority.Issue(key.Public(), pki.Request{Identity: pki.Node{Role: pki.Coordinator, ID: "c1"}, Validity: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := member.Credentials(certificate, key, first.Authority.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ledger, err := solo.Open(filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	w := warden.New(warden.Config{
		ID: "c1", Dir: dir, TLS: dir, Keyring: keyring.NewCurrent(first), Credentials: pki.NewCurrent(credentials), Replica: ledger,
		Coordinators: v.list, Quorum: v, Peers: silent{}, Agents: silent{}, Applied: func(cluster.Trust, pki.Trust, *keyring.Keyring) {},
		Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = w.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait(); _ = ledger.Close() })
	return w, ledger
}

// bound is the key that a join token of a coordinator is bound to.
func bound(t *testing.T, ledger *solo.Ledger, id string) string {
	t.Helper()
	token, _, err := auth.NewJoinToken(cluster.RoleCoordinator, "sha256:"+strings.Repeat("0", 64), time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	token.Name, token.BoundKey, token.Revoked = id, "sha256:key-of-"+id, true
	if _, err := ledger.Propose(t.Context(), command.Record{Changes: []command.Change{{Token: &token}}}); err != nil {
		t.Fatal(err)
	}
	return token.BoundKey
}

func TestACoordinatorLeavesWhenNobodyBelievesItAndNotBefore(t *testing.T) {
	v := &voters{ids: []string{"c2", "c3"}}
	w, ledger := leads(t, v)
	key := bound(t, ledger, "c2")
	revoke := func(id string, force bool) (cluster.Revocation, error) {
		return w.Revoke(t.Context(), cluster.Revocation{Role: cluster.RoleCoordinator, ID: id, Reason: "stolen", By: "ann"}, force)
	}
	trust := func() cluster.Trust {
		snapshot, err := ledger.Read(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		defer snapshot.Close()
		return snapshot.Trust()
	}

	v.against = fault.New(fault.Conflict, "the cluster would stop deciding")
	if _, err := revoke("c2", false); !fault.Is(err, fault.Conflict) || len(v.ids) != 2 || trust().Out(cluster.RoleCoordinator, "c2") {
		t.Errorf("what must be forced was not: %v, %v, %+v", err, v.ids, trust())
	}
	held := true
	ledger.Before = func(commands []command.Command) error {
		if _, is := commands[0].(command.Revoke); is && held {
			return fault.New(fault.Unready, "held back")
		}
		return nil
	}
	if _, err := revoke("c2", true); !fault.Is(err, fault.Unready) || len(v.ids) != 2 {
		t.Errorf("it cannot be put on record, and has left: %v, %v", err, v.ids)
	}
	held = false
	got, err := revoke("c2", true)
	if err != nil || !slices.Equal(v.ids, []string{"c3"}) || !slices.Equal(got.Keys, []string{key}) || !trust().Out(cluster.RoleCoordinator, "c2") {
		t.Errorf("%+v, %v; %v are left; the trust is %+v", got, err, v.ids, trust())
	}

	// One that was removed before is shut out as well, if it was one.
	old := bound(t, ledger, "c9")
	if got, err := revoke("c9", false); err != nil || !slices.Equal(got.Keys, []string{old}) || len(v.ids) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := revoke("c8", true); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "c8") {
		t.Errorf("one that never was: %v", err)
	}
	if _, err := revoke("c1", true); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "leads") {
		t.Errorf("the leader: %v", err)
	}
}
