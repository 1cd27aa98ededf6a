package traces_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/traces"
)

// received is a collector: what was sent to it.
type received struct {
	collector.UnimplementedTraceServiceServer
	mu       sync.Mutex
	spans    []*otlp.Span
	services []string
}

func (r *received) Export(_ context.Context, m *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range m.GetResourceSpans() {
		for _, a := range of.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				r.services = append(r.services, a.GetValue().GetStringValue())
			}
		}
		for _, scope := range of.GetScopeSpans() {
			r.spans = append(r.spans, scope.GetSpans()...)
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func (r *received) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	text, _ := io.ReadAll(request.Body)
	var m collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(text, &m); err != nil || request.URL.Path != "/v1/traces" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	_, _ = r.Export(request.Context(), &m)
}

// overGRPC and overHTTP have a collector listen, and return the environment that names it.
func overGRPC(t *testing.T, r *received) map[string]string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, r)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		<-ended
	})
	return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + l.Addr().String()}
}

func overHTTP(t *testing.T, r *received) map[string]string {
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": server.URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
}

// open has the environment, of which the exporters read some themselves.
func open(t *testing.T, env map[string]string) *traces.Traces {
	t.Helper()
	for name, value := range env {
		t.Setenv(name, value)
	}
	got, err := traces.FromEnv(t.Context(), func(name string) string { return env[name] }, "clary-router")
	if err != nil {
		t.Fatal(err)
	}
	return got
}

const (
	traceID = "0af7651916cd43dd8448eb211c80319c"
	parent  = "00-" + traceID + "-b7ad6b7169203331-01"
	not     = "00-" + traceID + "-b7ad6b7169203331-00"
)

func TestSpansReachTheCollector(t *testing.T) {
	for name, over := range map[string]func(*testing.T, *received) map[string]string{"grpc": overGRPC, "http": overHTTP} {
		t.Run(name, func(t *testing.T) {
			r := &received{}
			got := open(t, over(t, r))
			began := time.Now().Add(-time.Second)
			span := got.Begin(parent, "vendor=1", "POST e", began, attribute.String("clary.endpoint", "e"))
			if span == nil || !strings.HasPrefix(span.Parent, "00-"+traceID+"-") || !strings.HasSuffix(span.Parent, "-01") || span.Parent == parent || span.State != "vendor=1" {
				t.Fatalf("%+v", span)
			}
			span.End(200, attribute.String("clary.replica", "r"))
			failing := got.Begin("", "", "POST e", began)
			failing.End(502)
			lost := got.Begin("rubbish", "", "POST e", began)
			lost.End(0)
			if span := got.Begin(not, "", "POST e", began); span != nil {
				t.Error("who asked has not sampled it, and it is")
			}
			if err := got.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if len(r.spans) != 3 || r.services[0] != "clary-router" {
				t.Fatalf("%v of %v", r.spans, r.services)
			}
			first := r.spans[0]
			attributes := map[string]string{}
			for _, a := range first.GetAttributes() {
				attributes[a.GetKey()] = a.GetValue().GetStringValue()
			}
			if first.GetName() != "POST e" || string(first.GetParentSpanId()) != "\xb7\xad\x6b\x71\x69\x20\x33\x31" || attributes["clary.endpoint"] != "e" || attributes["clary.replica"] != "r" ||
				first.GetStartTimeUnixNano() != uint64(began.UnixNano()) || first.GetStatus().GetCode() != otlp.Status_STATUS_CODE_UNSET || first.GetKind() != otlp.Span_SPAN_KIND_SERVER {
				t.Errorf("%v", first)
			}
			for _, span := range r.spans[1:] {
				if span.GetStatus().GetCode() != otlp.Status_STATUS_CODE_ERROR || len(span.GetParentSpanId()) != 0 {
					t.Errorf("%v", span)
				}
			}
		})
	}
}

func TestASamplerOfTheEnvironmentHolds(t *testing.T) {
	r := &received{}
	env := overGRPC(t, r)
	env["OTEL_TRACES_SAMPLER"] = "parentbased_always_off"
	got := open(t, env)
	if span := got.Begin("", "", "POST e", time.Now()); span != nil {
		t.Error("it is sampled")
	}
	if span := got.Begin(parent, "", "POST e", time.Now()); span == nil {
		t.Error("who asked has sampled it, and it is not")
	}
	_ = got.Close(t.Context())
}

func TestWithoutACollectorThereIsNothing(t *testing.T) {
	for _, env := range []map[string]string{
		{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
	} {
		got := open(t, env)
		if got != nil {
			t.Errorf("%v: there are traces", env)
		}
		if err := got.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if _, err := traces.FromEnv(t.Context(), func(name string) string {
		return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "thrift"}[name]
	}, "x"); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "give grpc or http/protobuf") {
		t.Errorf("%v", err)
	}
}
