package e2e

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fivePorts finds five free ports in a row.
func fivePorts(t *testing.T) int {
	t.Helper()
	for first := 26000 + os.Getpid()%1000; first < 32000; first += 5 {
		free := 0
		for port := first; port < first+5; port++ {
			if listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
				free++
				_ = listener.Close()
			}
		}
		if free == 5 {
			return first
		}
	}
	t.Fatal("no five free ports")
	return 0
}

func TestDevIsAWholeClusterUntilCtrlC(t *testing.T) {
	m := none(t)
	data := m.path("dev")
	m.expect("dev", data+"/agent")
	m.args["clary-dev"] = []string{"dev", "--data", data, "--port", fmt.Sprint(fivePorts(t))}
	for round, list := range []string{"hello-1", "hello-1 hello-2"} {
		m.again("clary-dev")
		m.waitFor("a ready node", 30*time.Second, func() bool { return m.ready() == 1 })
		name := fmt.Sprintf("hello-%d", round+1)
		if out := m.exits(0, "run", "--name", name, "--", "echo", "hello"); out != "hello\n" {
			t.Errorf("said %q", out)
		}
		var jobs []job
		m.json(&jobs, "jobs", "-o", "json")
		var names []string
		for _, job := range jobs {
			names = append(names, job.Name)
		}
		if strings.Join(names, " ") != list {
			t.Errorf("start %d lists %v", round+1, names)
		}
		p := m.running["clary-dev"]
		delete(m.running, "clary-dev")
		_ = p.command.Process.Signal(syscall.SIGINT)
		select {
		case <-p.ended:
		case <-time.After(15 * time.Second):
			t.Fatal("it did not end within 15 s of SIGINT")
		}
		if code := p.command.ProcessState.ExitCode(); code != 0 && code != 130 {
			t.Errorf("it ended with %d", code)
		}
		if left := m.leftOver(); len(left) > 0 {
			t.Errorf("left over:\n%s", strings.Join(left, "\n"))
		}
	}
}
