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
	m.agent("g1", "--simulate-gpus", "8xA100")
	m.waitFor("the agent", 30*time.Second, func() bool { return m.ready() == 1 })
	devices := map[string][]string{}
	gpus := func(name string) {
		m.clary("run", "-d", "--name", name, "--gpus", "4", "--gpu-model", "A100", "--", "sh", "-c", "env | grep CUDA_; sleep 60")
	}
	see := func(name string) {
		m.waitFor("what "+name+" sees", 20*time.Second, func() bool { return visible.MatchString(m.clary("logs", name)) })
		devices[name] = strings.Split(visible.FindStringSubmatch(m.clary("logs", name))[1], ",")
		if len(devices[name]) != 4 || !slices.Equal(slices.Sorted(slices.Values(devices[name])), slices.Sorted(slices.Values(m.job(name).Tasks[0].Devices))) {
			t.Errorf("%s sees %v, and holds %v", name, devices[name], m.job(name).Tasks[0].Devices)
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
	m.waitFor("the third's why", 20*time.Second, func() bool { return strings.Contains(m.clary("why", "three"), "GPU") })
	t.Log(strings.TrimSpace(m.clary("why", "three")))
	if state := m.job("three").State; state != "queued" {
		t.Errorf("the third is %s", state)
	}
	m.clary("cancel", "one")
	m.waits(1, "one")
	see("three")
	for _, uuid := range devices["three"] {
		if slices.Contains(devices["two"], uuid) {
			t.Errorf("%s was given twice", uuid)
		}
	}
	m.clary("cancel", "two", "three")
	m.waits(1, "two")
	m.waits(1, "three")
}
