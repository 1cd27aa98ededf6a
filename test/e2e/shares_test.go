package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// held is what a queue holds, as clary queue show tells.
type held struct {
	Used    map[string]string `json:"used"`
	Running int32             `json:"running"`
	Waiting int64             `json:"waiting"`
}

func (m *machines) held(queue string) (h held) {
	m.T.Helper()
	if err := json.Unmarshal([]byte(m.Clary("queue", "show", queue, "-o", "json")), &h); err != nil {
		m.T.Fatal(err)
	}
	return h
}

func TestQueuesGetWhatTheyAreGuaranteedAndSayWhatTheyLack(t *testing.T) {
	m := start(t, 1, 0)
	m.Agent("g1", "--simulate-gpus", "8xA100")
	m.WaitFor("the agent", 30*time.Second, func() bool { return m.Ready() == 1 })
	m.Clary("queue", "create", "vision", "--guarantee", "gpus=4")
	m.Clary("queue", "create", "nlp", "--guarantee", "gpus=4", "--borrow", "gpus=2", "--min-runtime", "1s", "--max-waiting", "1")
	gpus := func(name, queue, n string) {
		m.Clary("run", "-d", "--name", name, "--queue", queue, "--gpus", n, "--cores", "0.1", "--", "sleep", "300")
	}
	running := func(queue, gpus string) {
		t.Helper()
		m.WaitFor(queue+" to hold "+gpus+" GPUs", 60*time.Second, func() bool { return m.held(queue).Used["gpus"] == gpus })
	}

	// It borrows up to its limit, and what is beyond waits though there is room.
	for _, name := range []string{"n1", "n2", "n3"} {
		gpus(name, "nlp", "2")
		m.WaitFor(name+" to run", 30*time.Second, func() bool { return m.Job(name).State == "running" })
	}
	running("nlp", "6")
	gpus("n4", "nlp", "2")
	m.WaitFor("the limit to be told", 20*time.Second, func() bool {
		return strings.Contains(m.Clary("why", "n4"), "queue nlp has 6 GPUs taken of the 6 GPUs that it may have")
	})
	t.Log(strings.TrimSpace(m.Clary("why", "n4")))
	if out, err := m.Try("run", "-d", "--name", "n5", "--queue", "nlp", "--", "true"); err == nil || !strings.Contains(out, "max_waiting 1") {
		t.Errorf("one more job that waits: %v: %s", err, out)
	}

	// A change is live.
	m.Clary("queue", "set", "nlp", "--borrow", "gpus=4")
	running("nlp", "8")

	// Who is guaranteed something gets it back from who borrows it.
	gpus("v1", "vision", "4")
	running("vision", "4")
	running("nlp", "4")
	if nlp := m.held("nlp"); nlp.Running != 2 || nlp.Waiting != 2 {
		t.Errorf("after it gave back what it had borrowed nlp has %+v", nlp)
	}
	if out, err := m.Try("queue", "delete", "nlp"); err == nil || !strings.Contains(out, "is in it") {
		t.Errorf("a queue with jobs was deleted: %s", out)
	}
	m.Clary("cancel", "v1", "n1", "n2", "n3", "n4")
	m.WaitFor("all to be given back", 60*time.Second, func() bool {
		return len(m.held("nlp").Used) == 0 && len(m.held("vision").Used) == 0
	})
}
