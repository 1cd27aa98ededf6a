package annex_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/annex"
	"github.com/clary-ml/clary/serving/async"
	"github.com/clary-ml/clary/serving/capture"
	"github.com/clary-ml/clary/serving/reward"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/serving/router"
	"github.com/clary-ml/clary/serving/shadow"
	"github.com/clary-ml/clary/storage/object"
)

// shelf is an object store in memory.
type shelf struct {
	mu      sync.Mutex
	objects map[string][]byte
}

func (s *shelf) Put(_ context.Context, to object.URI, content io.Reader, _ int64) (object.Info, error) {
	text, err := io.ReadAll(content)
	if err != nil {
		return object.Info{}, fault.New(fault.Unready, "put: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[to.String()] = text
	return object.Info{}, nil
}

func (s *shelf) Open(_ context.Context, from object.URI, _, _ int64) (io.ReadCloser, object.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, has := s.objects[from.String()]
	if !has {
		return nil, object.Info{}, fault.New(fault.NotFound, "there is no %s", from)
	}
	return io.NopCloser(bytes.NewReader(text)), object.Info{Size: int64(len(text))}, nil
}

func (s *shelf) Stat(ctx context.Context, of object.URI) (object.Info, error) {
	_, info, err := s.Open(ctx, of, 0, -1)
	return info, err
}

func (s *shelf) List(_ context.Context, prefix object.URI) (infos []object.Info, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.objects {
		if strings.HasPrefix(name, prefix.String()) {
			u, _ := object.ParseURI(name)
			infos = append(infos, object.Info{URI: u})
		}
	}
	slices.SortFunc(infos, func(a, b object.Info) int { return strings.Compare(a.URI.Key, b.URI.Key) })
	return infos, nil
}

func (s *shelf) Delete(_ context.Context, at object.URI) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, at.String())
	return nil
}

func (s *shelf) get(place string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, has := s.objects[place]
	return string(text), has
}

// world is a router with an annex.
type world struct {
	*annex.Annex
	*router.Router
	base  string
	store *shelf
	end   func() // of both, the router first
}

func start(t *testing.T, table route.Table, change ...func(*annex.Options)) *world {
	t.Helper()
	w := &world{store: &shelf{objects: map[string][]byte{}}}
	o := annex.Options{Store: w.store}
	for _, c := range change {
		c(&o)
	}
	w.Annex = annex.New(o)
	options := router.Options{Loops: 2, Drain: time.Second}
	w.Install(&options)
	var err error
	if w.Router, err = router.New(options); err != nil {
		t.Fatal(err)
	}
	w.Attach(w.Router)
	if err := w.SetTable(table); err != nil {
		t.Fatal(err)
	}
	l, err := router.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.base = "http://" + l.Addr().String()
	routing, endRouter := context.WithCancel(context.Background())
	keeping, endAnnex := context.WithCancel(context.Background())
	routed, kept := make(chan error, 1), make(chan error, 1)
	go func() { routed <- w.Router.Run(routing, l) }()
	go func() { kept <- w.Annex.Run(keeping) }()
	w.end = sync.OnceFunc(func() {
		http.DefaultClient.CloseIdleConnections()
		endRouter()
		if err := <-routed; err != nil {
			t.Error(err)
		}
		endAnnex()
		if err := <-kept; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(w.end)
	return w
}

// replica answers, and hears of every request.
func replica(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, body string)) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path != "/ping" {
			answer(w, r, string(body))
		}
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func says(text string) func(http.ResponseWriter, *http.Request, string) {
	return func(w http.ResponseWriter, _ *http.Request, body string) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, text, body)
	}
}

func fleet(variant string, generation int64, weight float64, address string) route.Fleet {
	return route.Fleet{Variant: variant, Generation: generation, Weight: weight, Replicas: []route.Replica{{ID: variant + "-1", Address: address}}}
}

func (w *world) post(t *testing.T, action, body string, header ...string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), "POST", w.base+"/endpoints/e/"+action, strings.NewReader(body))
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
	return answer, string(text)
}

// until waits for something that is about to be so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came: %s", what)
		}
	}
}

