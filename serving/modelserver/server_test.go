package modelserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/serving/modelserver"
	"github.com/clary-ml/clary/serving/modelserver/native"
	"github.com/clary-ml/clary/serving/modelserver/tensor"
	"github.com/clary-ml/clary/trainer/checkpoint"
	"github.com/clary-ml/clary/trainer/network"
	"github.com/clary-ml/clary/trainer/prepare"
	"github.com/clary-ml/clary/trainer/spec"
	"github.com/clary-ml/clary/trainer/table"
)

// crossing says left where the first number is the greater, else right.
func crossing(t testing.TB) *native.Engine {
	return save(t, checkpoint.Manifest{
		Network: spec.Network{Input: []int{2}, Layers: []spec.Layer{{Dense: &spec.Dense{Units: 2}}}, Loss: spec.CrossEntropy},
		Data:    spec.Data{Format: spec.FormatCSV, Scale: 2, Classes: []string{"left", "right"}},
	}, 1, 0, 0, 1, 0, 0)
}

// spending is 2 age + 10 if the city is Rome; a missing age counts as 40.
func spending(t testing.TB) *native.Engine {
	learned := &prepare.Transform{
		Version: "clary-transform/1", Label: "spent", Missing: []string{"?"},
		Input:  []table.Field{{Name: "age", Kind: table.Number}, {Name: "city", Kind: table.Text}},
		Steps:  []prepare.Learned{{Fill: &prepare.LearnedFill{Numbers: map[string]float64{"age": 40}}}, {OneHot: []prepare.LearnedOneHot{{Column: "city", Values: []string{"Rome"}}}}},
		Output: []string{"age", "city=Rome"},
	}
	return save(t, checkpoint.Manifest{
		Network:   spec.Network{Input: []int{2}, Layers: []spec.Layer{{Dense: &spec.Dense{Units: 1}}}, Loss: spec.MeanSquaredError},
		Data:      spec.Data{Format: spec.FormatCSV},
		Transform: &checkpoint.Transformed{Transform: learned},
	}, 2, 10, 0)
}

func save(t testing.TB, m checkpoint.Manifest, weights ...float32) *native.Engine {
	t.Helper()
	dir := t.TempDir()
	if err := checkpoint.SaveModel(dir, m, weights); err != nil {
		t.Fatal(err)
	}
	e, err := native.Open(dir, network.Gonum())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// serve runs a server until the test ends, and returns where. stop ends it before.
func serve(t testing.TB, o modelserver.Options) (address string, stop func() error) {
	t.Helper()
	s, err := modelserver.New(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), stop
}

type reply struct {
	code   int
	header http.Header
	body   string
}

func post(t testing.TB, url, contentType, accept, body string) reply {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	if accept != "" {
		request.Header.Set("Accept", accept)
	}
	return do(t, request)
}

func get(t testing.TB, url string) reply {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, request)
}

func do(t testing.TB, request *http.Request) reply {
	t.Helper()
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Error(err)
		return reply{}
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Error(err)
	}
	return reply{answer.StatusCode, answer.Header, string(body)}
}

func TestInvocationsTakeAndGiveEveryForm(t *testing.T) {
	at, _ := serve(t, modelserver.Options{Engine: crossing(t)})
	const csv, jsonText = "text/csv", "application/json"
	object := `{"label":"left","probabilities":[0.7310586,0.26894143]}`
	for _, c := range []struct{ contentType, accept, body, want string }{
		{csv, "", "4,2\n", "left,0.7310586,0.26894143\n"},
		{csv, jsonText, "4,2\n", `{"predictions":[` + object + "]}\n"},
		{jsonText, "", `{"instances":[[4,2]]}`, `{"predictions":[` + object + "]}\n"},
		{jsonText, csv, `[4,2]`, "left,0.7310586,0.26894143\n"},
		{"application/jsonlines", "", "[4,2]\n{\"features\":[4,2]}", object + "\n" + object + "\n"},
	} {
		got := post(t, "http://"+at+"/invocations", c.contentType, c.accept, c.body)
		if got.code != 200 || got.body != c.want {
			t.Errorf("%s to %q: %d %s", c.contentType, c.accept, got.code, got.body)
		}
	}
	if got := get(t, "http://"+at+"/ping"); got.code != 200 || got.body != "" {
		t.Errorf("/ping: %d %q", got.code, got.body)
	}
}

