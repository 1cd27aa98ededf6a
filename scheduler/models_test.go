package scheduler_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
)

// twoModels has a node with eight A100s, one with eight H100s, and a queue that may hold two A100s.
func twoModels(t *testing.T) *stage {
	two := cluster.Quota{{Resource: cluster.ResourceGPUs + "/A100", Amount: 2000}}
	none := cluster.Quota{{Resource: cluster.ResourceGPUs + "/A100", Amount: 0}}
	return newStage(t, []cluster.Node{machine("a", 64, 256, 8, "A100"), machine("h", 64, 256, 8, "H100")},
		cluster.Queue{Name: "lab", Weight: 1, Guarantee: two, Borrow: none}, cluster.Queue{Name: "free", Weight: 1})
}

func TestAGangIsGivenAModelThatItsQueueMayHold(t *testing.T) {
	for _, preferred := range []string{"A100", "H100"} { // the node that is used already is the better one
		s := twoModels(t)
		s.submit(ofModel(gpuGang("free", "filler", 1, 1), preferred), 9*time.Hour)
		s.step()
		s.submit(gpuGang("lab", "wide", 1, 4), time.Hour)
		s.step()
		s.expect("wide", "h")
		s.submit(gpuGang("free", "other", 1, 7), time.Hour)
		s.step()
		s.expect("other", "a")
	}
}

func ofModel(g cluster.Gang, model string) cluster.Gang {
	g.Roles[0].Ask.GPUModel = model
	return g
}

func TestOneQueuesLimitOnAModelKeepsNobodyElseFromIt(t *testing.T) {
	s := twoModels(t)
	s.submit(ofModel(gpuGang("free", "full", 1, 8), "H100"), 9*time.Hour)
	s.step()
	for i := range 6 {
		s.submit(gpuGang("lab", fmt.Sprint("lab", i), 1, 4), time.Hour)
	}
	s.submit(gpuGang("free", "more", 1, 4), time.Hour)
	s.step()
	s.expect("lab0", "")
	s.expect("more", "a")
}

func TestRoomIsKeptOnlyOnModelsThatTheQueueMayHold(t *testing.T) {
	s := twoModels(t)
	s.submit(with(ofModel(gpuGang("free", "full", 1, 8), "H100"), limit(time.Hour)), time.Hour)
	s.step()
	s.submit(gpuGang("lab", "wide", 1, 8), time.Hour)
	s.step()
	s.says("wide", "room is kept for it on h")
	s.submit(gpuGang("free", "long", 1, 8), 9*time.Hour)
	s.step()
	s.expect("long", "a")
	s.after(61 * time.Minute)
	s.expect("wide", "h")
}

func TestSaysOfWhichModelsItsQueueMayHoldNoMore(t *testing.T) {
	s := twoModels(t)
	s.submit(ofModel(gpuGang("free", "full", 1, 8), "H100"), time.Hour)
	s.step()
	s.submit(gpuGang("lab", "wide", 1, 4), time.Hour)
	s.step()
	s.expect("wide", "")
	s.says("wide", "the nearest (h) has 0 free of the 4 it takes", "queue lab may hold no more of these for it: A100")
	s.block("wide", "models")
	s.after(61 * time.Minute)
	s.expect("wide", "h")
	s.submit(ofModel(gpuGang("lab", "named", 1, 8), "H100"), time.Hour)
	s.step()
	if said := s.why("named").Summary; strings.Contains(said, "A100") {
		t.Errorf("of a gang that wants H100s it says %s", said)
	}
}
