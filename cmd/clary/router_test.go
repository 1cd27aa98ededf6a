package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/clary-ml/clary/serving/router"
)

func tableOf(address string, weight int) []byte {
	return fmt.Appendf(nil, `{"endpoints":[{"name":"e","public":true,"fleets":[{"variant":"v","weight":%d,"replicas":[{"id":"a","address":%q}]}]}]}`, weight, address)
}

// freeAddress is one where nobody listens just now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func TestARouterFollowsItsFile(t *testing.T) {
	said := func(text string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }))
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	}
	file := filepath.Join(t.TempDir(), "table.json")
	if err := os.WriteFile(file, tableOf(said("one"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	address, metrics := freeAddress(t), freeAddress(t)
	command := newRouterCommand()
	command.SetArgs([]string{"--table", file, "--listen", address, "--metrics-listen", metrics, "--drain", "1s", "--log-level", "error"})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- command.ExecuteContext(ctx) }()
	get := func(url string) string {
		answer, err := http.Post(url, "text/plain", nil)
		if err != nil {
			return ""
		}
		defer func() { _ = answer.Body.Close() }()
		body, _ := io.ReadAll(answer.Body)
		return string(body)
	}
	becomes := func(want string) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); get("http://"+address+"/endpoints/e/invocations") != want; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("it did not become %q", want)
			}
		}
	}
	becomes("one")
	if err := os.WriteFile(file, append(tableOf(said("two"), 1), bytes.Repeat([]byte("\n"), 100)...), 0o600); err != nil {
		t.Fatal(err)
	}
	becomes("two")
	// Its listener for operators is as that of every process: but there are no tokens, so that nobody gets a profile.
	for path, want := range map[string]struct {
		status int
		says   string
	}{
		"/metrics": {200, "clary_router_requests_total"}, "/metrics?": {200, "go_goroutines"}, "/metrics?build": {200, "clary_build_info"},
		"/healthz": {200, "ok"}, "/readyz": {200, `"ready": true`}, "/debug/pprof/heap": {401, "token"}, "/debug/log-level": {401, "token"},
	} {
		answer, err := http.Get("http://" + metrics + path)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if answer.StatusCode != want.status || !strings.Contains(string(text), want.says) {
			t.Errorf("%s says %d %.200s", path, answer.StatusCode, text)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// lines gives what is logged, a line at a time.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

func TestABrokenFileLeavesTheLastTableInForce(t *testing.T) {
	r, err := router.New(router.Options{})
	if err != nil {
		t.Fatal(err)
	}
	file := &tableFile{path: filepath.Join(t.TempDir(), "table.json")}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"version": 7}`)
	if _, err := file.load(r); err != nil {
		t.Fatal(err)
	}
	said := make(lines, 10)
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	following.Go(func() { file.follow(ctx, r, slog.New(slog.NewTextHandler(said, nil))) })
	write(`{"version": 8, "endpoints": [{"name": "No Name"}]}`)
	if line := <-said; !strings.Contains(line, "the old one stays") || !strings.Contains(line, "endpoints[0].name") || r.Report().Version != 7 {
		t.Errorf("it says %s and has table %d", line, r.Report().Version)
	}
	write(`{"version": 9}`)
	if line := <-said; !strings.Contains(line, "was taken") || r.Report().Version != 9 {
		t.Errorf("it says %s and has table %d", line, r.Report().Version)
	}
	write(`{"version": 10, "tokens": []}`)
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if line := <-said; !strings.Contains(line, "was taken") || r.Report().Version != 10 {
		t.Errorf("it says %s and has table %d", line, r.Report().Version)
	}
	cancel()
	following.Wait()
}