func TestRawRowsGoThroughTheTransform(t *testing.T) {
	at, _ := serve(t, modelserver.Options{Engine: spending(t)})
	for body, want := range map[string]string{
		"30,Rome\n":            "70\n",
		"city,age\nRome,30\n":  "70\n",
		"?,Oslo\n,\n":          "80\n80\n",
		"1,\"Rome\"\n2,Rome\n": "12\n14\n",
	} {
		if got := post(t, "http://"+at+"/invocations", "text/csv", "", body); got.code != 200 || got.body != want {
			t.Errorf("%q: %d %s", body, got.code, got.body)
		}
	}
	got := post(t, "http://"+at+"/invocations", "application/json", "", `[{"city":"Rome"},{"age":1,"city":"?"}]`)
	if got.code != 200 || got.body != `{"predictions":[{"value":90},{"value":2}]}`+"\n" {
		t.Errorf("objects: %d %s", got.code, got.body)
	}
}

func TestWrongRequestsAreTold(t *testing.T) {
	at, _ := serve(t, modelserver.Options{Engine: crossing(t), MaxPayload: 100})
	for _, c := range []struct {
		contentType, accept, body string
		code                      int
		says                      string
	}{
		{"text/csv", "", "1\n", 400, "line 1"},
		{"text/csv", "", "1,2\n3,x\n", 400, `line 2: \"input\": \"x\" is not a finite number`},
		{"text/csv", "", strings.Repeat("1,2\n", 26), 413, "more than 100 bytes: send fewer rows"},
		{"image/png", "", "1,2\n", 415, "give text/csv"},
		{"text/csv", "image/png", "1,2\n", 406, "give text/csv"},
		{"application/json", "", `{"instances":[[1,2],[1,2,3]]}`, 400, "row 2"},
	} {
		got := post(t, "http://"+at+"/invocations", c.contentType, c.accept, c.body)
		var said struct{ Error string }
		if got.code != c.code || json.Unmarshal([]byte(got.body), &said) != nil || !strings.Contains(got.body, c.says) {
			t.Errorf("%.20q: %d %s; want %d %s", c.body, got.code, got.body, c.code, c.says)
		}
	}
	// A body that does not say how long it is.
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+at+"/invocations", io.MultiReader(strings.NewReader(strings.Repeat("1,2\n", 1000))))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "text/csv")
	if got := do(t, request); got.code != 413 {
		t.Errorf("an endless body: %d %s", got.code, got.body)
	}
	if got := get(t, "http://"+at+"/invocations"); got.code != 405 {
		t.Errorf("GET: %d", got.code)
	}
	zipped, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+at+"/invocations", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	zipped.Header.Set("Content-Encoding", "gzip")
	if got := do(t, zipped); got.code != 415 {
		t.Errorf("gzip: %d %s", got.code, got.body)
	}
}

// gated answers once it is let.
type gated struct {
	entered chan int      // gets the number of requests of each run
	let     chan struct{} // lets one run go on
}

func newGated() *gated {
	return &gated{entered: make(chan int, 100), let: make(chan struct{}, 100)}
}

func (g *gated) Signature() tensor.Signature {
	return tensor.Signature{
		Platform: "gated", Inputs: []tensor.Port{{Name: "x", Type: tensor.Float32, Shape: []int64{-1, 1}}},
		Outputs: []tensor.Port{{Name: "y", Type: tensor.Float32, Shape: []int64{-1, 1}}},
	}
}

func (g *gated) Run(ctx context.Context, requests [][]tensor.Tensor) []tensor.Answer {
	g.entered <- len(requests)
	answers := make([]tensor.Answer, len(requests))
	select {
	case <-g.let:
	case <-ctx.Done():
		for i := range answers {
			answers[i].Err = context.Cause(ctx)
		}
		return answers
	}
	for i, r := range requests {
		r[0].Name = "y"
		answers[i].Tensors = r
	}
	return answers
}

