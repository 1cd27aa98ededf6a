package bubble_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/clary-ml/clary/auth/keyring"
	"github.com/clary-ml/clary/auth/pki"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// inside is a user's connection from a coordinator's own machine, which no partition cuts.
func (w *world) inside(id string) *grpc.ClientConn {
	w.Helper()
	keys, err := keyring.Load(w.folder(id) + "/keyring.json")
	if err != nil {
		w.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+hostOf(id)+":7420",
		grpc.WithTransportCredentials(credentials.NewTLS(pki.PinnedTLS(keys.Authority.Pin(), "h2"))), grpc.WithContextDialer(w.net.Host(hostOf(id)).Dial))
	if err != nil {
		w.Fatal(err)
	}
	w.conns[id+" inside"] = conn
	return conn
}

func TestALeaderInTheMinorityAcknowledgesNothingAndTheMajoritysWorkIsThereWhenTheNetworkHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &tally{})
		w.found()
		was := w.leader()
		at := slices.DeleteFunc(slices.Clone(coordinators), func(id string) bool { return id == was })[0]
		alone := w.inside(was)
		submit := func(conn *grpc.ClientConn, name string) error {
			ctx, cancel := context.WithTimeout(w.admin(t.Context()), 4*time.Second)
			defer cancel()
			_, err := claryv1.NewJobsClient(conn).Submit(ctx, work{name: name, instances: 1, gpus: 1, length: time.Second}.request())
			return err
		}
		if err := submit(alone, "before"); err != nil {
			t.Fatal(err)
		}
		acknowledged, refused := []string{"before"}, []string(nil)
		w.partition(was)
		for i := range 5 {
			minority, majority := fmt.Sprintf("minority-%d", i), fmt.Sprintf("majority-%d", i)
			if err := submit(alone, minority); err == nil {
				t.Errorf("a leader that a majority has left acknowledges %s", minority)
			}
			ctx, cancel := context.WithTimeout(w.admin(t.Context()), 4*time.Second)
			if _, err := claryv1.NewJobsClient(alone).Get(ctx, &claryv1.GetJobRequest{Name: "before"}); err == nil {
				t.Error("it answers a read that is not to be stale")
			}
			cancel()
			w.until(majority+" is acknowledged", time.Minute, func() error { return submit(w.conn(at), majority) })
			acknowledged, refused = append(acknowledged, majority), append(refused, minority)
		}
		w.partition()
		for _, id := range coordinators {
			for _, name := range acknowledged {
				w.until(name+" is known at "+id, time.Minute, func() error { _, err := w.look(id, name); return err })
			}
		}
		for _, name := range refused { // it may have come into the log before anybody noticed; then all know of it
			known := 0
			for _, id := range coordinators {
				if _, err := w.look(id, name); err == nil {
					known++
				}
			}
			if known != 0 && known != len(coordinators) {
				t.Errorf("%s is known to %d of %d", name, known, len(coordinators))
			}
		}
		for _, name := range acknowledged {
			w.ends(name, 5*time.Minute)
		}
		w.sound()
	})
}
