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
	"sync/atomic"
	"testing"
	"time"

	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/serving/router"
)

const okay = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// counting is a replica that counts the requests it gets, but for /ping, and does with each as told.
// It ends the connection when that says false.
func counting(t *testing.T, n *atomic.Int64, then func(net.Conn, int64) bool) string {
	return script(t, func(conn net.Conn, r *bufio.Reader) {
		for {
			lines := head(t, r)
			if lines == nil {
				return
			}
			if strings.HasPrefix(lines[0], "GET /ping") {
				_, _ = io.WriteString(conn, okay)
				continue
			}
			for _, line := range lines {
				var length int64
				if _, err := fmt.Sscanf(line, "Content-Length: %d", &length); err == nil {
					_, _ = io.CopyN(io.Discard, r, length)
				}
			}
			if !then(conn, n.Add(1)) {
				return
			}
		}
	})
}

// deaf is an address where nobody listens.
func deaf(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func TestAReplicaThatCannotBeReachedCostsNoRequest(t *testing.T) {
	good := server(t, said("ok"))
	r := start(t, router.Options{}, table(deaf(t), good, deaf(t)))
	c := client(t)
	for range 100 {
		if answer, body := r.ask(t, c, "x"); answer.StatusCode != 200 || body != "ok" {
			t.Fatalf("%d %s", answer.StatusCode, body)
		}
	}
	until(t, "those are left out", func() bool {
		out := 0
		for _, m := range r.fleet("v").Replicas {
			if m.Ejected && m.Why != "" {
				out++
			}
		}
		return out == 2
	})
}

func TestWhereNobodyCanBeReachedTheClientMayTryAgain(t *testing.T) {
	r := start(t, router.Options{}, table(deaf(t)))
	answer, body := r.ask(t, client(t), "x")
	if answer.StatusCode != 503 || answer.Header.Get("Retry-After") == "" || !strings.Contains(body, "v-0") {
		t.Errorf("%d %s", answer.StatusCode, body)
	}
}

// What a replica may have worked on is not sent again: neither on a new connection nor on one that was
// used before.
func TestAPostThatMayHaveBeenSeenIsNeverSentTwice(t *testing.T) {
	for name, answers := range map[string]int64{"on a new connection": 0, "on a used connection": 1} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int64
			each := func(conn net.Conn, i int64) bool {
				if i > answers {
					return false // it has read the request, and ends
				}
				_, err := io.WriteString(conn, okay)
				return err == nil
			}
			r := start(t, router.Options{}, tableWith(route.Limits{Retries: 5}, counting(t, &n, each), counting(t, &n, each)))
			conn, replies := r.dial(t)
			for i := range answers + 1 {
				send(t, conn, "POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
				answer, body := receive(t, replies)
				if want := map[bool]int{true: 200, false: 502}[i < answers]; answer.StatusCode != want {
					t.Errorf("request %d: %d %s, want %d", i, answer.StatusCode, body, want)
				}
			}
			if got := n.Load(); got != answers+1 {
				t.Errorf("the replicas got %d requests of %d", got, answers+1)
			}
		})
	}
}

func TestAGetOnAnOldConnectionThatEndsIsSentAgain(t *testing.T) {
	var n atomic.Int64
	at := counting(t, &n, func(conn net.Conn, i int64) bool {
		if i == 2 {
			return false
		}
		_, err := io.WriteString(conn, okay)
		return err == nil
	})
	r := start(t, router.Options{}, table(at))
	conn, replies := r.dial(t)
	for i := range 3 {
		send(t, conn, "GET /endpoints/e/v2/x HTTP/1.1\r\nHost: x\r\n\r\n")
		if answer, body := receive(t, replies); answer.StatusCode != 200 {
			t.Fatalf("request %d: %d %s", i, answer.StatusCode, body)
		}
	}
	if got := n.Load(); got != 4 {
		t.Errorf("the replica got %d requests, want the second twice", got)
	}
}

func TestAnAnswerThatBreaksOffIsNotTakenForWhole(t *testing.T) {
	for name, says := range map[string]string{
		"of a length": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
		"of chunks":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
		"bad chunks":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int64
			at := counting(t, &n, func(conn net.Conn, _ int64) bool {
				_, _ = io.WriteString(conn, says)
				return false
			})
			r := start(t, router.Options{}, table(at))
			answer, err := client(t).Post(r.url("invocations"), "text/plain", strings.NewReader("x"))
			if err == nil {
				_, err = io.ReadAll(answer.Body)
				_ = answer.Body.Close()
			}
			if err == nil {
				t.Error("it was taken for whole")
			}
			until(t, "it is counted", func() bool { f := r.fleet("v"); return f.Requests == 1 && f.Errors == 1 && f.InFlight == 0 })
		})
	}
}

