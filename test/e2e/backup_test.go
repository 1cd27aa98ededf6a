package e2e

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/clary-ml/clary/coordinator/backup"
)

// backups are the cluster's, the newest first.
func (m *machines) backups() []string {
	m.T.Helper()
	var found struct{ Backups []struct{ URI string } }
	m.JSON(&found, "cluster", "backup", "list", "-o", "json")
	var uris []string
	for _, b := range found.Backups {
		uris = append(uris, b.URI)
	}
	return uris
}

// storeFile writes how to reach the S3 of a cluster, and returns its secret key.
func (m *machines) storeFile(path string) string {
	m.T.Helper()
	var s3 struct {
		Endpoint  string `json:"endpoint_url"`
		Region    string `json:"region"`
		AccessKey string `json:"access_key_id"`
		SecretKey string `json:"secret_access_key"`
		CABundle  string `json:"ca_bundle"`
	}
	m.JSON(&s3, "s3", "-o", "json")
	text, err := json.Marshal(map[string]any{
		"endpoint": strings.TrimPrefix(s3.Endpoint, "https://"), "region": s3.Region, "access_key": s3.AccessKey, "secret_key": s3.SecretKey, "ca_file": s3.CABundle,
	})
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		m.T.Fatal(err)
	}
	return s3.SecretKey
}

// nowhere fails the test if a text is in a file below a folder.
func (m *machines) nowhere(folder, text string, but string) {
	m.T.Helper()
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || filepath.Base(path) == but {
			return err
		}
		if content, err := os.ReadFile(path); err == nil && strings.Contains(string(content), text) {
			m.T.Errorf("a secret stands in %s", path)
		}
		return nil
	})
	if err != nil {
		m.T.Error(err)
	}
}

func TestAClusterIsBackedUpByItselfAndRestoredFromItsS3(t *testing.T) {
	away := start(t, 1, 0) // whose object store is the S3
	m := start(t, 1, 0)
	mine, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	m.refuses(nil, []string{"settings", "set", "backup.to=s3://backups/here", "backup.every=1m"}, "settings.backup.recipients: is empty")
	m.refuses(nil, []string{"settings", "set", "backup.recipients=" + mine.String()}, "is no public key of age")
	m.Clary("settings", "set", "backup.to=s3://backups/here", "backup.recipients="+mine.Recipient().String(), "backup.keep=1", "backup.every=1m")
	m.tells("s1", "the embedded object store is on the disk of a coordinator")
	secret := away.storeFile(filepath.Join(m.Path("s1"), backup.StoreFile))
	m.Clary("token", "create", "grace", "--role", "user")
	m.WaitFor("a backup by itself, soon after it could not be made", 40*time.Second, func() bool { return len(m.backups()) == 1 })
	first := m.backups()[0]
	m.Clary("settings", "set", "retention.jobs=123d")
	m.WaitFor("the next backup to take its place", 20*time.Second, func() bool {
		m.Clary("cluster", "backup", "now")
		now := m.backups()
		return len(now) == 1 && now[0] != first
	})
	m.nowhere(m.Dir, secret, backup.StoreFile)
	m.nowhere(away.Path("s1/objects"), "ca_key", "")
	m.nowhere(away.Path("s1/objects"), "grace", "")

	m.Kill("s1")
	store := filepath.Join(m.Dir, backup.StoreFile)
	away.storeFile(store)
	m.wipe("s1")
	restore := []string{"cluster", "restore", "s3://backups/here", "--from-store", store, "--id", "s1", "--data", m.Path("s1"), "--advertise", m.Address["s1"], "--yes", "--key-file"}
	m.refuses(nil, append(restore, m.File("theirs.key", theirs.String())), "encrypted for another key")
	m.refuses(nil, restore[:len(restore)-1], "--key-file: is not given")
	m.Clary(append(restore, m.File("mine.key", mine.String()))...)
	m.Again("s1")
	m.WaitFor("the restored cluster to answer", 30*time.Second, func() bool { return m.Voters() == 1 })
	if said := m.Clary("settings", "show"); !strings.Contains(said, "123d") {
		t.Errorf("it has forgotten a setting:\n%s", said)
	}
	if said := m.Clary("token", "list"); !strings.Contains(said, "grace") {
		t.Errorf("it has forgotten a user:\n%s", said)
	}
}

func TestTwoOfThreeMachinesBurn(t *testing.T) {
	m := start(t, 3, 1)
	m.Clary("run", "--name", "done", "--memory", "64MiB", "--", "true")
	m.Clary("run", "--detach", "--name", "long", "--memory", "64MiB", "--", "sleep", "600")
	m.WaitFor("long to run", 30*time.Second, func() bool { return m.Job("long").State == "running" })
	m.refuses(nil, []string{"cluster", "recover", "--data", m.Path("s1"), "--yes"}, "another process has it open")
	for _, name := range []string{"s1", "s2", "s3"} {
		m.Kill(name)
	}
	m.wipe("s2")
	m.wipe("s3")
	m.refuses(nil, []string{"cluster", "recover", "--data", m.Path("s1")}, "what s2, s3 have agreed on after that without it is lost", "say --yes")
	m.Clary("cluster", "recover", "--data", m.Path("s1"), "--yes")
	m.Again("s1")
	m.WaitFor("the agent to come back", 90*time.Second, func() bool { return m.Ready() == 1 })
	m.WaitFor("long to run again", 60*time.Second, func() bool { return m.Job("long").State == "running" && m.Job("long").Attempt == 10_001 })
	if m.Job("done").State != "succeeded" {
		t.Errorf("done is %+v", m.Job("done"))
	}
	m.anew("s2")
	m.WaitFor("two to vote", 20*time.Second, func() bool { return m.Voters() == 2 })
	m.Clary("cancel", "long")
	m.WaitFor("long to be cancelled", 30*time.Second, func() bool { return m.Job("long").State == "cancelled" })
}
