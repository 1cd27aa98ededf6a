package testbed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/config"
)

// Clary runs one client command to its end and returns what it printed; a failure fails
// the test.
func (m *Machines) Clary(args ...string) string {
	m.T.Helper()
	out, err := m.Try(args...)
	if err != nil {
		m.T.Fatalf("clary %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// Try runs one client command; what it printed comes with what it complained of if it
// failed.
func (m *Machines) Try(args ...string) (string, error) { return m.As(nil, args...) }

// As is try with more in the environment.
func (m *Machines) As(env []string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience*2*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, m.Binary, args...)
	command.Env = append(slices.Clone(m.Env), env...)
	var out, problems bytes.Buffer
	command.Stdout, command.Stderr = &out, &problems
	err := command.Run()
	if err != nil {
		return out.String() + problems.String(), err
	}
	return out.String(), nil
}

// File writes a file of the test's own and returns its path.
func (m *Machines) File(name, text string) string {
	m.T.Helper()
	if err := os.WriteFile(m.Path(name), []byte(text), 0o600); err != nil {
		m.T.Fatal(err)
	}
	return m.Path(name)
}

// Waits is clary wait, which must exit with a code within a minute and some patience.
func (m *Machines) Waits(code int, job string) string {
	m.T.Helper()
	return m.Exits(code, "wait", job, "--timeout", (patience * time.Minute).String())
}

// Exits runs one client command that must end with an exit code and returns what it said.
func (m *Machines) Exits(code int, args ...string) string {
	m.T.Helper()
	out, err := m.Try(args...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		m.T.Fatal(err)
	}
	if got != code {
		m.T.Errorf("clary %s: exit code %d, want %d\n%s", strings.Join(args, " "), got, code, out)
	}
	return out
}

// Task and Job are what `clary job -o json` tells of them.
type Task struct {
	ID, Role, State, Reason, Node string
	Devices                       []string
	Ports                         []int
	Attempt, Epoch                int
	Checkpoint                    string
	Metrics                       map[string]float64
	ExitCode                      *int `json:"exit_code"`
}

type Job struct {
	Name, State, Reason string
	Attempt, Failures   int
	Preempted           int
	Started             string
	Tasks               []Task
	Outputs             []struct{ Name, URI, SHA256 string }
}

// Job is what the cluster tells of a job.
func (m *Machines) Job(name string) Job {
	m.T.Helper()
	var view Job
	m.JSON(&view, "job", name, "-o", "json")
	return view
}

// Epoch is how far a training is.
func (m *Machines) Epoch(name string) int {
	m.T.Helper()
	furthest := 0
	for _, task := range m.Job(name).Tasks {
		furthest = max(furthest, task.Epoch)
	}
	return furthest
}

// Client speaks to the cluster as its admin, through all coordinators.
func (m *Machines) Client(options ...client.Option) *client.Client {
	m.T.Helper()
	c, err := client.Dial(m.Context(), options...)
	if err != nil {
		m.T.Fatal(err)
	}
	m.T.Cleanup(func() { _ = c.Close() })
	return c
}

// Context is how a client reaches all coordinators.
func (m *Machines) Context() config.Context {
	m.T.Helper()
	file, err := config.Load(filepath.Join(m.Dir, "config.json"))
	if err != nil {
		m.T.Fatal(err)
	}
	to := file.Contexts[file.Current]
	to.Addresses = slices.Sorted(maps.Values(m.Address))
	return to
}

// JSON is Clary with what it printed decoded.
func (m *Machines) JSON(into any, args ...string) {
	m.T.Helper()
	out := m.Clary(args...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		m.T.Fatalf("clary %s: %v in %q", strings.Join(args, " "), err, out)
	}
}

// Voters is how many coordinators vote and live.
func (m *Machines) Voters() int {
	var info struct {
		Coordinators []struct{ Voter, Alive bool }
	}
	out, err := m.Try("cluster", "-o", "json")
	if err != nil || json.Unmarshal([]byte(out), &info) != nil {
		return 0
	}
	count := 0
	for _, member := range info.Coordinators {
		if member.Voter && member.Alive {
			count++
		}
	}
	return count
}

// Ready is how many nodes are ready for tasks.
func (m *Machines) Ready() int {
	var nodes []struct{ State string }
	out, err := m.Try("nodes", "-o", "json")
	if err != nil || json.Unmarshal([]byte(out), &nodes) != nil {
		return 0
	}
	count := 0
	for _, node := range nodes {
		if node.State == "ready" {
			count++
		}
	}
	return count
}

// Leader is the name of the coordinator that leads.
func (m *Machines) Leader() string {
	m.T.Helper()
	var info struct{ Leader string }
	m.WaitFor("a leader", 15*time.Second, func() bool {
		out, err := m.Try("cluster", "-o", "json")
		return err == nil && json.Unmarshal([]byte(out), &info) == nil && info.Leader != ""
	})
	return info.Leader
}
