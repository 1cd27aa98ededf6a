package e2e

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var visible = regexp.MustCompile(`CUDA_VISIBLE_DEVICES=(\S+)`)

func TestGPUsAreSharedOutAndNeverTwice(t *testing.T) {
	m := start(t, 1, 0)
	m.Agent("g1", "--simulate-gpus", "8xA100")
	m.WaitFor("the agent", 30*time.Second, func() bool { return m.Ready() == 1 })
	devices := map[string][]string{}
	gpus := func(name string) {
		m.Clary("run", "-d", "--name", name, "--gpus", "4", "--gpu-model", "A100", "--", "sh", "-c", "env | grep CUDA_; sleep 60")
	}
	see := func(name string) {
		m.WaitFor("what "+name+" sees", 20*time.Second, func() bool { return visible.MatchString(m.Clary("logs", name)) })
		devices[name] = strings.Split(visible.FindStringSubmatch(m.Clary("logs", name))[1], ",")
		if len(devices[name]) != 4 || !slices.Equal(slices.Sorted(slices.Values(devices[name])), slices.Sorted(slices.Values(m.Job(name).Tasks[0].Devices))) {
			t.Errorf("%s sees %v, and holds %v", name, devices[name], m.Job(name).Tasks[0].Devices)
		}
	}
	gpus("one")
	see("one")
	gpus("two")
	see("two")
	for _, uuid := range devices["one"] {
		if slices.Contains(devices["two"], uuid) {
			t.Errorf("%s was given twice", uuid)
		}
	}
	gpus("three")
	m.WaitFor("the third's why", 20*time.Second, func() bool { return strings.Contains(m.Clary("why", "three"), "GPU") })
	t.Log(strings.TrimSpace(m.Clary("why", "three")))
	if state := m.Job("three").State; state != "queued" {
		t.Errorf("the third is %s", state)
	}
	m.Clary("cancel", "one")
	m.Waits(1, "one")
	see("three")
	for _, uuid := range devices["three"] {
		if slices.Contains(devices["two"], uuid) {
			t.Errorf("%s was given twice", uuid)
		}
	}
	m.Clary("cancel", "two", "three")
	m.Waits(1, "two")
	m.Waits(1, "three")
}
