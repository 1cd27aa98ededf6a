package shadow_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/serving/shadow"
)

func answer(status int, body string) (shadow.Answer, error) {
	return shadow.Answer{Status: status, Body: io.NopCloser(strings.NewReader(body))}, nil
}

func TestAnswersAreComparedAndMeasured(t *testing.T) {
	long := strings.Repeat("x", 3<<20)
	for _, c := range []struct {
		name string
		ask  func() (shadow.Answer, error)
		want route.ShadowReport
	}{
		{"the same", func() (shadow.Answer, error) { return answer(200, "yes") }, route.ShadowReport{Requests: 1, Same: 1}},
		{"another", func() (shadow.Answer, error) { return answer(200, "yEs") }, route.ShadowReport{Requests: 1}},
		{"another status", func() (shadow.Answer, error) { return answer(201, "yes") }, route.ShadowReport{Requests: 1}},
		{"cut", func() (shadow.Answer, error) { return answer(200, "ye") }, route.ShadowReport{Requests: 1}},
		{"longer", func() (shadow.Answer, error) { return answer(200, "yes ") }, route.ShadowReport{Requests: 1}},
		{"refused", func() (shadow.Answer, error) { return answer(400, "no") }, route.ShadowReport{Requests: 1}},
		{"an error", func() (shadow.Answer, error) { return answer(503, "yes") }, route.ShadowReport{Requests: 1, Errors: 1}},
		{"nothing", func() (shadow.Answer, error) { return shadow.Answer{}, errors.New("refused") }, route.ShadowReport{Requests: 1, Errors: 1}},
		{"no place", func() (shadow.Answer, error) { return shadow.Answer{}, fmt.Errorf("full: %w", shadow.ErrBusy) }, route.ShadowReport{Dropped: 1}},
		{"endless", func() (shadow.Answer, error) { return answer(200, long) }, route.ShadowReport{Requests: 1, Errors: 1}},
		{"broken off", func() (shadow.Answer, error) {
			return shadow.Answer{Status: 200, Body: io.NopCloser(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("yes"))))}, nil
		}, route.ShadowReport{Requests: 1, Errors: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := shadow.New(func(context.Context, shadow.Request) (shadow.Answer, error) {
					time.Sleep(100 * time.Millisecond)
					return c.ask()
				}, shadow.Options{})
				m.Send(shadow.Request{}, shadow.PrintOf(200, []byte("yes")))
				time.Sleep(time.Second)
				synctest.Wait()
				got := m.Report()
				if c.want.Errors+c.want.Dropped == 0 {
					if q := got.Latency.Quantile(1); q < 100*time.Millisecond || q > 110*time.Millisecond || got.Logs.N != 1 {
						t.Errorf("it took %v, %+v", q, got.Logs)
					}
				}
				if answers := got.Requests - got.Errors; got.Logs.N != answers {
					t.Errorf("logarithms of %d latencies, of %d answers", got.Logs.N, answers)
				}
				if got.Requests != c.want.Requests || got.Errors != c.want.Errors || got.Same != c.want.Same || got.Dropped != c.want.Dropped {
					t.Errorf("%+v, want %+v", got, c.want)
				}
				m.Close()
			})
		})
	}
}

func TestAPrintDoesNotDependOnHowTheAnswerCame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body := rapid.SliceOf(rapid.Byte()).Draw(t, "body")
		cut := rapid.IntRange(0, len(body)).Draw(t, "cut")
		var p shadow.Printer
		_, _ = p.Write(body[:cut])
		_, _ = p.Write(body[cut:])
		if p.Print(200) != shadow.PrintOf(200, body) {
			t.Fatalf("%q cut at %d", body, cut)
		}
		if p.Print(200) == shadow.PrintOf(200, append(body, 0)) || p.Print(200) == shadow.PrintOf(201, body) {
			t.Fatalf("%q is like another", body)
		}
	})
}

// What the shadow's replicas get is the request, to the byte.
func TestACopyIsTheRequest(t *testing.T) {
	got := make(chan shadow.Request, 1)
	m := shadow.New(func(_ context.Context, r shadow.Request) (shadow.Answer, error) {
		got <- r
		return answer(200, "")
	}, shadow.Options{})
	defer m.Close()
	m.Send(shadow.Request{Method: "POST", Path: "/invocations", Header: map[string][]string{"A": {"b"}}, Body: []byte("rows")}, shadow.Print{})
	if r := <-got; fmt.Sprint(r) != fmt.Sprint(shadow.Request{Method: "POST", Path: "/invocations", Header: map[string][]string{"A": {"b"}}, Body: []byte("rows")}) {
		t.Errorf("%+v", r)
	}
}

// However slow the shadow is: sending takes no time, no more copies than allowed are on their way,
// what finds no room is counted, and at the end all are gone.
func TestASlowShadowHoldsNobodyUp(t *testing.T) {
	for name, o := range map[string]shadow.Options{"in number": {Concurrency: 3}, "in bytes": {Concurrency: 100, MaxMemory: 3000}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				at, most := 0, 0
				m := shadow.New(func(ctx context.Context, _ shadow.Request) (shadow.Answer, error) {
					mu.Lock()
					at++
					most = max(most, at)
					mu.Unlock()
					defer func() {
						mu.Lock()
						at--
						mu.Unlock()
					}()
					<-ctx.Done()
					return shadow.Answer{}, ctx.Err()
				}, o)
				began := time.Now()
				for range 100 {
					m.Send(shadow.Request{Body: make([]byte, 1000)}, shadow.Print{})
				}
				if took := time.Since(began); took != 0 {
					t.Errorf("sending took %v", took)
				}
				synctest.Wait()
				if got := m.Report(); most != 3 || got.Dropped != 97 {
					t.Errorf("%d at once, %+v", most, got)
				}
				time.Sleep(61 * time.Second) // beyond the timeout
				synctest.Wait()
				if got := m.Report(); got.Requests != 3 || got.Errors != 3 {
					t.Errorf("late: %+v", got)
				}
				m.Send(shadow.Request{}, shadow.Print{})
				synctest.Wait()
				m.Close()
				m.Send(shadow.Request{}, shadow.Print{})
				if got := m.Report(); at != 0 || got.Requests != 3 || got.Errors != 3 || got.Dropped != 97 {
					t.Errorf("after the end %d are on their way, %+v", at, got)
				}
			})
		})
	}
}

// A report is a value: what is counted later does not change it.
func TestAReportStaysAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := shadow.New(func(context.Context, shadow.Request) (shadow.Answer, error) { return answer(200, "") }, shadow.Options{})
		defer m.Close()
		m.Send(shadow.Request{}, shadow.Print{})
		synctest.Wait()
		r := m.Report()
		m.Send(shadow.Request{}, shadow.Print{})
		synctest.Wait()
		if r.Latency.N() != 1 || r.Requests != 1 || m.Report().Latency.N() != 2 {
			t.Errorf("%+v, then %+v", r, m.Report())
		}
	})
}
