package e2e

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// grep returns the files below a folder that hold a text, but for those named.
func grep(t *testing.T, folder, text string, but ...string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(folder, func(path string, item fs.DirEntry, err error) error {
		if err != nil || !item.Type().IsRegular() {
			return nil // a task's folder may go meanwhile
		}
		for _, name := range but {
			if strings.Contains(path, name) {
				return nil
			}
		}
		if content, err := os.ReadFile(path); err == nil && bytes.Contains(content, []byte(text)) {
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestASecretReachesItsTaskAndNothingElse(t *testing.T) {
	m := start(t, 3, 1)
	const value, second = "correct-horse-battery-staple", "another-horse-another-staple"
	set := func(name, value string, extra ...string) {
		t.Helper()
		command := exec.Command(m.Binary, append([]string{"secret", "set", name}, extra...)...)
		command.Env, command.Stdin = m.Env, strings.NewReader(value+"\n")
		if out, err := command.CombinedOutput(); err != nil || strings.Contains(string(out), value) {
			t.Fatalf("secret set: %v: %s", err, out)
		}
	}
	set("password", "an older value")
	set("password", value)
	set("key", second)

	// The task proves that it knows them without saying them.
	script := `
printf %s "$PASSWORD" | rev; echo
rev <"$CLARY_SECRETS/key"; echo; stat -c "%a %U" "$CLARY_SECRETS/key"; ls "$CLARY_SECRETS"
echo more 2>/dev/null >>"$CLARY_SECRETS/key" && echo wrote it
echo spoke; sleep 60`
	m.Exits(0, "run", "--name", "knows", "--secret", "password=PASSWORD", "--secret", "key", "--detach", "--", "sh", "-c", script)
	rev := func(s string) string {
		r := []rune(s)
		for i, j := 0, len(r)-1; i < j; i, j = i+1, j-1 {
			r[i], r[j] = r[j], r[i]
		}
		return string(r)
	}
	var said string
	m.WaitFor("the task to speak", 30*time.Second, func() bool { said, _ = m.Try("logs", "knows"); return strings.Contains(said, "spoke") })
	for _, want := range []string{rev(value), rev(second), "400 clary-"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in %s", want, said)
		}
	}
	if strings.Contains(said, "wrote it") {
		t.Error("it could change its secret")
	}
	for _, args := range [][]string{{"job", "knows", "-o", "json"}, {"secret", "list", "-o", "json"}, {"logs", "knows"}, {"jobs", "-o", "yaml"}} {
		if out := m.Exits(0, args...); strings.Contains(out, value) || strings.Contains(out, second) {
			t.Errorf("clary %v shows it: %s", args, out)
		}
	}
	// Neither logs, snapshots, state, ledgers, task folders nor process logs have it.
	for _, text := range []string{value, second} {
		if files := grep(t, m.Dir, text); len(files) > 0 {
			t.Errorf("%q stands in %v", text, files)
		}
	}
	if files := m.InMemory(); len(files) != 1 || filepath.Base(files[0]) != "key" {
		t.Errorf("files in memory: %v", files)
	}
	// An agent that starts again leaves the running task its secrets, and takes them away at
	// its end.
	m.Kill("n1")
	m.Again("n1")
	m.WaitFor("the agent", 30*time.Second, func() bool { return m.Ready() == 1 })
	m.Exits(0, "cancel", "knows")
	m.Exits(1, "wait", "knows")
	m.WaitFor("the files in memory to go", 10*time.Second, func() bool { return len(m.InMemory()) == 0 })

	m.refuses(nil, []string{"run", "--secret", "nothing=X", "--", "true"}, `there is no secret "nothing" in queue default`)
	m.refuses(nil, []string{"run", "--dry-run", "--secret", "nothing=X", "--", "true"}, `there is no secret "nothing"`)
	m.refuses(nil, []string{"run", "--secret", "key==x", "--", "true"}, "secrets[0].env")
	m.refuses(nil, []string{"run", "--secret", "key:../../etc/passwd", "--", "true"}, "secrets[0].file")
	m.Exits(0, "secret", "delete", "key")
	m.refuses(nil, []string{"secret", "delete", "key"}, "there is no secret")
	if out := m.Exits(0, "secret", "list"); !strings.Contains(out, "password") || strings.Contains(out, "key") {
		t.Errorf("listed: %s", out)
	}
}
