// Package annex is what endpoints have beside answers: inference ids and rewards, requests and answers
// kept in the object store, copies for a shadow, and requests that are answered in the store. It is
// built onto a router from outside, by the router's hooks; an endpoint that uses none of it pays for
// its answers' ids.
package annex

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/async"
	"github.com/clary-ml/clary/serving/capture"
	"github.com/clary-ml/clary/serving/reward"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/serving/router"
	"github.com/clary-ml/clary/serving/shadow"
	"github.com/clary-ml/clary/serving/traces"
	"github.com/clary-ml/clary/storage/object"
)

// Options are what an annex is made with.
type Options struct {
	// Store is the object store. Without one nothing is captured, and asynchronous requests are refused.
	Store async.Store
	// Capture and Shadow bound what they keep and send.
	Capture capture.Options
	Shadow  shadow.Options
	// MaxPassing is the most bytes of bodies that are kept while their exchanges go on (256 MiB); one for which
	// there is no room is not captured, nor copied.
	MaxPassing int64
	// Traces get spans of requests; nil is none.
	Traces *traces.Traces
	Log    *slog.Logger
}

// Annex is built onto one router: Install before the router is made, Attach then, and Run beside it.
type Annex struct {
	options  Options
	ids      *reward.IDs
	desk     *reward.Desk
	keeper   *capture.Keeper // nil without a store
	passing  *router.Memory
	plain    *router.Watch // of exchanges that only get an id
	router   *router.Router
	inside   *http.Transport
	mirrored *http.Transport

	mu      sync.RWMutex
	worker  *async.Worker // the last one
	mirrors map[target]*shadow.Mirror
	places  map[string]place // where endpoints' captures go, by what their specs say
}

// target is a variant that copies go to.
type target struct{ endpoint, variant string }

// place is an address in the store that was parsed.
type place struct {
	uri object.URI
	err error
}

// New makes an annex.
func New(o Options) *Annex {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Capture.Log = cmp.Or(o.Capture.Log, o.Log)
	a := &Annex{options: o, ids: reward.NewIDs(), desk: reward.NewDesk(reward.DefaultRemembered), mirrors: map[target]*shadow.Mirror{}, places: map[string]place{}}
	a.passing = router.NewMemory(cmp.Or(o.MaxPassing, 256<<20))
	if o.Store != nil {
		a.keeper = capture.New(o.Store, o.Capture)
	}
	a.plain = &router.Watch{AppendHead: func(head []byte, x *router.Exchange) []byte {
		head = append(head, inferenceField...)
		head = a.ids.Append(head, x.Endpoint.Name, x.Fleet.Variant, x.Fleet.Generation)
		return append(head, '\r', '\n')
	}}
	return a
}

// inferenceField is how the line of an answer's head begins that names the inference.
const inferenceField = "X-Clary-Inference-Id: "

// Install has a router that is made with these options use the annex.
func (a *Annex) Install(o *router.Options) {
	o.Observer, o.Shadows = a, a.shadows
	o.Metrics = append(o.Metrics, a.metrics()...)
	o.Handlers = map[string]http.Handler{"rewards": http.HandlerFunc(a.rewards), "async-invocations": http.HandlerFunc(a.submit)}
}

// Attach tells the annex its router, before that runs.
func (a *Annex) Attach(r *router.Router) {
	a.router, a.inside, a.mirrored = r, r.Inside(router.Inside), r.Inside(router.Mirrored)
}

// Run brings to the store what is captured, until ctx ends, and then what is left. It should outlast the
// router's Run.
func (a *Annex) Run(ctx context.Context) error {
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, m := range a.mirrors {
			m.Close()
		}
		a.inside.CloseIdleConnections()
		a.mirrored.CloseIdleConnections()
		a.closeTraces()
	}()
	if a.keeper == nil {
		<-ctx.Done()
		return nil
	}
	return a.keeper.Run(ctx)
}

// Captured are the counts of what was captured.
func (a *Annex) Captured() capture.Stats {
	if a.keeper == nil {
		return capture.Stats{}
	}
	return a.keeper.Stats()
}

// drawn says yes to a share of all calls.
func drawn(share float64) bool { return share > 0 && (share >= 1 || rand.Float64() < share) }

// Begin is of router.Observer.
func (a *Annex) Begin(x *router.Exchange) *router.Watch {
	if x.Origin == router.Mirrored {
		return nil
	}
	e := x.Endpoint
	captured := e.Capture != nil && a.keeper != nil && drawn(e.Capture.Share)
	copied := ""
	if e.Shadow != nil && e.Shadow.Variant != x.Fleet.Variant && drawn(e.Shadow.Share) {
		copied = e.Shadow.Variant
	}
	var span *traces.Span
	if a.options.Traces != nil {
		span = a.span(x)
	}
	if !captured && copied == "" && span == nil {
		return a.plain
	}
	w := &watching{annex: a, shadow: copied, span: span}
	if captured {
		w.capture = e.Capture
	}
	return w.watch()
}

// status are the HTTP codes of errors.
var statuses = map[fault.Kind]int{
	fault.Invalid: http.StatusBadRequest, fault.NotFound: http.StatusNotFound, fault.Conflict: http.StatusConflict, fault.Denied: http.StatusForbidden,
	fault.Exhausted: http.StatusTooManyRequests, fault.Unready: http.StatusServiceUnavailable, fault.Internal: http.StatusInternalServerError,
}