func TestAnAnswerThatDoesNotComeIsTold504(t *testing.T) {
	h := hold(t)
	defer close(h.release)
	r := start(t, router.Options{Drain: time.Millisecond}, tableWith(route.Limits{Timeout: 100 * time.Millisecond}, h.at))
	if answer, body := r.ask(t, client(t), "x"); answer.StatusCode != 504 || !strings.Contains(body, "limits.timeout") {
		t.Errorf("%d %s, want 504", answer.StatusCode, body)
	}
	until(t, "the replica is told", func() bool { return h.flying.Load() == 0 })
}

func TestAStreamMayTakeLongerThanTheTimeout(t *testing.T) {
	const timeout = 1500 * time.Millisecond
	at := server(t, func(w http.ResponseWriter, _ *http.Request) {
		for range 10 { // twice the timeout, in pieces that are far below it
			_, _ = io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			time.Sleep(timeout / 5)
		}
	})
	r := start(t, router.Options{}, tableWith(route.Limits{Timeout: timeout}, at))
	if _, body := r.ask(t, client(t), ""); body != "xxxxxxxxxx" {
		t.Errorf("%q", body)
	}
}

func TestOneSlowAnswerHoldsUpNobodyElse(t *testing.T) {
	h := hold(t)
	r := start(t, router.Options{}, table(h.at))
	codes := make(chan int, 1)
	r.post(t, codes)
	until(t, "it is at the replica", func() bool { return h.flying.Load() == 1 })
	if err := r.SetTable(table(h.at, server(t, said("quick")))); err != nil {
		t.Fatal(err)
	}
	c := client(t)
	for range 100 {
		if _, body := r.ask(t, c, "x"); body != "quick" {
			t.Fatalf("a request waited behind the slow one: %q", body)
		}
	}
	close(h.release)
	if code := <-codes; code != 200 {
		t.Errorf("the slow one is answered with %d", code)
	}
}

func TestWhoDoesMuchWorseThanTheOthersStandsOut(t *testing.T) {
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		me     [3]int64 // good, bad, mean of the good in ms
		others [][3]int64
		out    bool
	}{
		"all alike":                     {[3]int64{100, 0, 10}, [][3]int64{{100, 0, 10}, {100, 0, 11}}, false},
		"slow once in a hundred":        {[3]int64{100, 0, 20}, [][3]int64{{100, 0, 10}, {100, 0, 10}}, false},
		"always slow":                   {[3]int64{100, 0, 500}, [][3]int64{{100, 0, 10}, {100, 0, 10}}, true},
		"slow, but too little to tell":  {[3]int64{10, 0, 500}, [][3]int64{{100, 0, 10}}, false},
		"slow, and nobody to compare":   {[3]int64{100, 0, 500}, [][3]int64{{5, 0, 10}}, false},
		"five times as slow, of little": {[3]int64{100, 0, 5}, [][3]int64{{100, 0, 1}}, false},
		"fails where others do not":     {[3]int64{30, 70, 10}, [][3]int64{{100, 0, 10}}, true},
		"fails as they all do":          {[3]int64{30, 70, 10}, [][3]int64{{30, 70, 10}}, false},
		"fails a little":                {[3]int64{90, 10, 10}, [][3]int64{{100, 0, 10}}, false},
		"fails always, and so do all":   {[3]int64{0, 100, 0}, [][3]int64{{0, 100, 0}}, false},
	} {
		var seen []router.Sample
		for _, s := range append([][3]int64{c.me}, c.others...) {
			seen = append(seen, router.NewSample(s[0], s[1], time.Duration(s[0]*s[2])*ms))
		}
		if why := router.Stands(seen, 0); (why != "") != c.out {
			t.Errorf("%s: %q", name, why)
		}
	}
}

