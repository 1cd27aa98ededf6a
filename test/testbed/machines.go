// Package testbed runs real Clary processes for tests, kills them and starts them again
// as operators and power cuts do it, and sees that nothing of them is left.
package testbed

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is one clary server or agent, started as an operator would.
type process struct {
	name    string
	command *exec.Cmd
	args    []string
	log     *os.File
	ended   chan struct{}
}

// Machines is a cluster of real processes with its own folder, ports and client context.
type Machines struct {
	T       *testing.T
	Dir     string
	Binary  string
	Env     []string
	mu      sync.Mutex
	running map[string]*process
	Args    map[string][]string // as last started, by name
	Address map[string]string   // RPC address of each server
	Serve   map[string]string   // URL of each server's router
	Ops     map[string]string   // URL of each process's listener for operators, of those on this network
	Old     bool                // Binary is of before there were such listeners
	parents []string            // names of the control groups of all agents
	ranges  []int               // first ports of those that were claimed
	allowed map[string]bool     // what the test itself mounted

	host    string            // where servers listen
	bridge  string            // agents are on networks of their own, if it is named
	plugged map[string]string // addresses of those machines
	apart   bool              // coordinators have networks of their own too

	clocks   map[string]*os.File // what is added to a machine's clock, by name
	releases []func()            // of what was claimed
}

// built returns the clary under test: CLARY_BIN, which `make e2e` sets.
func built(t *testing.T) string {
	t.Helper()
	path := os.Getenv("CLARY_BIN")
	if path == "" {
		t.Skip("skipped: CLARY_BIN does not name a built clary; run `make e2e`")
	}
	return path
}

// Start brings up a cluster of servers s1, s2, ... and agents n1, n2, ..., all with TLS,
// and logs the client in as its admin.
func Start(t *testing.T, servers, agents int) *Machines {
	t.Helper()
	m := None(t)
	m.Server("s1")
	m.Login("s1")
	for i := 2; i <= servers; i++ {
		m.Server(fmt.Sprintf("s%d", i))
	}
	m.WaitFor("all coordinators to vote", 30*time.Second, func() bool { return m.Voters() == servers })
	for i := 1; i <= agents; i++ {
		m.Agent(fmt.Sprintf("n%d", i))
	}
	m.WaitFor("all agents to be ready", 30*time.Second, func() bool { return m.Ready() == agents })
	return m
}

// None is a folder for processes, and none yet.
func None(t *testing.T) *Machines {
	t.Helper()
	m := &Machines{
		T: t, Dir: t.TempDir(), Binary: built(t), host: "127.0.0.1",
		running: map[string]*process{}, Args: map[string][]string{}, Address: map[string]string{}, Serve: map[string]string{}, Ops: map[string]string{},
	}
	// Whoever installs Python packages is nobody, and must reach the agent's data.
	if err := os.Chmod(filepath.Dir(m.Dir), 0o711); err != nil {
		t.Fatal(err)
	}
	m.Env = append(os.Environ(), "CLARY_CONFIG="+filepath.Join(m.Dir, "config.json"), "NO_COLOR=1")
	t.Cleanup(m.CleanUp)
	return m
}

// Server starts a coordinator: the first founds the cluster, the others join it.
func (m *Machines) Server(name string) {
	m.T.Helper()
	listen := func(port int) string { return m.free() }
	if m.apart {
		host := m.plug(name)
		listen = func(port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
	}
	address, serve := listen(7420), listen(7426)
	m.Address[name], m.Serve[name] = address, "https://"+serve
	args := []string{
		"server", "--id", name, "--data", m.Path(name), "--listen", address, "--gossip", listen(7421), "--object-store-listen", listen(7423), "--serve-listen", serve,
	}
	args = append(args, m.measured(name)...)
	if name != "s1" {
		args = append(args, "--join", m.Address["s1"], "--token", m.Token("coordinator"))
	}
	m.Run(name, args...)
	if name == "s1" {
		m.WaitFor("the first coordinator's admin token", 30*time.Second, func() bool {
			_, err := os.Stat(filepath.Join(m.Path(name), "admin.token"))
			return err == nil
		})
	}
}

// Agent starts an agent and joins it to the cluster, with more flags if there are any.
func (m *Machines) Agent(name string, extra ...string) {
	m.T.Helper()
	m.Expect(name, m.Path(name))
	first := m.Range()
	host, listen, gossip := m.host, m.free(), m.free()
	if m.bridge != "" {
		host = m.plug(name)
		listen, gossip = host+":7424", host+":7425"
	}
	args := append([]string{
		"agent", "--id", name, "--data", m.Path(name), "--address", host, "--listen", listen, "--gossip", gossip,
		"--ports", fmt.Sprintf("%d-%d", first, first+perRange-1), "--cores", "4", "--join", m.Address["s1"], "--token", m.Token("agent"),
	}, m.measured(name)...)
	m.Run(name, append(args, extra...)...)
}

// measured gives a process a port of its own for its operators. On a network of its own it has the default one.
func (m *Machines) measured(name string) []string {
	if m.Old || m.plugged[name] != "" {
		return nil
	}
	address := FreeAddress(m.T)
	m.Ops[name] = "http://" + address
	return []string{"--metrics-listen", address}
}

// Path is below the cluster's own folder.
func (m *Machines) Path(name string) string { return filepath.Join(m.Dir, name) }

// Token makes a join token for a role.
func (m *Machines) Token(role string) string {
	m.T.Helper()
	var answer struct{ Secret string }
	m.JSON(&answer, "token", "create", "--join", role, "-o", "json")
	return answer.Secret
}

// Login makes the client an admin of the cluster, through a coordinator.
func (m *Machines) Login(name string) {
	m.T.Helper()
	m.Clary("login", m.Address[name], "--ca", filepath.Join(m.Path(name), "tls", "ca.pem"), "--token-file", filepath.Join(m.Path("s1"), "admin.token"))
}

// Run starts a clary process that is to keep running.
func (m *Machines) Run(name string, args ...string) {
	m.T.Helper()
	log, err := os.OpenFile(m.Path(name)+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.T.Fatal(err)
	}
	command := exec.Command(m.Binary, args...)
	if m.plugged[name] != "" { // the program takes the place of nsenter
		command = exec.Command("nsenter", append([]string{"--net=" + m.netns(name), m.Binary}, args...)...)
	}
	command.Env, command.Stdout, command.Stderr = m.environment(name), log, log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		m.T.Fatal(err)
	}
	p := &process{name: name, command: command, args: args, log: log, ended: make(chan struct{})}
	go func() { // ends with the process, which cleanUp waits for
		_ = command.Wait()
		_ = log.Close()
		close(p.ended)
	}()
	m.mu.Lock()
	m.running[name], m.Args[name] = p, args
	m.mu.Unlock()
}

