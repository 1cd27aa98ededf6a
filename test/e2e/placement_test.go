package e2e

import (
	"strings"
	"testing"
	"time"
)

func TestGPUsAreGivenInPartsAndTasksWhereTheyShallBe(t *testing.T) {
	m := start(t, 1, 0)
	m.Agent("g1", "--simulate-gpus", "1xA100-40GB", "--label", "clary.rack=r1,disk=nvme")
	m.Agent("g2", "--simulate-gpus", "1xA100-40GB:mig", "--label", "clary.rack=r2")
	m.Agent("g3", "--label", "clary.rack=r2")
	m.WaitFor("the agents", 30*time.Second, func() bool { return m.Ready() == 3 })
	run := func(name string, flags ...string) {
		m.Clary(append(append([]string{"run", "-d", "--name", name, "--cores", "0.1", "--memory", "64MiB"}, flags...), "--", "sh", "-c", "env | grep -E 'CUDA_VIS|CLARY_GPU'; sleep 120")...)
	}
	runs := func(name string) {
		m.WaitFor(name, 30*time.Second, func() bool { return m.Job(name).State == "running" })
	}
	says := func(name string, words ...string) {
		m.WaitFor("what "+name+" sees", 20*time.Second, func() bool {
			log := m.Clary("logs", name)
			for _, word := range words {
				if !strings.Contains(log, word) {
					return false
				}
			}
			return true
		})
	}
	waits := func(name, word string) {
		m.WaitFor("why "+name+" waits", 20*time.Second, func() bool { return strings.Contains(m.Clary("why", name), word) })
		t.Log(strings.TrimSpace(m.Clary("why", name)))
		if state := m.Job(name).State; state != "queued" {
			t.Errorf("%s is %s", name, state)
		}
	}

	// Two share one GPU, a third finds too little of it, and nobody gets it whole.
	run("half", "--gpus", "0.5")
	run("some", "--gpu-memory", "15GiB")
	runs("half")
	runs("some")
	says("half", "CLARY_GPU_SHARE=0.5", "CLARY_GPU_MEMORY=21474836480", "CUDA_VISIBLE_DEVICES=GPU-")
	says("some", "CLARY_GPU_SHARE=0.375", "CUDA_VISIBLE_DEVICES=GPU-")
	run("more", "--gpus", "0.25")
	waits("more", "0.125 of a GPU")
	run("whole", "--gpus", "1")
	waits("whole", "the nearest")
	if text := m.Clary("nodes", "g1"); !strings.Contains(text, "0.875 and 35 GiB in use") {
		t.Errorf("the node shows\n%s", text)
	}

	// The other is cut: the small slots leave room for a large one.
	run("small", "--mig", "1g.5gb", "--gpus", "2")
	run("large", "--mig", "3g.20gb")
	runs("small")
	runs("large")
	says("small", "CUDA_VISIBLE_DEVICES=MIG-", "CLARY_GPU_MEMORY=5368709120")
	run("huge", "--mig", "4g.20gb")
	waits("huge", "slots")

	// A gang stays in one rack, and what no rack can hold says so.
	run("pair", "-n", "2", "--topology", "rack", "--constraint", "rack in (r2, r3)", "--anti-affinity", "job=pair")
	runs("pair")
	nodes := map[string]bool{}
	for _, task := range m.Job("pair").Tasks {
		nodes[task.Node] = true
	}
	if !nodes["g2"] || !nodes["g3"] || len(nodes) != 2 {
		t.Errorf("the pair is on %v", nodes)
	}
	run("triple", "-n", "3", "--topology", "rack", "--anti-affinity", "job=triple")
	waits("triple", "one rack")

	// A taint keeps off who does not tolerate it; what runs stays.
	m.Clary("nodes", "taint", "g1", "team=vision")
	run("stranger", "--on", "disk=nvme")
	waits("stranger", "team=vision:no-place")
	run("friend", "--on", "disk=nvme", "--tolerate", "team=vision")
	runs("friend")
	if state := m.Job("half").State; state != "running" {
		t.Errorf("half is %s on the node that was tainted", state)
	}
	m.Clary("node", "taint", "g1", "team-")
	runs("stranger")
	all := []string{"half", "some", "more", "whole", "small", "large", "huge", "pair", "triple", "stranger", "friend"}
	m.Clary(append([]string{"cancel"}, all...)...)
	for _, name := range all {
		m.Waits(1, name)
	}
}
