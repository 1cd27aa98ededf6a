package scheduler_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
)

func wants(a ...cluster.Affinity) func(*cluster.Gang) {
	return func(g *cluster.Gang) { g.Roles[0].Affinities = a }
}

func first(g *cluster.Gang) { g.Priority = 1 }

// Where it must be, the one that it must be near takes all.
func TestNobodyStopsForWhoMustBeNearIt(t *testing.T) {
	for _, resizes := range []bool{false, true} {
		s := newStage(t, racks(2, 4), cluster.Queue{Name: "q", Weight: 1})
		v := gpuGang("q", "v", 4, 1)
		if resizes {
			v = elastic(v, 3)
		}
		s.submit(v, forever)
		s.after(time.Hour)
		s.submit(with(with(gpuGang("q", "near", 1, 2), wants(cluster.Affinity{Job: "v"})), first), time.Hour)
		s.after(10 * time.Hour)
		if n := s.counted["evicted"]; n > 0 {
			t.Errorf("resizes: %v: it was stopped %d times", resizes, n)
		}
	}
}

func TestWhoMustBeAwayFromWhatRunsHasItStop(t *testing.T) {
	s := newStage(t, racks(1, 8), cluster.Queue{Name: "q", Weight: 1})
	s.submit(gpuGang("q", "v", 1, 2), forever)
	s.submit(gpuGang("q", "other", 1, 2), forever)
	s.after(time.Hour)
	s.submit(with(with(gpuGang("q", "apart", 1, 2), wants(cluster.Affinity{Job: "v", Anti: true})), first), time.Hour)
	s.after(time.Minute)
	s.expect("apart", "n0")
	s.expect("v", "")
	s.expect("other", "n0")
}

func TestRoomIsKeptForWhoMustBeAwayFromWhatRuns(t *testing.T) {
	s := newStage(t, racks(1, 4), cluster.Queue{Name: "q", Weight: 1})
	small := func(i int) cluster.Gang {
		return with(gpuGang("q", fmt.Sprint("s", i), 1, 1), func(g *cluster.Gang) { g.Labels = map[string]string{"kind": "small"} })
	}
	s.submit(small(0), 20*time.Minute)
	s.step()
	s.submit(with(gpuGang("q", "apart", 1, 1), wants(cluster.Affinity{Label: "kind", Value: "small", Anti: true})), time.Hour)
	for i := range 40 {
		s.submit(small(1+i), 20*time.Minute)
		s.after(5 * time.Minute)
	}
	if s.where("apart") == "" {
		t.Error("it waits for more than three hours")
	}
}

// An elastic gang whose tasks keep away from each other is not in its own way.
func TestWhatKeepsItsOwnTasksApartIsResized(t *testing.T) {
	s := newStage(t, racks(4, 2), cluster.Queue{Name: "q", Weight: 1})
	s.submit(with(elastic(gpuGang("q", "e", 4, 2), 2), wants(cluster.Affinity{Job: "e", Anti: true})), forever)
	s.after(time.Hour)
	s.submit(with(gpuGang("q", "urgent", 1, 2), first), 10*time.Hour)
	s.after(time.Minute)
	if s.where("urgent") == "" || len(s.gangs["e/main"].placed) != 3 || s.counted["resized"] != 1 {
		t.Errorf("urgent is at %q, and e has %d tasks", s.where("urgent"), len(s.gangs["e/main"].placed))
	}
	delete(s.gangs, "urgent/main")
	s.planner.Drop("urgent/main")
	for id := range s.nodes {
		s.planner.SetNode(s.nodes[id], s.used(id))
	}
	s.gangs["e/main"].gang.Resized = nil
	s.after(time.Hour)
	if n := len(s.gangs["e/main"].placed); s.counted["resized"] != 2 && n != 4 {
		t.Errorf("it has %d tasks of 4, and all else is idle", n)
	}
}

