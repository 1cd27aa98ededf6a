package router

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/serving/router/h1"
	"github.com/clary-ml/clary/serving/router/loop"
)

// exchange is one request and its answer, on their way.
type exchange struct {
	Exchange
	entry *entry
	fleet *fleet
	watch *Watch
	want  want

	head    int    // where the request's head begins
	action  []byte // after /endpoints/NAME/
	path    []byte // that the replica is asked at
	session []byte // its name, if the endpoint is sticky
	made    bool   // the name was made up
	upload  upload
	idText  [16]byte
}

// exchange answers the request whose head was read. It returns whether the connection is good for
// another.
func (c *session) exchange(end int) bool {
	if end+roomFor(&c.request.Body) > len(c.in) {
		c.grow(bigBuffer)
		if err := c.request.Read(c.in[c.x.head:end], c.r.options.HeadFields); err != nil {
			return false // it was read before: this does not happen
		}
	}
	c.now = c.r.group.Now()
	c.x = exchange{head: c.x.head, upload: uploadOf(c.request.Body)}
	c.x.Head, c.x.Began, c.x.Origin = &c.request, c.now, c.origin
	c.identify()
	c.strand.SetDeadline(0)
	c.x.upload.start = end
	if own, ok := c.r.own[string(c.request.Path)]; ok {
		return c.local(own)
	}
	refused := c.admit(c.r.table.Load())
	if refused == nil {
		if handler := c.r.handler(c.x.action); handler != nil {
			return c.local(handler)
		}
		refused = c.aim()
	}
	if o := c.r.options.Observer; o != nil && refused == nil {
		c.begin(o)
	}
	if refused == nil {
		refused = c.gather(end)
	}
	if refused != nil {
		return c.finish(refused)
	}
	return c.relay()
}

// roomFor is how much of a body the buffer has to hold beside its head.
func roomFor(body *h1.Body) int {
	if !body.Chunked && body.Length <= bodyGather {
		return int(body.Length)
	}
	return leastRoom
}

// identify takes the request's id, or makes one.
func (c *session) identify() {
	if id := c.request.Field(h1.RequestID); len(id) > 0 && len(id) <= 128 {
		c.x.ID = id
		return
	}
	const digits = "0123456789abcdef"
	for i, n := 0, c.draw(); i < len(c.x.idText); i, n = i+1, n>>4 {
		c.x.idText[i] = digits[n&15]
	}
	c.x.ID = c.x.idText[:]
}

// finish answers with a refusal. What is left of the request's body is skipped if it is here already;
// else the connection ends.
func (c *session) finish(refused *refusal) bool {
	c.x.Status = refused.code
	if c.origin == Mirrored {
		// It is counted by who has sent it.
	} else if c.x.fleet != nil && (refused.code == http.StatusTooManyRequests || refused.code == http.StatusServiceUnavailable) {
		c.x.fleet.shards[c.strand.Loop()].refused.Add(1)
	} else {
		c.r.turned(refused.code)
	}
	keep := c.x.upload.skip(c)
	if !keep {
		refused = &refusal{refused.code, refused.after, true, refused.text}
	}
	keep = c.decline(refused)
	c.observed()
	return keep
}

// observed tells the observer that the exchange has ended.
func (c *session) observed() {
	w := c.x.watch
	c.x.watch = nil
	defer c.x.RequestBody.release()
	defer c.x.AnswerBody.release()
	if w != nil && w.Done != nil {
		defer c.guard()
		w.Done(&c.x.Exchange)
	}
}

var endpoints = []byte("/endpoints/")

// admit finds the endpoint, and checks who asks, how often, and how much.
func (c *session) admit(t *table) *refusal {
	name, ok := bytes.CutPrefix(c.request.Path, endpoints)
	slash := bytes.IndexByte(name, '/')
	if !ok || slash < 1 {
		return refuse(http.StatusNotFound, "nothing is at %q: ask /endpoints/NAME/invocations", clip(c.request.Path))
	}
	c.x.action = name[slash+1:]
	name = name[:slash]
	e := t.byName[string(name)]
	if e == nil {
		if c.origin != FromClient {
			return refuse(http.StatusNotFound, "endpoint %q does not exist", clip(name))
		}
		if _, refused := t.guests.check(c.request.Field(h1.Authorization), auth.Invoke); refused != nil {
			return refused // what there is, is not for everyone to know
		}
		return refuse(http.StatusNotFound, "endpoint %q does not exist: clary endpoint list shows those that do", clip(name))
	}
	c.x.entry, c.x.Endpoint = e, e.of
	if !e.of.Public && c.origin == FromClient {
		token, refused := t.guests.check(c.request.Field(h1.Authorization), auth.Invoke)
		if refused != nil {
			return refused
		}
		c.x.Token = token
	}
	if c.origin != Inside && c.request.Body.Length > e.limits.Body {
		return c.tooLarge()
	}
	if c.origin != FromClient {
		return nil
	}
	return c.rates()
}

