package modelserver_test

import (
	"context"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/clary-ml/clary/internal/memnet"
	"github.com/clary-ml/clary/proto/inference"
	"github.com/clary-ml/clary/serving/modelserver"
)

// bubble is a server inside a synctest bubble. It has one lane: others would wait for a mutex there,
// and a bubble's clock stands still while one is waited for.
type bubble struct {
	*modelserver.Server
	host  memnet.Host
	end   context.CancelFunc // tells it to end
	ended chan error
}

func inBubble(t *testing.T, o modelserver.Options) *bubble {
	t.Helper()
	o.Lanes = 1
	s, err := modelserver.New(o)
	if err != nil {
		t.Fatal(err)
	}
	b := &bubble{Server: s, host: new(memnet.Network).Host("10.0.0.1"), ended: make(chan error, 1)}
	l, err := b.host.Listen("10.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, b.end = context.WithCancel(t.Context())
	go func() { b.ended <- s.Serve(ctx, l) }()
	return b
}

// dial opens a connection and says something.
func (b *bubble) dial(t *testing.T, text string) net.Conn {
	t.Helper()
	c, err := b.host.Dial(t.Context(), "10.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return c
}

// stop tells the server to end, and returns how long that took.
func (b *bubble) stop(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	b.end()
	if err := <-b.ended; err != nil {
		t.Error(err)
	}
	return time.Since(began)
}

// A connection that begins like gRPC's and then says no more is cut off like any other.
func TestABegunConnectionHoldsTheEndUpForNoMoreThanTheDrain(t *testing.T) {
	const greeting = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	for _, c := range []struct {
		says  string
		drain time.Duration
		most  time.Duration
	}{
		{"PRI ", time.Second, time.Second},
		{greeting, time.Second, time.Second},
		{"GET /ping", time.Second, time.Second},
		{"PRI ", time.Minute, 10 * time.Second},
		{greeting, time.Minute, 10 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := inBubble(t, modelserver.Options{Engine: newGated(), Drain: c.drain})
			defer b.dial(t, c.says).Close()
			if took := b.stop(t); took > c.most {
				t.Errorf("%q, a drain of %v: the end took %v", c.says, c.drain, took)
			}
		})
	}
}

// nothingIsUnderWay asks a server's metrics, which count what was let in.
func (b *bubble) nothingIsUnderWay(t *testing.T) {
	t.Helper()
	w := httptest.NewRecorder()
	b.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	if !strings.Contains(w.Body.String(), "clary_requests_in_flight 0\n") {
		t.Error("a request is under way after the end")
	}
}

// lingering is a program that takes a second to give up.
type lingering struct{ entered chan struct{} }

func (l lingering) Ready(ctx context.Context) error {
	close(l.entered)
	<-ctx.Done()
	time.Sleep(time.Second)
	return context.Cause(ctx)
}

func (l lingering) Invoke(ctx context.Context, _ []byte, _, _ string) ([]byte, string, error) {
	return nil, "", l.Ready(ctx)
}

func TestTheEndWaitsForWhatWasCutOff(t *testing.T) {
	for name, ask := range map[string]func(*testing.T, *bubble) (closer func() error){
		"http": func(t *testing.T, b *bubble) func() error {
			return b.dial(t, "POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1").Close
		},
		"grpc": func(t *testing.T, b *bubble) func() error {
			c, err := grpc.NewClient("passthrough:///10.0.0.1:80", grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, at string) (net.Conn, error) { return b.host.Dial(ctx, at) }))
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				if _, err := inference.NewGRPCInferenceServiceClient(c).ServerReady(t.Context(), &inference.ServerReadyRequest{}); err == nil {
					t.Error("what hung was answered")
				}
			}()
			return c.Close
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := lingering{make(chan struct{})}
				b := inBubble(t, modelserver.Options{Program: l, Drain: 10 * time.Second})
				closer := ask(t, b)
				<-l.entered
				if took := b.stop(t); took != 11*time.Second {
					t.Errorf("the end took %v", took)
				}
				b.nothingIsUnderWay(t)
				if err := closer(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
