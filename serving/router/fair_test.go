package router_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/serving/router"
)

func TestWhoHasNoSessionFollowsTheWeights(t *testing.T) {
	of := table()
	of.Endpoints[0].Sticky = &route.Sticky{Header: "X-Session"}
	of.Endpoints[0].Fleets = []route.Fleet{fleet("a", 1, server(t, said("a"))), fleet("b", 1, server(t, said("b")))}
	r := start(t, router.Options{}, of)
	c, got := client(t), map[string]int{}
	for range 200 {
		_, text := r.ask(t, c, "x")
		got[text]++
	}
	if got["a"] < 50 || got["b"] < 50 { // less likely than 10^-12
		t.Errorf("of 200 requests of even weights %v", got)
	}
}

func TestABusySessionHasNobodyElseRefused(t *testing.T) {
	held := make(chan struct{})
	var at []string
	for i := range 4 {
		at = append(at, server(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Hold") != "" {
				<-held
			}
			_, _ = io.WriteString(w, fmt.Sprint("replica ", i))
		}))
	}
	defer close(held)
	of := tableWith(route.Limits{Concurrency: 2, Queue: 3, QueueTime: wait}, at...)
	of.Endpoints[0].Sticky = &route.Sticky{Header: "X-Session"}
	r := start(t, router.Options{}, of)
	c := client(t)
	_, hot := r.ask(t, c, "x", "X-Session", "hot")
	lives := map[string]string{}
	for i := range 20 {
		_, lives[fmt.Sprint(i)] = r.ask(t, c, "x", "X-Session", fmt.Sprint(i))
	}
	for range 5 { // two are at its replica, and three fill the queue
		conn, _ := r.dial(t)
		send(t, conn, "POST /endpoints/e/invocations HTTP/1.1\r\nHost: a\r\nX-Hold: 1\r\nX-Session: hot\r\nContent-Length: 1\r\n\r\nx")
	}
	until(t, "the queue is full", func() bool { return r.fleet("v").Waiting == 3 })
	elsewhere := 0
	for session, home := range lives {
		if home != hot {
			elsewhere++
			if answer, text := r.ask(t, c, "x", "X-Session", session); answer.StatusCode != 200 || text != home {
				t.Errorf("another session is answered %d %s, and not by %s", answer.StatusCode, text, home)
			}
		}
	}
	if elsewhere == 0 {
		t.Error("all sessions live in one place")
	}
	if answer, text := r.ask(t, c, "x"); answer.StatusCode != 200 {
		t.Errorf("who has no session is answered %d %s", answer.StatusCode, text)
	}
	if answer, _ := r.ask(t, c, "x", "X-Session", "hot"); answer.StatusCode != 429 {
		t.Errorf("one more of the busy session is answered %d", answer.StatusCode)
	}
}

// crowded is an address where connections are begun and never taken.
func crowded(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
	for range 100 {
		conn, err := net.DialTimeout("tcp", address, 100*time.Millisecond)
		if err != nil {
			return address // its queue is full
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Skip("this system lets any number of connections wait")
	return ""
}

func TestAReplicaThatTakesNoConnectionCostsNoRequest(t *testing.T) {
	at := crowded(t)
	o := router.Options{Loops: 1, DialTime: 200 * time.Millisecond}
	r := start(t, o, table(at, server(t, said("good"))))
	c := client(t)
	for range 6 {
		if answer, text := r.ask(t, c, "x"); answer.StatusCode != 200 || text != "good" {
			t.Errorf("%d %s", answer.StatusCode, text)
		}
	}
	lone := start(t, o, table(at))
	if answer, text := lone.ask(t, c, "x"); answer.StatusCode != 503 || !strings.Contains(text, "cannot be reached") || answer.Header.Get("Retry-After") == "" {
		t.Errorf("where there is no other: %d %s", answer.StatusCode, text)
	}
}

func TestRetriesGoOnWhenAFleetIsRetired(t *testing.T) {
	good := server(t, said("good"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	_ = l.Close()
	of := table(good)
	r := start(t, router.Options{Loops: 1}, of)
	c := client(t)
	for range 500 {
		r.ask(t, c, "x")
	}
	began := time.Now()
	for i := int64(0); time.Since(began) < 3500*time.Millisecond; i++ { // judgements come once a second
		if since := time.Since(began); since > 1500*time.Millisecond { // the first has counted all that was asked
			f := fleet("v", 1, dead, good)
			f.Generation, f.Replicas[0].ID = i, fmt.Sprint("dead ", i) // nothing is known of it
			of.Endpoints[0].Fleets = []route.Fleet{f}
			if err := r.SetTable(of); err != nil {
				t.Fatal(err)
			}
			if answer, text := r.ask(t, c, "x"); answer.StatusCode != 200 {
				t.Errorf("%s after a fleet went: %d %s", since, answer.StatusCode, text)
			}
		}
		<-time.After(150 * time.Millisecond)
	}
}
