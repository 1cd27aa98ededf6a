package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cmd/clary/doctor"
	"github.com/clary-ml/clary/internal/smalldisk"
)

// examined is what the doctor finds, with the data folders of these machines.
func (m *machines) examined(names ...string) []doctor.Finding {
	m.T.Helper()
	args := []string{"doctor", "-o", "json"}
	for _, name := range names {
		args = append(args, "--data", m.Path(name))
	}
	out, failed := m.Try(args...)
	var found []doctor.Finding
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&found); err != nil {
		m.T.Fatalf("the doctor says %q: %v", out, err)
	}
	if (failed != nil) != doctor.Failed(found) {
		m.T.Errorf("it ended with %v and found %v", failed, found)
	}
	return found
}

// ails expects of one check that its findings, which are not all well, say this, with a remedy that says that.
func ails(t *testing.T, what string, found []doctor.Finding, check string, level doctor.Level, text, remedy string) {
	t.Helper()
	for _, f := range found {
		if f.Check == check && f.Level == level && strings.Contains(f.Text, text) && strings.Contains(f.Remedy, remedy) {
			return
		}
	}
	t.Errorf("%s: nothing says %s, %s, %q, %q: %v", what, check, level, text, remedy, found)
}

// What is broken is broken one after the other, on real machines, and found with what to do.
func TestTheDoctorFindsWhatIsBroken(t *testing.T) {
	m := start(t, 3, 1)
	all := []string{"s1", "s2", "s3", "n1"}
	of := map[string]int{}
	for _, f := range m.examined(all...) {
		of[f.Check]++
		if f.Level != doctor.OK && (f.Check == "quorum" || f.Check == "coordinators" || f.Check == "keyring" || f.Check == "certificates" || f.Check == "nodes" || f.Check == "versions" || f.Level == doctor.Fail) {
			t.Errorf("nothing is broken: %v", f)
		}
	}
	if of["coordinators"] != 3 || of["clocks"] != 3 || of["certificates"] < 4 || of["disk"] != 4 || of["fsync"] != 4 || of["quorum"] != 1 {
		t.Errorf("it looks at %v", of)
	}

	small := m.Path("small")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	smalldisk.On(t, small, 64<<20)
	m.Allow(small)
	smalldisk.Fill(t, small)
	ails(t, "a full disk", m.examined("small"), "disk", doctor.Fail, small, "free some")
	ails(t, "no folder", m.examined("nowhere"), "disk", doctor.Fail, "nowhere", "--data")

	m.Kill("n1")
	m.WaitFor("the node to be lost", time.Minute, func() bool { return m.Ready() == 0 })
	ails(t, "a lost node", m.examined(all...), "nodes", doctor.Warn, "lost: n1", "clary nodes remove")

	m.Kill("s3")
	found := m.examined(all...)
	ails(t, "a coordinator away", found, "coordinators", doctor.Warn, "coordinator s3 at "+m.Address["s3"]+" does not answer", "start it")
	ails(t, "a coordinator away", found, "quorum", doctor.Warn, "none may fail now", "bring the others back")

	keyring, certificate := filepath.Join(m.Path("s3"), "keyring.json"), filepath.Join(m.Path("s3"), "tls", "cert.pem")
	for what, broken := range map[string]struct {
		do                  func() error
		file, check, remedy string
	}{
		"a keyring that others may read": {func() error { return os.Chmod(keyring, 0o644) }, keyring, "keyring", "chmod 600 " + keyring},
		"a keyring that is cut short":    {func() error { return os.Truncate(keyring, 100) }, keyring, "keyring", "join it again"},
		"a keyring that is gone":         {func() error { return os.Remove(keyring) }, keyring, "keyring", "join it again"},
		"a certificate that is garbled":  {func() error { return os.WriteFile(certificate, []byte("rubbish"), 0o600) }, certificate, "certificates", "join it again"},
		"a certificate that is gone":     {func() error { return os.Remove(certificate) }, certificate, "certificates", "join it again"},
	} {
		text, err := os.ReadFile(broken.file)
		if err != nil {
			t.Fatal(err)
		}
		if err := broken.do(); err != nil {
			t.Fatal(err)
		}
		ails(t, what, m.examined("s3"), broken.check, doctor.Fail, m.Path("s3"), broken.remedy)
		_ = os.Remove(broken.file) // with its mode
		if err := os.WriteFile(broken.file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	m.Kill("s2")
	found = m.examined("s1")
	ails(t, "no majority", found, "quorum", doctor.Fail, "1 of 3 voting coordinators answer, 2 are needed", "clary cluster recover")
	for _, name := range []string{"s2", "s3", "n1"} {
		m.Again(name)
	}
	m.WaitFor("the cluster to be well again", time.Minute, func() bool { return !doctor.Failed(m.examined(all...)) })
}
