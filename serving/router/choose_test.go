package router_test

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/serving/router"
)

func TestFleetsGetTheirShares(t *testing.T) {
	a, b := server(t, said("a")), server(t, said("b"))
	r := start(t, router.Options{}, route.Table{Endpoints: []route.Endpoint{{Name: "e", Public: true, Fleets: []route.Fleet{
		fleet("a", 3, a), fleet("b", 1, b), fleet("idle", 0, server(t, said("idle"))),
	}}}})
	got := map[string]int{}
	c := client(t)
	const n = 2000
	for range n {
		answer, body := r.ask(t, c, "")
		if variant := answer.Header.Get("X-Amzn-Invoked-Production-Variant"); variant != body {
			t.Fatalf("%q is said to be of %q", body, variant)
		}
		got[body]++
	}
	// Five standard deviations of a binomial.
	if slack := 5 * math.Sqrt(n*0.75*0.25); math.Abs(float64(got["a"])-0.75*n) > slack || got["idle"] != 0 {
		t.Errorf("%v of %d, want 3 to 1 within %.0f, and none for idle", got, n, slack)
	}
	for _, variant := range []string{"a", "b", "idle"} {
		if _, body := r.ask(t, c, "", "X-Amzn-SageMaker-Target-Variant", variant); body != variant {
			t.Errorf("who asks for %q gets %q", variant, body)
		}
	}
	if answer, body := r.ask(t, c, "", "X-Amzn-SageMaker-Target-Variant", "none"); answer.StatusCode != 400 || !strings.Contains(body, "a, b, idle") {
		t.Errorf("who asks for a variant that is not there gets %d %s", answer.StatusCode, body)
	}
}

func TestASessionStaysWhereItIs(t *testing.T) {
	fleets := func(replicas int) []route.Fleet {
		var all []route.Fleet
		for _, variant := range []string{"a", "b"} {
			f := route.Fleet{Variant: variant, Weight: 1}
			for i := range replicas {
				name := fmt.Sprintf("%s%d", variant, i)
				f.Replicas = append(f.Replicas, route.Replica{ID: name, Address: server(t, said(name))})
			}
			all = append(all, f)
		}
		return all
	}
	e := route.Endpoint{Name: "e", Public: true, Fleets: fleets(4), Sticky: &route.Sticky{Header: "X-Session", Cookie: "sid"}}
	r := start(t, router.Options{}, route.Table{Endpoints: []route.Endpoint{e}})
	c := client(t)
	home, used := map[string]string{}, map[string]bool{}
	for round := range 3 {
		for i := range 40 {
			session := fmt.Sprint("session-", i)
			_, body := r.ask(t, c, "", "X-Session", session)
			if round == 0 {
				home[session] = body
			}
			if used[body] = true; body != home[session] {
				t.Errorf("%s was at %s and is at %s", session, home[session], body)
			}
		}
	}
	if len(used) < 6 {
		t.Errorf("40 sessions are at %d replicas of 8", len(used))
	}
	answer, first := r.ask(t, c, "")
	cookies := answer.Cookies()
	if len(cookies) != 1 || cookies[0].Name != "sid" {
		t.Fatalf("who has no session gets %v", cookies)
	}
	for range 5 {
		if answer, body := r.ask(t, c, "", "Cookie", "other=1; sid="+cookies[0].Value); body != first || len(answer.Cookies()) != 0 {
			t.Errorf("with its cookie it is at %s and was at %s", body, first)
		}
	}
	// One replica goes: only its sessions move.
	gone := e.Fleets[0].Replicas[0].ID
	e.Fleets[0].Replicas = e.Fleets[0].Replicas[1:]
	if err := r.SetTable(route.Table{Endpoints: []route.Endpoint{e}}); err != nil {
		t.Fatal(err)
	}
	for session, was := range home {
		_, body := r.ask(t, c, "", "X-Session", session)
		if was == gone && body[0] != was[0] || was != gone && body != was {
			t.Errorf("%s was at %s and is at %s after %s went", session, was, body, gone)
		}
	}
}

// held answers nothing until it is let go.
type held struct {
	at      string
	flying  atomic.Int64
	most    atomic.Int64
	release chan struct{}
}

func hold(t *testing.T) *held {
	h := &held{release: make(chan struct{})}
	h.at = server(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // net/http sees a client go only after its body
		n := h.flying.Add(1)
		for most := h.most.Load(); n > most && !h.most.CompareAndSwap(most, n); most = h.most.Load() {
		}
		select {
		case <-h.release:
		case <-r.Context().Done():
		}
		h.flying.Add(-1)
	})
	return h
}

