package batch_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/batch"
	"github.com/clary-ml/clary/serving/batch/record"
)

func dial(t *testing.T, handler http.HandlerFunc) *batch.HTTPServer {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return dialAt(t, server.URL)
}

func dialAt(t *testing.T, address string) *batch.HTTPServer {
	t.Helper()
	s := &batch.HTTPServer{Base: address, Timeout: 10 * time.Second, ContentType: csvType, Accept: linesType}
	s.Dial(4)
	t.Cleanup(s.Close)
	return s
}

func TestAServerIsAwaited(t *testing.T) {
	var asked atomic.Int64
	s := dial(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ping" || asked.Add(1) < 3 {
			http.Error(w, "loading", http.StatusServiceUnavailable)
		}
	})
	if err := s.AwaitHealthy(t.Context(), time.Minute); err != nil || asked.Load() != 3 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
}

func TestAServerThatNeverBecomesHealthyIsNamed(t *testing.T) {
	loading := dial(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no model", http.StatusInternalServerError)
	})
	err := loading.AwaitHealthy(t.Context(), 300*time.Millisecond)
	if !fault.Is(err, fault.Unready) || !strings.Contains(err.Error(), "within 300ms") || !strings.Contains(err.Error(), `500 Internal Server Error: "no model"`) {
		t.Errorf("%v", err)
	}
	// The first answer comes after the time is over, and is told all the same.
	within := make(chan struct{})
	slow := dial(t, func(w http.ResponseWriter, _ *http.Request) {
		<-within
		http.Error(w, "no model", http.StatusInternalServerError)
	})
	time.AfterFunc(20*time.Millisecond, func() { close(within) })
	if err := slow.AwaitHealthy(t.Context(), time.Nanosecond); !fault.Is(err, fault.Unready) || !strings.Contains(err.Error(), "no model") {
		t.Errorf("%v", err)
	}
}

// In a bubble no time passes while it is asked, however busy the machine is.
func TestAServerThatIsNotThereIsNamed(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := "http://" + listener.Addr().String()
	_ = listener.Close()
	synctest.Test(t, func(t *testing.T) {
		err := dialAt(t, address).AwaitHealthy(t.Context(), 100*time.Millisecond)
		if !fault.Is(err, fault.Unready) || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%v", err)
		}
	})
}

func TestAServerSaysItsLimits(t *testing.T) {
	for _, test := range []struct {
		code    int
		answer  string
		want    batch.Limits
		problem string
	}{
		{200, `{"MaxConcurrentTransforms": 8, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 2}`, batch.Limits{Concurrent: 8, Strategy: batch.Multi, Payload: 2 << 20}, ""},
		{200, `{"BatchStrategy": "SingleRecord"}`, batch.Limits{Strategy: batch.Single}, ""},
		{404, `not found`, batch.Limits{}, ""},
		{200, ``, batch.Limits{}, ""},
		{200, `<html>`, batch.Limits{}, `what is not its JSON: "<html>"`},
		{200, `{"MaxConcurrentTransforms": "many"}`, batch.Limits{}, "what is not its JSON"},
		{200, `{"MaxConcurrentTransforms": -3}`, batch.Limits{}, "-3 is out of range"},
		{200, `{"MaxPayloadInMB": 9223372036854775807}`, batch.Limits{}, "out of range"},
		{200, `{"BatchStrategy": "ALL"}`, batch.Limits{}, `"ALL" is unknown`},
	} {
		s := dial(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || r.URL.Path != "/execution-parameters" {
				t.Errorf("%s %s", r.Method, r.URL.Path)
			}
			w.WriteHeader(test.code)
			fmt.Fprint(w, test.answer) //nolint:errcheck // of a test's server
		})
		got, err := s.Limits(t.Context())
		if test.problem == "" && (err != nil || got != test.want) || test.problem != "" && (err == nil || !strings.Contains(err.Error(), test.problem)) {
			t.Errorf("%d %s: %+v, %v", test.code, test.answer, got, err)
		}
	}
}

