package async

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/clary-ml/clary/internal/fault"
)

// Request is what a worker asks. Its body is read once.
type Request struct {
	Endpoint, ID, Inference string
	ContentType, Accept     string
	Attributes              string
	Variant, Model          string
	Body                    io.Reader
	Size                    int64
}

// Answer is what the endpoint says. Size is that of its body, or -1 if it is not known.
type Answer struct {
	Status      int
	ContentType string
	Body        io.ReadCloser
	Size        int64
}

// Invoke asks an endpoint, until ctx ends. An error is that nobody answered. Where the endpoint has no
// room or nobody who answers now, the error is Unready or Exhausted, or the status 429 or 503.
type Invoke func(ctx context.Context, r Request) (Answer, error)

// Options are a worker's bounds. What is 0 gets the default.
type Options struct {
	// Poll is how often inboxes are looked into (1 s).
	Poll time.Duration
	// Concurrency is how many requests are worked on at once for a replica, where the endpoint does not
	// say (4); Most is the same for all endpoints together (64).
	Concurrency, Most int
	// Retries are how often a request is asked again which failed, where the endpoint does not say (3).
	Retries int
	// MaxAnswer is the most bytes of an answer (1 GiB).
	MaxAnswer int64
	// Ended hears of every request's end, if it is set.
	Ended func(endpoint string, failed bool, took time.Duration)
	Log   *slog.Logger
}

func (o Options) completed() Options {
	o.Poll, o.Concurrency, o.Most = cmp.Or(o.Poll, time.Second), cmp.Or(o.Concurrency, 4), cmp.Or(o.Most, 64)
	o.Retries, o.MaxAnswer = cmp.Or(o.Retries, 3), cmp.Or(o.MaxAnswer, 1<<30)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Worker answers what is in inboxes. There should be one; where for a moment there are two, requests
// may be asked twice.
type Worker struct {
	store   Store
	invoke  Invoke
	options Options
	wake    chan struct{}

	mu     sync.Mutex
	queues map[string]*queue
	busy   int
	last   string // the endpoint that got the last place that there was
}

// queue is what is known of an inbox.
type queue struct {
	Endpoint
	listed  time.Time            // when it was looked into
	next    time.Time            // when it is again
	waiting []string             // ids, the oldest first
	working map[string]struct{}  // ids that are worked on
	tries   map[string]*attempts // of those that were tried and are still there
	swept   time.Time
}

// attempts is what happened to a request so far. It is forgotten with the worker: then only the
// request's end of time bounds them.
type attempts struct {
	failed int // answers that were failures
	pauses int // since anything went well
	until  time.Time
}

// New makes a worker.
func New(store Store, invoke Invoke, o Options) *Worker {
	return &Worker{store: store, invoke: invoke, options: o.completed(), wake: make(chan struct{}, 1), queues: map[string]*queue{}}
}

// Run works on the inboxes of the endpoints that there are, until ctx ends; what is worked on then is
// given up, and left for the next worker.
func (w *Worker) Run(ctx context.Context, endpoints func() []Endpoint) error {
	defer func() { // who works on them next knows how many they are
		w.mu.Lock()
		defer w.mu.Unlock()
		clear(w.queues)
	}()
	var working sync.WaitGroup
	defer working.Wait()
	tick := time.NewTicker(w.options.Poll)
	defer tick.Stop()
	for ctx.Err() == nil {
		w.adopt(endpoints())
		for _, q := range w.due() {
			w.look(ctx, q)
			w.sweep(ctx, q)
		}
		for _, s := range w.start() {
			working.Go(func() { w.work(ctx, s) })
		}
		select {
		case <-tick.C:
		case <-w.wake:
		case <-ctx.Done():
		}
	}
	return nil
}

// Wake has the worker start what it may.
func (w *Worker) Wake() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Backlog is what waits in an endpoint's inbox, and since when; those that are worked on are of it.
type Backlog struct {
	Requests int
	Working  int
	Oldest   time.Time
}

// Backlog is how it was when the inbox was last looked into, less what has ended since. It is false
// until that was done once.
func (w *Worker) Backlog(endpoint string) (Backlog, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	q := w.queues[endpoint]
	if q == nil || q.listed.IsZero() {
		return Backlog{}, false
	}
	return q.backlog(), true
}

// Backlogs are those of all endpoints, by name.
func (w *Worker) Backlogs() map[string]Backlog {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]Backlog{}
	for name, q := range w.queues {
		if !q.listed.IsZero() {
			all[name] = q.backlog()
		}
	}
	return all
}

func (q *queue) backlog() Backlog {
	b := Backlog{Requests: len(q.waiting) + len(q.working), Working: len(q.working)}
	oldest := ""
	if len(q.waiting) > 0 {
		oldest = q.waiting[0]
	}
	for id := range q.working {
		if oldest == "" || id < oldest {
			oldest = id
		}
	}
	if oldest != "" {
		b.Oldest = madeAt(oldest)
	}
	return b
}

// adopt takes over which endpoints there are.
func (w *Worker) adopt(endpoints []Endpoint) {
	w.mu.Lock()
	defer w.mu.Unlock()
	there := map[string]bool{}
	for _, e := range endpoints {
		there[e.Name] = true
		q := w.queues[e.Name]
		if q == nil {
			q = &queue{working: map[string]struct{}{}, tries: map[string]*attempts{}}
			w.queues[e.Name] = q
		}
		q.Endpoint = e
	}
	maps.DeleteFunc(w.queues, func(name string, q *queue) bool { return !there[name] && len(q.working) == 0 })
	for name, q := range w.queues {
		if !there[name] {
			q.waiting = nil // it ends with what is worked on
		}
	}
}

