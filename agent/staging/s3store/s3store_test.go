package s3store_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/agent/staging/s3store"
	"github.com/clary-ml/clary/auth/keyring"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
	"github.com/clary-ml/clary/storage/object/embedded"
)

// TestMain lets this test binary be the object store's process.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "objectstore" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := embedded.Main(ctx, os.Args[2:], os.Getenv); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// open starts the embedded store and connects to it as an admin.
func open(t *testing.T) s3store.Store {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	keys, err := keyring.New("test", time.Now())
	must(err)
	key, err := pki.NewKey()
	must(err)
	certPEM, err := keys.Authority.Issue(key.Public(), pki.Request{Hosts: []string{"127.0.0.1"}, Validity: time.Hour}, time.Now())
	must(err)
	keyPEM, err := pki.KeyPEM(key)
	must(err)
	credentials, err := pki.ParseCredentials(certPEM, keyPEM, keys.Authority.CertPEM())
	must(err)
	dir := t.TempDir()
	must(credentials.Save(dir))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	address := listener.Addr().String()
	must(listener.Close())
	ready := make(chan struct{}, 1)
	store := embedded.Supervisor{
		Config: embedded.Config{
			Dir: filepath.Join(dir, "objects"), Address: address, RootSecret: keys.ObjectSecret, DataKey: keys.DataKey,
			CertFile: filepath.Join(dir, pki.CertFile), KeyFile: filepath.Join(dir, pki.KeyFile),
		},
		CAs: func() []*x509.Certificate { return []*x509.Certificate{keys.Authority.Certificate()} }, Log: slog.New(slog.DiscardHandler), Ready: func() { ready <- struct{}{} },
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- store.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case <-time.After(30 * time.Second):
		t.Fatal("the store does not answer")
	}
	access, secret, err := embedded.Keys(keys.DataKey, "admin", "0123456789abcdef")
	must(err)
	client, err := object.Open(object.Config{Endpoint: address, AccessKey: access, SecretKey: secret, CA: keys.Authority.CertPEM()})
	must(err)
	must(client.EnsureBucket(t.Context(), "data"))
	return s3store.Store{Client: client}
}

func TestStagingWorksOnTheRealStore(t *testing.T) {
	store := open(t)
	ctx := t.Context()
	for key, text := range map[string]string{"set/a.csv": "1,2\n", "set/deep/b.csv": "3,4\n", "set/empty": ""} {
		if err := store.Put(ctx, "data", key, strings.NewReader(text), int64(len(text))); err != nil {
			t.Fatal(err)
		}
	}
	cache, err := staging.OpenCache(t.TempDir(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		folder := t.TempDir()
		if _, err := staging.Fetch(ctx, store, cache, cluster.Input{Channel: "train", URI: "s3://data/set"}, staging.Share{}, folder); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"a.csv": "1,2\n", "deep/b.csv": "3,4\n", "empty": ""} {
			if text, err := os.ReadFile(filepath.Join(folder, name)); err != nil || string(text) != want {
				t.Errorf("%s is %q, %v", name, text, err)
			}
		}
	}
	if stats := cache.Stats(); stats.Hits != 3 || stats.Misses != 3 {
		t.Errorf("the cache: %+v", stats)
	}
	if _, _, err := store.Open(ctx, "data", "none"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a missing object: %v", err)
	}
	a, err := store.Stat(ctx, "data", "set/a.csv")
	if err != nil || a.Size != 4 {
		t.Fatalf("set/a.csv is %+v, %v", a, err)
	}
	part, err := store.OpenRange(ctx, "data", a, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(part); err != nil || string(text) != ",2" || part.Close() != nil {
		t.Errorf("its middle is %q, %v", text, err)
	}
	if err := store.Put(ctx, "data", "set/a.csv", strings.NewReader("9,9\n"), 4); err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenRange(ctx, "data", a, 1, 2); !fault.Is(err, fault.Conflict) {
		t.Errorf("a part of what was overwritten: %v", err)
	}

	checkpoints := t.TempDir()
	task := cluster.Task{Role: "worker", Attempt: 1}
	mirror, err := staging.NewMirror(store, "s3://data/ckpt/", task, staging.Folder{Base: checkpoints})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(checkpoints, "c1"), []byte("state"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := mirror.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	restored := t.TempDir()
	task.Attempt = 2
	from, err := staging.Restore(ctx, store, "s3://data/ckpt/", task, false, restored)
	if text, _ := os.ReadFile(filepath.Join(restored, "c1")); err != nil || from != 1 || string(text) != "state" {
		t.Errorf("restored %q from %d, %v", text, from, err)
	}
	if _, some, err := staging.Upload(ctx, store, "model", staging.Folder{Base: restored}, "s3://data/m.tar.gz", t.TempDir()); err != nil || !some {
		t.Errorf("upload: %v, %v", some, err)
	}
}
