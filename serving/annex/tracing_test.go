package annex_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/clary-ml/clary/serving/annex"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/serving/traces"
)

func TestATraceGoesOnThroughTheRouter(t *testing.T) {
	var mu sync.Mutex
	var spans []*otlp.Span
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		var m collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(text, &m); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, of := range m.GetResourceSpans() {
			for _, scope := range of.GetScopeSpans() {
				spans = append(spans, scope.GetSpans()...)
			}
		}
	}))
	defer server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	traced, err := traces.FromEnv(context.Background(), func(name string) string {
		return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": server.URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}[name]
	}, "clary-router")
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan http.Header, 3)
	at := replica(t, func(w http.ResponseWriter, r *http.Request, body string) {
		heard <- r.Header.Clone()
		if body == "bad" {
			w.WriteHeader(500)
		}
	})
	w := start(t, route.Table{Endpoints: []route.Endpoint{{Name: "e", Public: true, Fleets: []route.Fleet{fleet("blue", 3, 1, at)}}}},
		func(o *annex.Options) { o.Traces = traced })
	const id = "0af7651916cd43dd8448eb211c80319c"
	w.post(t, "invocations", "x", "traceparent", "00-"+id+"-b7ad6b7169203331-01", "tracestate", "vendor=1")
	w.post(t, "invocations", "bad", "X-Request-Id", "caf\xe9") // no UTF-8, which spans must be
	w.post(t, "invocations", "x", "traceparent", "00-"+id+"-b7ad6b7169203331-00")
	w.end()
	sampled, own, not := <-heard, <-heard, <-heard
	if p := sampled.Values("Traceparent"); len(p) != 1 || !strings.HasPrefix(p[0], "00-"+id+"-") || strings.Contains(p[0], "b7ad6b7169203331") || sampled.Get("Tracestate") != "vendor=1" {
		t.Errorf("the replica got %v, %v", p, sampled.Values("Tracestate"))
	}
	if p := own.Values("Traceparent"); len(p) != 1 || strings.Contains(p[0], id) {
		t.Errorf("a trace of the router's own is %v", p)
	}
	if p := not.Get("Traceparent"); p != "00-"+id+"-b7ad6b7169203331-00" {
		t.Errorf("what is not sampled is passed on as %q", p)
	}
	if len(spans) != 2 || spans[0].GetName() != "POST /endpoints/e" || spans[0].GetStatus().GetCode() != otlp.Status_STATUS_CODE_UNSET || spans[1].GetStatus().GetCode() != otlp.Status_STATUS_CODE_ERROR {
		t.Errorf("%v", spans)
	}
	attributes := map[string]string{}
	for _, a := range spans[0].GetAttributes() {
		attributes[a.GetKey()] = a.GetValue().GetStringValue()
	}
	if attributes["clary.variant"] != "blue" || attributes["clary.replica"] != "blue-1" || attributes["clary.inference_id"] == "" || attributes["clary.request_id"] == "" {
		t.Errorf("%v", attributes)
	}
}
