package e2e

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clary-ml/clary/client/invoke"
	"github.com/clary-ml/clary/trainer/checkpoint"
	"github.com/clary-ml/clary/trainer/spec"
)

// classes is a stored model that says the first of its classes where the first number is the greater.
func (m *machines) classes(name, first, second string) string {
	m.T.Helper()
	folder := m.Path(name)
	manifest := checkpoint.Manifest{
		Network: spec.Network{Input: []int{2}, Layers: []spec.Layer{{Dense: &spec.Dense{Units: 2}}}, Loss: spec.CrossEntropy},
		Data:    spec.Data{Format: spec.FormatCSV, Classes: []string{first, second}},
	}
	if err := checkpoint.SaveModel(folder, manifest, []float32{1, 0, 0, 1, 0, 0}); err != nil {
		m.T.Fatal(err)
	}
	return folder
}

// users ask an endpoint all the time.
type users struct {
	m      *machines
	caller *invoke.Caller
	stop   context.CancelFunc
	asking sync.WaitGroup

	mu       sync.Mutex
	requests int
	answered map[string]int // by what the answer begins with, since it was looked at
	longest  time.Duration
	failed   []error
}

// ask begins to ask an endpoint, so many users at a time with a pause between their requests.
func (m *machines) ask(endpoint string, many int, pause time.Duration) *users {
	m.T.Helper()
	c := m.Client()
	routers, err := c.Routers(m.T.Context())
	if err != nil || len(routers) == 0 {
		m.T.Fatalf("routers: %v, %v", routers, err)
	}
	to := m.Context()
	u := &users{m: m, answered: map[string]int{}}
	if u.caller, err = invoke.New(invoke.Options{Routers: routers, CAPin: to.CAPin, Token: to.Token}); err != nil {
		m.T.Fatal(err)
	}
	ctx, cancel := context.WithCancel(m.T.Context())
	u.stop = cancel
	for range many {
		u.asking.Go(func() {
			clock := time.NewTicker(pause)
			defer clock.Stop()
			for ctx.Err() == nil {
				began := time.Now()
				label, err := u.one(m.T.Context(), endpoint)
				u.count(label, time.Since(began), err)
				select {
				case <-clock.C:
				case <-ctx.Done():
				}
			}
		})
	}
	return u
}

func (u *users) one(ctx context.Context, endpoint string) (string, error) {
	answer, err := u.caller.Invoke(ctx, invoke.Request{Endpoint: endpoint, Body: []byte("2,1\n"), ContentType: "text/csv"})
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(answer.Body)
	label, _, _ := strings.Cut(string(text), ",")
	return label, errors.Join(err, answer.Body.Close())
}

func (u *users) count(label string, took time.Duration, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.requests++
	u.longest = max(u.longest, took)
	if err != nil {
		u.failed = append(u.failed, err)
		return
	}
	u.answered[label]++
}

// since is what was counted, which begins anew.
func (u *users) since(what string) map[string]int {
	u.mu.Lock()
	defer u.mu.Unlock()
	answered := u.answered
	u.m.T.Logf("%s: %d requests, %d failed, the longest took %s", what, u.requests, len(u.failed), u.longest.Round(time.Millisecond))
	if len(u.failed) > 0 {
		u.m.T.Errorf("%s: %d of %d requests failed, the first: %v", what, len(u.failed), u.requests, u.failed[0])
	}
	u.requests, u.answered, u.failed, u.longest = 0, map[string]int{}, nil, 0
	return answered
}

// only waits until all answers say the same.
func (u *users) only(label string) {
	u.m.T.Helper()
	u.m.WaitFor("answers of "+label+" alone", 20*time.Second, func() bool {
		u.mu.Lock()
		u.answered = map[string]int{}
		u.mu.Unlock()
		time.Sleep(200 * time.Millisecond)
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.answered[label] > 0 && len(u.answered) == 1
	})
}

func (u *users) end() {
	u.stop()
	u.asking.Wait()
	u.caller.Close()
}

func TestAnEndpointChangesWhileItIsAskedAndNoRequestFails(t *testing.T) {
	m := start(t, 3, 2)
	m.classes("one", "one", "no")
	two, broken := m.classes("two", "two", "no"), m.Path("broken")
	if err := os.MkdirAll(broken, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(broken, "model.json"), []byte(`{"network": "none"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	out := m.Clary("deploy", "-f", m.File("e.yaml", `kind: endpoint
name: e
spec:
  variants:
    - {model: one, replicas: 2, resources: {cores: 0.1, memory: 96MiB}}
  update: {wait: 1s}
`))
	t.Logf("deployed in %s", time.Since(began).Round(time.Millisecond))
	if !strings.Contains(out, "/endpoints/e/invocations") || !strings.Contains(out, "curl -K") {
		t.Errorf("it says %s", out)
	}
	u := m.ask("e", 4, 5*time.Millisecond)
	defer u.end()
	u.only("one")

	// A new version takes over, and then what it replaced comes back.
	m.Clary("endpoint", "update", "e", "--model", two)
	u.only("two")
	m.Clary("endpoint", "rollback", "e", "--reason", "a test")
	u.only("one")
	u.since("an update and the way back")

	// One that does not start is rolled back by itself, and nobody notices.
	if out := m.Exits(1, "endpoint", "update", "e", "--model", broken); !strings.Contains(out, "rolled-back") || !strings.Contains(out, "manifest.json") {
		t.Errorf("it says %s", out)
	}
	if answered := u.since("a version that does not start"); answered["one"] == 0 || len(answered) != 1 {
		t.Errorf("the answers were %v", answered)
	}

	// In steps, with half of the requests each, watched.
	m.Clary("endpoint", "update", "e", "--model", two, "--strategy", "linear", "--step", "50%", "--bake", "2s", "--max-error-rate", "2%", "--detach")
	m.WaitFor("answers of both", 20*time.Second, func() bool {
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.answered["one"] > 0 && u.answered["two"] > 0
	})
	u.only("two")
	u.since("an update in two steps")

	// From one replica to eight, to none, and to one: requests wait meanwhile.
	m.WaitFor("the end of the update", 30*time.Second, func() bool { return !strings.Contains(m.Clary("endpoint", "status", "e", "-o", "json"), `"rollout"`) })
	for _, count := range []string{"1", "8", "0", "1"} {
		m.Clary("endpoint", "scale", "e", count)
		if count == "0" {
			continue // nothing answers
		}
		u.only("two")
		u.since("scaled to " + count)
	}
	u.end()
	u.since("the end")
	m.Clary("endpoint", "delete", "e")
	if out := m.Exits(1, "endpoint", "status", "e"); !strings.Contains(out, `no "e"`) {
		t.Errorf("deleted, it says %s", out)
	}
	if out := m.Exits(1, "invoke", "e", "--data", "2,1"); !strings.Contains(out, "404") {
		t.Errorf("deleted, it answers %s", out)
	}
}
