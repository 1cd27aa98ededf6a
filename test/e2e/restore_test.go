package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// acknowledged has the cluster agree on something of each sort, and returns what shows that it has not forgotten.
func (m *machines) acknowledged() map[string][]string {
	m.T.Helper()
	model := m.File("model.txt", "a model")
	m.Clary("run", "--name", "done", "--memory", "64MiB", "--", "true")
	m.Clary("run", "--detach", "--name", "long", "--memory", "64MiB", "--", "sleep", "600")
	m.Clary("queue", "create", "team", "--weight", "3")
	m.Clary("secret", "set", "word", "--from-file", m.File("word", "sesame"))
	m.Clary("token", "create", "grace", "--role", "user")
	m.Clary("settings", "set", "retention.jobs=100d")
	m.Clary("cp", model, "s3://clary/given/model.txt")
	m.Clary("models", "import", "s3://clary/given/model.txt", "--name", "greeter")
	m.WaitFor("long to run", 30*time.Second, func() bool { return m.Job("long").State == "running" })
	return map[string][]string{
		"done":    {"job", "done"},
		"team":    {"queue", "list"},
		"word":    {"secret", "list"},
		"grace":   {"token", "list"},
		"100d":    {"settings", "show"},
		"greeter": {"models", "list"},
	}
}

func TestACoordinatorThatIsLostWithAllOthersIsRestoredFromASnapshot(t *testing.T) {
	m := start(t, 3, 2)
	known := m.acknowledged()
	file := filepath.Join(m.Dir, "cluster.snapshot")
	if said := m.Clary("cluster", "snapshot", file); !strings.Contains(said, "checksum verified") {
		t.Errorf("said %q", said)
	}
	m.refuses(nil, []string{"cluster", "snapshot", file}, "exists")
	m.Clary("run", "--detach", "--name", "after", "--memory", "64MiB", "--", "sleep", "600")
	m.WaitFor("after to run", 30*time.Second, func() bool { return m.Job("after").State == "running" })
	for _, name := range []string{"s1", "s2", "s3"} {
		m.Kill(name)
	}
	lost := filepath.Join(m.Dir, "lost-s1")
	if err := errors.Join(os.Rename(m.Path("s1"), lost), os.Mkdir(m.Path("s1"), 0o700), os.Rename(filepath.Join(lost, "objects"), filepath.Join(m.Path("s1"), "objects"))); err != nil {
		t.Fatal(err)
	}
	restore := []string{"cluster", "restore", file, "--id", "s1", "--data", m.Path("s1"), "--advertise", m.Address["s1"], "--keyring", filepath.Join(lost, "keyring.json")}
	m.refuses(nil, restore, "nobody can be asked here: say --yes")
	if said := m.Clary(append(restore, "--yes")...); !strings.Contains(said, "gangs that begin again: 1") {
		t.Errorf("said %q", said)
	}
	m.refuses(nil, append(restore, "--yes"), "has been a coordinator's folder")
	m.Again("s1")
	m.WaitFor("the agents to come back", 90*time.Second, func() bool { return m.Ready() == 2 })
	for text, look := range known {
		if said := m.Clary(look...); !strings.Contains(said, text) {
			t.Errorf("clary %s does not know of %q:\n%s", strings.Join(look, " "), text, said)
		}
	}
	m.Clary("cp", "s3://clary/given/model.txt", m.Path("fetched.txt"))
	if said, err := os.ReadFile(m.Path("fetched.txt")); string(said) != "a model" {
		t.Errorf("the object is %q, %v", said, err)
	}
	m.WaitFor("long to run again", 60*time.Second, func() bool { return m.Job("long").State == "running" && m.Job("long").Attempt == 10_001 })
	m.Clary("run", "--name", "after", "--memory", "64MiB", "--secret", "word=WORD", "--", "sh", "-c", `test "$WORD" = sesame`) // a name that the agents know from before
	if audit := m.Clary("audit"); !strings.Contains(audit, "cluster/restore") {
		t.Errorf("the audit does not have it:\n%s", audit)
	}
	// A coordinator of before comes back with its folder, and takes no part; anew it does.
	m.Again("s3")
	m.tells("s3", "this life has no leader any more")
	m.wipe("s2")
	m.anew("s2")
	m.WaitFor("two to vote", 20*time.Second, func() bool { return m.Voters() == 2 })
	m.Clary("cancel", "long")
	m.WaitFor("long to be cancelled", 30*time.Second, func() bool { return m.Job("long").State == "cancelled" })
}
