package annex

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/clary-ml/clary/serving/async"
	"github.com/clary-ml/clary/serving/capture"
	"github.com/clary-ml/clary/serving/reward"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/serving/router"
	"github.com/clary-ml/clary/serving/shadow"
	"github.com/clary-ml/clary/serving/traces"
)

// maxCaptured is how much of a body is kept where the endpoint does not say, and maxMirrored how much
// a request or an answer may have to be copied and compared.
const (
	maxCaptured = 1 << 20
	maxMirrored = 8 << 20
)

// variantField is in all answers that replicas gave, and in no refusal of the router's own.
const variantField = "X-Amzn-Invoked-Production-Variant"

// watching is what is wanted of one exchange.
type watching struct {
	annex   *Annex
	id      string         // of the inference; "" until there is an answer, since only then it is known whose it is
	capture *route.Capture // nil is nothing
	shadow  string         // the variant that gets a copy; "" is none. The exchange may end under a table that has none
	span    *traces.Span   // nil is none
}

func (w *watching) watch() *router.Watch {
	out := &router.Watch{Memory: w.annex.passing, Done: w.done, AppendHead: func(head []byte, x *router.Exchange) []byte {
		w.id = w.annex.ids.New(x.Endpoint.Name, x.Fleet.Variant, x.Fleet.Generation)
		return append(append(append(head, inferenceField...), w.id...), '\r', '\n')
	}}
	if w.span != nil {
		out.AppendRequest, out.Instead = w.context, contextField
	}
	if c := w.capture; c != nil {
		if c.Inputs {
			out.MaxRequest = int(w.most())
		}
		if c.Outputs {
			out.MaxAnswer = int(w.most())
		}
	}
	if w.shadow != "" {
		out.MaxRequest, out.MaxAnswer = max(out.MaxRequest, maxMirrored), max(out.MaxAnswer, maxMirrored)
	}
	return out
}

// most is how much of a body is captured.
func (w *watching) most() int64 {
	if w.capture.MaxBody > 0 {
		return min(w.capture.MaxBody, maxMirrored)
	}
	return maxCaptured
}

// done sees the exchange at its end. It runs on an event loop: what takes time is done elsewhere.
func (w *watching) done(x *router.Exchange) {
	if w.span != nil {
		w.traced(x)
	}
	if !x.Whole || x.Answer == nil {
		return // there is nothing to learn from
	}
	if w.capture != nil && x.Status >= 200 && x.Status < 300 {
		w.keep(x)
	}
	if w.shadow != "" && w.shadow != x.Fleet.Variant && x.Status < http.StatusInternalServerError {
		w.mirror(x)
	}
}

// keep hands the exchange to the capture.
func (w *watching) keep(x *router.Exchange) {
	to, err := w.annex.place(w.capture.To)
	if err != nil {
		return // a table's check says so
	}
	r := capture.Record{
		Endpoint: x.Endpoint.Name, Variant: x.Fleet.Variant, Event: w.id, Time: time.Now(),
		Attributes: string(x.Head.Named(async.HeaderCustom)),
	}
	if own := string(x.Head.Named(async.HeaderInference)); own != "" && reward.CheckOwn(own) == nil {
		r.Inference = own
	}
	if w.capture.Inputs {
		r.Input = w.half(&x.RequestBody, x.Head.Named("Content-Type"))
	}
	if w.capture.Outputs {
		r.Output = w.half(&x.AnswerBody, named(x, "Content-Type"))
	}
	w.annex.keeper.Keep(to, r)
}

func named(x *router.Exchange, name string) []byte {
	for i := range x.Answer.Fields {
		if f := &x.Answer.Fields[i]; bytes.EqualFold(f.Name, []byte(name)) {
			return f.Value
		}
	}
	return nil
}

// half is one body, unless it has too much.
func (w *watching) half(k *router.Kept, contentType []byte) *capture.Body {
	b := &capture.Body{ContentType: string(contentType), Data: k.Body}
	if most := w.most(); k.Over || int64(len(k.Body)) > most {
		b.Data, b.Omitted = nil, max(k.Size, 1)
	}
	return b
}

// mirror sends a copy of the request to the shadow.
func (w *watching) mirror(x *router.Exchange) {
	m := w.annex.mirrorOf(target{x.Endpoint.Name, w.shadow})
	if x.RequestBody.Over || x.AnswerBody.Over {
		m.Drop()
		return
	}
	r := shadow.Request{Method: string(x.Head.Method), Path: x.Path + string(x.Head.Query), Header: http.Header{}, Body: x.RequestBody.Body}
	for i := range x.Head.Fields {
		if f := &x.Head.Fields[i]; !f.Drop && !f.Is.Hop() {
			r.Header.Add(string(f.Name), string(f.Value))
		}
	}
	for _, name := range []string{"Authorization", "Host", "Content-Length", "Expect", async.HeaderVariant} {
		r.Header.Del(name)
	}
	m.Send(r, shadow.PrintOf(x.Status, x.AnswerBody.Body))
}

// mirrorOf is the mirror of a variant.
func (a *Annex) mirrorOf(t target) *shadow.Mirror {
	a.mu.RLock()
	m := a.mirrors[t]
	a.mu.RUnlock()
	if m != nil {
		return m
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if m = a.mirrors[t]; m == nil {
		m = shadow.New(func(ctx context.Context, r shadow.Request) (shadow.Answer, error) { return a.ask(ctx, t, r) }, a.options.Shadow)
		a.mirrors[t] = m
	}
	return m
}

// ask has a variant answer a copy.
func (a *Annex) ask(ctx context.Context, t target, r shadow.Request) (shadow.Answer, error) {
	request, err := http.NewRequestWithContext(ctx, r.Method, "http://router/endpoints/"+t.endpoint+r.Path, bytes.NewReader(r.Body))
	if err != nil {
		return shadow.Answer{}, err
	}
	request.Header = r.Header
	request.Header.Set(async.HeaderVariant, t.variant)
	answer, err := a.mirrored.RoundTrip(request)
	if err != nil {
		return shadow.Answer{}, err
	}
	if answer.StatusCode == http.StatusTooManyRequests && answer.Header.Get(variantField) == "" { // no replica's
		return shadow.Answer{}, errors.Join(shadow.ErrBusy, answer.Body.Close())
	}
	return shadow.Answer{Status: answer.StatusCode, Body: answer.Body}, nil
}

// shadows is how copies went that were sent to a fleet: to the newest one of its variant, as the report
// has it.
func (a *Annex) shadows(e *route.Endpoint, f *route.Fleet) *route.ShadowReport {
	a.mu.RLock()
	m := a.mirrors[target{e.Name, f.Variant}]
	a.mu.RUnlock()
	if m == nil {
		return nil
	}
	for i := range e.Fleets {
		if o := &e.Fleets[i]; o.Variant == f.Variant && o.Generation > f.Generation {
			return nil
		}
	}
	r := m.Report()
	return &r
}
