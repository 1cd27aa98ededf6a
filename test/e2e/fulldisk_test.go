package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/internal/smalldisk"
)

// onSmallDisks starts coordinators that have disks of their own, of 256 MiB.
func onSmallDisks(t *testing.T, names ...string) *machines {
	t.Helper()
	m := none(t)
	for _, name := range names {
		if err := os.Mkdir(m.Path(name), 0o700); err != nil {
			t.Fatal(err)
		}
		smalldisk.On(t, m.Path(name), 256<<20)
		m.Allow(m.Path(name))
	}
	for _, name := range names {
		m.Server(name)
		if name == names[0] {
			m.Login(name)
		}
	}
	m.WaitFor("all coordinators to vote", 30*time.Second, func() bool { return m.Voters() == len(names) })
	m.Agent("n1")
	m.WaitFor("the agent to be ready", 30*time.Second, func() bool { return m.Ready() == 1 })
	return m
}

// low waits until exactly these coordinators are said to be low on disk.
func (m *machines) low(names ...string) {
	m.T.Helper()
	m.WaitFor(strings.Join(append(names, "to be low, and nobody else"), " "), 30*time.Second, func() bool {
		n := 0
		for id, member := range m.members() {
			if member.Problem == "" {
				continue
			}
			if !strings.Contains(member.Problem, "the disk of "+m.Path(id)+" has ") || !strings.Contains(member.Problem, "free of 256 MiB") {
				m.T.Errorf("of %s it is said: %s", id, member.Problem)
			}
			n++
		}
		return n == len(names)
	})
}

// One after the other the disks of three coordinators are filled to the last byte. While one has room it leads, and two take what is
// new; then nothing new is taken, and what runs goes on, ends, and is seen. Nobody ends, and with room all is as before.
func TestFullDisksOfCoordinatorsEndNothing(t *testing.T) {
	m := onSmallDisks(t, "s1", "s2", "s3")
	m.Clary("run", "--detach", "--name", "goes-on", "--", "sh", "-c", "until [ -e /tmp/enough ]; do sleep 0.1; done")
	m.Clary("run", "--detach", "--hold", "--name", "held", "--", "true")
	m.WaitFor("the job to run", 30*time.Second, func() bool { return m.Job("goes-on").State == "running" })

	first := m.Leader()
	free := map[string]func(){first: smalldisk.Fill(t, m.Path(first))}
	m.low(first)
	m.WaitFor("another to lead", 30*time.Second, func() bool { now := m.Leader(); return now != "" && now != first })
	m.Waits(0, m.submit("one-is-full"))

	var all []string
	for id := range m.members() {
		all = append(all, id)
		if free[id] == nil {
			free[id] = smalldisk.Fill(t, m.Path(id))
		}
	}
	m.low(all...)
	var said string
	tries := 0
	m.WaitFor("what is new to be refused", 30*time.Second, func() bool {
		tries++
		out, err := m.Try("run", "--detach", "--name", fmt.Sprint("filling-", tries), "--", "true")
		said = out
		return err != nil && strings.Contains(said, m.Path(all[0])) && strings.Contains(said, m.Path(all[1])) && strings.Contains(said, m.Path(all[2]))
	})
	for _, words := range []string{"takes nothing new", "16 MiB free of 256 MiB", "free some"} {
		if !strings.Contains(said, words) {
			t.Errorf("it is not said %q: %s", words, said)
		}
	}
	if out := m.Clary("jobs"); !strings.Contains(out, "goes-on") {
		t.Errorf("jobs are not shown: %s", out)
	}
	m.Clary("exec", "goes-on", "--", "touch", "/tmp/enough")
	m.WaitFor("the end of the job to be taken", 60*time.Second, func() bool { return m.Job("goes-on").State == "succeeded" })
	m.Clary("cancel", "held")

	again := map[string]func(){}
	for _, id := range all { // what their ballasts gave
		again[id] = smalldisk.FillAs(t, m.Path(id), "filler-2")
	}
	for _, id := range all {
		m.tells(id, "puts nothing more into the log")
	}
	if out := m.Clary("jobs"); !strings.Contains(out, "goes-on") {
		t.Errorf("jobs are not shown by full coordinators: %s", out)
	}
	for _, id := range all {
		free[id]()
		again[id]()
	}
	m.low()
	m.WaitFor("what is new to be taken", 30*time.Second, func() bool {
		_, err := m.Try("run", "--detach", "--name", "with-room", "--", "true")
		return err == nil
	})
	m.Waits(0, "with-room")
	if ended := m.Ended(); len(ended) > 0 {
		t.Errorf("ended for a full disk: %v", ended)
	}
}

// submit starts a job that does nothing.
func (m *machines) submit(name string) string {
	m.T.Helper()
	m.Clary("run", "--detach", "--name", name, "--", "true")
	return name
}
