// Package deploy tests what Clary is installed with: units, scripts, and the bundle's own.
package deploy

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// tool skips a test where a program is missing, except in CI, which `make test` sets up.
func tool(t *testing.T, name, debian string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is missing, which internal/tools/setup.sh deploy installs", name)
		}
		t.Skipf("skipped: %s is missing (Debian: %s)", name, debian)
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// exposure is what systemd-analyze security may find at most, in tenths. The agent is root, and what it is kept
// from its tasks are kept from, too: systemd/clary-agent.service says what that leaves.
var exposure = map[string]int{"clary-server.service": 13, "clary-router.service": 16, "clary-agent.service": 69}

func TestUnitsAreWhatSystemdTakesAndNoMoreExposedThanSaid(t *testing.T) {
	tool(t, "systemd-analyze", "systemd")
	root := t.TempDir()
	// What units name besides themselves: their program, and the targets that they wait for.
	write(t, filepath.Join(root, "usr/local/bin/clary"), "#!/bin/sh\n", 0o755)
	write(t, filepath.Join(root, "bin/sh"), "#!/bin/sh\n", 0o755)
	units := filepath.Join(root, "usr/local/lib/systemd/system")
	for unit := range exposure {
		text, err := os.ReadFile(filepath.Join("systemd", unit))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(units, unit), string(text), 0o644)
	}
	if err := os.CopyFS(filepath.Join(root, "lib/systemd/system"), targets{os.DirFS("/lib/systemd/system")}); err != nil {
		t.Fatal(err)
	}
	for unit, most := range exposure {
		if out := run(t, "systemd-analyze", "verify", "--man=no", "--root="+root, unit); strings.Contains(out, unit) {
			t.Errorf("systemd warns:\n%s", out)
		}
		out := run(t, "systemd-analyze", "security", "--offline=true", "--threshold="+strconv.Itoa(most), filepath.Join("systemd", unit))
		found := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindStringSubmatch(out)
		said := fmt.Sprintf("%d.%d", most/10, most%10)
		switch {
		case found == nil:
			t.Errorf("%s: systemd does not say how exposed it is:\n%s", unit, out)
		case found[1] != said: // each version of systemd weighs otherwise; more than the threshold it has refused itself
			t.Logf("%s: exposure %s with this systemd, and deploy/README.md says %s", unit, found[1], said)
		}
	}
}

// targets are those of systemd's own units that ours wait for.
type targets struct{ fs.FS }

func (f targets) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(f.FS, name)
	return slices.DeleteFunc(entries, func(entry fs.DirEntry) bool {
		return !strings.HasSuffix(entry.Name(), ".target") || !entry.Type().IsRegular()
	}), err
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func TestScriptsHaveNoWarning(t *testing.T) {
	tool(t, "shellcheck", "shellcheck")
	scripts := []string{"install.sh", "../test/testbed/box.sh"}
	more, err := filepath.Glob("compose/*.sh")
	if err != nil {
		t.Fatal(err)
	}
	run(t, "shellcheck", append(scripts, more...)...)
}