// sick is a replica that fails while told to.
func sick(t *testing.T, ill *atomic.Bool) string {
	return server(t, func(w http.ResponseWriter, _ *http.Request) {
		if ill.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
}

func TestAReplicaThatFailsIsLeftOutUntilItsPingIsWell(t *testing.T) {
	var ill atomic.Bool
	ill.Store(true)
	r := start(t, router.Options{}, table(sick(t, &ill), server(t, said("ok"))))
	c := client(t)
	until(t, "it is left out", func() bool {
		r.ask(t, c, "x")
		return r.fleet("v").Replicas[0].Ejected
	})
	for range 50 {
		if answer, _ := r.ask(t, c, "x"); answer.StatusCode != 200 {
			t.Fatal("it was asked though it is left out")
		}
	}
	ill.Store(false)
	until(t, "it is back", func() bool { return !r.fleet("v").Replicas[0].Ejected })
}

func TestTheLastReplicasAreNotLeftOut(t *testing.T) {
	var ill atomic.Bool
	ill.Store(true)
	r := start(t, router.Options{}, table(sick(t, &ill), sick(t, &ill)))
	c := client(t)
	for range 50 { // half of them may be left out, and somebody always answers
		if answer, body := r.ask(t, c, "x"); answer.StatusCode != 500 {
			t.Fatalf("%d %s", answer.StatusCode, body)
		}
	}
	out := 0
	for _, m := range r.fleet("v").Replicas {
		if m.Ejected {
			out++
		}
	}
	if out > 1 {
		t.Errorf("%d of 2 are left out", out)
	}
}

func TestADrainingReplicaGetsNothingNewAndFinishes(t *testing.T) {
	h := hold(t)
	other := server(t, said("other"))
	with := table(h.at)
	r := start(t, router.Options{}, with)
	codes := make(chan int, 1)
	r.post(t, codes)
	until(t, "it is at the replica", func() bool { return h.flying.Load() == 1 })
	with = table(h.at, other)
	with.Endpoints[0].Fleets[0].Replicas[0].Draining = true
	if err := r.SetTable(with); err != nil {
		t.Fatal(err)
	}
	c := client(t)
	for range 20 {
		if _, body := r.ask(t, c, "x"); body != "other" {
			t.Fatalf("a replica that drains was asked: %q", body)
		}
	}
	if f := r.fleet("v"); f.Replicas[0].InFlight != 1 {
		t.Errorf("what it has is not known any more: %+v", f.Replicas)
	}
	close(h.release)
	if code := <-codes; code != 200 {
		t.Errorf("what it had is answered with %d", code)
	}
}

func TestChangingTheTableUnderLoadLosesNothing(t *testing.T) {
	var at []string
	for range 4 {
		at = append(at, server(t, said("ok")))
	}
	r := start(t, router.Options{}, table(at...))
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	var asked, lost atomic.Int64
	for range 8 {
		asking.Go(func() {
			c := client(t)
			for ctx.Err() == nil {
				answer, err := c.Post(r.url("invocations"), "text/plain", strings.NewReader("x"))
				asked.Add(1)
				if err != nil || answer.StatusCode != 200 {
					lost.Add(1)
					continue
				}
				_, _ = io.Copy(io.Discard, answer.Body)
				_ = answer.Body.Close()
			}
		})
	}
	for i := range 200 {
		before := asked.Load()
		next := table(at[i%4], at[(i+1)%4])
		next.Version = uint64(i)
		next.Endpoints[0].Fleets[0].Generation = int64(i / 10)
		if err := r.SetTable(next); err != nil {
			t.Error(err)
		}
		until(t, "some were asked", func() bool { return asked.Load() > before+4 })
	}
	cancel()
	asking.Wait()
	if lost.Load() != 0 || asked.Load() < 800 {
		t.Errorf("%d of %d were lost", lost.Load(), asked.Load())
	}
	if r.Report().Version != 199 {
		t.Errorf("the table in force is %d", r.Report().Version)
	}
}

func TestABadTableChangesNothing(t *testing.T) {
	r := start(t, router.Options{}, table(server(t, said("ok"))))
	bad := table("nowhere")
	if err := r.SetTable(bad); err == nil || !strings.Contains(err.Error(), "endpoints[0].fleets[0].replicas[0].address") {
		t.Errorf("it says %v", err)
	}
	if answer, body := r.ask(t, client(t), ""); answer.StatusCode != 200 || body != "ok" {
		t.Errorf("%d %s", answer.StatusCode, body)
	}
}

func TestAtTheEndWhatIsUnderWayIsAnswered(t *testing.T) {
	h := hold(t)
	r := start(t, router.Options{}, table(h.at))
	conn, answers := r.dial(t)
	send(t, conn, "POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
	until(t, "it is at the replica", func() bool { return h.flying.Load() == 1 })
	ended := make(chan error, 1)
	go func() { ended <- r.stop() }()
	until(t, "nobody is let in any more", func() bool {
		conn, err := net.Dial("tcp", r.address)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	close(h.release)
	if answer, _ := receive(t, answers); answer.StatusCode != 200 || !answer.Close {
		t.Errorf("%d, close %v", answer.StatusCode, answer.Close)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestAnotherRouterTakesOverWithoutALostRequest(t *testing.T) {
	at := server(t, said("ok"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	address := ""
	begin := func() func() error {
		r, err := router.New(router.Options{Loops: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.SetTable(table(at)); err != nil {
			t.Fatal(err)
		}
		l, err := router.Listen(ctx, map[bool]string{true: "127.0.0.1:0", false: address}[address == ""])
		if err != nil {
			t.Fatal(err)
		}
		if address == "" {
			address = l.Addr().String()
		}
		life, end := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- r.Run(life, l) }()
		return func() error {
			end()
			return <-done
		}
	}
	old := begin()
	var asking sync.WaitGroup
	var asked, lost atomic.Int64
	over := make(chan struct{})
	for range 4 {
		asking.Go(func() {
			c := client(t) // which keeps its connections, and tries a dead one's request again only if it may
			for {
				select {
				case <-over:
					return
				default:
				}
				answer, err := c.Post("http://"+address+"/endpoints/e/invocations", "text/plain", strings.NewReader("x"))
				asked.Add(1)
				if err != nil || answer.StatusCode != 200 {
					t.Log(err)
					lost.Add(1)
					continue
				}
				_, _ = io.Copy(io.Discard, answer.Body)
				_ = answer.Body.Close()
			}
		})
	}
	for range 3 {
		next := begin()
		before := asked.Load()
		until(t, "they are asked", func() bool { return asked.Load() > before+20 })
		if err := old(); err != nil {
			t.Error(err)
		}
		old = next
	}
	close(over)
	asking.Wait()
	if err := old(); err != nil {
		t.Error(err)
	}
	if lost.Load() != 0 {
		t.Errorf("%d of %d were lost", lost.Load(), asked.Load())
	}
}

func TestAnObserverSeesBothBodiesAndAddsToTheHead(t *testing.T) {
	at := server(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, "answer to "+string(body))
	})
	seen := make(chan string, 1)
	r := start(t, router.Options{Observer: observer(func(x *router.Exchange) *router.Watch {
		return &router.Watch{
			MaxRequest: 100, MaxAnswer: 100,
			AppendHead: func(head []byte, x *router.Exchange) []byte { return append(head, "X-Seen: yes\r\n"...) },
			Done: func(x *router.Exchange) {
				seen <- fmt.Sprintf("%s %s %s %d %q %v %q %v", x.Endpoint.Name, x.Fleet.Variant, x.Path, x.Status, x.RequestBody.Body, x.RequestBody.Over, x.AnswerBody.Body, x.AnswerBody.Over)
			},
		}
	})}, table(at))
	answer, _ := r.ask(t, client(t), "hello")
	if answer.Header.Get("X-Seen") != "yes" {
		t.Errorf("the head is %v", answer.Header)
	}
	if got, want := <-seen, `e v /invocations 200 "hello" false "answer to hello" false`; got != want {
		t.Errorf("it saw %s, want %s", got, want)
	}
	r.ask(t, client(t), strings.Repeat("x", 200))
	if got, want := <-seen, `e v /invocations 200 "" true "" true`; got != want {
		t.Errorf("it saw %s, want %s", got, want)
	}
}

type observer func(*router.Exchange) *router.Watch

func (o observer) Begin(x *router.Exchange) *router.Watch { return o(x) }

func TestHandlersAnswerInPlaceOfReplicas(t *testing.T) {
	r := start(t, router.Options{Handlers: map[string]http.Handler{"rewards": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		w.Header().Set("X-Endpoint", router.Of(r.Context()).Endpoint.Name)
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, "%s %d %v", r.URL.Path, len(body), err)
	})}}, table(deaf(t)))
	c := client(t)
	for _, size := range []int{0, 10, 100 << 10} {
		for _, body := range []io.Reader{strings.NewReader(strings.Repeat("x", size)), io.MultiReader(strings.NewReader(strings.Repeat("x", size)))} {
			answer, err := c.Post(r.url("rewards/x"), "text/plain", body)
			if err != nil {
				t.Fatal(err)
			}
			text, _ := io.ReadAll(answer.Body)
			_ = answer.Body.Close()
			if want := fmt.Sprintf("/endpoints/e/rewards/x %d <nil>", size); answer.StatusCode != 202 || string(text) != want || answer.Header.Get("X-Endpoint") != "e" {
				t.Errorf("%d %s, want %s", answer.StatusCode, text, want)
			}
		}
	}
}

func TestMetricsSayWhatHappened(t *testing.T) {
	r := start(t, router.Options{OpenMetrics: true}, table(server(t, said("ok"))))
	c := client(t)
	for range 3 {
		r.ask(t, c, "x")
	}
	until(t, "they are counted", func() bool { f := r.fleet("v"); return f.Requests == 3 && f.InFlight == 0 })
	recorder := httptest.NewRecorder()
	r.Metrics().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	answer, err := c.Get("http://" + r.address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	served, _ := io.ReadAll(answer.Body)
	for _, text := range []string{recorder.Body.String(), string(served)} {
		for _, want := range []string{
			`clary_router_requests_total{endpoint="e",generation="0",variant="v"} 3`, `clary_router_errors_total{endpoint="e",generation="0",variant="v"} 0`,
			`clary_router_request_duration_seconds_count{endpoint="e",generation="0",variant="v"} 3`, `clary_router_in_flight{endpoint="e",generation="0",replica="v-0",variant="v"} 0`,
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%s is missing", want)
			}
		}
	}
}