func TestWhatIsOfTheMomentIsTriedAgain(t *testing.T) {
	for _, test := range []struct {
		claim   string
		fault   func(w http.ResponseWriter) // nil hangs until it is given up
		retries int
		asked   int64
		kind    fault.Kind
		want    string // "" is success
	}{
		{"busy, then not", func(w http.ResponseWriter) { w.WriteHeader(http.StatusTooManyRequests) }, 2, 3, 0, ""},
		{"broken once too often", func(w http.ResponseWriter) { http.Error(w, "oops", 500) }, 1, 2, fault.Invalid, `500 Internal Server Error: "oops"; it was tried 2 times`},
		{"a refusal", func(w http.ResponseWriter) { http.Error(w, "bad row", 400) }, 5, 1, fault.Invalid, `400 Bad Request: "bad row"`},
		{"elsewhere", func(w http.ResponseWriter) { w.Header().Set("Location", "/"); w.WriteHeader(302) }, 5, 1, fault.Invalid, "302 Found"},
		{"no HTTP", hijacked("garbage\r\n\r\n"), 1, 2, fault.Internal, "malformed HTTP"},
		{"a cut answer", hijacked("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"), 1, 2, fault.Invalid, "unexpected EOF, from a server that is healthy; it was tried 2 times"},
		{"an endless answer", func(w http.ResponseWriter) { _, _ = w.Write(make([]byte, 2000)) }, 5, 1, fault.Invalid, "more than 1000 bytes"},
		{"it hangs", nil, 1, 0, fault.Internal, "did not answer within 100ms; it was tried 2 times"},
	} {
		t.Run(test.claim, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			s := dial(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if r.URL.Path == "/ping" {
					return
				}
				if r.Method != http.MethodPost || r.URL.Path != "/invocations" || string(body) != "rows" || r.Header.Get("Content-Type") != csvType || r.Header.Get("Accept") != linesType {
					t.Errorf("%s %s %q %v", r.Method, r.URL.Path, body, r.Header)
				}
				switch {
				case test.fault == nil:
					<-r.Context().Done()
				case asked.Add(1) <= 2:
					test.fault(w)
				default:
					_, _ = w.Write([]byte("fine"))
				}
			})
			s.Retries, s.MaxAnswer = test.retries, 1000
			if test.fault == nil {
				s.Timeout = 100 * time.Millisecond
			}
			answer, err := s.Invoke(t.Context(), []byte("rows"))
			switch {
			case test.want == "" && (err != nil || string(answer) != "fine"):
				t.Errorf("%q, %v", answer, err)
			case test.want != "" && (!fault.Is(err, test.kind) || !strings.Contains(err.Error(), test.want)):
				t.Errorf("%v, want %q", err, test.want)
			}
			if test.asked > 0 && asked.Load() != test.asked { // what hangs may not even have read it
				t.Errorf("asked %d times, want %d", asked.Load(), test.asked)
			}
		})
	}
}

// hijacked writes raw bytes and hangs up.
func hijacked(text string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_, _ = conn.Write([]byte(text))
			_ = conn.Close()
		}
	}
}

func TestAServerThatIsGoneIsNotTakenForOneThatRefuses(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { hijacked("")(w) })) // its ping too
	t.Cleanup(server.Close)
	if _, err := dialAt(t, server.URL).Invoke(t.Context(), []byte("rows")); !fault.Is(err, fault.Unready) || !strings.Contains(err.Error(), "EOF; it was tried 1 times") {
		t.Errorf("%v", err)
	}
}

func TestTransformsThroughAServerThatStumbles(t *testing.T) {
	f := newFolders(t, map[string]string{"a": numbered(300, "a"), "b": numbered(300, "b")})
	var asked atomic.Int64
	s := dial(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch asked.Add(1) % 5 {
		case 0:
			http.Error(w, "busy", http.StatusServiceUnavailable)
		case 1:
			hijacked("")(w)
		default:
			_, _ = w.Write([]byte(strings.ToUpper(string(body))))
		}
	})
	s.Retries = 10
	summary, err := batch.Run(t.Context(), f.options(s, batch.Shape{Split: record.Line}, batch.Limits{Concurrent: 4, Payload: 100}))
	if err != nil || len(summary.Failed) > 0 {
		t.Fatalf("%+v, %v", summary.Failed, err)
	}
	if got := f.outputs(t); got["a.out"] != strings.ToUpper(numbered(300, "a")) || got["b.out"] != strings.ToUpper(numbered(300, "b")) {
		t.Errorf("%d and %d bytes", len(got["a.out"]), len(got["b.out"]))
	}
}
