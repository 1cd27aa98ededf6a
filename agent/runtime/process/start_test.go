package process_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/runtime/process"
	"github.com/clary-ml/clary/internal/smalldisk"
)

// withShim is a driver whose shim is a script.
func withShim(t *testing.T, root, script string) *process.Driver {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shim")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := process.New(process.Config{Root: root, Shim: path, Groups: newHost(t), Patience: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

var plain = runtime.Spec{ID: id, Argv: []string{"sh", "-c", "exit 3"}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/"}

// What a shim says last is told though it can be written nowhere.
func TestTheReasonOfAStartThatFailedHasTheShimsLastWords(t *testing.T) {
	for name, c := range map[string]struct{ script, reason string }{
		"a defect":       {"echo 'fatal error: no thread' >&2; echo 'goroutine 1:' >&2; exit 2", "exit code 2: fatal error: no thread"},
		"without a word": {"exit 1", "exit code 1 and said nothing"},
		"it tells":       {"printf 'open a log: no room' >&4; exit 1", "open a log: no room"},
	} {
		t.Run(name, func(t *testing.T) {
			root := smalldisk.Mount(t, 1<<20)
			page := filepath.Join(root, "page") // for what the shim is to run, and no more
			if err := os.WriteFile(page, make([]byte, os.Getpagesize()), 0o600); err != nil {
				t.Fatal(err)
			}
			free := smalldisk.Fill(t, root)
			defer free()
			if err := os.Remove(page); err != nil {
				t.Fatal(err)
			}
			_, err := withShim(t, root, c.script).Start(t.Context(), plain)
			if err == nil || !strings.HasSuffix(err.Error(), c.reason) {
				t.Errorf("it says %q, want %q at the end", err, c.reason)
			}
		})
	}
}

func TestAStartOnAFullDiskSaysSo(t *testing.T) {
	for pages := range 3 {
		root := smalldisk.Mount(t, 1<<20)
		spare := filepath.Join(root, "spare")
		if err := os.WriteFile(spare, make([]byte, pages*os.Getpagesize()), 0o600); err != nil {
			t.Fatal(err)
		}
		free := smalldisk.Fill(t, root)
		if err := os.Remove(spare); err != nil {
			t.Fatal(err)
		}
		d := open(t, root, newHost(t))
		_, err := d.Start(t.Context(), plain)
		free()
		switch {
		case err != nil && !strings.Contains(err.Error(), "no space left on device"):
			t.Errorf("with %d pages of room it says %v", pages, err)
		case err == nil:
			// It could not be recorded as it began, and was killed for that unless it was faster.
			if exit := wait(t, d); exit.Code != 3 && !strings.Contains(exit.Error, "no space left on device") || exit.Code == 3 && exit.Error != "" {
				t.Errorf("with %d pages of room it ended as %+v", pages, exit)
			}
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestNobodyKnowsHowATaskEndedWhoseShimWasKilledAsItBegan(t *testing.T) {
	for name, script := range map[string]string{
		"by somebody":                            "kill -9 $$",
		"by the agent, to which it says nothing": "exec sleep 1000",
	} {
		t.Run(name, func(t *testing.T) {
			d := withShim(t, t.TempDir(), script)
			if _, err := d.Start(t.Context(), plain); err != nil {
				t.Fatalf("it may have begun, and the start says %v", err)
			}
			if exit := wait(t, d); !exit.Unknown {
				t.Errorf("it ended as %+v", exit)
			}
		})
	}
}
