package command_test

import (
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
)

// pairOf submits a job whose gang has two workers, and plans both on node a.
func (w *world) pairOf(name string, ask cluster.Ask, devices ...string) cluster.Placement {
	w.Helper()
	r := submission(name)
	r.Changes[1].Gang.Roles[0].Count, r.Changes[1].Gang.Roles[0].Ask = 2, ask
	p := cluster.Placement{Gang: name + "/main", Attempt: 1, Revision: w.must(r).Revision}
	for i := range 2 {
		give := cluster.Resources{MilliCPU: ask.MilliCPU, Memory: ask.Memory}
		if ask.GPUs > 0 {
			give.Devices = devices[i : i+1]
		}
		p.Allocations = append(p.Allocations, cluster.Allocation{Node: "a", Resources: give})
	}
	return p
}

func TestTheTasksOfAGangDoNotShareWhatOneOfThemTakes(t *testing.T) {
	for name, c := range map[string]struct {
		ask     cluster.Ask
		devices []string
		reason  string
	}{
		"cores":  {cluster.Ask{MilliCPU: 2001}, nil, "2.001 cores asked, 1.999 cores free"},
		"memory": {cluster.Ask{Memory: 5 << 30}, nil, "5 GiB asked, 3 GiB free"},
		"device": {cluster.Ask{GPUs: 1}, []string{"a-g0", "a-g0"}, `"a-g0" is in use`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			bad := w.pairOf("bad", c.ask, c.devices...)
			good := w.pairOf("good", cluster.Ask{MilliCPU: 2000, Memory: 4 << 30, GPUs: 1}, "a-g0", "a-g1")
			refused := w.must(command.CommitPlan{Placements: []cluster.Placement{bad, good}}).Refused
			if len(refused) != 1 || refused[0].ID != "bad/main" || !strings.Contains(refused[0].Reason, "worker-1") ||
				!strings.Contains(refused[0].Reason, c.reason) {
				t.Errorf("left out %v; want only bad/main for %q: what it took first must be free again", refused, c.reason)
			}
			if n := len(ids(w)); n != 2 {
				t.Errorf("%d tasks; want the 2 of the good gang", n)
			}
		})
	}
}
