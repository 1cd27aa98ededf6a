package ops_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/ops"
)

// elsewhere is a listener that says that it is not on loopback.
type elsewhere struct{ net.Listener }

func (elsewhere) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7427} }

func server(t *testing.T, loopback bool) *ops.Server {
	t.Helper()
	listener, err := ops.Listen("127.0.0.1:0", false, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if !loopback {
		listener = elsewhere{listener}
	}
	t.Cleanup(func() { _ = listener.Close() })
	return &ops.Server{
		Listener: listener, Metrics: prometheus.NewRegistry(), Level: &slog.LevelVar{}, Log: slog.New(slog.DiscardHandler),
		Allow: func(_ context.Context, token string, admin bool) error {
			switch {
			case token == "admin", token == "viewer" && !admin:
				return nil
			case token == "cut-off":
				return fault.New(fault.Unready, "no coordinator")
			}
			return fault.New(fault.Denied, "the role may not")
		},
	}
}

func ask(s *ops.Server, method, path, token string) (int, string) {
	request := httptest.NewRequest(method, path, nil)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer := httptest.NewRecorder()
	s.Handler().ServeHTTP(answer, request)
	return answer.Code, answer.Body.String()
}

func TestWhoMayAskForWhat(t *testing.T) {
	for _, c := range []struct {
		loopback            bool
		method, path, token string
		want                int
	}{
		{true, "GET", "/metrics", "", 200},
		{true, "GET", "/debug/pprof/", "", 401},
		{true, "GET", "/debug/pprof/", "viewer", 403},
		{true, "GET", "/debug/pprof/goroutine", "admin", 200},
		{true, "GET", "/debug/pprof/heap", "cut-off", 503},
		{true, "PUT", "/debug/log-level?level=debug", "", 401},
		{true, "PUT", "/debug/log-level?level=debug", "viewer", 403},
		{true, "PUT", "/debug/log-level?level=loud", "admin", 400},
		{false, "GET", "/metrics", "", 401},
		{false, "GET", "/metrics", "viewer", 200},
		{false, "GET", "/metrics", "nobody", 403},
		{false, "GET", "/healthz", "", 200},
		{false, "GET", "/readyz", "", 200},
		{false, "POST", "/metrics", "admin", 405},
	} {
		if got, body := ask(server(t, c.loopback), c.method, c.path, c.token); got != c.want {
			t.Errorf("%+v: %d %s", c, got, body)
		}
	}
	s := server(t, true)
	if _, body := ask(s, "PUT", "/debug/log-level?level=debug", "admin"); s.Level.Level() != slog.LevelDebug || !strings.Contains(body, "debug") {
		t.Errorf("the level is %s: %s", s.Level.Level(), body)
	}
}

func TestWhoIsNotReadySaysWhyButNotToStrangers(t *testing.T) {
	for _, loopback := range []bool{true, false} {
		full := false
		checks := []ops.Check{
			{Name: "quorum", Look: func(context.Context) error { return nil }},
			{Name: "disk", Look: func(context.Context) error {
				if full {
					return errors.New("the disk is full: free some")
				}
				return nil
			}},
		}
		s := server(t, loopback)
		s.Checks = checks
		if code, body := ask(s, "GET", "/readyz", ""); code != 200 || !strings.Contains(body, `"ready": true`) {
			t.Errorf("%d %s", code, body)
		}
		full = true
		s = server(t, loopback) // whose answer is not from before
		s.Checks = checks
		for token, why := range map[string]bool{"": loopback, "nobody": loopback, "viewer": true} {
			code, body := ask(s, "GET", "/readyz", token)
			if code != 503 || strings.Contains(body, "the disk is full: free some") != why || !strings.Contains(body, `"check": "disk"`) || !strings.Contains(body, "quorum") {
				t.Errorf("on loopback %t, with the token %q: %d %s", loopback, token, code, body)
			}
		}
		if code, _ := ask(s, "GET", "/healthz", ""); code != 200 {
			t.Errorf("a process that is not ready is not dead: %d", code)
		}
	}
}

func TestHoweverOftenIsAskedItIsLookedOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		s := server(t, true)
		s.Checks = []ops.Check{{Name: "quorum", Look: func(context.Context) error { looks++; return nil }}}
		for want := range 3 {
			for range 100 {
				ask(s, "GET", "/readyz", "")
			}
			if looks != want+1 {
				t.Errorf("it was looked %d times in %d s", looks, want+1)
			}
			time.Sleep(time.Second) // of the bubble
		}
	})
}

func TestAnAddressThatNobodyNamedMayBeTaken(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	taken := server(t, true).Listener.Addr().String()
	if listener, err := ops.Listen(taken, true, log); listener != nil || err != nil {
		t.Errorf("%v, %v", listener, err)
	}
	if _, err := ops.Listen(taken, false, log); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "--metrics-listen") {
		t.Error(err)
	}
	if listener, err := ops.Listen(ops.Off, false, log); listener != nil || err != nil {
		t.Errorf("%v, %v", listener, err)
	}
}

func TestItServesUntilItsContextEndsAndNeverInTheClearElsewhere(t *testing.T) {
	s := server(t, true)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	answer, err := http.Get("http://" + s.Listener.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	if string(body) != "ok\n" {
		t.Errorf("%q", body)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	open := server(t, false)
	if err := open.Run(t.Context()); !fault.Is(err, fault.Invalid) {
		t.Errorf("it served without a certificate: %v", err)
	}
	secured := server(t, false)
	secured.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("asked") }}
	ctx, cancel = context.WithCancel(t.Context())
	go func() { ended <- secured.Run(ctx) }()
	conn, err := net.Dial("tcp", secured.Listener.(elsewhere).Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Write([]byte("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"))
	text, _ := io.ReadAll(conn)
	if strings.Contains(string(text), "\nok") {
		t.Errorf("it answered in the clear: %q", text)
	}
	_ = conn.Close()
	cancel()
	<-ended
}

func TestItsEndWaitsForAnswersThatAreUnderWay(t *testing.T) {
	s := server(t, true)
	asked, answered := make(chan struct{}), atomic.Bool{}
	s.Checks = []ops.Check{{Name: "slow", Look: func(ctx context.Context) error {
		close(asked)
		<-ctx.Done()
		time.Sleep(100 * time.Millisecond) // it is slow to notice, and reads what the process closes next
		answered.Store(true)
		return ctx.Err()
	}}}
	ctx, cancel := context.WithCancel(t.Context())
	ended, asking := make(chan error, 1), make(chan struct{})
	go func() { ended <- s.Run(ctx) }()
	go func() {
		defer close(asking)
		if answer, err := http.Get("http://" + s.Listener.Addr().String() + "/readyz"); err == nil {
			_ = answer.Body.Close()
		}
	}()
	<-asked
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) || !answered.Load() {
		t.Errorf("it ended while an answer was under way: %v", err)
	}
	<-asking
}
