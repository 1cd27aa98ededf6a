package shim

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestStatIsReadWhateverTheProcessIsCalled(t *testing.T) {
	line := " S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1000 200"
	for _, name := range []string{"sh", "a b", ") R 1 2 3 (", "((("} {
		s, ok := parseStat([]byte("42 (" + name + ")" + line))
		if !ok || s != (stat{state: 'S', parent: 7, session: 9, ticks: 12345}) {
			t.Errorf("%q: %+v, %v", name, s, ok)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (sh) S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1000 200"))
	f.Fuzz(func(_ *testing.T, text []byte) { parseStat(text) })
}

func TestOnlyTheTasksOwnSessionIsKilled(t *testing.T) {
	other := exec.Command("sleep", "1000")
	other.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- other.Wait() }()
	own := Start{Boot: Boot(), Pid: other.Process.Pid, Ticks: Ticks(other.Process.Pid)}
	earlier, reused := own, own
	earlier.Boot = "another boot"
	reused.Ticks--
	for _, start := range []Start{earlier, reused, {}} {
		start.KillSession(time.Second)
		if !own.Alive() {
			t.Fatalf("%+v killed a session that is another's", start)
		}
	}
	own.KillSession(time.Second)
	<-ended
}

func TestALeaseThatCannotBeReadIsOver(t *testing.T) {
	dir := t.TempDir()
	if left := leaseLeft(dir); left != 0 {
		t.Errorf("a missing lease gives %s", left)
	}
	if err := os.WriteFile(filepath.Join(dir, LeaseFile), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if left := leaseLeft(dir); left != 0 {
		t.Errorf("rubbish gives %s", left)
	}
	if err := SetLease(dir, Now()+time.Hour); err != nil {
		t.Fatal(err)
	}
	if left := leaseLeft(dir); left < 59*time.Minute || left > time.Hour {
		t.Errorf("an hour's lease gives %s", left)
	}
	if err := SetLease(dir, Now()-time.Hour); err != nil {
		t.Fatal(err)
	}
	if left := leaseLeft(dir); left != 0 {
		t.Errorf("a lease of the past gives %s", left)
	}
}

func TestAProgramIsFoundInTheTasksOwnPath(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"tool": 0o755, "text": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"A=b", "PATH=/nowhere:" + dir}
	if path, err := lookPath("tool", env, "/"); err != nil || path != filepath.Join(dir, "tool") {
		t.Errorf("%s, %v", path, err)
	}
	if path, err := lookPath("./tool", env, "/"); err != nil || path != "./tool" {
		t.Errorf("%s, %v", path, err)
	}
	for _, name := range []string{"text", "tool2", "sh"} {
		if path, err := lookPath(name, env, "/"); err == nil {
			t.Errorf("%s is found as %s", name, path)
		}
	}
}