// due are the inboxes to look into, by name.
func (w *Worker) due() (out []*queue) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for _, name := range slices.Sorted(maps.Keys(w.queues)) {
		if q := w.queues[name]; !now.Before(q.next) {
			out = append(out, q)
		}
	}
	return out
}

// look reads which requests an inbox has. A list that takes long is made the more seldom.
func (w *Worker) look(ctx context.Context, q *queue) {
	ctx, cancel := context.WithTimeout(ctx, listWithin)
	defer cancel()
	began := time.Now()
	listed, err := w.store.List(ctx, inbox(q.Name))
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	q.next = now.Add(max(w.options.Poll, 10*now.Sub(began)))
	if err != nil {
		w.options.Log.Warn("an inbox cannot be read", "endpoint", q.Name, "error", err)
		return
	}
	q.listed = now
	q.waiting = q.waiting[:0:0]
	still := map[string]*attempts{}
	for _, info := range listed {
		id, is := strings.CutSuffix(strings.TrimPrefix(info.URI.Key, inbox(q.Name).Key), entrySuffix)
		if !is || strings.Contains(id, "/") {
			continue // nothing of ours
		}
		if t := q.tries[id]; t != nil {
			still[id] = t
		}
		if _, has := q.working[id]; !has {
			q.waiting = append(q.waiting, id)
		}
	}
	for id := range q.working {
		if t := q.tries[id]; t != nil {
			still[id] = t
		}
	}
	q.tries = still
}

// started is a request that is worked on from now.
type started struct {
	queue    *queue
	endpoint Endpoint
	id       string
}

// start takes as many requests as there is room for. Where there is too little for all endpoints they
// take turns: the next place is that of the one behind the last that got one.
func (w *Worker) start() (out []started) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	names := slices.Sorted(maps.Keys(w.queues))
	turn, _ := slices.BinarySearch(names, w.last+"\x00")
	for _, name := range slices.Concat(names[turn:], names[:turn]) {
		q := w.queues[name]
		room := cmp.Or(max(q.Async.Concurrency, 0), w.options.Concurrency) * max(q.Replicas, 1)
		var later []string
		for i, id := range q.waiting {
			if len(q.working) >= room || w.busy >= w.options.Most {
				later = append(later, q.waiting[i:]...)
				break
			}
			if t := q.tries[id]; t != nil && now.Before(t.until) {
				later = append(later, id)
				continue
			}
			q.working[id] = struct{}{}
			w.busy++
			w.last = name
			out = append(out, started{q, q.Endpoint, id})
		}
		q.waiting = later
	}
	return out
}

// The pause before a request is asked again grows from one to the other.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// listWithin is how long a store may take for what is no content, and longest how long one try may
// take with all that the store needs for it, so that a store that hangs holds no place for ever.
const (
	listWithin = time.Minute
	longest    = mostTimeout + 15*time.Minute
)

// work does one request, and says what becomes of it here.
func (w *Worker) work(ctx context.Context, s started) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	q := s.queue
	w.mu.Lock()
	failed := 0
	if t := q.tries[s.id]; t != nil {
		failed = t.failed
	}
	w.mu.Unlock()
	began := time.Now()
	end := w.try(ctx, s.endpoint, s.id, failed)
	if end.again != nil && ctx.Err() == nil {
		w.options.Log.Info("a request is asked again", "endpoint", s.endpoint.Name, "id", s.id, "error", end.again)
	}
	if end.asked && end.again == nil && w.options.Ended != nil {
		w.options.Ended(s.endpoint.Name, end.failed, time.Since(began))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy--
	delete(q.working, s.id)
	if end.again == nil {
		delete(q.tries, s.id)
	} else {
		t := q.tries[s.id]
		if t == nil {
			t = &attempts{}
			q.tries[s.id] = t
		}
		if end.failed {
			t.failed++
		}
		t.until = time.Now().Add(min(firstPause<<min(t.pauses, 10), lastPause))
		t.pauses++
		at, _ := slices.BinarySearch(q.waiting, s.id)
		q.waiting = slices.Insert(q.waiting, at, s.id)
	}
	w.Wake()
}

// sweepEvery is how often inputs are looked for that no request needs, and orphaned how old they are:
// a request that is being submitted has its input stored before its entry.
const (
	sweepEvery = time.Hour
	orphaned   = 24 * time.Hour
)

// sweep deletes bodies of requests that were never acknowledged.
func (w *Worker) sweep(ctx context.Context, q *queue) {
	now := time.Now()
	if now.Sub(q.swept) < sweepEvery {
		return
	}
	q.swept = now // only Run's goroutine sweeps
	ctx, cancel := context.WithTimeout(ctx, listWithin)
	defer cancel()
	stored, err := w.store.List(ctx, inputs(q.Name))
	if err != nil {
		return // the next time
	}
	for _, info := range stored {
		id := strings.TrimPrefix(info.URI.Key, inputs(q.Name).Key)
		if made := madeAt(id); made.IsZero() || now.Sub(made) < orphaned {
			continue
		}
		if _, err := w.store.Stat(ctx, entryAt(q.Name, id)); fault.Is(err, fault.NotFound) {
			_ = w.store.Delete(ctx, info.URI) // the next time
		}
	}
}

// madeAt is when an id was made, or the zero time.
func madeAt(id string) time.Time {
	front, _, _ := strings.Cut(id, "-")
	var ms int64
	for _, c := range []byte(front) {
		digit := strings.IndexByte("0123456789abcdef", c)
		if digit < 0 || ms > 1<<48 {
			return time.Time{}
		}
		ms = ms<<4 | int64(digit)
	}
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
