// Package shadow sends copies of requests to a fleet whose answers nobody gets, and measures how it
// would have done: as fast, without errors, with the same answers.
//
// A copy is made once its request was answered, in room of its own. Without room it is left out and
// counted; the request that it is a copy of knows nothing of it.
package shadow

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/route"
)

// Request is what is sent. It belongs to the mirror from then on, and is only read.
type Request struct {
	Method, Path string
	Header       http.Header
	Body         []byte
}

// Answer is what the shadow's replica says.
type Answer struct {
	Status int
	Body   io.ReadCloser
}

// ErrBusy is what Ask says when the shadow's fleet has no place for the copy, which is dropped then.
var ErrBusy = errors.New("the shadow has no place for a copy")

// Ask asks a replica of the shadow's fleet, until ctx ends.
type Ask func(ctx context.Context, r Request) (Answer, error)

// Options are the bounds. What is 0 gets the default.
type Options struct {
	// Concurrency is how many copies are on their way at once (16), MaxMemory what their bodies may
	// take together (64 MiB).
	Concurrency int
	MaxMemory   int64
	// Timeout is how long the shadow may take (60 s).
	Timeout time.Duration
}

// Mirror sends copies to one fleet.
type Mirror struct {
	ask     Ask
	options Options
	ctx     context.Context
	cancel  context.CancelFunc
	wait    sync.WaitGroup

	mu     sync.Mutex
	closed bool
	copies int
	bytes  int64
	report route.ShadowReport
}

// New makes a mirror. Close ends it.
func New(ask Ask, o Options) *Mirror {
	if o.Concurrency <= 0 {
		o.Concurrency = 16
	}
	if o.MaxMemory <= 0 {
		o.MaxMemory = 64 << 20
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	m := &Mirror{ask: ask, options: o}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// Close ends the copies that are on their way, and waits for them.
func (m *Mirror) Close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.cancel()
	m.wait.Wait()
}

// Report is how it went until now.
func (m *Mirror) Report() route.ShadowReport {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.report
	r.Latency = r.Latency.Plus(route.Histogram{}) // it is counted on in the mirror's own
	return r
}

// Print is what is kept of an answer to compare another with: its status and a hash of its body.
type Print struct {
	status int
	size   int64
	sum    xxh3.Uint128
}

// Printer makes the print of an answer as it passes by.
type Printer struct {
	size int64
	hash xxh3.Hasher
}

// Write takes in a part of the body. It does not fail.
func (p *Printer) Write(b []byte) (int, error) {
	p.size += int64(len(b))
	return p.hash.Write(b)
}

// Print is that of the whole answer.
func (p *Printer) Print(status int) Print { return Print{status, p.size, p.hash.Sum128()} }

// PrintOf is that of an answer whose body is at hand.
func PrintOf(status int, body []byte) Print {
	return Print{status, int64(len(body)), xxh3.Hash128(body)}
}

// Drop counts a copy that could not be made: its request or its answer was too large, or there was no room for them.
func (m *Mirror) Drop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.report.Dropped++
}

// Send sends a copy of a request whose answer is known. It does not wait.
func (m *Mirror) Send(r Request, given Print) {
	size := int64(len(r.Body))
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
	case m.copies >= m.options.Concurrency || m.bytes+size > m.options.MaxMemory:
		m.report.Dropped++
	default:
		m.copies++
		m.bytes += size
		m.wait.Go(func() { m.mirror(r, given, size) })
	}
}

func (m *Mirror) mirror(r Request, given Print, size int64) {
	began := time.Now()
	got, err := m.answer(r, given.size)
	took := time.Since(began)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.copies--
	m.bytes -= size
	if m.ctx.Err() != nil {
		return // it was cut off: that says nothing about the shadow
	}
	if errors.Is(err, ErrBusy) {
		m.report.Dropped++
		return
	}
	m.report.Requests++
	if err != nil || got.status >= http.StatusInternalServerError {
		m.report.Errors++
	}
	if err != nil {
		return
	}
	m.report.Latency.Add(took)
	if got.status < http.StatusInternalServerError {
		m.report.Logs.Add(math.Log(max(took, time.Microsecond).Seconds()))
	}
	if got == given {
		m.report.Same++
	}
}

// answer asks, and reads all that is said; what is longer than the answer it is compared with is cut,
// beyond some room for it to be another.
func (m *Mirror) answer(r Request, like int64) (p Print, err error) {
	ctx, cancel := context.WithTimeout(m.ctx, m.options.Timeout)
	defer cancel()
	a, err := m.ask(ctx, r)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, a.Body.Close()) }()
	var printer Printer
	limit := 2*like + 1<<20
	n, err := io.Copy(&printer, io.LimitReader(a.Body, limit))
	if err == nil && n == limit {
		err = fault.New(fault.Exhausted, "the shadow's answer has more than %d bytes, where the given one had %d", limit, like)
	}
	return printer.Print(a.Status), err
}
