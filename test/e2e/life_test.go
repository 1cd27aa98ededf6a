package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// member is what `clary cluster members -o json` tells of a coordinator.
type member struct {
	ID, Address, Version, Problem string
	Voter, Leader, Alive          bool
	Format                        int
	Behind                        uint64
}

func (m *machines) members() map[string]member {
	m.T.Helper()
	var list []member
	m.JSON(&list, "cluster", "members", "-o", "json")
	found := map[string]member{}
	for _, one := range list {
		found[one.ID] = one
	}
	return found
}

// tells waits until a process's log holds a text.
func (m *machines) tells(name, text string) {
	m.T.Helper()
	m.WaitFor(name+" to say "+text, 20*time.Second, func() bool {
		log, _ := os.ReadFile(m.Path(name) + ".log")
		return strings.Contains(string(log), text)
	})
}

// wipe is a disk that was replaced.
func (m *machines) wipe(name string) {
	m.T.Helper()
	if err := os.RemoveAll(m.Path(name)); err != nil {
		m.T.Fatal(err)
	}
}

// anew starts a coordinator whose folder is gone with a new token, as its operator would.
func (m *machines) anew(name string) {
	m.T.Helper()
	var added struct{ Token struct{ Secret string } }
	m.JSON(&added, "cluster", "add", name, "-o", "json")
	args := append([]string(nil), m.Args[name]...)
	for i, arg := range args {
		if arg == "--token" {
			args[i+1] = added.Token.Secret
		}
	}
	m.Run(name, args...)
}

func TestCoordinatorsAreRemovedReplacedAndHandOver(t *testing.T) {
	m := start(t, 3, 0)
	m.Clary("run", "--detach", "--name", "before", "--", "true")

	// One whose disk was wiped cannot come back under its id, until it is removed.
	m.Kill("s3")
	old := filepath.Join(m.Dir, "old-s3")
	if err := os.Rename(m.Path("s3"), old); err != nil {
		t.Fatal(err)
	}
	m.refuses(nil, []string{"cluster", "add", "s3"}, "there is a coordinator s3 already", "clary cluster remove s3")
	m.Run("s3", append(m.Args["s3"][:len(m.Args["s3"])-1:len(m.Args["s3"])-1], m.Token("coordinator"))...)
	m.tells("s3", "remove the old one first with clary cluster remove s3")
	m.refuses(nil, []string{"cluster", "remove", "s2", "--yes"}, "the cluster would stop deciding", "s3 does not answer", "--force")
	m.refuses(nil, []string{"cluster", "remove", "s1", "--yes"}, "serves the embedded object store", "--force")
	m.refuses(nil, []string{"cluster", "remove", "s3"}, "nobody can be asked here: say --yes")
	m.Clary("cluster", "remove", "s3", "--yes")
	if left := m.members(); len(left) != 2 {
		t.Errorf("members %v", left)
	}
	m.wipe("s3")
	m.anew("s3")
	m.WaitFor("the new s3 to vote", 20*time.Second, func() bool { return m.members()["s3"].Voter })

	// The old folder does not come back, whatever its id is by now.
	m.Kill("s3")
	fresh := filepath.Join(m.Dir, "fresh-s3")
	if err := os.Rename(m.Path("s3"), fresh); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(old, m.Path("s3")); err != nil {
		t.Fatal(err)
	}
	m.Again("s3")
	m.tells("s3", "another machine has joined as coordinator s3 since")
	m.Again("s3")
	m.tells("s3", "belongs to a coordinator that was removed from its cluster")
	m.wipe("s3")
	if err := os.Rename(fresh, m.Path("s3")); err != nil {
		t.Fatal(err)
	}
	m.Again("s3")
	m.WaitFor("s3 to answer", 20*time.Second, func() bool { return m.members()["s3"].Alive })

	// Leadership moves, and who asked finds it moved.
	leader := m.Leader()
	to := map[bool]string{true: "s2", false: "s3"}[leader != "s2"]
	if out := m.Clary("cluster", "transfer", to); !strings.Contains(out, to+" leads") || m.Leader() != to {
		t.Errorf("transfer to %s said %q", to, out)
	}
	// A leader that is removed hands over, stops, says so, and its folder is worth nothing.
	m.Clary("cluster", "remove", to, "--yes")
	m.tells(to, "was removed from the cluster")
	m.tells(to, "this coordinator stops")
	m.Again(to)
	m.tells(to, "belongs to a coordinator that was removed from its cluster")
	if left := m.members(); len(left) != 2 || left[to].ID != "" {
		t.Errorf("members %v", left)
	}
	m.Clary("run", "--detach", "--name", "after", "--", "true")
	if jobs := m.Clary("jobs"); !strings.Contains(jobs, "before") || !strings.Contains(jobs, "after") {
		t.Errorf("jobs:\n%s", jobs)
	}
}

func TestAClusterGrowsFromOneToFiveWhileItWorks(t *testing.T) {
	m := start(t, 1, 0)
	for i, name := range []string{"s2", "s3", "s4", "s5"} {
		m.Clary("run", "--detach", "--name", "while-"+name, "--", "true")
		m.Server(name)
		m.WaitFor(name+" to vote", 20*time.Second, func() bool { return m.Voters() == i+2 })
	}
	for _, one := range m.members() {
		if !one.Voter || !one.Alive || one.Format == 0 || one.Version == "" {
			t.Errorf("%+v", one)
		}
	}
	var status struct {
		InForce  int `json:"in_force"`
		Newest   int
		HeldBack string `json:"held_back"`
	}
	m.WaitFor("the newest format", 20*time.Second, func() bool {
		m.JSON(&status, "cluster", "upgrade-status", "-o", "json")
		return status.InForce == status.Newest && status.HeldBack == ""
	})
	first := m.Leader()
	m.End(first)
	if first == "s1" { // the client knows all that were there when it asked last
		m.Clary("cluster")
	}
	m.Clary("run", "--detach", "--name", "four-are-left", "--", "true")
	if jobs := m.Clary("jobs"); strings.Count(jobs, "while-") != 4 || !strings.Contains(jobs, "four-are-left") {
		t.Errorf("jobs:\n%s", jobs)
	}
}
