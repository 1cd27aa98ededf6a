package chaos_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// call is what a client asks of one register: a job's name, or an object.
type call struct {
	verb string // submit, cancel or get of a job; put or read of an object
	on   string
	by   string // who submits, or what is put
}

// answer is what it was told.
type answer struct {
	by        string // get, read: who submitted it or what was put, "" if it is not there
	cancelled bool   // get
	refused   bool   // submit: another has it; cancel: it has ended
	missing   bool   // cancel: it is not there
	unknown   bool   // it may have happened, or yet happen
}

// standing is what a register holds.
type standing struct {
	by        string
	cancelled bool
}

// register says which answers a register may give, one after the other.
var register = porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		of := map[string][]porcupine.Operation{}
		for _, op := range history {
			on := op.Input.(call).on
			of[on] = append(of[on], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range of {
			parts = append(parts, part)
		}
		return parts
	},
	Init:              func() []any { return []any{standing{}} },
	Step:              func(before, input, output any) []any { return after(before.(standing), input.(call), output.(answer)) },
	Equal:             func(a, b any) bool { return a == b },
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %+v", input, output) },
}

func after(is standing, in call, out answer) []any {
	then, fits := is, true
	switch in.verb {
	case "get":
		fits = out.by == is.by && out.cancelled == is.cancelled
	case "read":
		fits = out.by == is.by
	case "put":
		then.by = in.by
	case "submit":
		if is.by == "" {
			then.by = in.by
		}
		fits = out.refused == (then.by != in.by)
	case "cancel":
		then.cancelled = is.by != ""
		// Refused is who finds it ended, as does the second try of a client whose first one was not answered.
		fits = out.missing == (is.by == "")
	}
	switch {
	case out.unknown && then != is:
		return []any{is, then}
	case out.unknown:
		return []any{is}
	case fits:
		return []any{then}
	}
	return nil
}

// history is what all clients did, on one clock that nobody steps.
type history struct {
	mu       sync.Mutex
	began    time.Time
	ops      []porcupine.Operation
	counts   map[string]int
	promised map[string]string // jobs whose submission was accepted, and from whom
	wrong    time.Time         // until when a clock is wrong
	full     time.Time         // until when a coordinator's disk is full, or not yet seen to have room again
}

func newHistory() *history {
	return &history{began: time.Now(), counts: map[string]int{}, promised: map[string]string{}}
}

func (h *history) add(client int, in call, called time.Duration, out answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	op := porcupine.Operation{ClientId: client, Input: in, Call: int64(called), Output: out, Return: int64(time.Since(h.began))}
	what := in.verb
	if out.unknown {
		what += " unknown"
		if in.verb == "get" || in.verb == "read" {
			h.counts[what]++
			return // it says nothing
		}
		op.Return = int64(time.Hour * 24)
	} else if in.verb == "submit" && !out.refused {
		h.promised[in.on] = in.by
	}
	h.counts[what]++
	h.ops = append(h.ops, op)
}

// work does with jobs that never run what a drawn hand says, until ctx ends. Clients want the same names.
func (h *history) work(ctx context.Context, t *testing.T, c *client.Client, me int, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 100+uint64(me)))
	by := fmt.Sprintf("client-%d", me)
	for ctx.Err() == nil {
		pause(ctx, time.Duration(random.IntN(120))*time.Millisecond)
		// Names come and go, so that there are always some that nobody has yet.
		name := fmt.Sprintf("held-%04d", int(time.Since(h.began)/(2*time.Second))+random.IntN(4))
		in, called := call{on: name}, time.Since(h.began)
		switch random.IntN(5) {
		case 0, 1:
			in.verb, in.by = "submit", by
			job := cluster.Job{
				Name: name, Kind: cluster.KindTraining, Spec: []byte(`{"program":{"command":["true"]}}`),
				Held: true, RequestID: name + by, Labels: map[string]string{"by": by},
			}
			_, err := c.Submit(ctx, job)
			h.told(ctx, t, me, in, called, err, answer{}, answer{refused: true})
		case 2:
			in.verb = "cancel"
			_, err := c.Cancel(ctx, name, "chaos")
			if fault.Is(err, fault.NotFound) {
				h.add(me, in, called, answer{missing: true})
				continue
			}
			h.told(ctx, t, me, in, called, err, answer{}, answer{refused: true})
		default:
			in.verb = "get"
			view, err := c.Job(ctx, name)
			if fault.Is(err, fault.NotFound) {
				h.add(me, in, called, answer{})
				continue
			}
			h.told(ctx, t, me, in, called, err, answer{by: view.Job.Labels["by"], cancelled: view.Job.Cancel}, answer{unknown: true})
		}
	}
}

// told takes note of an answer: good, refused by a conflict, or unknown. No other may be given.
func (h *history) told(ctx context.Context, t *testing.T, me int, in call, called time.Duration, err error, good, conflict answer) {
	switch {
	case err == nil:
		h.add(me, in, called, good)
	case fault.Is(err, fault.Conflict):
		h.add(me, in, called, conflict)
	case fault.Is(err, fault.Exhausted) && h.diskIsFull():
		h.keptOut()
		h.add(me, in, called, answer{unknown: true}) // its first try may have had no answer
	case fault.Is(err, fault.Unready) || ctx.Err() != nil:
		h.add(me, in, called, answer{unknown: true})
	default:
		h.add(me, in, called, answer{unknown: true})
		t.Errorf("%s %s: %v", in.verb, in.on, err)
	}
}

