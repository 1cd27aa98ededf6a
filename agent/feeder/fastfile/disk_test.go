package fastfile_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/clary-ml/clary/agent/feeder/fastfile"
)

func openDisk(t testing.TB, dir string, limit int64) *fastfile.Disk {
	t.Helper()
	disk, err := fastfile.OpenDisk(dir, limit, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return disk
}

func size(t testing.TB, dir string) (total int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, item fs.DirEntry, err error) error {
		if err == nil && !item.IsDir() {
			info, _ := item.Info()
			total += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return total
}

func TestWhatOneTaskReadTheNextOneOfTheNodeDoesNotFetch(t *testing.T) {
	content := map[string][]byte{"a": random(1, 5<<20+77), "b": random(2, 100)}
	dir := t.TempDir()
	for round := range 3 {
		store := &memory{content: content}
		folder := mountOn(t, store, openDisk(t, dir, 64<<20), 1)
		for name, want := range content {
			if got, err := os.ReadFile(filepath.Join(folder, name)); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("round %d: %s has %d bytes, %v", round, name, len(got), err)
			}
		}
		if n := store.requests.Load(); (n == 0) != (round == 1) {
			t.Errorf("round %d asks the store %d times", round, n)
		}
		if round == 1 { // a byte flips, and a file is cut
			blocks, _ := filepath.Glob(filepath.Join(dir, "*"))
			for i, path := range blocks {
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				for at := range text {
					text[at] ^= 1
				}
				if err := os.WriteFile(path, text[:len(text)-i%2], 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func TestBlocksOnDiskStayWithinTheirBoundWhoeverAddsThem(t *testing.T) {
	const limit = 40 << 20
	dir := t.TempDir()
	var group sync.WaitGroup
	for i := range 3 { // as three processes would
		store := &memory{content: map[string][]byte{"a": random(uint64(i), 60<<20+i)}}
		folder := mountOn(t, store, openDisk(t, dir, limit), 1)
		group.Go(func() {
			if got, err := os.ReadFile(filepath.Join(folder, "a")); err != nil || !bytes.Equal(got, store.content["a"]) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	group.Wait()
	// Each may add as much as the bound before it looks, when that is less than 64 MiB.
	if total := size(t, dir); total > 4*limit || total == 0 {
		t.Errorf("they hold %d bytes", total)
	}
	store := &memory{content: map[string][]byte{"b": random(9, 50<<20)}}
	if _, err := os.ReadFile(filepath.Join(mountOn(t, store, openDisk(t, dir, limit), 1), "b")); err != nil {
		t.Fatal(err)
	}
	if total := size(t, dir); total > 2*limit {
		t.Errorf("after one alone there are %d bytes", total)
	}
}

func TestADiskThatTakesNothingDoesNotStopReading(t *testing.T) {
	dir := t.TempDir()
	disk := openDisk(t, dir, 64<<20)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file where the folder was
		t.Fatal(err)
	}
	store := &memory{content: map[string][]byte{"a": random(1, 3<<20)}}
	if got, err := os.ReadFile(filepath.Join(mountOn(t, store, disk, 1), "a")); err != nil || !bytes.Equal(got, store.content["a"]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// BenchmarkRead reads a file of 128 MiB to its end, of a store that costs nothing: what is
// left is the price of the file system, and of keeping blocks on disk.
func BenchmarkRead(b *testing.B) {
	for name, disk := range map[string]bool{"memory": false, "disk": true} {
		b.Run(name, func(b *testing.B) {
			store := &memory{content: map[string][]byte{}}
			for i := range b.N {
				store.content[fmt.Sprint(i)] = random(uint64(i), 128<<20)
			}
			var kept *fastfile.Disk
			if disk {
				kept = openDisk(b, b.TempDir(), 1<<40)
			}
			folder := mountOn(b, store, kept, 48<<20)
			b.SetBytes(128 << 20)
			b.ResetTimer()
			for i := range b.N {
				if got, err := os.ReadFile(filepath.Join(folder, fmt.Sprint(i))); err != nil || len(got) != 128<<20 {
					b.Fatalf("%d bytes, %v", len(got), err)
				}
			}
		})
	}
}
