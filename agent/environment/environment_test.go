package environment_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/environment"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// played is an interpreter that does what an environment asks of one, and notes each
// installation: a real one takes seconds for each. It refuses the package "missing", and
// while the file "wait" is there it does not end.
const played = `#!/bin/sh
here=%[1]s
case "$*" in
*sys.version*) echo "3.99 $here" ;;
*"-m venv"*) for last; do :; done; mkdir -p "$last/bin" && cp "$0" "$last/bin/python" ;;
*"-m pip"*)
	for last; do :; done
	echo "$*" >>"$here/installed"
	while [ -e "$here/wait" ]; do sleep 0.01; done
	if grep -q missing "$last"; then echo "ERROR: No matching distribution found for missing" >&2; exit 1; fi
	echo "$PIP_INDEX_URL $HTTPS_PROXY $SECRET" >"$here/environment" ;;
esac
`

// bench is a node's environments with an interpreter of their own.
type bench struct {
	*testing.T
	dir   string
	cache *environment.Cache
	keep  int
	more  func(*environment.Config)
}

func newBench(t *testing.T, keep int, more ...func(*environment.Config)) *bench {
	t.Helper()
	b := &bench{T: t, dir: t.TempDir(), keep: keep, more: func(*environment.Config) {}}
	if len(more) > 0 {
		b.more = more[0]
	}
	if err := os.WriteFile(b.python(), fmt.Appendf(nil, played, b.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	b.open()
	return b
}

func (b *bench) python() string { return filepath.Join(b.dir, "python3") }

func (b *bench) open() {
	b.Helper()
	config := environment.Config{Root: filepath.Join(b.dir, "environments"), Keep: b.keep}
	b.more(&config)
	var err error
	if b.cache, err = environment.Open(config); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) ensure(requirements string) (bin string, release func(), err error) {
	return b.cache.Ensure(b.Context(), cluster.Python{Interpreter: b.python(), Requirements: requirements})
}

// must makes an environment and returns its folder.
func (b *bench) must(requirements string) (folder string, release func()) {
	b.Helper()
	bin, release, err := b.ensure(requirements)
	if err != nil {
		b.Fatal(err)
	}
	return filepath.Dir(filepath.Dir(bin)), release
}

// installed is how often packages were installed.
func (b *bench) installed() int {
	text, _ := os.ReadFile(filepath.Join(b.dir, "installed"))
	return strings.Count(string(text), "\n")
}

func (b *bench) folders() []string {
	found, _ := filepath.Glob(filepath.Join(b.dir, "environments", "*"))
	return found
}

func there(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestAnEnvironmentIsMadeOnceForAllWhoWantTheSame(t *testing.T) {
	b := newBench(t, 0)
	var all sync.WaitGroup
	var mu sync.Mutex
	folders := map[string]bool{}
	for range 8 {
		all.Go(func() {
			bin, release, err := b.ensure("a==1\n")
			if err != nil {
				t.Error(err)
				return
			}
			defer release()
			mu.Lock()
			defer mu.Unlock()
			folders[bin] = true
		})
	}
	all.Wait()
	if len(folders) != 1 || b.installed() != 1 {
		t.Errorf("%d environments, %d installations", len(folders), b.installed())
	}
	b.open() // the next agent
	if _, release := b.must("a==1\n"); b.installed() != 1 {
		t.Error("the next agent made it again")
	} else {
		release()
	}
	for _, other := range []string{"a==2\n", ""} {
		_, release := b.must(other)
		release()
	}
	if len(b.folders()) != 3 || b.installed() != 2 {
		t.Errorf("environments %v after %d installations", b.folders(), b.installed())
	}
}

func TestPackagesComeFromWhereTheOperatorSays(t *testing.T) {
	t.Setenv("PIP_INDEX_URL", "https://index.example")
	t.Setenv("SECRET", "hush")
	for want, change := range map[string]func(*environment.Config){
		"--no-index --find-links /wheels":                func(c *environment.Config) { c.Wheelhouse = "/wheels" },
		"--index-url https://mirror.example/simple":      func(c *environment.Config) { c.Index = "https://mirror.example/simple" },
		"install --quiet --requirement":                  func(*environment.Config) {},
		"-I -m pip --disable-pip-version-check --no-inp": func(*environment.Config) {},
	} {
		b := newBench(t, 0, change)
		_, release := b.must("a\n")
		release()
		text, err := os.ReadFile(filepath.Join(b.dir, "installed"))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%q is not in %q, %v", want, text, err)
		}
		said, err := os.ReadFile(filepath.Join(b.dir, "environment"))
		if err != nil || !strings.Contains(string(said), "https://index.example") || strings.Contains(string(said), "hush") {
			t.Errorf("pip is told %q, %v", said, err)
		}
	}
}

func TestWhatCannotBeInstalledSaysWhyAndIsTriedAgain(t *testing.T) {
	b := newBench(t, 0)
	for try := range 2 {
		_, _, err := b.ensure("missing\n")
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "No matching distribution found for missing") {
			t.Errorf("try %d: %v", try, err)
		}
	}
	if b.installed() != 2 || len(b.folders()) != 0 {
		t.Errorf("%d installations left %v", b.installed(), b.folders())
	}
	_, _, err := b.cache.Ensure(t.Context(), cluster.Python{Interpreter: "clary-no-such-python"})
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `no "clary-no-such-python"`) {
		t.Errorf("an interpreter that is not there: %v", err)
	}
}