func (c *session) tooLarge() *refusal {
	e := c.x.entry
	return refuse(http.StatusRequestEntityTooLarge, "the body has more than the %d bytes that endpoint %q takes: send less at once, or raise limits.body", e.limits.Body, e.name)
}

func (c *session) rates() *refusal {
	e := c.x.entry
	l := &e.limits
	if l.Rate > 0 {
		if wait, ok := e.rate.take(c.now, l.Rate, l.Burst); !ok {
			return refuse(http.StatusTooManyRequests, "endpoint %q takes %v requests a second: send fewer, or raise limits.rate", e.name, l.Rate).retry(seconds(wait))
		}
	}
	if l.PerToken > 0 && c.x.Token != nil {
		known, ok := e.tokens.Load(c.x.Token.ID)
		if !ok {
			known, _ = e.tokens.LoadOrStore(c.x.Token.ID, &bucket{})
		}
		if wait, ok := known.(*bucket).take(c.now, l.PerToken, l.Burst); !ok {
			return refuse(http.StatusTooManyRequests, "endpoint %q takes %v requests a second of each token: send fewer, or raise limits.per_token", e.name, l.PerToken).retry(seconds(wait))
		}
	}
	return nil
}

func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

func clip(text []byte) string {
	if len(text) > 80 {
		return string(text[:77]) + "..."
	}
	return string(text)
}

var (
	invocations = []byte("invocations")
	streaming   = []byte("invocations-response-stream")
	invokePath  = []byte("/invocations")
	protocol2   = []byte("v2/")
)

// aim says what a replica is asked, and chooses the fleet.
func (c *session) aim() *refusal {
	action := c.x.action
	switch {
	case bytes.Equal(action, invocations) || bytes.Equal(action, streaming):
		if string(c.request.Method) != http.MethodPost {
			return refuse(http.StatusMethodNotAllowed, "%s %s: send POST", clip(c.request.Method), clip(c.request.Path))
		}
		c.x.path = invokePath
	case bytes.HasPrefix(action, protocol2) && !dotted(action):
		c.x.path = c.request.Path[len(c.request.Path)-len(action)-1:]
	default:
		return refuse(http.StatusNotFound, "endpoint %q has nothing at %q: ask invocations, invocations-response-stream or v2/...", c.x.entry.name, clip(action))
	}
	return c.pick()
}

// dotted reports a path that might mean another one.
func dotted(path []byte) bool {
	return bytes.Contains(path, []byte("..")) || bytes.Contains(path, []byte("//")) || bytes.Contains(bytes.ToLower(path), []byte("%2e")) || bytes.IndexByte(path, '\\') >= 0
}

// pick chooses the fleet: the one that the request names, that of its session, or by weight.
func (c *session) pick() *refusal {
	e := c.x.entry
	c.x.want = want{from: uint32(c.draw() >> 32), most: int64(e.limits.Concurrency)}
	weights := e.weights
	if name := c.request.Field(h1.TargetVariant); name != nil {
		weights = e.only(string(name))
		if weights == nil {
			return refuse(http.StatusBadRequest, "X-Amzn-SageMaker-Target-Variant: endpoint %q has no variant %q: it has %s", e.name, clip(name), e.variants())
		}
	}
	at := 0
	if e.of.Sticky != nil {
		c.stick()
	}
	if c.x.want.key != 0 {
		at = settle(weights, e.hashes, c.x.want.key)
	} else if len(weights) > 1 {
		at = share(weights, unit(c.draw()))
	}
	if at < 0 || at >= len(e.fleets) {
		return refuse(http.StatusServiceUnavailable, "endpoint %q has no variant with a weight: clary endpoint weights %s sets them", e.name, e.name).retry(5)
	}
	c.x.fleet, c.x.Fleet = e.fleets[at], &e.of.Fleets[at]
	return nil
}

// only is the weights with those of other variants left out; if that leaves nothing, of the variant's
// newest fleet. It is nil if there is no such variant.
func (e *entry) only(variant string) []float64 {
	weights := make([]float64, len(e.weights))
	newest, sum := -1, 0.0
	for i := range e.of.Fleets {
		if f := &e.of.Fleets[i]; f.Variant == variant {
			weights[i] = f.Weight
			sum += f.Weight
			if newest < 0 || f.Generation > e.of.Fleets[newest].Generation {
				newest = i
			}
		}
	}
	if newest < 0 {
		return nil
	}
	if sum == 0 {
		weights[newest] = 1
	}
	return weights
}

