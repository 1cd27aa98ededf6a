package bubble_test

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
)

// stands is a connection to a member with what another shows now, whatever that one shows later.
func (w *world) stands(from, role, to string) *grpc.ClientConn {
	w.Helper()
	shown, err := pki.LoadCredentials(filepath.Join(w.folder(from), "tls"))
	if err != nil {
		w.Fatal(err)
	}
	anybody := func(pki.Identity) error { return nil }
	conn, err := member.Dial(w.net.Host(hostOf("user")), to, shown.Static(), anybody)
	if err != nil {
		w.Fatal(err)
	}
	w.conns[role+" of "+from] = conn
	ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
	defer cancel()
	for conn.Connect(); conn.GetState() != connectivity.Ready; {
		if !conn.WaitForStateChange(ctx, conn.GetState()) {
			w.Fatalf("%s of %s gets no connection to %s: %s", role, from, to, conn.GetState())
		}
	}
	return conn
}

// Whoever holds the key of a CA that was dropped, or a certificate of it, keeps no connection by that; what members do goes on.
func TestWhatStandsUnderACAEndsWhenThatIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &tally{})
		w.found()
		w.submit(work{name: "long", instances: 2, gpus: 5, length: 3 * time.Minute})
		w.runs("long")
		stand := map[string]*grpc.ClientConn{
			"at a coordinator": w.stands("n1", pki.Agent, hostOf("c2")+":7420"),
			"at an agent":      w.stands("c1", pki.Coordinator, hostOf("n2")+":7424"),
		}
		w.rotate(cluster.RotateCA, cluster.PhaseAdd)
		w.rotate(cluster.RotateCA, cluster.PhaseUse)
		time.Sleep(30 * time.Second)
		for where, conn := range stand {
			if state := conn.GetState(); state != connectivity.Ready {
				t.Errorf("%s the old CA is still good, and the connection is %s", where, state)
			}
		}
		w.rotate(cluster.RotateCA, cluster.StepDrop)
		time.Sleep(8 * time.Second)
		for where, conn := range stand {
			if conn.GetState() == connectivity.Ready {
				t.Errorf("%s it stands eight seconds after its CA was dropped", where)
			}
		}
		w.remain("both nodes stay", 30*time.Second, func() error { return w.nodesReady("c1") })
		w.submits("after")
		if view := w.ends("long", 5*time.Minute); view.GetJob().GetState() != string(cluster.JobSucceeded) || view.GetJob().GetAttempt() != 1 {
			t.Errorf("%v", view.GetJob())
		}
		w.sound()
	})
}