func TestTheOldestThatNobodyUsesGoes(t *testing.T) {
	b := newBench(t, 2)
	var folders []string
	var releases []func()
	for i := range 4 {
		folder, release := b.must(fmt.Sprintf("a==%d\n", i))
		folders, releases = append(folders, folder), append(releases, release)
		old := time.Now().Add(time.Duration(i-10) * time.Hour)
		if err := os.Chtimes(filepath.Join(folder, ".clary-complete"), old, old); err != nil {
			t.Fatal(err)
		}
	}
	releases[1]()
	releases[2]()
	releases[3]()
	// The first is in use; of the others two stay.
	for i, want := range []bool{true, false, true, true} {
		if there(folders[i]) != want {
			t.Errorf("environment %d is there: %t", i, !want)
		}
	}
	releases[0]()
	if there(folders[0]) || !there(folders[2]) || !there(folders[3]) {
		t.Errorf("there are %v", b.folders())
	}
	if folder, release := b.must("a==1\n"); folder != folders[1] || b.installed() != 5 {
		t.Error("what was deleted was not made again")
	} else {
		release()
	}
}

func TestAnUnfinishedEnvironmentIsDeletedAndOneWhoGivesUpStopsNobodyElse(t *testing.T) {
	b := newBench(t, 0)
	wait := filepath.Join(b.dir, "wait")
	if err := os.WriteFile(wait, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	gaveUp := make(chan error)
	go func() {
		_, _, err := b.cache.Ensure(ctx, cluster.Python{Interpreter: b.python(), Requirements: "a\n"})
		gaveUp <- err
	}()
	for b.installed() == 0 {
		time.Sleep(time.Millisecond)
	}
	patient := make(chan error)
	go func() {
		_, _, err := b.ensure("a\n")
		patient <- err
	}()
	cancel()
	if err := <-gaveUp; err == nil {
		t.Error("it was made though nothing is installed")
	}
	if err := os.Remove(wait); err != nil {
		t.Fatal(err)
	}
	if err := <-patient; err != nil || b.installed() != 1 {
		t.Errorf("the other one: %v, after %d installations", err, b.installed())
	}
	if err := os.Remove(filepath.Join(b.folders()[0], ".clary-complete")); err != nil {
		t.Fatal(err)
	}
	if b.open(); len(b.folders()) != 0 {
		t.Errorf("an agent that begins keeps %v", b.folders())
	}
}
