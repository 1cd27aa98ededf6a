package bubble_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/cluster"
)

func TestAJobRunsToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &tally{})
		w.found()
		if _, err := w.jobs("c2").Submit(w.admin(t.Context()), work{name: "first", instances: 3, gpus: 2, length: 5 * time.Second}.request()); err != nil {
			t.Fatal(err)
		}
		view := w.ends("first", time.Minute)
		if view.GetJob().GetState() != string(cluster.JobSucceeded) || len(view.GetTasks()) != 3 {
			t.Errorf("%v", view)
		}
		w.sound()
	})
}
