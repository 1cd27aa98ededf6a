package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// segment is the newest file of a coordinator's log.
func (m *machines) segment(name string) string {
	m.T.Helper()
	files, err := filepath.Glob(filepath.Join(m.Path(name), "raft", "raft", "log", "*.wal"))
	if err != nil || len(files) == 0 {
		m.T.Fatalf("no log of %s: %v", name, err)
	}
	return slices.Max(files)
}

// damage changes a file as a bad disk does.
func (m *machines) damage(path string, change func([]byte) []byte) {
	m.T.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		m.T.Fatal(err)
	}
	if err := os.WriteFile(path, change(content), 0o600); err != nil {
		m.T.Fatal(err)
	}
}

// log is what a process has said.
func (m *machines) log(name string) string {
	log, _ := os.ReadFile(m.Path(name) + ".log")
	return string(log)
}

func contains(text string, all ...string) bool {
	for _, one := range all {
		if !strings.Contains(text, one) {
			return false
		}
	}
	return true
}

// written is how much of a segment holds entries: the rest was allocated ahead.
func written(content []byte) int {
	end := len(content)
	for end > 0 && content[end-1] == 0 {
		end--
	}
	return end
}

func TestACoordinatorWhoseLogIsDamagedDoesNotVoteAndIsReplaced(t *testing.T) {
	m := start(t, 3, 0)
	for i := range 20 {
		m.Clary("run", "--detach", "--name", fmt.Sprintf("kept-%02d", i), "--", "true")
	}
	for i, c := range []struct {
		name, says string
		change     func([]byte) []byte
	}{
		{"its end is cut off", "was acknowledged: its end is lost", func(b []byte) []byte { return b[:written(b)-200] }},
		{"a byte of an entry is flipped", "raft log in", func(b []byte) []byte { // what is between entries nobody reads
			at := bytes.Index(b, []byte("kept-10"))
			if at < 0 {
				t.Fatal("the log does not hold kept-10")
			}
			b[at] ^= 0xff
			return b
		}},
		{"it is empty", "raft log in", func([]byte) []byte { return nil }},
	} {
		leader := m.Leader()
		victim := map[bool]string{true: "s2", false: "s3"}[leader != "s2"]
		seen := len(m.log(victim))
		m.Kill(victim)
		m.damage(m.segment(victim), c.change)
		m.Again(victim)
		m.WaitFor(c.name+": a refusal", 20*time.Second, func() bool { return contains(m.log(victim)[seen:], c.says, "join it again") })
		if one := m.members()[victim]; one.Alive {
			t.Errorf("%s: %+v", c.name, one)
		}
		m.Clary("run", "--detach", "--name", fmt.Sprintf("without-%d", i), "--", "true")
		m.Clary("cluster", "remove", victim, "--yes")
		m.wipe(victim)
		m.anew(victim)
		m.WaitFor(c.name+": its successor to vote and answer", 20*time.Second, func() bool { one := m.members()[victim]; return one.Voter && one.Alive })
		m.Clary("cluster", "transfer", victim) // it has everything, and may lead
	}
	for i := range 20 {
		m.Clary("job", fmt.Sprintf("kept-%02d", i))
	}
	// A log that is gone altogether is no reason to begin anew, not even for the founder.
	if m.Leader() == "s1" {
		m.Clary("cluster", "transfer")
	}
	m.Kill("s1")
	if err := os.RemoveAll(filepath.Join(m.Path("s1"), "raft")); err != nil {
		t.Fatal(err)
	}
	m.Again("s1")
	m.tells("s1", "its log is gone")
}

func TestAMajorityThatWasLostComesBackWithEverything(t *testing.T) {
	m := start(t, 3, 0)
	m.Clary("run", "--detach", "--name", "before", "--", "true")
	left := m.Leader()
	lost := slices.DeleteFunc([]string{"s1", "s2", "s3"}, func(name string) bool { return name == left })
	m.Kill(lost[0])
	m.Kill(lost[1])
	if out, err := m.Try("run", "--detach", "--name", "meanwhile", "--", "true"); err == nil {
		t.Errorf("one of three has accepted a job: %s", out)
	}
	m.Again(lost[0])
	m.Clary("run", "--detach", "--name", "after", "--", "true")
	m.Again(lost[1])
	m.WaitFor("all three", 30*time.Second, func() bool { return m.Voters() == 3 })
	m.Clary("job", "before")
	m.Clary("job", "after")
}
