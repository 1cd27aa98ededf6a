package router_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/serving/router"
)

func TestARequestThatGoesOnIsBusyTime(t *testing.T) {
	h := hold(t)
	r := start(t, router.Options{}, table(h.at))
	conn, _ := r.dial(t)
	before := time.Now()
	send(t, conn, "POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
	until(t, "it is at the replica", func() bool { return h.flying.Load() == 1 })
	first := r.fleet("v").Busy
	until(t, "it counts while it goes on", func() bool { return r.fleet("v").Busy > first })
	close(h.release)
	until(t, "it ends", func() bool { return r.fleet("v").Requests == 1 })
	f := r.fleet("v")
	if most := time.Since(before).Seconds(); f.Busy <= first || f.Busy > most {
		t.Errorf("busy for %v s of %v s at the most, after %v s while it went on", f.Busy, most, first)
	}
	if again := r.fleet("v").Busy; again != f.Busy {
		t.Errorf("busy for %v s, and though it has ended then for %v s", f.Busy, again)
	}
}

func TestWhoGivesUpHasWaitedAtLeastSoLong(t *testing.T) {
	h := hold(t)
	defer close(h.release)
	r := start(t, router.Options{Drain: time.Millisecond}, table(h.at))
	conn, _ := r.dial(t)
	send(t, conn, "POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
	until(t, "it is at the replica", func() bool { return h.flying.Load() == 1 })
	_ = conn.Close()
	until(t, "it is counted", func() bool { return r.fleet("v").Requests == 1 })
	if f := r.fleet("v"); f.Latency.N() != 1 || f.Logs.N != 0 || f.Errors != 0 {
		t.Errorf("%+v", f)
	}
}

func TestWhatFailsIsNotFast(t *testing.T) {
	r := start(t, router.Options{}, table(server(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })))
	r.ask(t, client(t), "x")
	until(t, "it is counted", func() bool { return r.fleet("v").Requests == 1 })
	if f := r.fleet("v"); f.Latency.N() != 1 || f.Logs.N != 0 || f.Errors != 1 {
		t.Errorf("%+v", f)
	}
}

func TestARewardWithoutAGenerationIsOfOneThatGetsRequests(t *testing.T) {
	generation := func(n int64, weight float64) route.Fleet {
		f := fleet("v", weight, server(t, said("ok")))
		f.Generation = n
		return f
	}
	of := table()
	of.Endpoints[0].Fleets = []route.Fleet{generation(1, 1), generation(2, 1), generation(3, 0)} // the third only starts
	r := start(t, router.Options{}, of)
	if !r.Reward("e", "v", -1, 1) || !r.Reward("e", "v", 3, 1) || r.Reward("e", "none", -1, 1) {
		t.Error("a reward was not counted, or one of nobody was")
	}
	for _, f := range r.Report().Fleets {
		if want := map[int64]int64{2: 1, 3: 1}[f.Generation]; f.Rewards.N != want {
			t.Errorf("generation %d has %d rewards, want %d", f.Generation, f.Rewards.N, want)
		}
	}
}