// store writes and reads objects that are this client's, each write with another content.
func (h *history) store(ctx context.Context, t *testing.T, c *client.Client, me int, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 200+uint64(me)))
	for n := 0; ctx.Err() == nil; n++ {
		pause(ctx, time.Duration(random.IntN(300))*time.Millisecond)
		in, called := call{on: fmt.Sprintf("s3://clary/chaos/%d-%d", me, random.IntN(3))}, time.Since(h.began)
		if random.IntN(2) == 0 {
			in.verb, in.by = "put", fmt.Sprintf("%d.%d", me, n)
			size := []int{1, 1000, 3 << 20}[random.IntN(3)]
			_, err := c.PutObject(ctx, in.on, bytes.NewReader(filled(in.by, size)), int64(size+len(in.by)))
			h.stored(ctx, t, me, in, called, err, answer{})
			continue
		}
		in.verb = "read"
		var content bytes.Buffer
		_, err := c.GetObject(ctx, in.on, 0, &content, nil)
		if fault.Is(err, fault.NotFound) {
			h.add(me, in, called, answer{})
			continue
		}
		what := content.String()
		for i, letter := range content.Bytes() {
			if letter == '~' {
				what = strings.Clone(what[:i])
				break
			}
		}
		h.stored(ctx, t, me, in, called, err, answer{by: what})
	}
}

// clock takes note that a machine's clock is wrong for a while. S3 denies what is signed at another time, and the store tells
// the time only once a second, by which a denial is known for what it is.
func (h *history) clock(until time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wrong = until
}

func (h *history) clockIsWrong() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Before(h.wrong)
}

// disk takes note that a coordinator's disk is full for a while, in which the cluster takes nothing new.
func (h *history) disk(until time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.full = until
}

func (h *history) diskIsFull() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Before(h.full)
}

// keptOut counts what was refused since a coordinator's disk was full.
func (h *history) keptOut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts["refused for a full disk"]++
}

// stored is told for objects: a store that is full or away is no mistake of whoever asks.
func (h *history) stored(ctx context.Context, t *testing.T, me int, in call, called time.Duration, err error, good answer) {
	if fault.Is(err, fault.Exhausted) || fault.Is(err, fault.Internal) || fault.Is(err, fault.Denied) && h.clockIsWrong() {
		h.mu.Lock()
		h.counts[in.verb+" failed"]++
		h.mu.Unlock()
		h.add(me, in, called, answer{unknown: true})
		return
	}
	h.told(ctx, t, me, in, called, err, good, answer{unknown: true})
}

// filled is a content of at least a size that tells what was put.
func filled(what string, size int) []byte {
	return append([]byte(what), bytes.Repeat([]byte{'~'}, size)...)
}

func pause(ctx context.Context, length time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(length):
	}
}

func TestALossOrAStaleReadWouldBeSeen(t *testing.T) {
	op := func(called int64, in call, out answer) porcupine.Operation {
		return porcupine.Operation{Input: in, Call: called, Output: out, Return: called + 1}
	}
	submitted, cancelled := op(0, call{"submit", "j", "a"}, answer{}), op(2, call{verb: "cancel", on: "j"}, answer{})
	put, again := op(0, call{"put", "o", "1"}, answer{}), op(2, call{"put", "o", "2"}, answer{})
	lost := op(2, call{"put", "o", "2"}, answer{unknown: true})
	lost.Return = 100
	for what, c := range map[string]struct {
		fine bool
		ops  []porcupine.Operation
	}{
		"it is there":             {true, []porcupine.Operation{submitted, cancelled, op(4, call{verb: "get", on: "j"}, answer{by: "a", cancelled: true})}},
		"it is gone":              {false, []porcupine.Operation{submitted, op(4, call{verb: "get", on: "j"}, answer{})}},
		"it is not cancelled":     {false, []porcupine.Operation{submitted, cancelled, op(4, call{verb: "get", on: "j"}, answer{by: "a"})}},
		"two have it":             {false, []porcupine.Operation{submitted, op(4, call{"submit", "j", "b"}, answer{})}},
		"cancelled and not there": {false, []porcupine.Operation{op(-5, call{verb: "cancel", on: "j"}, answer{}), submitted}},
		"the last that was put":   {true, []porcupine.Operation{put, again, op(4, call{verb: "read", on: "o"}, answer{by: "2"})}},
		"one before the last":     {false, []porcupine.Operation{put, again, op(4, call{verb: "read", on: "o"}, answer{by: "1"})}},
		"put or not":              {true, []porcupine.Operation{put, lost, op(4, call{verb: "read", on: "o"}, answer{by: "1"}), op(6, call{verb: "read", on: "o"}, answer{by: "2"})}},
		"put, then not":           {false, []porcupine.Operation{put, lost, op(4, call{verb: "read", on: "o"}, answer{by: "2"}), op(6, call{verb: "read", on: "o"}, answer{by: "1"})}},
	} {
		if got := porcupine.CheckOperations(register.ToModel(), c.ops); got != c.fine {
			t.Errorf("%s: linearizable %v, want %v", what, got, c.fine)
		}
	}
}