// fail answers with an error.
func fail(w http.ResponseWriter, err error) {
	code := statuses[fault.KindOf(err)]
	if code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	write(w, code, map[string]string{"error": err.Error()})
}

func write(w http.ResponseWriter, code int, v any) {
	text, _ := json.Marshal(v) // texts and numbers
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(text, '\n')) // the client may have gone
}

// posted is the exchange of a request that must be a POST; nil if it is none, and was told so.
func posted(w http.ResponseWriter, r *http.Request) *router.Exchange {
	x := router.Of(r.Context())
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		write(w, http.StatusMethodNotAllowed, map[string]string{"error": r.Method + " " + strconv.Quote(r.URL.Path) + ": send POST"})
		return nil
	}
	return x
}

// rewards takes in what answers turned out to be worth.
func (a *Annex) rewards(w http.ResponseWriter, r *http.Request) {
	x := posted(w, r)
	if x == nil {
		return
	}
	endpoint := x.Endpoint.Name
	receipt, err := a.desk.Take(endpoint, r.Body, func(variant string, generation int64, value float64) bool {
		return a.router.Reward(endpoint, variant, generation, value)
	})
	if err != nil {
		fail(w, err)
		return
	}
	write(w, http.StatusOK, receipt)
}

// submit leaves a request in the store.
func (a *Annex) submit(w http.ResponseWriter, r *http.Request) {
	x := posted(w, r)
	if x == nil {
		return
	}
	if x.Endpoint.Async == nil {
		fail(w, fault.New(fault.NotFound, "endpoint %q takes no asynchronous requests: give its spec async.to", x.Endpoint.Name))
		return
	}
	if a.options.Store == nil {
		fail(w, fault.New(fault.Unready, "this router has no object store: ask one of the cluster"))
		return
	}
	// An object is read with the cluster's keys: who names one must be somebody who could read it himself.
	if t := x.Token; r.Header.Get(async.HeaderInput) != "" && (t == nil || !auth.Allow(t.Role, auth.Submit)) {
		fail(w, fault.New(fault.Denied, "%s: your token may only ask endpoints, and not read objects: send the input as the request's body", async.HeaderInput))
		return
	}
	receipt, err := async.Submit(r.Context(), a.options.Store, async.Submission{
		Endpoint: x.Endpoint.Name, Async: *x.Endpoint.Async, Header: r.Header, Body: r.Body, Size: r.ContentLength, MaxBody: x.Endpoint.Limits.Body,
	})
	if err != nil {
		fail(w, err)
		return
	}
	receipt.Write(w)
}

// place is where an endpoint's captures go.
func (a *Annex) place(to string) (object.URI, error) {
	a.mu.RLock()
	p, has := a.places[to]
	a.mu.RUnlock()
	if !has {
		p.uri, p.err = object.ParseURI(to)
		a.mu.Lock()
		a.places[to] = p
		a.mu.Unlock()
	}
	return p.uri, p.err
}

// AsyncEndpoints are those of a table that may be asked asynchronously.
func AsyncEndpoints(t route.Table) (out []async.Endpoint) {
	for i := range t.Endpoints {
		e := &t.Endpoints[i]
		if e.Async == nil {
			continue
		}
		replicas := 0
		for _, f := range e.Fleets {
			if f.Weight > 0 {
				replicas += len(f.Replicas)
			}
		}
		out = append(out, async.Endpoint{Name: e.Name, Async: *e.Async, Replicas: replicas})
	}
	return out
}

// Worker answers asynchronous requests through this annex's router. There should be one in a cluster.
func (a *Annex) Worker(o async.Options) *async.Worker {
	o.Log = cmp.Or(o.Log, a.options.Log)
	w := async.New(a.options.Store, a.Invoke, o)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.worker = w
	return w
}

// Backlog is how many asynchronous requests wait for an endpoint, those that are worked on included; it is false
// where there is no worker, or as long as that has not looked.
func (a *Annex) Backlog(endpoint string) (requests int, known bool) {
	a.mu.RLock()
	w := a.worker
	a.mu.RUnlock()
	if w == nil {
		return 0, false
	}
	b, known := w.Backlog(endpoint)
	return b.Requests, known
}

// Invoke asks an endpoint through the router, from within: see router.Inside.
func (a *Annex) Invoke(ctx context.Context, r async.Request) (async.Answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://router/endpoints/"+r.Endpoint+"/invocations", r.Body)
	if err != nil {
		return async.Answer{}, fault.New(fault.Internal, "ask %q: %w", r.Endpoint, err)
	}
	request.ContentLength = r.Size
	if r.Size == 0 {
		request.Body = http.NoBody
	}
	for name, value := range map[string]string{
		"Content-Type": r.ContentType, "Accept": r.Accept, async.HeaderVariant: r.Variant, async.HeaderModel: r.Model,
		async.HeaderCustom: r.Attributes, async.HeaderInference: r.Inference, "X-Request-Id": r.ID,
	} {
		if value != "" {
			request.Header.Set(name, value)
		}
	}
	answer, err := a.inside.RoundTrip(request)
	if err != nil {
		return async.Answer{}, fault.New(fault.Internal, "endpoint %q gave no answer: %w", r.Endpoint, err)
	}
	return async.Answer{Status: answer.StatusCode, ContentType: answer.Header.Get("Content-Type"), Body: answer.Body, Size: answer.ContentLength}, nil
}
