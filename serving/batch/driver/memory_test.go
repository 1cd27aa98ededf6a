package driver_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/serving/batch"
	"github.com/clary-ml/clary/serving/batch/driver"
)

const mib = 1 << 20

func TestLimitsAreBoundedByMemory(t *testing.T) {
	for _, test := range []struct {
		claim           string
		user, server    batch.Limits
		concurrent      int
		payload, answer int64
	}{
		{claim: "the defaults leave room for answers", concurrent: 1, payload: 6 * mib, answer: 55 * mib},
		{claim: "what the memory was made for", server: batch.Limits{Concurrent: 8}, concurrent: 8, payload: 6 * mib, answer: 6 * mib},
		{claim: "larger requests, if they are few", server: batch.Limits{Concurrent: 2, Payload: 16 * mib}, concurrent: 2, payload: 16 * mib, answer: 20 * mib},
		{claim: "else smaller ones", server: batch.Limits{Concurrent: 4, Payload: 16 * mib}, concurrent: 4, payload: 11324620, answer: 11324620},
		{claim: "then fewer", server: batch.Limits{Concurrent: 1024, Payload: 1024 * mib}, concurrent: 8, payload: 6 * mib, answer: 6 * mib},
		{claim: "more of small ones", server: batch.Limits{Concurrent: 1024, Payload: mib}, concurrent: 22, payload: mib, answer: 4 * mib},
		{claim: "what the user set", user: batch.Limits{Concurrent: 100, Payload: 20 * mib}, concurrent: 100, payload: 20 * mib, answer: 20 * mib},
		{claim: "the user's payload", user: batch.Limits{Payload: 100 * mib}, server: batch.Limits{Concurrent: 64}, concurrent: 8, payload: 100 * mib, answer: 100 * mib},
		{claim: "the user's number", user: batch.Limits{Concurrent: 16}, server: batch.Limits{Payload: 64 * mib}, concurrent: 16, payload: 6 * mib, answer: 6 * mib},
	} {
		spec := driver.Spec{Limits: test.user, Memory: driver.Memory(test.user.Else(batch.Limits{Concurrent: 8}).Else(batch.Defaults()))}
		got, answer := spec.Bounded(test.user.Else(test.server).Else(batch.Defaults()))
		if got.Concurrent != test.concurrent || got.Payload != test.payload || answer/mib != test.answer/mib {
			t.Errorf("%s: %+v and answers of %d MiB", test.claim, got, answer/mib)
		}
	}
	if got, answer := (driver.Spec{}).Bounded(batch.Limits{Concurrent: 500, Payload: mib}); got.Concurrent != 500 || answer != batch.DefaultMaxAnswer {
		t.Errorf("without a bound: %+v, %d", got, answer)
	}
}

// Whatever user and server say it fits, what the user set stays, and the next attempt has the same.
func TestBoundedLimitsFitAndStay(t *testing.T) {
	held := 0
	rapid.Check(t, func(t *rapid.T) {
		draw := func(of string, least int) batch.Limits {
			return batch.Limits{
				Concurrent: rapid.SampledFrom([]int{0, 1, 2, 3, 8, 9, 100, batch.MaxConcurrent}[least:]).Draw(t, of+" concurrent"),
				Payload:    rapid.SampledFrom([]int64{0, 1, 1000, mib, 5 * mib, 6 * mib, 7 * mib, 100 * mib, batch.MaxPayload}[least:]).Draw(t, of+" payload"),
				Strategy:   batch.Multi,
			}
		}
		user, asked := draw("user", 0), batch.Limits{}
		spec := driver.Spec{Limits: user, Memory: driver.Memory(user.Else(batch.Limits{Concurrent: 8}).Else(batch.Defaults()))}
		asked = user.Else(draw("server", 1))
		got, answer := spec.Bounded(asked)
		if got != asked {
			held++
		}
		switch {
		case driver.Memory(got) > spec.Memory:
			t.Fatalf("%+v takes %d of %d bytes", got, driver.Memory(got), spec.Memory)
		case int64(2*got.Concurrent+2)*(2*got.Payload+answer*3/2) > spec.Memory:
			t.Fatalf("%+v with answers of %d takes more than %d bytes", got, answer, spec.Memory)
		case got.Concurrent < 1 || got.Concurrent > asked.Concurrent || got.Payload < 1 || got.Payload > asked.Payload || got.Strategy != asked.Strategy:
			t.Fatalf("%+v became %+v", asked, got)
		case user.Concurrent > 0 && got.Concurrent != user.Concurrent || user.Payload > 0 && got.Payload != user.Payload:
			t.Fatalf("the user's %+v became %+v", user, got)
		case answer < min(got.Payload, batch.DefaultMaxAnswer):
			t.Fatalf("%+v and answers of %d bytes", got, answer)
		}
		if again, same := spec.Bounded(got); again != got || same != answer {
			t.Fatalf("%+v, %d became %+v, %d", got, answer, again, same)
		}
	})
	if held == 0 {
		t.Error("nothing was held to anything")
	}
}