func TestMoreThanTheServerTakesIsRefusedWithARemedy(t *testing.T) {
	g := newGated()
	at, _ := serve(t, modelserver.Options{Engine: g, MaxRequests: 2, Lanes: 1})
	answers := make(chan reply, 2)
	for range 2 {
		go func() { answers <- post(t, "http://"+at+"/invocations", "text/csv", "", "1\n") }()
	}
	<-g.entered
	for !strings.Contains(get(t, "http://"+at+"/metrics").body, "clary_requests_in_flight 2") {
		time.Sleep(time.Millisecond)
	}
	got := post(t, "http://"+at+"/invocations", "text/csv", "", "1\n")
	if got.code != 429 || got.header.Get("Retry-After") == "" || !strings.Contains(got.body, "more replicas") {
		t.Errorf("the third: %d %v %s", got.code, got.header, got.body)
	}
	g.let <- struct{}{}
	g.let <- struct{}{}
	for range 2 {
		if got := <-answers; got.code != 200 || got.body != "1\n" {
			t.Errorf("%d %s", got.code, got.body)
		}
	}
	// A request is counted once its answer is on the way.
	for _, line := range []string{`clary_requests_total{code="429",endpoint="invocations"} 1`, `clary_requests_total{code="200",endpoint="invocations"} 2`, "clary_rows_total 2"} {
		for !strings.Contains(get(t, "http://"+at+"/metrics").body, line+"\n") {
			if t.Context().Err() != nil {
				t.Fatalf("%s is not among the metrics", line)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

func TestAModelThatTakesTooLongIsNotWaitedFor(t *testing.T) {
	g := newGated()
	at, _ := serve(t, modelserver.Options{Engine: g, Timeout: 50 * time.Millisecond})
	if got := post(t, "http://"+at+"/invocations", "text/csv", "", "1\n"); got.code != 504 || !strings.Contains(got.body, "no answer within 50ms") {
		t.Errorf("%d %s", got.code, got.body)
	}
}

// Told to end, the server answers what it has begun, says that it is not ready, and is gone.
func TestTheEndIsGraceful(t *testing.T) {
	g := newGated()
	at, stop := serve(t, modelserver.Options{Engine: g, Lanes: 1})
	answers := make(chan reply, 1)
	go func() { answers <- post(t, "http://"+at+"/invocations", "text/csv", "", "1\n") }()
	<-g.entered
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for { // until nobody is let in any more
		c, err := net.Dial("tcp", at)
		if err != nil {
			break
		}
		_ = c.Close()
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-stopped:
		t.Fatalf("it ended with a request under way: %v", err)
	default:
	}
	g.let <- struct{}{}
	if got := <-answers; got.code != 200 || got.body != "1\n" {
		t.Errorf("the request under way: %d %s", got.code, got.body)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestADrainThatTakesTooLongIsCutOff(t *testing.T) {
	g := newGated()
	at, stop := serve(t, modelserver.Options{Engine: g, Lanes: 1, Drain: 20 * time.Millisecond})
	answers := make(chan error, 1)
	go func() {
		answer, err := http.Post("http://"+at+"/invocations", "text/csv", strings.NewReader("1\n"))
		if err == nil {
			_ = answer.Body.Close()
		}
		answers <- err
	}()
	<-g.entered
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := <-answers; err == nil {
		t.Error("the request that hung was answered")
	}
}

// Many clients at once get what each asked for.
func TestAnswersGoToWhoAsked(t *testing.T) {
	at, _ := serve(t, modelserver.Options{Engine: spending(t), MaxBatch: 8, MaxDelay: time.Millisecond})
	done := make(chan string, 16)
	for client := range 16 {
		go func() {
			for i := range 30 {
				age := client*100 + i
				var buffer bytes.Buffer
				want := ""
				for row := range i%3 + 1 {
					fmt.Fprintf(&buffer, "%d,Rome\n", age+row)
					want += fmt.Sprintf("%d\n", 2*(age+row)+10)
				}
				if got := post(t, "http://"+at+"/invocations", "text/csv", "", buffer.String()); got.body != want {
					done <- fmt.Sprintf("client %d asked %q and got %d %q", client, buffer.String(), got.code, got.body)
					return
				}
			}
			done <- ""
		}()
	}
	for range 16 {
		if wrong := <-done; wrong != "" {
			t.Error(wrong)
		}
	}
}

func TestBoundsThatCannotBeAreRefused(t *testing.T) {
	if _, err := modelserver.New(modelserver.Options{Engine: newGated(), MaxBatch: -1}); err == nil {
		t.Error("a negative batch is taken")
	}
}