// Kill ends a process as a power cut would, and waits until it is gone.
func (m *Machines) Kill(name string) {
	m.T.Helper()
	m.mu.Lock()
	p := m.running[name]
	delete(m.running, name)
	m.mu.Unlock()
	if p == nil {
		m.T.Fatalf("%s does not run", name)
	}
	_ = p.command.Process.Kill()
	<-p.ended
}

// Again starts a killed process with the arguments it had. An agent has then taken over what
// the killed one held: the cluster may count the node as ready before, by the old one's lease.
func (m *Machines) Again(name string) {
	m.T.Helper()
	starts := m.starts(name)
	m.Run(name, m.Args[name]...)
	if m.Args[name][0] == "agent" {
		m.WaitFor("the start of "+name, 30*time.Second, func() bool { return m.starts(name) > starts })
	}
}

// starts is how often the log of an agent says that it has started.
func (m *Machines) starts(name string) int {
	log, _ := os.ReadFile(m.Path(name) + ".log")
	return bytes.Count(log, []byte(`msg="agent started"`))
}

// End stops a process as its operator would.
func (m *Machines) End(name string) {
	m.T.Helper()
	m.Signal(name, syscall.SIGTERM)
}

// Signal ends a process by a signal and returns its exit code.
func (m *Machines) Signal(name string, signal syscall.Signal) int {
	m.T.Helper()
	m.mu.Lock()
	p := m.running[name]
	delete(m.running, name)
	m.mu.Unlock()
	if p == nil {
		m.T.Fatalf("%s does not run", name)
	}
	_ = p.command.Process.Signal(signal)
	select {
	case <-p.ended:
	case <-time.After(15 * time.Second):
		m.T.Fatalf("%s did not end within 15 s of %s", name, signal)
	}
	return p.command.ProcessState.ExitCode()
}

// Stop freezes a process; Resume lets it go on.
func (m *Machines) Stop(name string) { m.tell(name, syscall.SIGSTOP) }

// Resume lets a frozen process go on.
func (m *Machines) Resume(name string) { m.tell(name, syscall.SIGCONT) }

func (m *Machines) tell(name string, signal syscall.Signal) {
	m.T.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.running[name]; p == nil || p.command.Process.Signal(signal) != nil {
		m.T.Fatalf("%s does not run", name)
	}
}

// Cut kills a whole machine at once: agent, shims and tasks.
func (m *Machines) Cut(name string) {
	m.T.Helper()
	m.Kill(name) // first, so that it cannot tell of the others' end
	for _, pid := range m.PIDs(m.Path(name) + "/") {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// Ended are the processes that ended though nobody ended them.
func (m *Machines) Ended() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []string
	for name, p := range m.running {
		select {
		case <-p.ended:
			found = append(found, name)
		default:
		}
	}
	slices.Sort(found)
	return found
}

// patience is how many times as long things may take as where a test is alone: others run beside it.
const patience = 2

// WaitFor asks until the condition holds, for so long and some patience. It polls, since what it asks is another process, which has no
// event to wait for; the longer it has waited the less often, since to ask is mostly to start a client, which takes processors
// from what is waited for.
func (m *Machines) WaitFor(what string, limit time.Duration, holds func() bool) {
	m.T.Helper()
	limit *= patience
	for began := time.Now(); !holds(); {
		waited := time.Since(began)
		if waited > limit {
			m.Logs()
			m.T.Fatalf("waited %s for %s", limit, what)
		}
		time.Sleep(min(max(waited/10, 20*time.Millisecond), 250*time.Millisecond))
	}
}

// Logs shows the last lines of every process and all jobs, for a failing test.
func (m *Machines) Logs() {
	jobs, _ := m.Try("jobs", "--limit", "20")
	m.T.Logf("== jobs\n%s", jobs)
	files, _ := filepath.Glob(filepath.Join(m.Dir, "*.log"))
	for _, file := range files {
		data, _ := os.ReadFile(file)
		lines := strings.Split(string(data), "\n")
		m.T.Logf("== %s\n%s", filepath.Base(file), strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
}

// CleanUp ends everything and fails the test if something is left.
func (m *Machines) CleanUp() {
	if m.T.Failed() {
		m.Logs()
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
			m.T.Errorf("%s did not end within 15 s of SIGTERM", p.name)
			_ = p.command.Process.Kill()
			<-p.ended
		}
	}
	if left := m.LeftOver(); len(left) > 0 {
		m.T.Errorf("left over:\n%s", strings.Join(left, "\n"))
	}
	m.unplug()
	for _, clock := range m.clocks {
		_ = clock.Close()
	}
	for _, release := range m.releases {
		release()
	}
}