func (e *entry) variants() string {
	var names []string
	for i := range e.of.Fleets {
		names = append(names, e.of.Fleets[i].Variant)
	}
	return strings.Join(names, ", ")
}

// stick reads the name of the request's session, or makes one up.
func (c *session) stick() {
	s := c.x.entry.of.Sticky
	name := []byte(nil)
	if s.Header != "" {
		name = c.request.Named(s.Header)
	}
	if name == nil && s.Cookie != "" {
		name = cookie(c.request.Fields, s.Cookie)
	}
	if name == nil && s.Cookie != "" {
		name = append([]byte(nil), "s"...)
		for range 16 {
			name = append(name, 'a'+byte(c.draw()>>58)%26)
		}
		c.x.made = true
	}
	if name == nil { // nothing to hold on to: any will do
		c.x.want.key = 0
		return
	}
	c.x.session = name
	c.x.want.key = hashOf(name)
}

func cookie(fields []h1.Field, name string) []byte {
	for i := range fields {
		if fields[i].Is != h1.Cookie {
			continue
		}
		for pair := range bytes.SplitSeq(fields[i].Value, []byte(";")) {
			key, value, ok := bytes.Cut(bytes.TrimSpace(pair), []byte("="))
			if ok && string(key) == name {
				return value
			}
		}
	}
	return nil
}

// relay asks replicas until one has answered.
func (c *session) relay() bool {
	for tried := 0; ; {
		m, refused := c.x.fleet.enter(c, &c.x.want, &c.x.entry.limits)
		if m == nil && refused == nil { // its fleet has gone meanwhile
			if refused = c.reroute(); refused == nil {
				continue
			}
		}
		if refused != nil {
			return c.finish(refused)
		}
		began := c.now
		c.shard().busy.begin(began)
		c.x.Replica = m.ID
		got := c.attempt(m)
		c.judge(m, &got, began)
		if got.how != failed {
			c.x.Whole = got.how == answered
			c.observed()
			c.x.upload.free(c.r.buffers)
			return got.keep
		}
		c.x.upload.free(c.r.buffers)
		if !c.again(&got, tried) {
			return c.fail(got)
		}
		c.x.fleet.shards[c.strand.Loop()].retries.Add(1)
		if !got.stale { // else the connection was old, and not the replica sick
			c.x.want.avoid[tried%len(c.x.want.avoid)] = m
		}
		tried++
	}
}

// reroute asks the table anew.
func (c *session) reroute() *refusal {
	e := c.r.table.Load().byName[c.x.entry.name]
	if e == nil {
		return refuse(http.StatusNotFound, "endpoint %q was deleted", c.x.entry.name)
	}
	c.x.entry, c.x.Endpoint = e, e.of
	return c.pick()
}

// again reports whether a request may be sent to another replica: if it was surely not processed, or
// it does no harm to do it twice, and it is whole here.
func (c *session) again(got *outcome, tried int) bool {
	l := &c.x.entry.limits
	safe := !got.sent || got.stale && c.request.Idempotent()
	late := got.sent && errors.Is(got.err, os.ErrDeadlineExceeded) // a connection that took too long is just one that failed
	if !safe || late || c.origin == Mirrored || !c.x.upload.whole || tried >= l.Retries || errors.Is(got.err, loop.ErrStopped) {
		return false
	}
	return c.x.entry.budget.Add(-1) >= 0
}

// fail tells a client that no replica has answered it.
func (c *session) fail(got outcome) bool {
	c.shard().lost()
	name, id := c.x.entry.name, c.x.Replica
	var refused *refusal
	switch {
	case got.sent && errors.Is(got.err, os.ErrDeadlineExceeded):
		refused = refuse(http.StatusGatewayTimeout, "endpoint %q: replica %s did not answer within %s: ask for less at once, or raise limits.timeout", name, id, c.timeout())
	case !got.sent:
		refused = refuse(http.StatusServiceUnavailable, "endpoint %q: replica %s cannot be reached (%v), and the request was not sent: try again", name, id, got.err).retry(1)
	default:
		refused = refuse(http.StatusBadGateway, "endpoint %q: replica %s gave no answer (%v); it may have worked on the request, so it was not sent to another", name, id, got.err)
	}
	keep := c.x.upload.skip(c)
	if !keep {
		refused.close = true
	}
	c.x.Status = refused.code
	keep = c.decline(refused)
	c.observed()
	return keep
}
