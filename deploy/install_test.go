package deploy

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// bundle is an unpacked one, with a program that only knows its version.
func bundle(t *testing.T, version string, more ...string) string {
	t.Helper()
	dir := t.TempDir()
	script, err := os.ReadFile("install.sh")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"install.sh": string(script), "bin/clary": "#!/bin/sh\necho clary version " + version + "\n", "PLATFORM": "linux-" + runtime.GOARCH + "\n",
		"systemd/clary-server.service": "[Service]\n", "docs/bare-metal.html": version, "completions/bash/clary": "complete",
	}
	for _, name := range more {
		files[name] = name
	}
	var sums strings.Builder
	for name, text := range files {
		mode := os.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		write(t, filepath.Join(dir, name), text, mode)
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256([]byte(text)), name)
	}
	write(t, filepath.Join(dir, "SHA256SUMS"), sums.String(), 0o644)
	return dir
}

// installs runs the script of a bundle for the image of a machine below root, as somebody whose files nobody else may read.
func installs(bundle, root string, args ...string) (string, error) {
	line := append([]string{"-c", `umask 077; exec "$0" "$@"`, filepath.Join(bundle, "install.sh"), "--root", root}, args...)
	out, err := exec.Command("sh", line...).CombinedOutput()
	return string(out), err
}

// tree is all files below a folder, with what they hold.
func tree(t *testing.T, root string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		info, _ := entry.Info()
		found = append(found, fmt.Sprintf("%s %s %s", strings.TrimPrefix(path, root), info.Mode(), text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestInstallingTwiceIsInstallingOnce(t *testing.T) {
	root, first := t.TempDir(), bundle(t, "v1")
	if out, err := installs(first, root); err != nil || !strings.Contains(out, "v1: 4 of 4 files were new") {
		t.Fatalf("%v: %s", err, out)
	}
	once := tree(t, root)
	for _, want := range []string{"/usr/local/bin/clary -rwxr-xr-x", "/usr/local/lib/systemd/system/clary-server.service -rw-r--r--", "/usr/local/share/bash-completion/completions/clary -rw-r--r--"} {
		if !slices.ContainsFunc(once, func(line string) bool { return strings.HasPrefix(line, want) }) {
			t.Errorf("no %s in %q", want, once)
		}
	}
	if info, err := os.Stat(filepath.Join(root, "usr/local/share/doc/clary")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("not everybody may read the pages: %v, %v", info, err)
	}
	out, err := installs(first, root)
	if err != nil || !strings.Contains(out, "v1: 0 of") || !slices.Equal(tree(t, root), once) {
		t.Errorf("the second time something changed: %v: %s", err, out)
	}
}

func TestAnUpgradeRemovesWhatIsNoMoreAndUninstallLeavesData(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "etc/clary/server.env"), "mine", 0o600)
	write(t, filepath.Join(root, "var/lib/clary/coordinator/state"), "precious", 0o600)
	write(t, filepath.Join(root, "usr/local/bin/other"), "others", 0o755)
	before := tree(t, root)
	for _, version := range []string{bundle(t, "v1", "docs/old.html"), bundle(t, "v2", "docs/new.html")} {
		if out, err := installs(version, root); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	names := strings.Join(tree(t, root), "\n")
	if strings.Contains(names, "old.html") || !strings.Contains(names, "new.html") || !strings.Contains(names, "clary version v2") {
		t.Errorf("after the upgrade there is %s", names)
	}
	last := bundle(t, "v2")
	for range 2 {
		if out, err := installs(last, root, "uninstall"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if after := tree(t, root); !slices.Equal(after, before) {
			t.Errorf("uninstalled, there is %q, and before there was %q", after, before)
		}
	}
	if out, err := installs(last, root, "uninstall", "--purge"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if after := tree(t, root); len(after) != 1 || !strings.HasPrefix(after[0], "/usr/local/bin/other") {
		t.Errorf("after the purge there is %q", after)
	}
}

func TestADamagedBundleInstallsNothing(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"is damaged": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "bin/clary"), []byte("#!/bin/sh\necho clary version v666\n"), 0o755)
		},
		"bin/clary":               func(dir string) error { return os.Remove(filepath.Join(dir, "bin/clary")) },
		"SHA256SUMS is missing":   func(dir string) error { return os.Remove(filepath.Join(dir, "SHA256SUMS")) },
		"other files than":        func(dir string) error { return os.WriteFile(filepath.Join(dir, "docs/stray"), nil, 0o644) },
		"this bundle is for moon": func(dir string) error { return platformOf(dir, "moon-riscv") },
	} {
		dir, root := bundle(t, "v1"), t.TempDir()
		if err := damage(dir); err != nil {
			t.Fatal(err)
		}
		out, err := installs(dir, root)
		if err == nil || !strings.Contains(out, name) {
			t.Errorf("want a refusal that says %q, got %v: %s", name, err, out)
		}
		if after := tree(t, root); len(after) != 0 {
			t.Errorf("%s: there is %q", name, after)
		}
	}
}

// platformOf makes a sound bundle for other machines.
func platformOf(dir, platform string) error {
	sums, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		return err
	}
	old, text := sha256.Sum256([]byte("linux-"+runtime.GOARCH+"\n")), []byte(platform+"\n")
	changed := strings.ReplaceAll(string(sums), fmt.Sprintf("%x", old), fmt.Sprintf("%x", sha256.Sum256(text)))
	if err := os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(changed), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "PLATFORM"), text, 0o644)
}

func TestAMistypedWordDoesNothing(t *testing.T) {
	root, dir := t.TempDir(), bundle(t, "v1")
	for _, args := range [][]string{{"unistall"}, {"--purge"}, {"install", "--purge"}} {
		if out, err := installs(dir, root, args...); err == nil || len(tree(t, root)) != 0 {
			t.Errorf("%q was taken: %s", args, out)
		}
	}
}

func TestTheImagesFolderIsTheOneThatWasMeant(t *testing.T) {
	dir := bundle(t, "v1")
	if out, err := exec.Command(filepath.Join(dir, "install.sh"), "verify", "--root", "").CombinedOutput(); err == nil { // verify, which changes nothing if it is taken
		t.Errorf("--root of a variable that is not set was taken for this machine: %s", out)
	}
	work := t.TempDir()
	relative := exec.Command(filepath.Join(dir, "install.sh"), "--root", "image")
	relative.Dir = work
	if out, err := relative.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(work, "image/usr/local/bin/clary")); err != nil {
		t.Errorf("a relative folder is not below where the script was called: %v", err)
	}
	if out, err := installs(dir, t.TempDir()); err != nil {
		t.Errorf("the bundle is not what it was: %v: %s", err, out)
	}
}

func TestWhatFailsHalfwayLeavesNoHalfFile(t *testing.T) {
	root, dir := t.TempDir(), bundle(t, "v1")
	taken := filepath.Join(root, "usr/local/lib/systemd/system/clary-server.service") // a folder, into which mv would move
	if err := os.MkdirAll(taken, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := installs(dir, root); err == nil {
		t.Fatalf("a folder in a file's place was taken: %s", out)
	}
	for _, line := range tree(t, root) {
		if strings.Contains(line, ".new ") {
			t.Errorf("left behind: %s", line)
		}
	}
}
