package router

import (
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/serving/router/h1"
)

// Observer sees exchanges as they are. Its methods are called by the event loops: they must not block. One that panics
// is logged, and the exchange goes on without what it would have said.
type Observer interface {
	// Begin is called for each request that is for a fleet, before a replica is chosen. It says what
	// of the exchange is to be kept; nil is nothing, and then nothing more is heard of it.
	Begin(x *Exchange) *Watch
}

// Watch is what an observer wants of one exchange.
type Watch struct {
	// MaxRequest and MaxAnswer are how many bytes of the bodies are kept at most; a longer one is
	// Over and not kept. Memory bounds what is kept of all exchanges that have it until they are Done; nil is no bound.
	MaxRequest, MaxAnswer int
	Memory                *Memory
	// AppendRequest adds header fields to what a replica is sent, each with its CRLF, and Instead says
	// which fields of the client's are left out for them; nil adds none.
	AppendRequest func(head []byte, x *Exchange) []byte
	Instead       func(name []byte) bool
	// AppendHead adds header fields to the answer's head, each with its CRLF; nil adds none.
	AppendHead func(head []byte, x *Exchange) []byte
	// Done is called at the end, once. x and what it refers to is not valid afterwards, but for
	// the bodies, which are the observer's.
	Done func(x *Exchange)
}

// Memory is what bodies may take together that are kept while they go by.
type Memory struct{ left, refused atomic.Int64 }

// NewMemory is so many bytes.
func NewMemory(most int64) *Memory {
	m := &Memory{}
	m.left.Store(most)
	return m
}

// Refused is how many bodies were not kept for want of room.
func (m *Memory) Refused() int64 { return m.refused.Load() }

// take takes room, unless there is too little.
func (m *Memory) take(n int) bool {
	if m == nil {
		return true
	}
	if m.left.Add(-int64(n)) >= 0 {
		return true
	}
	m.left.Add(int64(n))
	m.refused.Add(1)
	return false
}

func (m *Memory) give(n int) {
	if m != nil {
		m.left.Add(int64(n))
	}
}

// Kept is a body as it went by.
type Kept struct {
	Body   []byte
	Over   bool // it was longer than wanted, or there was no room for it
	Size   int64
	max    int
	memory *Memory
	taken  int // of memory
}

func (k *Kept) add(data []byte) {
	k.Size += int64(len(data))
	if k.Over {
		return
	}
	if k.Size > int64(k.max) || !k.grow(len(data)) {
		k.release()
		k.Body, k.Over = nil, true
		return
	}
	k.Body = append(k.Body, data...)
}

// grow makes room for so many bytes more: for twice as much as there was, but for no more than is kept.
func (k *Kept) grow(n int) bool {
	if len(k.Body)+n <= cap(k.Body) {
		return true
	}
	room := min(max(2*cap(k.Body), len(k.Body)+n), k.max)
	if !k.memory.take(room - k.taken) {
		return false
	}
	k.taken = room
	k.Body = append(make([]byte, 0, room), k.Body...)
	return true
}

// release gives back what was taken: from now on the body is somebody else's, or nobody's.
func (k *Kept) release() {
	k.memory.give(k.taken)
	k.taken = 0
}

// Exchange is one request and its answer.
type Exchange struct {
	Origin   Origin
	Endpoint *route.Endpoint
	Fleet    *route.Fleet
	Token    *route.Token // nil if nobody asked for one
	Path     string       // that a replica is asked at
	Head     *h1.Request
	ID       []byte // X-Request-Id
	Began    time.Duration

	// What came of it: Status is 0 if the client got no answer.
	Replica                 string
	Status                  int
	Answer                  *h1.Answer // nil if a replica gave none
	Took                    time.Duration
	Whole                   bool // the client has got all of the replica's answer
	RequestBody, AnswerBody Kept
}

// guard makes a panic of the observer's its own end only: the event loop has other clients' requests too.
func (c *session) guard() {
	if fault := recover(); fault != nil {
		c.r.options.Log.Error("an observer broke", "endpoint", c.x.entry.name, "panic", fault, "stack", string(debug.Stack()))
	}
}

// append adds an observer's fields to a head.
func (c *session) append(head []byte, add func([]byte, *Exchange) []byte) (out []byte) {
	out = head
	defer c.guard()
	return add(head, &c.x.Exchange)
}

func (c *session) instead(w *Watch, name []byte) bool {
	defer c.guard()
	return w.Instead(name)
}

// begin asks the observer what it wants of this exchange.
func (c *session) begin(o Observer) {
	defer c.guard()
	c.x.Path = string(c.x.path)
	w := o.Begin(&c.x.Exchange)
	if w == nil {
		return
	}
	c.x.watch = w
	c.x.RequestBody.max, c.x.AnswerBody.max = w.MaxRequest, w.MaxAnswer
	c.x.RequestBody.memory, c.x.AnswerBody.memory = w.Memory, w.Memory
}
