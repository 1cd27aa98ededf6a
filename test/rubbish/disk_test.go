package rubbish

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clary-ml/clary/test/testbed"
)

func TestAFullDiskUnderTheObjectStoreStopsOnlyTheStore(t *testing.T) {
	g := &guard{Machines: testbed.None(t), names: []string{"s1"}}
	objects := filepath.Join(g.Path("s1"), "objects")
	if err := os.MkdirAll(objects, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", objects, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("skipped: a disk that can be filled needs root: %v", err)
	}
	g.Allow(objects)
	t.Cleanup(func() { _ = syscall.Unmount(objects, syscall.MNT_DETACH) })
	g.Server("s1")
	g.Login("s1")
	small, large := g.File("small", "kept"), g.Path("large")
	if err := os.WriteFile(large, bytes.Repeat([]byte("0123456789abcdef"), 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	g.Clary("cp", small, "s3://clary/small")
	g.during(t, "a full disk under the object store", func() {
		for range 3 {
			out := g.Exits(1, "cp", large, "s3://clary/large")
			if !strings.Contains(out, "s3://clary/large") || !strings.Contains(out, "full") {
				t.Errorf("it is said: %s", out)
			}
		}
		if out := g.Clary("cp", "s3://clary/small", "-"); out != "kept" {
			t.Errorf("what was there reads %q", out)
		}
		g.Clary("run", "--hold", "--detach", "--name", "beside", "--", "true")
	})
	if left := scraps(objects); len(left) > 0 {
		t.Errorf("of what was refused there is left %v", left)
	}
	if err := os.WriteFile(large, []byte("less"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.Clary("cp", large, "s3://clary/large")
}

// scraps are temporary files of the store.
func scraps(objects string) (found []string) {
	_ = filepath.WalkDir(filepath.Join(objects, ".sgwtmp"), func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			found = append(found, path)
		}
		return nil
	})
	return found
}

func TestAFlippedByteInACachedInputIsFoundAndSaid(t *testing.T) {
	g := start(t, 1, 1)
	g.Clary("cp", g.File("data", strings.Repeat("as it was\n", 1000)), "s3://clary/data")
	sum := func(name string) string {
		return g.Clary("run", "--name", name, "--input", "in=s3://clary/data", "--", "sh", "-c", "sort -u /opt/ml/input/data/in/data")
	}
	if said := sum("first"); said != "as it was\n" {
		t.Fatalf("it read %q", said)
	}
	cached, _ := filepath.Glob(filepath.Join(g.Path("n1"), "cache", "*-10000-*"))
	if len(cached) != 1 {
		t.Fatalf("the cache holds %v", cached)
	}
	text, err := os.ReadFile(cached[0])
	if err != nil {
		t.Fatal(err)
	}
	text[5000] ^= 1
	if err := os.Chmod(cached[0], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cached[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	if said := sum("second"); said != "as it was\n" {
		t.Errorf("with a flipped byte in the cache it read %q", said)
	}
	log := ""
	g.WaitFor("the agent's word on it", 10*time.Second, func() bool {
		content, _ := os.ReadFile(g.Path("n1") + ".log")
		log = string(content)
		return strings.Contains(log, "a file in the cache of inputs has changed on the disk: it is fetched again")
	})
	if !strings.Contains(log, "s3://clary/data") {
		t.Errorf("which one is not said:\n%s", log)
	}
	if said := sum("third"); said != "as it was\n" || strings.Count(log, "has changed on the disk") != 1 {
		t.Errorf("then it read %q", said)
	}
}
