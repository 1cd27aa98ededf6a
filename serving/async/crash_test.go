package async_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/serving/async"
)

// plan is what a draw of the test below has happen.
type plan struct {
	bodies []string
	// What happens to the steps at the store, in their order: while requests are submitted, and then.
	fronts, fates []fate
	workers       int
}

func draw(t *rapid.T) plan {
	return plan{
		bodies:  rapid.SliceOfN(rapid.SampledFrom([]string{"good", "bad", "flaky", "broken", "slow"}), 1, 6).Draw(t, "requests"),
		fronts:  rapid.SliceOfN(rapid.SampledFrom([]fate{well, well, well, well, fails, lost, dies, diesDone}), 0, 12).Draw(t, "fronts"),
		fates:   rapid.SliceOfN(rapid.SampledFrom([]fate{well, well, well, well, well, well, fails, lost, dies, diesDone}), 20, 150).Draw(t, "fates"),
		workers: rapid.IntRange(1, 2).Draw(t, "workers"),
	}
}

// behaved answers as the body says.
func behaved(seen map[string]int, ctx context.Context, r async.Request) (async.Answer, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return async.Answer{}, err
	}
	seen[r.ID]++
	switch kind, _, _ := strings.Cut(string(body), " "); kind {
	case "bad":
		return said(400, "no")
	case "broken":
		return said(500, "no")
	case "flaky":
		if seen[r.ID]%2 == 1 {
			return said(502, "now and then")
		}
	case "slow":
		select {
		case <-time.After(30 * time.Second):
		case <-ctx.Done():
			return async.Answer{}, ctx.Err()
		}
	}
	return said(200, strings.ToUpper(string(body)))
}

// tally is what happened in a draw.
type tally struct{ crashes, answers, failures, twice int }

// Whatever fails and dies at whichever step: every request that was acknowledged has its answer at
// last, or its failure if it could only fail, under the names of its receipt; and nothing is left.
func TestNothingThatWasAcknowledgedIsLost(t *testing.T) {
	var all tally
	rapid.Check(t, func(r *rapid.T) {
		p := draw(r)
		var problem string
		synctest.Test(t, func(t *testing.T) {
			one, wrong := p.play(t)
			all = tally{all.crashes + one.crashes, all.answers + one.answers, all.failures + one.failures, all.twice + one.twice}
			problem = wrong
		})
		if problem != "" {
			r.Fatal(problem)
		}
	})
	t.Logf("%+v", all)
	if all.crashes == 0 || all.answers == 0 || all.failures == 0 || all.twice == 0 {
		t.Errorf("%+v: nothing was tried", all)
	}
}

// play submits the requests and has workers work until nothing is left, or all time is over.
func (p plan) play(t *testing.T) (n tally, problem string) {
	s := newShelf()
	fronts, fates := oneByOne(p.fronts), oneByOne(p.fates)
	receipts := map[async.Receipt]string{}
	for i, kind := range p.bodies {
		body := fmt.Sprintf("%s %d", kind, i)
		if receipt, err := submit(t.Context(), s.machine(fronts), body); err == nil {
			receipts[receipt] = body
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Hour)
	defer cancel()
	ended := make(chan int)
	seen := make([]map[string]int, p.workers)
	for i := range p.workers {
		seen[i] = map[string]int{}
		go func() { ended <- works(ctx, s, fates, seen[i]) }()
	}
	for len(left(s)) > 0 && ctx.Err() == nil {
		time.Sleep(time.Minute)
	}
	cancel()
	for range p.workers {
		n.crashes += <-ended
	}
	for receipt, body := range receipts {
		answer, has := s.get(receipt.Output)
		_, failed := s.get(receipt.Failure)
		switch kind, _, _ := strings.Cut(body, " "); {
		case kind == "bad" || kind == "broken":
			if has || !failed {
				return n, fmt.Sprintf("%s: an answer %v, a failure %v", body, has, failed)
			}
			n.failures++
		case !has || failed || answer != strings.ToUpper(body):
			return n, fmt.Sprintf("%s: the answer is %q, %v (a failure: %v); left: %v", body, answer, has, failed, left(s))
		default:
			n.answers++
		}
	}
	for _, m := range seen {
		for _, times := range m {
			if times > 1 {
				n.twice++
			}
		}
	}
	if l := left(s); len(l) != 0 {
		return n, fmt.Sprintf("left: %v", l)
	}
	return n, ""
}

// oneByOne hands out fates, and goes on well.
func oneByOne(all []fate) func() fate {
	return func() (f fate) { // under the store's lock
		if len(all) > 0 {
			f, all = all[0], all[1:]
		}
		return f
	}
}

// works runs a worker until ctx ends, and another whenever its machine dies.
func works(ctx context.Context, s *shelf, fates func() fate, seen map[string]int) (crashes int) {
	for ctx.Err() == nil {
		m := s.machine(fates)
		running, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		calls := make(chan struct{}, 1)
		w := async.New(m, func(ctx context.Context, r async.Request) (async.Answer, error) {
			calls <- struct{}{} // seen is one goroutine's at a time
			defer func() { <-calls }()
			return behaved(seen, ctx, r)
		}, async.Options{Poll: 20 * time.Second})
		go func() { done <- w.Run(running, endpoints(churn)) }()
		select {
		case <-m.died:
			crashes++
		case <-ctx.Done():
		}
		stop()
		<-done
	}
	return crashes
}
