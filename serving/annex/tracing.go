package annex

import (
	"bytes"
	"context"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/clary-ml/clary/serving/router"
	"github.com/clary-ml/clary/serving/traces"
)

// span begins the trace of an exchange, unless it is not sampled.
func (a *Annex) span(x *router.Exchange) *traces.Span {
	return a.options.Traces.Begin(
		string(x.Head.Named(traces.ParentField)), string(x.Head.Named(traces.StateField)), string(x.Head.Method)+" /endpoints/"+x.Endpoint.Name, time.Now(),
		attribute.String("http.request.method", string(x.Head.Method)), attribute.String("url.path", valid(x.Head.Path)),
		attribute.String("clary.endpoint", x.Endpoint.Name), attribute.String("clary.request_id", valid(x.ID)),
	)
}

// valid is what a client sent as a collector takes it: one text that is no UTF-8 has a whole batch of spans refused.
func valid(text []byte) string { return strings.ToValidUTF8(string(text), "\uFFFD") }

// traced ends the span of an exchange. Only now it is known which fleet it was answered by: one that waits may be moved.
func (w *watching) traced(x *router.Exchange) {
	w.span.End(x.Status, attribute.String("clary.variant", x.Fleet.Variant), attribute.Int64("clary.generation", x.Fleet.Generation),
		attribute.String("clary.replica", x.Replica), attribute.String("clary.inference_id", w.id), attribute.Bool("clary.whole", x.Whole))
}

// context writes the fields by which a replica goes on with the trace.
func (w *watching) context(head []byte, _ *router.Exchange) []byte {
	head = append(append(append(head, traces.ParentField+": "...), w.span.Parent...), '\r', '\n')
	if w.span.State != "" {
		head = append(append(append(head, traces.StateField+": "...), w.span.State...), '\r', '\n')
	}
	return head
}

var contextFields = [][]byte{[]byte(traces.ParentField), []byte(traces.StateField)}

func contextField(name []byte) bool {
	return bytes.EqualFold(name, contextFields[0]) || bytes.EqualFold(name, contextFields[1])
}

// lastSpans is how long a collector may take for what is left at the end.
const lastSpans = 5 * time.Second

func (a *Annex) closeTraces() {
	ctx, cancel := context.WithTimeout(context.Background(), lastSpans)
	defer cancel()
	if err := a.options.Traces.Close(ctx); err != nil {
		a.options.Log.Warn("the last traces are lost", "error", err)
	}
}
