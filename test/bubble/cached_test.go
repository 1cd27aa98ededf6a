package bubble_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

func TestATaskGoesWhereItsInputIsThoughAnotherNodeIsTighter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &tally{})
		w.found()
		const uri = "s3://data/set"
		goes := func(name, inputs string) (node string) {
			request := work{name: name, instances: 1, length: time.Hour}.request()
			job := wire.JobFromProto(request.GetJob())
			job.Spec = []byte(strings.Replace(string(job.Spec), "{", `{"inputs": {`+inputs+`}, `, 1))
			request.Job = wire.JobToProto(job)
			if _, err := w.jobs("c1").Submit(w.admin(t.Context()), request); err != nil {
				t.Fatal(err)
			}
			w.until(name+" is placed", time.Minute, func() error {
				view, err := w.look("c1", name)
				if err == nil && len(view.GetTasks()) == 0 {
					return errors.New("it has no task")
				}
				if err == nil {
					node = view.GetTasks()[0].GetAllocation().GetNode()
				}
				return err
			})
			return node
		}
		tight := goes("first", "")
		roomy := map[string]string{"n1": "n2", "n2": "n1"}[tight]

		w.stop(roomy)
		w.fills(roomy, uri)
		w.agent(roomy)
		w.until(roomy+" tells what it has", time.Minute, func() error {
			list, err := claryv1.NewNodesClient(w.conn("c1")).List(w.admin(t.Context()), &claryv1.ListNodesRequest{})
			for _, view := range list.GetNodes() {
				if node := view.GetNode(); node.GetId() == roomy && !slices.Equal(node.GetCached(), []uint32{cluster.InputDigest(uri)}) {
					return fmt.Errorf("it tells %x", node.GetCached())
				}
			}
			return err
		})
		if node := goes("without", ""); node != tight {
			t.Errorf("without an input it goes to %s, not to %s, which is tighter", node, tight)
		}
		if node := goes("elsewhere", `"train": {"uri": "s3://data/other"}`); node != tight {
			t.Errorf("with an input that is nowhere it goes to %s, not to %s, which is tighter", node, tight)
		}
		if node := goes("with", `"train": {"uri": "`+uri+`"}`); node != roomy {
			t.Errorf("with the input it goes to %s, not to %s, which has that", node, roomy)
		}
	})
}

// fills has an input in the cache of a node whose agent does not run, as a task of its leaves it.
func (w *world) fills(node, uri string) {
	w.Helper()
	store := w.store()
	if err := store.Put(w.Context(), "data", "set/rows", strings.NewReader("1,2,3"), 5); err != nil {
		w.Fatal(err)
	}
	cache, err := staging.OpenCache(filepath.Join(w.folder(node), "cache"), 1<<10)
	if err != nil {
		w.Fatal(err)
	}
	input := cluster.Input{Channel: "train", URI: uri}
	if _, err := staging.Fetch(w.Context(), store, cache, input, staging.Share{}, filepath.Join(w.dir, "task")); err != nil {
		w.Fatal(err)
	}
}