// Something else takes the room each time that it is made: here a label that the node no longer has.
func TestWhatWasMadeRoomForInVainHasOthersStopEverMoreSeldom(t *testing.T) {
	nodes := racks(1, 4)
	nodes[0].Labels = map[string]string{"fast": "yes"}
	s := newStage(t, nodes, cluster.Queue{Name: "q", Weight: 1})
	s.submit(gpuGang("q", "v", 1, 4), forever)
	s.after(time.Hour)
	s.submit(with(with(gpuGang("q", "urgent", 1, 4), first), func(g *cluster.Gang) {
		g.Roles[0].Labels = map[string]string{"fast": "yes"}
	}), time.Hour)
	label := func(there bool) {
		n := s.nodes["n0"]
		n.Labels = nil
		if there {
			n.Labels = map[string]string{"fast": "yes"}
		}
		n.Revision++
		s.nodes["n0"] = n
		s.planner.SetNode(n, s.used("n0"))
	}
	for range 600 { // a minute each
		stops := s.gangs["v/main"].ends > 0
		label(!stops)
		s.after(15 * time.Second)
		label(true)
		s.after(45 * time.Second)
	}
	if n := s.counted["evicted"]; n > 20 {
		t.Errorf("it was stopped %d times in ten hours", n)
	}
}

// A gang that must be away from others keeps them away, too, when they come later.
func TestOthersKeepAwayFromWhoMustBeAwayFromThem(t *testing.T) {
	batch := func(g *cluster.Gang) { g.Labels = map[string]string{"team": "batch"} }
	for over, free := range map[cluster.Level]string{"": "n1", cluster.LevelNode: "n1", cluster.LevelRack: "n2"} {
		nodes := racks(3, 4)
		for i := range nodes {
			nodes[i].Labels = map[string]string{cluster.LabelRack: fmt.Sprint("r", i/2)}
		}
		s := newStage(t, nodes[:1], cluster.Queue{Name: "q", Weight: 1})
		s.submit(with(gpuGang("q", "apart", 1, 1), wants(cluster.Affinity{Label: "team", Value: "batch", Anti: true, Over: over})), forever)
		s.step()
		s.submit(with(gpuGang("q", "batch", 1, 1), batch), forever) // alike but for its label
		s.now++
		s.submit(gpuGang("q", "other", 1, 1), forever)
		s.after(time.Second)
		s.expect("batch", "")
		s.expect("other", "n0")
		s.says("batch", "the only node is ruled out by other jobs that it is to be near or away from, or that are to be away from it")
		for _, n := range nodes[1:] {
			s.nodes[n.ID] = n
			s.planner.SetNode(n, cluster.Resources{})
		}
		s.after(time.Minute)
		s.expect("batch", free)
	}
}

func TestWhoIsKeptAwayHasWhatKeepsItAwayStop(t *testing.T) {
	s := newStage(t, racks(1, 4), cluster.Queue{Name: "q", Weight: 1})
	s.submit(with(gpuGang("q", "apart", 1, 1), wants(cluster.Affinity{Job: "urgent", Anti: true})), forever)
	s.after(time.Hour)
	s.submit(with(gpuGang("q", "urgent", 1, 1), first), time.Hour)
	s.after(time.Minute)
	s.expect("urgent", "n0")
	s.expect("apart", "")
	s.after(2 * time.Hour)
	s.expect("apart", "n0")
}

// Only where all roles ask for it are others kept away from the whole gang.
func TestWhatOneRoleIsAwayFromIsNotKeptAwayFromTheOthers(t *testing.T) {
	s := newStage(t, racks(1, 4), cluster.Queue{Name: "q", Weight: 1})
	g := gpuGang("q", "apart", 1, 1)
	g.Roles = append(g.Roles, g.Roles[0])
	g.Roles[1].Name = "second"
	g.Roles[0].Affinities = []cluster.Affinity{{Job: "late", Anti: true}}
	s.submit(g, forever)
	s.step()
	s.submit(gpuGang("q", "late", 1, 1), forever)
	s.step()
	s.expect("late", "n0")
}
