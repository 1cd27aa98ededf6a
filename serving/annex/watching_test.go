package annex_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/clary-ml/clary/serving/annex"
	"github.com/clary-ml/clary/serving/async"
	"github.com/clary-ml/clary/serving/reward"
	"github.com/clary-ml/clary/serving/route"
)

// What goes by at once and is kept has one bound; the answers themselves know nothing of it.
func TestBodiesThatPassAtOnceHaveOneBound(t *testing.T) {
	const size, requests = 1000, 10
	var inside sync.WaitGroup
	inside.Add(requests)
	blue := replica(t, func(w http.ResponseWriter, _ *http.Request, body string) {
		if len(body) == size {
			inside.Done()
			inside.Wait() // all of them are on their way
		}
		fmt.Fprint(w, len(body))
	})
	green := replica(t, says("%s"))
	w := start(t, route.Table{Endpoints: []route.Endpoint{{
		Name: "e", Public: true, Shadow: &route.Shadow{Variant: "green", Share: 1},
		Fleets: []route.Fleet{fleet("blue", 1, 1, blue), fleet("green", 1, 0, green)}, Limits: route.Limits{Concurrency: requests},
	}}}, func(o *annex.Options) { o.MaxPassing = 4*size + size/2 })
	var wait sync.WaitGroup
	for range requests {
		wait.Go(func() {
			if answer, text := w.post(t, "invocations", strings.Repeat("x", size)); answer.StatusCode != 200 || text != fmt.Sprint(size) {
				t.Errorf("%s %s", answer.Status, text)
			}
		})
	}
	wait.Wait()
	until(t, "all were copied or dropped", func() bool {
		s := w.report("green").Shadow
		return s != nil && s.Requests+s.Dropped == requests
	})
	if s := w.report("green").Shadow; s.Requests != 4 {
		t.Errorf("%d were copied where there is room for 4", s.Requests)
	}
	w.post(t, "invocations", strings.Repeat("x", 2*size))
	until(t, "the room is there again", func() bool { return w.report("green").Shadow.Requests == 5 })
}

// limits.body is of what clients send; an object that an asynchronous request names may be larger.
func TestAnAsynchronousInputMayBeLargerThanABody(t *testing.T) {
	at := replica(t, says("%s"))
	w := start(t, route.Table{Endpoints: []route.Endpoint{{
		Name: "e", Public: true, Fleets: []route.Fleet{fleet("blue", 1, 1, at)}, Limits: route.Limits{Body: 10},
	}}})
	if answer, text := w.post(t, "invocations", "eleven char"); answer.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a client's: %s %s", answer.Status, text)
	}
	answer, err := w.Invoke(t.Context(), async.Request{Endpoint: "e", ID: "1", Body: strings.NewReader("eleven char"), Size: 11})
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if text, err := io.ReadAll(answer.Body); answer.Status != 200 || string(text) != "eleven char" || err != nil {
		t.Errorf("from within: %d %s %v", answer.Status, text, err)
	}
}

// A request that waited while its endpoint was updated is the new generation's, by its id and in what is kept of it.
func TestAnInferenceIsOfTheFleetThatAnsweredIt(t *testing.T) {
	at := replica(t, says("%s"))
	e := route.Endpoint{Name: "e", Public: true, Fleets: []route.Fleet{{Variant: "blue", Generation: 1, Weight: 1, Cold: true}}, Capture: &route.Capture{Share: 1, To: "s3://clary/kept", Inputs: true}}
	w := start(t, route.Table{Version: 1, Endpoints: []route.Endpoint{e}})
	answered := make(chan string, 1)
	go func() {
		answer, err := http.Post(w.base+"/endpoints/e/invocations", "text/csv", strings.NewReader("x"))
		if err != nil {
			answered <- err.Error()
			return
		}
		answered <- answer.Header.Get("X-Clary-Inference-Id")
		_ = answer.Body.Close()
	}()
	until(t, "the request is held", func() bool { return w.report("blue").Waiting == 1 })
	e.Fleets = []route.Fleet{fleet("blue", 2, 1, at)}
	if err := w.SetTable(route.Table{Version: 2, Endpoints: []route.Endpoint{e}}); err != nil {
		t.Fatal(err)
	}
	id := <-answered
	if variant, generation, ok := reward.Parse("e", id); !ok || variant != "blue" || generation != 2 {
		t.Errorf("the answer's id is %q", id)
	}
	w.end()
	for name, text := range w.store.objects {
		if !strings.Contains(string(text), id) {
			t.Errorf("%s has %s, not %s", name, text, id)
		}
	}
	if len(w.store.objects) != 1 {
		t.Errorf("%d were kept", len(w.store.objects))
	}
}
