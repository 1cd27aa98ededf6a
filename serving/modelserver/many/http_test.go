package many_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/serving/modelserver/many"
)

// serve runs a set behind a listener until the test ends.
func serve(t *testing.T, s *stage, o many.Options) (base string) {
	t.Helper()
	o.Folder, o.Unpack, o.Open = s.folder, s.unpack, s.openModel
	set, err := many.New(o)
	if err != nil {
		t.Fatal(err)
	}
	base = listen(t, set)
	t.Cleanup(func() { // before listen's, which ends it
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open == 0 {
			t.Error("no model is open at the end: nothing was asked")
		}
	})
	return base
}

// listen runs a set until the test ends.
func listen(t *testing.T, set *many.Set) (base string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- set.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

func do(t *testing.T, method, url, body string, header ...string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, strings.TrimSpace(string(text))
}

func TestTheContractOfManyModels(t *testing.T) {
	s := newStage(t)
	for _, name := range []string{"a", "b", "c"} {
		s.write(t, name+".tar.gz", name, time.Now())
	}
	s.write(t, "bad.tar.gz", "broken", time.Now())
	s.write(t, "huge.tar.gz", strings.Repeat("x", 3000), time.Now())
	base := serve(t, s, many.Options{MaxPayload: 100, MaxBytes: 2000})
	at := func(name string) string { return filepath.Join(s.folder, name) }
	for _, c := range []struct {
		what, path, body string
		header           string
		code             int
		says             string
	}{
		{"GET", "/ping", "", "", 200, ""},
		{"POST", "/invocations", "x", "a", 200, "/invocations a x"},
		{"POST", "/invocations", "x", "b.tar.gz", 200, "/invocations b x"},
		{"POST", "/invocations", "x", "", 400, "X-Amzn-SageMaker-Target-Model"},
		{"POST", "/invocations", "x", "../a", 400, "is no name of a model"},
		{"POST", "/invocations", "x", "d", 404, "there is no model"},
		{"POST", "/invocations", "x", "bad", 424, "its weights are missing"},
		{"POST", "/invocations", "x", "bad", 424, "its weights are missing"},
		{"POST", "/invocations", "x", "huge", 424, "it is no archive"},
		{"POST", "/invocations", strings.Repeat("x", 101), "a", 413, "more than 100 bytes"},
		{"GET", "/models", "", "", 200, fmt.Sprintf(`{"models":[{"modelName":"a","modelUrl":%q},{"modelName":"b.tar.gz","modelUrl":%q}]}`, at("a.tar.gz"), at("b.tar.gz"))},
		{"GET", "/models?limit=1", "", "", 200, `"nextPageToken":"a"`},
		{"GET", "/models?limit=1&next_page_token=a", "", "", 200, fmt.Sprintf(`{"models":[{"modelName":"b.tar.gz","modelUrl":%q}]}`, at("b.tar.gz"))},
		{"GET", "/models?limit=0", "", "", 400, "give 1 to 1000"},
		{"GET", "/models/a", "", "", 200, fmt.Sprintf(`{"modelName":"a","modelUrl":%q}`, at("a.tar.gz"))},
		{"GET", "/models/c", "", "", 404, "is not loaded"},
		{"POST", "/models", `{"model_name":"a"}`, "", 409, "is loaded already"},
		{"POST", "/models", `{"model_name":"f00d","url":"` + at("c.tar.gz") + `"}`, "", 200, "is loaded"},
		{"POST", "/models", `{"model_name":"e","url":"/etc/passwd"}`, "", 400, "must be below"},
		{"POST", "/models", `{"model_name":"e","url":"../a"}`, "", 400, "is no name of a model"},
		{"POST", "/models", `{"model_name":"e/f"}`, "", 400, "without slashes"},
		{"POST", "/models", `{"model_name":"e","url":"d"}`, "", 404, "there is no model"},
		{"POST", "/models", `{"model_name":"e","url":"bad"}`, "", 424, "its weights are missing"},
		{"POST", "/models", `{`, "", 400, "the body must be"},
		{"POST", "/models/f00d/invoke", "x", "", 200, "/invocations c x"},
		{"POST", "/models/c/invoke", "x", "", 404, "is not loaded"},
		{"POST", "/v2/models/a/infer", "x", "", 200, "/v2/models/inner/infer a x"},
		{"POST", "/v2/models/a/versions/1/infer", "x", "", 200, "/v2/models/inner/versions/1/infer a x"},
		{"GET", "/v2/models/a", "", "", 200, "/v2/models/inner a"},
		{"DELETE", "/models/f00d", "", "", 200, "is unloaded"},
		{"DELETE", "/models/f00d", "", "", 404, "is not loaded"},
		{"POST", "/models/f00d/invoke", "x", "", 404, "is not loaded"},
		{"GET", "/metrics", "", "", 200, "clary_models_loaded 2"},
		{"GET", "/metrics", "", "", 200, `clary_models_loads_total{outcome="failed"} 3`},
		{"GET", "/metrics", "", "", 200, `clary_requests_total{code="424",endpoint="invocations"} 3`},
	} {
		if code, text := do(t, c.what, base+c.path, c.body, many.HeaderModel, c.header); code != c.code || !strings.Contains(text, c.says) {
			t.Errorf("%s %s for %q: %d %s; want %d %s", c.what, c.path, c.header, code, text, c.code, c.says)
		}
	}
}

func TestMoreRequestsThanTheBoundAreRefused(t *testing.T) {
	s := newStage(t)
	s.write(t, "a", "a", time.Now())
	entered, leave := make(chan struct{}), make(chan struct{})
	set, err := many.New(many.Options{Folder: s.folder, MaxRequests: 1, Open: func(context.Context, string, string) (many.Model, error) {
		return many.Model{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				close(entered)
				<-leave
			}),
			Run: func(ctx context.Context) error { <-ctx.Done(); return nil }, Close: func() error { return nil },
		}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	base := listen(t, set)
	first := make(chan int, 1)
	go func() {
		code, _ := do(t, "POST", base+"/invocations", "", many.HeaderModel, "a")
		first <- code
	}()
	<-entered
	if code, text := do(t, "POST", base+"/invocations", "", many.HeaderModel, "a"); code != http.StatusTooManyRequests || !strings.Contains(text, "1 requests are worked on") {
		t.Errorf("the second: %d %s", code, text)
	}
	close(leave)
	if code := <-first; code != http.StatusOK {
		t.Errorf("the first: %d", code)
	}
}
