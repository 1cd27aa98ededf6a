package router_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/serving/router"
)

// wait is how long something that happens at once may take on a machine that does much else.
const wait = 20 * time.Second

// running is a router that a test has started.
type running struct {
	*router.Router
	address string
	stop    func() error // ends it and waits
}

func start(t *testing.T, o router.Options, table route.Table) *running {
	t.Helper()
	if o.Loops == 0 {
		o.Loops = 2
	}
	r, err := router.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.SetTable(table); err != nil {
		t.Fatal(err)
	}
	l, err := router.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, l) }()
	end := sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return &running{r, l.Addr().String(), end}
}

// table is one of an endpoint "e" with a variant "v" and replicas at these addresses.
func table(addresses ...string) route.Table {
	return tableWith(route.Limits{}, addresses...)
}

func tableWith(l route.Limits, addresses ...string) route.Table {
	return route.Table{Endpoints: []route.Endpoint{{Name: "e", Public: true, Limits: l, Fleets: []route.Fleet{fleet("v", 1, addresses...)}}}}
}

func fleet(variant string, weight float64, addresses ...string) route.Fleet {
	f := route.Fleet{Variant: variant, Weight: weight}
	for i, address := range addresses {
		f.Replicas = append(f.Replicas, route.Replica{ID: fmt.Sprintf("%s-%d", variant, i), Address: address})
	}
	return f
}

// server is a replica that answers by a function.
func server(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// said answers with a text.
func said(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, text)
	}
}

// echo answers with what it got.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	_, _ = w.Write(body)
}

// script is a replica that does as told with each connection.
func script(t *testing.T, each func(net.Conn, *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = conn.Close() }()
				_ = conn.SetDeadline(time.Now().Add(wait))
				each(conn, bufio.NewReader(conn))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return l.Addr().String()
}

// head reads a request's head as a replica gets it, and returns its lines.
func head(t *testing.T, r *bufio.Reader) []string {
	var lines []string
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil
		}
		if line == "\r\n" {
			return lines
		}
		lines = append(lines, strings.TrimSuffix(line, "\r\n"))
	}
}

func (r *running) url(action string) string { return "http://" + r.address + "/endpoints/e/" + action }

// client has connections of its own.
func client(t *testing.T) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: wait}
}

// ask posts a body, and returns the answer with its body read.
func (r *running) ask(t *testing.T, c *http.Client, body string, fields ...string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, r.url("invocations"), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		request.Header.Add(fields[i], fields[i+1])
	}
	answer, err := c.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(text)
}

// dial is a raw connection to the router.
func (r *running) dial(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(wait))
	return conn, bufio.NewReader(conn)
}

// send writes, and must.
func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

// receive reads one answer.
func receive(t *testing.T, r *bufio.Reader) (*http.Response, string) {
	t.Helper()
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(body)
}

// until waits for something that is about to be so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(wait); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", wait, what)
		}
	}
}

func (r *running) fleet(variant string) route.FleetReport {
	for _, f := range r.Report().Fleets {
		if f.Variant == variant {
			return f
		}
	}
	return route.FleetReport{}
}
