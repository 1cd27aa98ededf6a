// Package e2e tests what Clary promises on real processes, which are started, killed and
// started again as operators and power cuts do it. `make e2e` runs it.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/config"
)

// process is one clary server or agent, started as an operator would.
type process struct {
	name    string
	command *exec.Cmd
	args    []string
	log     *os.File
	ended   chan struct{}
}

// machines is a cluster of real processes with its own folder, ports and client context.
type machines struct {
	t       *testing.T
	dir     string
	binary  string
	env     []string
	mu      sync.Mutex
	running map[string]*process
	args    map[string][]string // as last started, by name
	address map[string]string   // RPC address of each server
	parents []string            // names of the control groups of all agents
	ports   int                 // first free port of the next agent's range
}

// binary returns the clary under test: CLARY_BIN, which `make e2e` sets.
func binary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("CLARY_BIN")
	if path == "" {
		t.Skip("skipped: CLARY_BIN does not name a built clary; run `make e2e`")
	}
	return path
}

// start brings up a cluster of servers s1, s2, ... and agents n1, n2, ..., all with TLS,
// and logs the client in as its admin.
func start(t *testing.T, servers, agents int) *machines {
	t.Helper()
	m := none(t)
	m.server("s1")
	m.login("s1")
	for i := 2; i <= servers; i++ {
		m.server(fmt.Sprintf("s%d", i))
	}
	m.waitFor("all coordinators to vote", 30*time.Second, func() bool { return m.voters() == servers })
	for i := 1; i <= agents; i++ {
		m.agent(fmt.Sprintf("n%d", i))
	}
	m.waitFor("all agents to be ready", 30*time.Second, func() bool { return m.ready() == agents })
	return m
}

// none is a folder for processes, and none yet.
func none(t *testing.T) *machines {
	t.Helper()
	m := &machines{
		t: t, dir: t.TempDir(), binary: binary(t),
		running: map[string]*process{}, args: map[string][]string{}, address: map[string]string{}, ports: 21000 + os.Getpid()%100*100,
	}
	m.env = append(os.Environ(), "CLARY_CONFIG="+filepath.Join(m.dir, "config.json"), "NO_COLOR=1")
	t.Cleanup(m.cleanUp)
	return m
}

func (m *machines) server(name string) {
	m.t.Helper()
	address := freeAddress(m.t)
	m.address[name] = address
	args := []string{"server", "--id", name, "--data", m.path(name), "--listen", address, "--gossip", freeAddress(m.t), "--object-store-listen", freeAddress(m.t)}
	if name != "s1" {
		args = append(args, "--join", m.address["s1"], "--token", m.token("coordinator"))
	}
	m.run(name, args...)
	if name == "s1" {
		m.waitFor("the first coordinator's admin token", 30*time.Second, func() bool {
			_, err := os.Stat(filepath.Join(m.path(name), "admin.token"))
			return err == nil
		})
	}
}

func (m *machines) agent(name string, extra ...string) {
	m.t.Helper()
	m.expect(name, m.path(name))
	ports := fmt.Sprintf("%d-%d", m.ports, m.ports+49)
	m.ports += 50
	args := append([]string{
		"agent", "--id", name, "--data", m.path(name), "--address", "127.0.0.1", "--listen", freeAddress(m.t), "--gossip", freeAddress(m.t),
		"--ports", ports, "--cores", "4", "--join", m.address["s1"], "--token", m.token("agent"),
	}, extra...)
	m.run(name, args...)
}

func (m *machines) path(name string) string { return filepath.Join(m.dir, name) }

// token makes a join token for a role.
func (m *machines) token(role string) string {
	m.t.Helper()
	var answer struct{ Secret string }
	m.json(&answer, "token", "create", "--join", role, "-o", "json")
	return answer.Secret
}

func (m *machines) login(name string) {
	m.t.Helper()
	m.clary("login", m.address[name], "--ca", filepath.Join(m.path(name), "tls", "ca.pem"), "--token-file", filepath.Join(m.path("s1"), "admin.token"))
}