func (w *world) report(variant string) (out route.FleetReport) {
	for _, f := range w.Report().Fleets {
		if f.Variant == variant {
			out = f
		}
	}
	return out
}

func TestAnAnswersIDIsWhatItsRewardIsPostedWith(t *testing.T) {
	at := replica(t, says("%s"))
	w := start(t, route.Table{Endpoints: []route.Endpoint{{Name: "e", Public: true, Fleets: []route.Fleet{fleet("blue", 3, 1, at)}}}})
	answer, _ := w.post(t, "invocations", "x")
	id := answer.Header.Get("X-Clary-Inference-Id")
	if variant, generation, ok := reward.Parse("e", id); !ok || variant != "blue" || generation != 3 {
		t.Fatalf("the answer's id is %q", id)
	}
	if answer, text := w.post(t, "rewards", fmt.Sprintf(`{"inference_id":%q,"reward":0.5}`, id)); answer.StatusCode != 200 || text != `{"accepted":1,"duplicates":0,"stale":0}`+"\n" {
		t.Errorf("%s %s", answer.Status, text)
	}
	if answer, text := w.post(t, "rewards", `[{"inference_id":"mine","reward":2,"variant":"blue"},{"inference_id":"other","reward":2,"variant":"green"}]`); answer.StatusCode != 200 || text != `{"accepted":1,"duplicates":0,"stale":1}`+"\n" {
		t.Errorf("%s %s", answer.Status, text)
	}
	if answer, text := w.post(t, "rewards", `{"inference_id":"mine"}`); answer.StatusCode != 400 || !strings.Contains(text, "reward is missing") {
		t.Errorf("%s %s", answer.Status, text)
	}
	metrics := httptest.NewRecorder()
	w.Metrics().ServeHTTP(metrics, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{`clary_router_rewards_total{endpoint="e",generation="3",variant="blue"} 2`, "clary_router_captured_total 0"} {
		if !strings.Contains(metrics.Body.String(), want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	var want route.Moments
	want.Add(0.5)
	want.Add(2)
	if got := w.report("blue").Rewards; got != want {
		t.Errorf("counted %+v", got)
	}
	if answer, err := http.Get(w.base + "/endpoints/e/rewards"); err != nil || answer.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %v, %v", answer, err)
	}
}

type line struct {
	Capture struct {
		Input  *struct{ ObservedContentType, Data, Encoding string } `json:"endpointInput"`
		Output *struct {
			ObservedContentType, Data, Encoding string
			OmittedBytes                        int64
		} `json:"endpointOutput"`
	} `json:"captureData"`
	Metadata struct {
		EventID, InferenceID string
		CustomAttributes     []string
	} `json:"eventMetadata"`
}

func TestRequestsAndAnswersAreKept(t *testing.T) {
	at := replica(t, func(w http.ResponseWriter, r *http.Request, body string) {
		switch {
		case body == "bad":
			w.WriteHeader(400)
		case body == "stream":
			for i := range 3 {
				fmt.Fprint(w, i)
				_ = http.NewResponseController(w).Flush()
			}
		default:
			w.Header().Set("Content-Type", "text/csv")
			fmt.Fprint(w, strings.Repeat("y", len(body)))
		}
	})
	w := start(t, route.Table{Endpoints: []route.Endpoint{{
		Name: "e", Public: true, Fleets: []route.Fleet{fleet("blue", 3, 1, at)},
		Capture: &route.Capture{Share: 1, To: "s3://clary/kept", Inputs: true, Outputs: true, MaxBody: 1000},
	}}})
	answer, _ := w.post(t, "invocations", "rows", "Content-Type", "text/csv", "X-Amzn-SageMaker-Inference-Id", "order-7", "X-Amzn-SageMaker-Custom-Attributes", "a=b")
	id := answer.Header.Get("X-Clary-Inference-Id")
	w.post(t, "invocations", "bad")
	w.post(t, "invocations", "stream", "Content-Type", "text/plain")
	w.post(t, "invocations", strings.Repeat("x", 1001))
	w.end()
	if got := w.Captured(); got.Kept != 3 || got.Dropped != 0 {
		t.Fatalf("%+v", got)
	}
	var all []line
	for name, text := range w.store.objects {
		if !strings.HasPrefix(name, "s3://clary/kept/e/blue/") {
			t.Errorf("it is in %s", name)
		}
		for one := range strings.Lines(string(text)) {
			var l line
			if err := json.Unmarshal([]byte(one), &l); err != nil {
				t.Fatal(err)
			}
			all = append(all, l)
		}
	}
	if first := all[0]; first.Capture.Input.Data != "rows" || first.Capture.Input.Encoding != "CSV" || first.Capture.Output.Data != "yyyy" ||
		first.Metadata.EventID != id || first.Metadata.InferenceID != "order-7" || fmt.Sprint(first.Metadata.CustomAttributes) != "[a=b]" {
		t.Errorf("%+v", first)
	}
	if second := all[1]; second.Capture.Output.Data != "MDEy" || second.Capture.Output.Encoding != "BASE64" {
		t.Errorf("streamed: %+v", second.Capture.Output)
	}
	if third := all[2]; third.Capture.Output.Data != "" || third.Capture.Output.OmittedBytes != 1001 {
		t.Errorf("too long: %+v", third.Capture.Output)
	}
}

func TestAShareIsKept(t *testing.T) {
	at := replica(t, says("%s"))
	w := start(t, route.Table{Endpoints: []route.Endpoint{{
		Name: "e", Public: true, Fleets: []route.Fleet{fleet("blue", 0, 1, at)}, Capture: &route.Capture{Share: 0.5, To: "s3://clary/kept", Inputs: true},
	}}})
	for range 400 {
		w.post(t, "invocations", "x")
	}
	w.end()
	if n := w.Captured().Kept; n < 130 || n > 270 { // seven standard deviations
		t.Errorf("%d of 400 were kept, of half", n)
	}
}

func TestCopiesGoToTheShadowAndNobodyNotices(t *testing.T) {
	var seen atomic.Int64
	var heard sync.Map
	blue := replica(t, says("%s"))
	green := replica(t, func(w http.ResponseWriter, r *http.Request, body string) {
		seen.Add(1)
		heard.Store(body, r.URL.String()+" "+r.Header.Get("X-Own")+" "+r.Header.Get("Authorization"))
		w.Header().Set("Content-Type", "application/json")
		switch body {
		case "other":
			fmt.Fprint(w, "different")
		case "breaks":
			w.WriteHeader(500)
		default:
			fmt.Fprint(w, body)
		}
	})
	w := start(t, route.Table{Endpoints: []route.Endpoint{{
		Name: "e", Public: true, Shadow: &route.Shadow{Variant: "green", Share: 1},
		Fleets: []route.Fleet{fleet("blue", 1, 1, blue), fleet("green", 1, 0, green)},
		Limits: route.Limits{Rate: 1000, Burst: 6},
	}}})
	for _, body := range []string{"one", "two", "other", "breaks", strings.Repeat("x", 100_000)} {
		answer, text := w.post(t, "invocations", body, "X-Own", "kept")
		if answer.StatusCode != 200 || text != body || answer.Header.Get("X-Amzn-Invoked-Production-Variant") != "blue" {
			t.Errorf("%s %.20s", answer.Status, text)
		}
	}
	until(t, "five copies", func() bool { s := w.report("green").Shadow; return s != nil && s.Requests == 5 })
	s := w.report("green").Shadow
	if s.Same != 3 || s.Errors != 1 || s.Dropped != 0 || s.Latency.N() != 5 || seen.Load() != 5 {
		t.Errorf("%+v, and the shadow saw %d", s, seen.Load())
	}
	if got, _ := heard.Load("one"); got != "/invocations kept " {
		t.Errorf("the copy was %q", got)
	}
	if g := w.report("green"); g.Requests != 0 || g.Errors != 0 || g.Refused != 0 || g.Latency.N() != 0 {
		t.Errorf("copies are in the fleet's own counts: %+v", g)
	}
	until(t, "five are in blue's counts", func() bool { return w.report("blue").Requests == 5 })
	if b := w.report("blue"); b.Shadow != nil {
		t.Errorf("blue: %+v", b)
	}
	// Who asks for the shadow by name is no shadow's.
	if _, text := w.post(t, "invocations", "x", "X-Amzn-SageMaker-Target-Variant", "green"); text != "x" {
		t.Errorf("green says %q", text)
	}
	until(t, "it is in green's counts", func() bool { return w.report("green").Requests == 1 })
	if s := w.report("green").Shadow; s.Requests != 5 || s.Dropped != 0 {
		t.Errorf("who asked for the shadow was copied: %+v", s)
	}
}

func TestAShadowThatHangsHarmsNobody(t *testing.T) {
	release := make(chan struct{})
	blue := replica(t, says("%s"))
	green := replica(t, func(http.ResponseWriter, *http.Request, string) { <-release })
	defer close(release)
	w := start(t, route.Table{Endpoints: []route.Endpoint{{
		Name: "e", Public: true, Shadow: &route.Shadow{Variant: "green", Share: 1}, Limits: route.Limits{Queue: 1, Concurrency: 2},
		Fleets: []route.Fleet{fleet("blue", 1, 1, blue), fleet("green", 1, 0, green)},
	}}}, func(o *annex.Options) { o.Shadow = shadow.Options{Concurrency: 8} })
	for range 50 {
		if answer, text := w.post(t, "invocations", "x"); answer.StatusCode != 200 || text != "x" {
			t.Fatalf("%s %s", answer.Status, text)
		}
	}
	until(t, "copies are left out", func() bool { s := w.report("green").Shadow; return s != nil && s.Dropped > 0 })
}

func secret(role string) (string, route.Token) {
	text := "clary_u_0123456789abcdef_" + strings.Repeat("s", 43)
	sum := sha256.Sum256([]byte(text))
	return text, route.Token{ID: "0123456789abcdef", Hash: sum[:], Name: "ann", Role: role}
}

func TestRequestsLeftInTheStoreAreAnsweredThere(t *testing.T) {
	var asked atomic.Int64
	at := replica(t, func(w http.ResponseWriter, r *http.Request, body string) {
		if asked.Add(1) == 1 {
			w.WriteHeader(503)
			return
		}
		fmt.Fprint(w, strings.ToUpper(body), " ", r.Header.Get("Content-Type"), " ", r.Header.Get("X-Amzn-SageMaker-Custom-Attributes"))
	})
	_, token := secret("user")
	// The endpoint is not public: the worker shows no token and is let in.
	w := start(t, route.Table{Tokens: []route.Token{token}, Endpoints: []route.Endpoint{
		{Name: "open", Public: true, Fleets: []route.Fleet{fleet("blue", 1, 1, at)}},
		{
			Name: "e", Public: false, Fleets: []route.Fleet{fleet("blue", 1, 1, at)}, Limits: route.Limits{Timeout: time.Second},
			Async: &route.Async{To: "s3://clary/answers"},
		},
	}})
	if answer, _ := w.post(t, "async-invocations", "rows"); answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a token: %s", answer.Status)
	}
	table := route.Table{Version: 2, Endpoints: []route.Endpoint{{
		Name: "e", Public: true, Fleets: []route.Fleet{fleet("blue", 1, 1, at)}, Async: &route.Async{To: "s3://clary/answers"},
	}, {Name: "private", Fleets: []route.Fleet{fleet("blue", 1, 1, at)}, Async: &route.Async{To: "s3://clary/answers"}}}}
	if err := w.SetTable(table); err != nil {
		t.Fatal(err)
	}
	answer, text := w.post(t, "async-invocations", "rows", "Content-Type", "text/csv", "X-Amzn-SageMaker-Custom-Attributes", "a=b")
	if answer.StatusCode != http.StatusAccepted {
		t.Fatalf("%s %s", answer.Status, text)
	}
	receipt, err := async.Submit(t.Context(), w.store, async.Submission{
		Endpoint: "private", Async: *table.Endpoints[1].Async, Header: http.Header{}, Body: strings.NewReader("private"), Size: 7,
	})
	if err != nil {
		t.Fatal(err)
	}
	if answer, text := w.post(t, "async-invocations", "", async.HeaderInput, "s3://clary/secret"); answer.StatusCode != http.StatusForbidden || !strings.Contains(text, "may only ask endpoints") {
		t.Errorf("anybody names an object: %s %s", answer.Status, text)
	}
	if n, known := w.Backlog("private"); known {
		t.Errorf("a router that does not work on them knows of %d that wait", n)
	}
	working, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- w.Worker(async.Options{Poll: 10 * time.Millisecond}).Run(working, func() []async.Endpoint { return annex.AsyncEndpoints(table) })
	}()
	for place, want := range map[string]string{answer.Header.Get("X-Amzn-SageMaker-OutputLocation"): "ROWS text/csv a=b", receipt.Output: "PRIVATE  "} {
		until(t, want, func() bool { _, has := w.store.get(place); return has })
		if got, _ := w.store.get(place); got != want {
			t.Errorf("%s has %q, want %q", place, got, want)
		}
	}
	until(t, "the inboxes are empty", func() bool {
		l, _ := w.store.List(t.Context(), object.URI{Bucket: "clary", Key: "endpoints/"})
		return len(l) == 0
	})
	until(t, "the backlog is 0", func() bool { n, known := w.Backlog("private"); return known && n == 0 })
	until(t, "it is in the metrics", func() bool {
		metrics := httptest.NewRecorder()
		w.Metrics().ServeHTTP(metrics, httptest.NewRequest("GET", "/metrics", nil))
		return strings.Contains(metrics.Body.String(), `clary_router_async_backlog{endpoint="private"} 0`)
	})
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWhatAnEndpointDoesNotHaveIsTold(t *testing.T) {
	at := replica(t, says("%s"))
	table := route.Table{Endpoints: []route.Endpoint{{Name: "e", Public: true, Fleets: []route.Fleet{fleet("blue", 1, 1, at)}}}}
	w := start(t, table, func(o *annex.Options) { o.Store = nil })
	if answer, text := w.post(t, "async-invocations", "x"); answer.StatusCode != 404 || !strings.Contains(text, "give its spec async.to") {
		t.Errorf("%s %s", answer.Status, text)
	}
	table.Endpoints[0].Async = &route.Async{To: "s3://clary/a"}
	table.Endpoints[0].Capture = &route.Capture{Share: 1, To: "s3://clary/a", Inputs: true}
	if err := w.SetTable(table); err != nil {
		t.Fatal(err)
	}
	if answer, text := w.post(t, "async-invocations", "x"); answer.StatusCode != 503 || !strings.Contains(text, "has no object store") {
		t.Errorf("%s %s", answer.Status, text)
	}
	if answer, _ := w.post(t, "invocations", "x"); answer.StatusCode != 200 || w.Captured() != (capture.Stats{}) {
		t.Errorf("%s, %+v", answer.Status, w.Captured())
	}
}

func TestAShadowThatIsTakenAwayHarmsNoRequestThatWaits(t *testing.T) {
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	slow := replica(t, func(http.ResponseWriter, *http.Request, string) { <-release })
	defer free()
	endpoint := route.Endpoint{
		Name: "e", Public: true, Shadow: &route.Shadow{Variant: "green", Share: 1}, Limits: route.Limits{Concurrency: 1},
		Fleets: []route.Fleet{fleet("blue", 1, 1, slow), fleet("green", 1, 0, replica(t, says("%s")))},
	}
	w := start(t, route.Table{Endpoints: []route.Endpoint{endpoint}})
	answers := make(chan string, 2)
	for range 2 { // one is at the replica, the other waits
		go func() {
			answer, err := http.Post(w.base+"/endpoints/e/invocations", "text/plain", strings.NewReader("x"))
			if err != nil {
				answers <- err.Error()
				return
			}
			_ = answer.Body.Close()
			answers <- answer.Status
		}()
	}
	until(t, "one waits", func() bool { return w.report("blue").Waiting == 1 })
	endpoint.Shadow, endpoint.Fleets = nil, []route.Fleet{fleet("blue", 2, 1, replica(t, says("%s")))}
	if err := w.SetTable(route.Table{Endpoints: []route.Endpoint{endpoint}}); err != nil {
		t.Fatal(err)
	}
	free()
	for range 2 {
		if got := <-answers; got != "200 OK" {
			t.Errorf("it is answered %s", got)
		}
	}
}