// post asks without waiting, and gives what came.
func (r *running) post(t *testing.T, into chan<- int) {
	conn, answers := r.dial(t)
	send(t, conn, "POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
	go func() {
		answer, err := http.ReadResponse(answers, nil)
		if err != nil {
			into <- 0
			return
		}
		into <- answer.StatusCode
	}()
}

func TestTheLeastBusyReplicaIsAsked(t *testing.T) {
	one, two := hold(t), hold(t)
	defer close(one.release)
	defer close(two.release)
	r := start(t, router.Options{Drain: time.Millisecond}, table(one.at, two.at))
	codes := make(chan int, 20)
	for i := range 10 {
		r.post(t, codes)
		until(t, "it has arrived", func() bool { return one.flying.Load()+two.flying.Load() == int64(i+1) })
		if a, b := one.flying.Load(), two.flying.Load(); a-b > 1 || b-a > 1 {
			t.Fatalf("one has %d and the other %d", a, b)
		}
	}
}

func TestTheBoundsOfTheQueueAreExact(t *testing.T) {
	h := hold(t)
	r := start(t, router.Options{}, tableWith(route.Limits{Concurrency: 2, Queue: 3, QueueTime: time.Minute}, h.at))
	codes := make(chan int, 20)
	for i := range 2 {
		r.post(t, codes)
		until(t, "it is at the replica", func() bool { return h.flying.Load() == int64(i+1) })
	}
	for i := range 3 {
		r.post(t, codes)
		until(t, "it waits", func() bool { return r.fleet("v").Waiting == int64(i+1) })
	}
	answer, body := r.ask(t, client(t), "")
	if answer.StatusCode != 429 || answer.Header.Get("Retry-After") == "" || !strings.Contains(body, "limits.queue") {
		t.Errorf("the sixth is answered with %d %s, want 429", answer.StatusCode, body)
	}
	close(h.release)
	for range 5 {
		if code := <-codes; code != 200 {
			t.Errorf("one that was let in is answered with %d", code)
		}
	}
	if most := h.most.Load(); most != 2 {
		t.Errorf("the replica had %d at a time, want 2", most)
	}
	until(t, "the report says so", func() bool {
		f := r.fleet("v")
		return f.Requests == 5 && f.Refused == 1 && f.Waiting == 0 && f.InFlight == 0
	})
}

func TestWhoWaitsTooLongIsTold(t *testing.T) {
	h := hold(t)
	r := start(t, router.Options{Drain: time.Millisecond}, tableWith(route.Limits{Concurrency: 1, QueueTime: 100 * time.Millisecond}, h.at))
	defer close(h.release)
	r.post(t, make(chan int, 1))
	until(t, "the replica is busy", func() bool { return h.flying.Load() == 1 })
	if answer, body := r.ask(t, client(t), ""); answer.StatusCode != 503 || answer.Header.Get("Retry-After") == "" || !strings.Contains(body, "limits.queue_time") {
		t.Errorf("%d %s, want 503", answer.StatusCode, body)
	}
}

func TestTheFirstOfAQueueIsTheFirstToBeAnswered(t *testing.T) {
	var order []string
	var mu sync.Mutex
	release := make(chan struct{})
	at := server(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		order = append(order, string(body))
		mu.Unlock()
		<-release
	})
	r := start(t, router.Options{}, tableWith(route.Limits{Concurrency: 1}, at))
	var all sync.WaitGroup
	for i := range 5 {
		all.Go(func() { r.ask(t, client(t), fmt.Sprint(i)) })
		until(t, "it is there", func() bool { f := r.fleet("v"); return f.Waiting+f.InFlight == int64(i+1) })
	}
	close(release)
	all.Wait()
	if got := strings.Join(order, ""); got != "01234" {
		t.Errorf("they were answered in the order %s", got)
	}
}

