// Package traces tells an OpenTelemetry collector of requests: a span for each that is sampled, by
// OTLP, with the W3C trace context of who asked passed on to who answers.
//
// It is off unless the standard variables name a collector: OTEL_EXPORTER_OTLP_ENDPOINT or
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT. The others of OpenTelemetry hold too: OTEL_EXPORTER_OTLP_PROTOCOL
// (grpc, which is the default here, or http/protobuf), OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME and so on.
package traces

import (
	"cmp"
	"context"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/version"
)

// The fields of a trace's context (W3C Trace Context, level 1).
const (
	ParentField = "Traceparent"
	StateField  = "Tracestate"
)

// Traces sends spans to a collector.
type Traces struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

// FromEnv makes what the environment asks for; nil if that is nothing. A collector that does not answer
// is no error: spans that it does not take are dropped.
func FromEnv(ctx context.Context, getenv func(string) string, service string) (*Traces, error) {
	if getenv("OTEL_EXPORTER_OTLP_ENDPOINT")+getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" || strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") || getenv("OTEL_TRACES_EXPORTER") == "none" {
		return nil, nil //nolint:nilnil // no traces is an answer
	}
	client, err := client(cmp.Or(getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), getenv("OTEL_EXPORTER_OTLP_PROTOCOL"), "grpc"))
	if err != nil {
		return nil, err
	}
	exporter, err := otlptrace.New(ctx, client)
	if err != nil {
		return nil, fault.New(fault.Invalid, "OTEL_EXPORTER_OTLP_…: %w", err)
	}
	about, err := resource.New(
		ctx, resource.WithAttributes(attribute.String("service.name", service), attribute.String("service.version", version.String())),
		resource.WithHost(), resource.WithFromEnv(), // which goes before what is said here
	)
	if err != nil {
		return nil, fault.New(fault.Invalid, "OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))
	return &Traces{provider: provider, tracer: provider.Tracer("github.com/clary-ml/clary/serving")}, nil
}

func client(protocol string) (otlptrace.Client, error) {
	switch protocol {
	case "grpc":
		return otlptracegrpc.NewClient(), nil
	case "http/protobuf":
		return otlptracehttp.NewClient(), nil
	}
	return nil, fault.New(fault.Invalid, "OTEL_EXPORTER_OTLP_PROTOCOL %q: give grpc or http/protobuf", protocol)
}

// Close sends what is left, until ctx ends.
func (t *Traces) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// Span is one request that is traced.
type Span struct {
	span trace.Span
	// Parent and State are the trace context for who is asked on behalf of the request.
	Parent, State string
}

var form propagation.TraceContext

// Begin starts the span of a request with a trace context, which may be empty or rubbish. It returns nil if
// the request is not sampled.
func (t *Traces) Begin(parent, state, name string, began time.Time, about ...attribute.KeyValue) *Span {
	ctx := context.Background()
	if parent != "" {
		ctx = form.Extract(ctx, propagation.MapCarrier{strings.ToLower(ParentField): parent, strings.ToLower(StateField): state})
	}
	ctx, span := t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(began), trace.WithAttributes(about...))
	if !span.IsRecording() {
		return nil
	}
	carrier := propagation.MapCarrier{}
	form.Inject(ctx, carrier)
	return &Span{span: span, Parent: carrier[strings.ToLower(ParentField)], State: carrier[strings.ToLower(StateField)]}
}

// End ends a span with the status of the answer, or 0 if there was none.
func (s *Span) End(status int, about ...attribute.KeyValue) {
	s.span.SetAttributes(about...)
	if status > 0 {
		s.span.SetAttributes(attribute.Int("http.response.status_code", status))
	}
	if status == 0 || status >= http.StatusInternalServerError {
		s.span.SetStatus(codes.Error, http.StatusText(status))
	}
	s.span.End()
}