// run starts a clary process that is to keep running.
func (m *machines) run(name string, args ...string) {
	m.t.Helper()
	log, err := os.OpenFile(m.path(name)+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	command := exec.Command(m.binary, args...)
	command.Env, command.Stdout, command.Stderr = m.env, log, log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		m.t.Fatal(err)
	}
	p := &process{name: name, command: command, args: args, log: log, ended: make(chan struct{})}
	go func() { // ends with the process, which cleanUp waits for
		_ = command.Wait()
		_ = log.Close()
		close(p.ended)
	}()
	m.mu.Lock()
	m.running[name], m.args[name] = p, args
	m.mu.Unlock()
}

// kill ends a process as a power cut would, and waits until it is gone.
func (m *machines) kill(name string) {
	m.t.Helper()
	m.mu.Lock()
	p := m.running[name]
	delete(m.running, name)
	m.mu.Unlock()
	if p == nil {
		m.t.Fatalf("%s does not run", name)
	}
	_ = p.command.Process.Kill()
	<-p.ended
}

// again starts a killed process with the arguments it had.
func (m *machines) again(name string) {
	m.t.Helper()
	m.run(name, m.args[name]...)
}

// end stops a process as its operator would.
func (m *machines) end(name string) {
	m.t.Helper()
	m.mu.Lock()
	p := m.running[name]
	delete(m.running, name)
	m.mu.Unlock()
	_ = p.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(15 * time.Second):
		m.t.Fatalf("%s did not end within 15 s of SIGTERM", name)
	}
}

