package cli_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clary-ml/clary/client/clienttest"
	"github.com/clary-ml/clary/client/config"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
)

func TestASavedRecordStaysUntilTheNextOneIsWhole(t *testing.T) {
	fake, err := clienttest.Start(1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fake.Close() }()
	breaks := true
	fake.Decisions = func(send func([]byte) error) error {
		if err := send([]byte("new")); err != nil {
			return err
		}
		if breaks {
			return fault.New(fault.Internal, "the leader's disk is gone")
		}
		return send([]byte("er"))
	}
	to := fake.Context()
	folder := t.TempDir()
	path := filepath.Join(folder, "monday.log")
	if err := os.WriteFile(path, []byte("older"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{
		config.EnvAddress: strings.Join(to.Addresses, ","), config.EnvToken: to.Token, config.EnvPin: to.CAPin, "HOME": t.TempDir(),
	}
	save := func(to string) error {
		app := &shell.App{Out: io.Discard, Err: io.Discard, Getenv: func(name string) string { return env[name] }}
		root := under(t, app, "replay").Root()
		root.SilenceErrors, root.SilenceUsage = true, true
		root.SetArgs([]string{"replay", "--from-cluster", "--save", to})
		return root.ExecuteContext(t.Context())
	}
	lies := func(want string) {
		t.Helper()
		text, err := os.ReadFile(path)
		entries, err2 := os.ReadDir(folder)
		if err != nil || err2 != nil || string(text) != want || len(entries) != 1 {
			t.Errorf("%q lies there, not %q, among %v (%v, %v)", text, want, entries, err, err2)
		}
	}
	if err := save(path); err == nil || !strings.Contains(err.Error(), "disk is gone") {
		t.Fatalf("half a record: %v", err)
	}
	lies("older")
	breaks = false
	if err := save(path); err == nil || !strings.Contains(err.Error(), "no record of decisions") {
		t.Fatalf("what is saved is repeated, and is no record: %v", err)
	}
	lies("newer")
	if err := save(folder); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "--save") {
		t.Errorf("onto a folder: %v", err)
	}
}