func TestARequestForAColdFleetIsHeldUntilItIsThere(t *testing.T) {
	cold := route.Table{Endpoints: []route.Endpoint{{Name: "e", Public: true, Limits: route.Limits{HoldTime: time.Minute}, Fleets: []route.Fleet{{Variant: "v", Weight: 1, Cold: true}}}}}
	r := start(t, router.Options{}, cold)
	codes := make(chan int, 6)
	for range 5 {
		r.post(t, codes)
	}
	<-r.Wake()
	until(t, "they wait", func() bool { return r.fleet("v").Waiting == 5 })
	// Its replica starts, and does not answer yet: who asks now is held too.
	warm := table(server(t, said("warm")))
	starts := table(warm.Endpoints[0].Fleets[0].Replicas[0].Address)
	starts.Endpoints[0].Limits.HoldTime = time.Minute
	starts.Endpoints[0].Fleets[0].Cold, starts.Endpoints[0].Fleets[0].Replicas[0].Draining = true, true
	if err := r.SetTable(starts); err != nil {
		t.Fatal(err)
	}
	r.post(t, codes)
	until(t, "it waits too", func() bool { return r.fleet("v").Waiting == 6 })
	if err := r.SetTable(warm); err != nil {
		t.Fatal(err)
	}
	for range 6 {
		if code := <-codes; code != 200 {
			t.Errorf("one that was held is answered with %d", code)
		}
	}
	cold.Endpoints[0].Limits.HoldTime = 50 * time.Millisecond
	if err := r.SetTable(cold); err != nil {
		t.Fatal(err)
	}
	if answer, body := r.ask(t, client(t), ""); answer.StatusCode != 503 || !strings.Contains(body, "was ready within 50ms") {
		t.Errorf("one that was held too long is answered with %d %s, want 503", answer.StatusCode, body)
	}
}

func TestWhereNobodyIsReadyThereIs503AtOnce(t *testing.T) {
	r := start(t, router.Options{}, table())
	answer, body := r.ask(t, client(t), "")
	if answer.StatusCode != 503 || answer.Header.Get("Retry-After") == "" || !strings.Contains(body, `variant \"v\" has no replica`) {
		t.Errorf("%d %s", answer.StatusCode, body)
	}
}

func TestRatesAreKept(t *testing.T) {
	at := server(t, said("x"))
	now := time.Now()
	secret := map[string]string{}
	var tokens []route.Token
	for _, name := range []string{"ann", "bob", "vic"} {
		role := cluster.RoleInvoker
		if name == "vic" {
			role = cluster.RoleViewer
		}
		token, text, err := auth.NewUserToken(name, role, 0, now)
		if err != nil {
			t.Fatal(err)
		}
		secret[name] = text
		tokens = append(tokens, route.Token{ID: token.ID, Hash: token.Hash, Name: name, Role: role})
	}
	with := tableWith(route.Limits{PerToken: 0.001, Burst: 3}, at)
	with.Endpoints[0].Public = false
	with.Tokens = tokens
	r := start(t, router.Options{}, with)
	c := client(t)
	for range 3 {
		for _, name := range []string{"ann", "bob"} {
			if answer, body := r.ask(t, c, "", "Authorization", "Bearer "+secret[name]); answer.StatusCode != 200 {
				t.Errorf("%s: %d %s", name, answer.StatusCode, body)
			}
		}
	}
	for show, want := range map[string]int{"Bearer " + secret["ann"]: 429, "Bearer " + secret["vic"]: 403, "Bearer x": 401, "Basic x": 401, "": 401, "bearer " + secret["bob"][:80] + "00000": 401} {
		var fields []string
		if show != "" {
			fields = []string{"Authorization", show}
		}
		answer, body := r.ask(t, c, "", fields...)
		if answer.StatusCode != want || strings.Contains(body, "_") && strings.Contains(body, secret["ann"]) {
			t.Errorf("%.20s...: %d %s, want %d", show, answer.StatusCode, body, want)
		}
	}
	if err := r.SetTable(tableWith(route.Limits{Rate: 0.001, Burst: 2}, at)); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{200, 200, 429} {
		if answer, body := r.ask(t, c, ""); answer.StatusCode != want {
			t.Errorf("request %d: %d %s, want %d", i, answer.StatusCode, body, want)
		}
	}
}

func TestATokenThatWasRevokedIsForgotten(t *testing.T) {
	token, text, err := auth.NewUserToken("ann", cluster.RoleUser, 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	with := table(server(t, said("x")))
	with.Endpoints[0].Public = false
	with.Tokens = []route.Token{{ID: token.ID, Hash: token.Hash, Name: "ann", Role: token.Role}}
	r := start(t, router.Options{}, with)
	c := client(t)
	for range 3 {
		if answer, _ := r.ask(t, c, "", "Authorization", "Bearer "+text); answer.StatusCode != 200 {
			t.Fatalf("%d", answer.StatusCode)
		}
	}
	with.Tokens = nil
	if err := r.SetTable(with); err != nil {
		t.Fatal(err)
	}
	if answer, _ := r.ask(t, c, "", "Authorization", "Bearer "+text); answer.StatusCode != 401 {
		t.Errorf("%d after it was revoked, want 401", answer.StatusCode)
	}
}