// cut kills a whole machine at once: agent, shims and tasks.
func (m *machines) cut(name string) {
	m.t.Helper()
	m.kill(name) // first, so that it cannot tell of the others' end
	for _, pid := range m.pids(m.path(name) + "/") {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// pids are the processes whose environment or command line holds the text, and whose
// environment or command line is of this cluster.
func (m *machines) pids(text string) []int {
	var found []int
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		var pid int
		if _, err := fmt.Sscan(entry.Name(), &pid); err != nil || pid == os.Getpid() {
			continue
		}
		environ, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		line, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		told := append(environ, line...)
		if bytes.Contains(told, []byte(m.dir+"/")) && bytes.Contains(told, []byte(text)) {
			found = append(found, pid)
		}
	}
	slices.Sort(found)
	return found
}

// clary runs one client command to its end and returns what it printed; a failure fails
// the test.
func (m *machines) clary(args ...string) string {
	m.t.Helper()
	out, err := m.try(args...)
	if err != nil {
		m.t.Fatalf("clary %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// try runs one client command; what it printed comes with what it complained of if it
// failed.
func (m *machines) try(args ...string) (string, error) { return m.as(nil, args...) }

// as is try with more in the environment.
func (m *machines) as(env []string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, m.binary, args...)
	command.Env = append(slices.Clone(m.env), env...)
	var out, problems bytes.Buffer
	command.Stdout, command.Stderr = &out, &problems
	err := command.Run()
	if err != nil {
		return out.String() + problems.String(), err
	}
	return out.String(), nil
}

// file writes a file of the test's own and returns its path.
func (m *machines) file(name, text string) string {
	m.t.Helper()
	if err := os.WriteFile(m.path(name), []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return m.path(name)
}

// waits is clary wait, which must exit with a code within a minute.
func (m *machines) waits(code int, job string) string {
	m.t.Helper()
	return m.exits(code, "wait", job, "--timeout", "1m")
}

// exits runs one client command that must end with an exit code and returns what it said.
func (m *machines) exits(code int, args ...string) string {
	m.t.Helper()
	out, err := m.try(args...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		m.t.Fatal(err)
	}
	if got != code {
		m.t.Errorf("clary %s: exit code %d, want %d\n%s", strings.Join(args, " "), got, code, out)
	}
	return out
}

// task and job are what `clary job -o json` tells of them.
type task struct {
	ID, Role, State, Reason, Node string
	Devices                       []string
	Attempt, Epoch                int
	ExitCode                      *int `json:"exit_code"`
}

type job struct {
	Name, State, Reason string
	Attempt             int
	Started             string
	Tasks               []task
	Outputs             []struct{ Name, URI, SHA256 string }
}

func (m *machines) job(name string) job {
	m.t.Helper()
	var view job
	m.json(&view, "job", name, "-o", "json")
	return view
}

// epoch is how far a training is.
func (m *machines) epoch(name string) int {
	m.t.Helper()
	furthest := 0
	for _, task := range m.job(name).Tasks {
		furthest = max(furthest, task.Epoch)
	}
	return furthest
}

// client speaks to the cluster as its admin, through all coordinators.
func (m *machines) client(options ...client.Option) *client.Client {
	m.t.Helper()
	c, err := client.Dial(m.context(), options...)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (m *machines) context() config.Context {
	m.t.Helper()
	file, err := config.Load(filepath.Join(m.dir, "config.json"))
	if err != nil {
		m.t.Fatal(err)
	}
	to := file.Contexts[file.Current]
	to.Addresses = slices.Sorted(maps.Values(m.address))
	return to
}

func (m *machines) json(into any, args ...string) {
	m.t.Helper()
	out := m.clary(args...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		m.t.Fatalf("clary %s: %v in %q", strings.Join(args, " "), err, out)
	}
}

// waitFor asks until the condition holds. It polls, since what it asks is another
// process, which has no event to wait for.
func (m *machines) waitFor(what string, limit time.Duration, holds func() bool) {
	m.t.Helper()
	deadline := time.Now().Add(limit)
	for !holds() {
		if time.Now().After(deadline) {
			m.logs()
			m.t.Fatalf("waited %s for %s", limit, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// logs shows the last lines of every process and all jobs, for a failing test.
func (m *machines) logs() {
	jobs, _ := m.try("jobs", "--limit", "20")
	m.t.Logf("== jobs\n%s", jobs)
	files, _ := filepath.Glob(filepath.Join(m.dir, "*.log"))
	for _, file := range files {
		data, _ := os.ReadFile(file)
		lines := strings.Split(string(data), "\n")
		m.t.Logf("== %s\n%s", filepath.Base(file), strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
}

func (m *machines) cleanUp() {
	if m.t.Failed() {
		m.logs()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.running {
		_ = p.command.Process.Signal(syscall.SIGTERM)
	}
	for _, p := range m.running {
		select {
		case <-p.ended:
		case <-time.After(15 * time.Second):
			m.t.Errorf("%s did not end within 15 s of SIGTERM", p.name)
			_ = p.command.Process.Kill()
			<-p.ended
		}
	}
	if left := m.leftOver(); len(left) > 0 {
		m.t.Errorf("left over:\n%s", strings.Join(left, "\n"))
	}
}

// leftOver lists the processes of this cluster that still run, shims and tasks included,
// and kills them, and the control groups that its agents made.
func (m *machines) leftOver() []string {
	var left []string
	for _, pid := range m.pids("") {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if len(line) == 0 {
			continue // it has ended meanwhile
		}
		left = append(left, fmt.Sprintf("process %d: %s", pid, strings.ReplaceAll(string(line), "\x00", " ")))
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	return append(left, m.groups()...)
}

// expect notes the control group that the agent of a data folder makes.
func (m *machines) expect(id, data string) {
	m.parents = append(m.parents, fmt.Sprintf("clary-%s-%08x", id, crc32.ChecksumIEEE([]byte(data))))
}

// groups are the control groups of this cluster's agents and their tasks.
func (m *machines) groups() []string {
	var found []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && slices.Contains(m.parents, entry.Name()) {
			found = append(found, path)
			return fs.SkipDir
		}
		return nil
	})
	return found
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func (m *machines) voters() int {
	var info struct {
		Coordinators []struct{ Voter, Alive bool }
	}
	out, err := m.try("cluster", "-o", "json")
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

func (m *machines) ready() int {
	var nodes []struct{ State string }
	out, err := m.try("nodes", "-o", "json")
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

// leader is the name of the coordinator that leads.
func (m *machines) leader() string {
	m.t.Helper()
	var info struct{ Leader string }
	m.waitFor("a leader", 15*time.Second, func() bool {
		out, err := m.try("cluster", "-o", "json")
		return err == nil && json.Unmarshal([]byte(out), &info) == nil && info.Leader != ""
	})
	return info.Leader
}
