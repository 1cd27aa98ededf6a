package request_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"github.com/clary-ml/clary/internal/request"
)

func TestOnlyIDsThatNeedNoQuotingAreKept(t *testing.T) {
	for id, want := range map[string]bool{
		"7f3a00c1d2e4": true, "Upper_lower-1.2": true, strings.Repeat("a", request.MaxID): true,
		"": false, strings.Repeat("a", request.MaxID+1): false, "with space": false, "line\nbreak": false, "é": false, `"`: false,
	} {
		if request.Valid(id) != want {
			t.Errorf("%q: valid is %t", id, !want)
		}
	}
	if a, b := request.NewID(), request.NewID(); a == b || !request.Valid(a) {
		t.Errorf("%q and %q", a, b)
	}
}

func TestAnIDIsInEveryLineOfItsRequestAndInNoOther(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(request.LogHandler(slog.NewTextHandler(&out, nil))).With("part", "rpc")
	log.InfoContext(request.With(t.Context(), "abc"), "inside")
	log.InfoContext(t.Context(), "outside")
	lines := strings.Split(out.String(), "\n")
	if !strings.Contains(lines[0], "part=rpc request=abc") || strings.Contains(lines[1], "request") {
		t.Errorf("%s", out.String())
	}
}

// server notes the id that each call has where it arrives.
type server struct {
	*health.Server
	ids []string
}

func (s *server) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	s.ids = append(s.ids, request.ID(ctx))
	return &healthpb.HealthCheckResponse{}, nil
}

func (s *server) Watch(_ *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	s.ids = append(s.ids, request.ID(stream.Context()))
	return nil
}

func TestAnIDGoesFromProcessToProcess(t *testing.T) {
	listener := bufconn.Listen(1 << 16)
	service := &server{Server: health.NewServer()}
	serving := grpc.NewServer(request.ServerOptions()...)
	healthpb.RegisterHealthServer(serving, service)
	go serving.Serve(listener) //nolint:errcheck // Stop ends it
	defer serving.Stop()
	conn, err := grpc.NewClient("passthrough:///x", append(request.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return listener.Dial() }))...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	check := func(ctx context.Context) {
		t.Helper()
		if _, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	check(request.With(t.Context(), "caller-1"))
	check(t.Context())
	watch, err := healthpb.NewHealthClient(conn).Watch(request.With(t.Context(), "caller-2"), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = watch.Recv()
	if len(service.ids) != 3 || service.ids[0] != "caller-1" || !request.Valid(service.ids[1]) || service.ids[2] != "caller-2" {
		t.Errorf("it arrived as %q", service.ids)
	}
	forged := metadata.NewIncomingContext(t.Context(), metadata.Pairs(request.Header, "a\nb"))
	if id := request.ID(request.Accept(forged)); !request.Valid(id) {
		t.Errorf("an id that breaks lines was kept: %q", id)
	}
	if ctx := request.Ensure(request.With(t.Context(), "same")); request.ID(ctx) != "same" {
		t.Error("an id was replaced")
	}
}
