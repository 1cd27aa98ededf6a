package coordinator

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/coordinator/headroom"
	"github.com/clary-ml/clary/internal/smalldisk"
)

// reserved is what the store of a coordinator in a folder is told to leave, a moment after the state has some size.
func reserved(t *testing.T, dir string, state ...int64) (told []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		file, asked := filepath.Join(dir, "state.db"), atomic.Int64{}
		asked.Store(1 << 30)
		disk, err := headroom.Open(headroom.Config{
			Dir: dir, State: file, Asked: asked.Load, Log: slog.New(slog.DiscardHandler),
			Look: func(string) (int64, int64, error) { return 1 << 34, 1 << 35, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = disk.Run(ctx) }()
		telling := make(chan error, 1)
		go func() { telling <- tellReserve(ctx, Config{Data: dir}, disk, slog.New(slog.DiscardHandler)) }()
		for _, size := range state {
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(file, size); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
			text, err := os.ReadFile(filepath.Join(dir, reserveFile))
			if err != nil {
				t.Fatal(err)
			}
			told = append(told, strings.TrimSpace(string(text)))
		}
		cancel()
		<-ended
		if err := <-telling; err != nil {
			t.Error(err)
		}
	})
	return told
}

func TestTheObjectStoreLeavesWhatMakesTheCoordinatorsDiskLow(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "objects"), 0o700); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(reserved(t, dir, 1<<20, 500<<20, 501<<20, 1<<30), " ")
	// Of a small state what the settings ask for; of a larger one twice it and the log's next file, told again once that is a sixteenth more.
	if want := "1073741824 1182793728 1182793728 2281701376"; got != want {
		t.Errorf("it is told %s, want %s", got, want)
	}
}

func TestAnObjectStoreWithADiskOfItsOwnTakesAllOfIt(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "objects"), 0o700); err != nil {
		t.Fatal(err)
	}
	smalldisk.On(t, filepath.Join(dir, "objects"), 1<<20)
	if got := reserved(t, dir, 1<<20); got[0] != "0" {
		t.Errorf("it is told %s", got)
	}
}
