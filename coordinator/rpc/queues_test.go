package rpc_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

func (w *world) queues(who string) claryv1.QueuesClient { return claryv1.NewQueuesClient(w.as(who)) }

// tree is how List shows the queues: names below their parents, with how many jobs wait.
func (w *world) tree() string {
	w.Helper()
	list, err := w.queues(cluster.RoleViewer).List(w.Context(), &claryv1.ListQueuesRequest{})
	if err != nil {
		w.Fatal(err)
	}
	var shown []string
	for _, v := range list.GetQueues() {
		shown = append(shown, fmt.Sprintf("%s/%s:%d", v.GetQueue().GetParent(), v.GetQueue().GetName(), v.GetWaiting()))
	}
	return strings.Join(shown, " ")
}

func TestTheTreeOfQueuesIsChangedAllOrNothingByAdminsAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		put := func(who string, request *claryv1.EditQueuesRequest, queues ...*claryv1.Queue) (*claryv1.EditQueuesResponse, error) {
			request.Put = queues
			answer, err := w.queues(who).Edit(w.Context(), request)
			return answer, wire.FromStatus(err)
		}
		lab, vision := &claryv1.Queue{Name: "lab", Weight: 2}, &claryv1.Queue{Name: "vision", Parent: "lab", Weight: 1}
		for _, who := range []string{cluster.RoleViewer, cluster.RoleUser} {
			if _, err := put(who, &claryv1.EditQueuesRequest{}, lab); !fault.Is(err, fault.Denied) {
				t.Errorf("a %s changes queues: %v", who, err)
			}
		}
		answer, err := put(cluster.RoleAdmin, &claryv1.EditQueuesRequest{DryRun: true}, vision, lab)
		if err != nil || len(answer.GetChanges()) != 2 || answer.GetChanges()[0].GetAfter().GetName() != "lab" {
			t.Fatalf("a dry run: %v, %v", answer, err)
		}
		if got := w.tree(); got != "/default:0" {
			t.Errorf("after a dry run: %s", got)
		}
		before := w.revision()
		for name, c := range map[string]struct {
			request *claryv1.EditQueuesRequest
			queue   *claryv1.Queue
			want    string
		}{
			"nothing":       {&claryv1.EditQueuesRequest{}, nil, "0 queues to put or delete"},
			"a circle":      {&claryv1.EditQueuesRequest{}, &claryv1.Queue{Name: "lab", Weight: 1, Parent: "vision"}, "below itself"},
			"a revision":    {&claryv1.EditQueuesRequest{}, &claryv1.Queue{Name: "default", Weight: 1, Revision: 99}, "read it again"},
			"one there is":  {&claryv1.EditQueuesRequest{Create: true}, &claryv1.Queue{Name: "default", Weight: 1}, "exists already"},
			"a wrong limit": {&claryv1.EditQueuesRequest{}, &claryv1.Queue{Name: "x", Weight: 1, Borrow: []*claryv1.Limit{{Resource: "gpus", Amount: -5}}}, "out of range"},
			"one unknown":   {&claryv1.EditQueuesRequest{Delete: []string{"nowhere"}}, nil, "there is no queue"},
		} {
			queues := []*claryv1.Queue{}
			if c.queue != nil {
				queues = append(queues, c.queue, vision)
			}
			if _, err := put(cluster.RoleAdmin, c.request, queues...); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
		}
		if after := w.revision(); after != before {
			t.Errorf("what was refused took the state from revision %d to %d", before, after)
		}
		if _, err := put(cluster.RoleAdmin, &claryv1.EditQueuesRequest{}, vision, lab); err != nil {
			t.Fatal(err)
		}
		if _, err := w.submit(cluster.RoleUser, func(j *cluster.Job) { j.Name, j.Queue = "one", "vision" }); err != nil {
			t.Fatal(err)
		}
		if got := w.tree(); got != "/default:0 /lab:1 lab/vision:1" {
			t.Errorf("with a job that waits: %s", got)
		}
		if _, err := put(cluster.RoleAdmin, &claryv1.EditQueuesRequest{Replace: true}, lab); err == nil || !strings.Contains(err.Error(), `job "one" is in it`) {
			t.Errorf("a queue with a job is deleted: %v", err)
		}
		if _, err := w.submit(cluster.RoleUser, func(j *cluster.Job) { j.Name, j.Queue = "two", "nowhere" }); err == nil || !strings.Contains(err.Error(), "there are default, vision") {
			t.Errorf("a queue that does not exist: %v", err)
		}
	})
}

func TestAnEditThatCannotBeMadeIsRefusedBeforeItIsTried(t *testing.T) {
	inWorld(t, func(w *world) {
		many := make([]*claryv1.Queue, command.MaxChanges+1)
		for i := range many {
			many[i] = &claryv1.Queue{Name: fmt.Sprintf("q-%d", i), Weight: 1}
		}
		for _, dry := range []bool{true, false} {
			_, err := w.queues(cluster.RoleAdmin).Edit(w.Context(), &claryv1.EditQueuesRequest{Put: many, DryRun: dry})
			if err = wire.FromStatus(err); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "put: 4097 queues") || !strings.Contains(err.Error(), "--keep") {
				t.Errorf("dry %v: %v", dry, err)
			}
		}
		if _, err := w.queues(cluster.RoleAdmin).Edit(w.Context(), &claryv1.EditQueuesRequest{Put: many[1:]}); err != nil {
			t.Errorf("as many as may be: %v", err)
		}
	})
}
