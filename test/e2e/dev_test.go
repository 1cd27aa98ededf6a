package e2e

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clary-ml/clary/test/testbed"
)

func TestDevIsAWholeClusterUntilCtrlC(t *testing.T) {
	m := none(t)
	data := m.Path("dev")
	m.Expect("dev", data+"/agent")
	m.Args["clary-dev"] = []string{"dev", "--data", data, "--port", fmt.Sprint(m.Range())}
	for round, list := range []string{"hello-1", "hello-1 hello-2"} {
		m.Again("clary-dev")
		m.WaitFor("a ready node", 30*time.Second, func() bool { return m.Ready() == 1 })
		name := fmt.Sprintf("hello-%d", round+1)
		if out := m.Exits(0, "run", "--name", name, "--", "echo", "hello"); out != "hello\n" {
			t.Errorf("said %q", out)
		}
		if round == 0 { // its data is where those who install and run can reach it
			m.Exits(0, "train", "--script", m.File("try.py", "import pip; print('has packages')\n"), "--requirements", m.File("try.txt", "pip\n"), "--python", "/usr/bin/python3", "--name", "script")
			m.Clary("delete", "script")
		}
		var jobs []testbed.Job
		m.JSON(&jobs, "jobs", "-o", "json")
		var names []string
		for _, job := range jobs {
			names = append(names, job.Name)
		}
		if strings.Join(names, " ") != list {
			t.Errorf("start %d lists %v", round+1, names)
		}
		if code := m.Signal("clary-dev", syscall.SIGINT); code != 0 && code != 130 {
			t.Errorf("it ended with %d", code)
		}
		if left := m.LeftOver(); len(left) > 0 {
			t.Errorf("left over:\n%s", strings.Join(left, "\n"))
		}
	}
}

func TestDevEndsAtOnceWhereAPortIsTaken(t *testing.T) {
	m := none(t)
	port := m.Range()
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+3))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	out := m.Exits(1, "dev", "--data", m.Path("dev"), "--port", fmt.Sprint(port))
	if !strings.Contains(out, fmt.Sprint(port+3)) || !strings.Contains(out, "--port") {
		t.Error(out)
	}
}
