package e2e

import (
	"encoding/json"
	"testing"
	"time"
)

func TestAJobGoesToTheNodeThatHasItsInputThoughAnotherIsAsFree(t *testing.T) {
	m := start(t, 1, 0)
	m.Agent("n1")
	m.Agent("n2", "--label", "side=far")
	m.WaitFor("the agents", 30*time.Second, func() bool { return m.Ready() == 2 })
	for _, set := range []string{"warm", "cold"} {
		m.Clary("cp", m.File("rows", "1,2,3\n"), "s3://data/"+set+"/rows")
	}
	reads := func(name, set string, flags ...string) (node string) {
		args := append([]string{"run", "--name", name, "--cores", "0.1", "--input", "train=s3://data/" + set + "/"}, flags...)
		m.Exits(0, append(args, "--", "cat", "input/data/train/rows")...)
		return m.Job(name).Tasks[0].Node
	}
	cached := func(node string) (inputs int) {
		var view struct {
			Cached int `json:"cached_inputs"`
		}
		if err := json.Unmarshal([]byte(m.Clary("nodes", node, "-o", "json")), &view); err != nil {
			t.Fatal(err)
		}
		return view.Cached
	}
	reads("first", "warm", "--on", "side=far")
	m.WaitFor("n2 to tell what it has", 10*time.Second, func() bool { return cached("n2") == 1 })
	if node := reads("beside", "cold"); node != "n1" {
		t.Fatalf("with an input that is nowhere it ran on %s", node)
	}
	m.WaitFor("n1 to tell what it has", 10*time.Second, func() bool { return cached("n1") == 1 })
	if node := reads("second", "warm"); node != "n2" {
		t.Errorf("its input is on n2, and it ran on %s", node)
	}
	if node := reads("third", "cold"); node != "n1" {
		t.Errorf("its input is on n1, and it ran on %s", node)
	}
}
