package router_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/serving/router"
)

// dials are the ways to a replica: a socket that the router takes over, and a connection that has none.
func dials() map[string]func(context.Context, route.Replica) (net.Conn, error) {
	return map[string]func(context.Context, route.Replica) (net.Conn, error){
		"a socket": nil,
		"another kind": func(ctx context.Context, to route.Replica) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", to.Address)
			return struct{ net.Conn }{conn}, err
		},
	}
}

func TestWhenTheClientGoesItsReplicaIsFree(t *testing.T) {
	for name, dial := range dials() {
		t.Run(name, func(t *testing.T) {
			h := hold(t)
			defer close(h.release)
			r := start(t, router.Options{Drain: time.Millisecond, Dial: dial}, tableWith(route.Limits{Concurrency: 1}, h.at))
			conn, _ := r.dial(t)
			send(t, conn, "POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
			until(t, "it is at the replica", func() bool { return h.flying.Load() == 1 })
			waiting, _ := r.dial(t)
			send(t, waiting, "POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
			until(t, "the other waits", func() bool { return r.fleet("v").Waiting == 1 })
			_ = waiting.Close()
			until(t, "the other does not wait any more", func() bool { return r.fleet("v").Waiting == 0 })
			_ = conn.Close()
			until(t, "the replica is told", func() bool { return h.flying.Load() == 0 })
			until(t, "it has room", func() bool { return r.fleet("v").InFlight == 0 })
			if f := r.fleet("v"); f.Errors != 0 {
				t.Errorf("a client that went is an error of its replica: %+v", f)
			}
		})
	}
}

func TestWhenTheClientGoesAStreamEnds(t *testing.T) {
	for name, dial := range dials() {
		t.Run(name, func(t *testing.T) {
			begun, ended := make(chan struct{}), make(chan struct{})
			at := server(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/ping" {
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				w.(http.Flusher).Flush()
				close(begun)
				<-r.Context().Done()
				close(ended)
			})
			r := start(t, router.Options{Dial: dial}, table(at))
			conn, _ := r.dial(t)
			send(t, conn, "POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
			<-begun
			_ = conn.Close()
			<-ended
			until(t, "it has room", func() bool { return r.fleet("v").InFlight == 0 })
		})
	}
}

func TestABodyMayTakeLongerThanItsAnswer(t *testing.T) {
	const pieces, size = 26, 50_000
	for name, dial := range dials() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, router.Options{Dial: dial}, tableWith(route.Limits{Timeout: 2 * time.Second}, server(t, echo)))
			conn, answers := r.dial(t)
			send(t, conn, fmt.Sprintf("POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", pieces*size))
			for range pieces {
				send(t, conn, strings.Repeat("x", size))
				<-time.After(100 * time.Millisecond)
			}
			if answer, body := receive(t, answers); answer.StatusCode != 200 || len(body) != pieces*size {
				t.Errorf("%d %.200s", answer.StatusCode, body)
			}
		})
	}
}

func TestAnEarlyAnswerThatStopsHasADeadline(t *testing.T) {
	at := script(t, func(conn net.Conn, in *bufio.Reader) {
		_, _ = io.WriteString(conn, "HTTP/1.1 ")
		_, _ = io.Copy(io.Discard, in)
	})
	r := start(t, router.Options{}, tableWith(route.Limits{Timeout: 100 * time.Millisecond}, at))
	conn, answers := r.dial(t)
	send(t, conn, "POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
	if answer, body := receive(t, answers); answer.StatusCode != 504 {
		t.Errorf("%d %s", answer.StatusCode, body)
	}
}
