package router

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/serving/router/h1"
	"github.com/clary-ml/clary/serving/router/loop"
)

// how an attempt at a replica went.
type how uint8

const (
	answered how = iota // its answer was passed on, whole
	cut                 // its answer broke off, or could not be read to its end
	failed              // it gave no answer, and the client has got nothing yet
	left                // the client went, or sent what cannot be read
)

type outcome struct {
	how   how
	err   error
	sent  bool // it may have seen something of the request
	stale bool // the connection was used before, and closed without a byte of an answer
	keep  bool // the client's connection is good for another request
	took  time.Duration
}

// connect takes an idle connection to a replica, or makes one.
func (c *session) connect(m *replica) (*wire, error) {
	if w := m.pools[c.strand.Loop()].get(c.strand); w != nil {
		return w, nil
	}
	c.strand.SetDeadline(c.now + c.r.options.DialTime)
	if c.r.options.Dial == nil && m.where.IsValid() {
		sock, err := c.strand.Connect(m.where)
		if err != nil {
			return nil, err
		}
		return &wire{Conn: sock, sock: sock}, nil
	}
	c.strand.Leave()
	conn, err := c.r.dial(m.Replica)
	c.strand.Return()
	if err != nil {
		return nil, err
	}
	sock, taken, err := c.strand.Take(conn)
	switch {
	case err != nil:
		return nil, err
	case taken:
		return &wire{Conn: sock, sock: sock}, nil
	}
	return &wire{Conn: conn}, nil
}

func (c *session) attempt(m *replica) outcome {
	w, err := c.connect(m)
	if err != nil {
		return outcome{how: failed, err: err}
	}
	if w.sock == nil {
		c.strand.Leave()
		defer c.strand.Return()
	} else {
		w.sock.Guard(c.sock)
	}
	c.allow(w)
	got := c.converse(m, w)
	if got.how == answered && c.answer.Keep && c.x.upload.done() {
		w.used = true
		m.release(w, c.strand.Loop(), c.now)
	} else {
		_ = w.Close()
	}
	return got
}

// converse sends the request and passes the answer on.
func (c *session) converse(m *replica, w *wire) outcome {
	up := &c.x.upload
	c.r.buffers.need(&c.out, smallBuffer)
	c.out = c.appendRequest(c.out[:0], m)
	piece := up.first(c)
	rest := piece
	if len(c.out)+len(piece) <= cap(c.out) {
		c.out, rest = append(c.out, piece...), nil
	}
	n, err := w.Write(c.out)
	if err == nil && len(rest) > 0 {
		_, err = w.Write(rest)
	}
	if err != nil && !up.whole || err != nil && n == 0 {
		return outcome{how: failed, err: err, sent: n > 0, stale: w.used}
	}
	if err == nil && !up.done() {
		var refused *refusal
		if refused, err = up.stream(c, w); refused != nil {
			return c.reject(refused)
		}
		c.allow(w)
	}
	if err != nil && !(w.sock != nil && w.sock.Readable()) { // it may have answered before it closed
		return outcome{how: failed, err: err, sent: true}
	}
	up.begin, up.got = 0, 0
	// While the replica works, the buffers serve others: few of them stay warm.
	c.r.buffers.put(c.out)
	c.out = nil
	if w.sock != nil {
		err = w.sock.Await()
	}
	end := 0
	if err == nil {
		end, err = c.readAnswer(w)
	}
	if err != nil {
		if errors.Is(err, loop.ErrGuard) {
			return outcome{how: left, err: err, sent: true}
		}
		return outcome{how: failed, err: err, sent: true, stale: w.used && up.got == 0 && !errors.Is(err, os.ErrDeadlineExceeded)}
	}
	return c.passOn(w, end)
}

// allow gives a replica the time of an answer from now on.
func (c *session) allow(w *wire) {
	timeout := c.timeout()
	c.strand.SetDeadline(c.now + timeout)
	if w.sock == nil {
		_ = w.SetDeadline(time.Now().Add(timeout))
	}
}

// hear reads from a replica, as long as the client is there.
func (c *session) hear(w *wire, p []byte) (int, error) {
	if w.sock != nil {
		return w.sock.Read(p)
	}
	c.sock.Alarm(w.Conn)
	n, err := w.Read(p)
	c.sock.Alarm(nil)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && c.sock.Gone() {
		err = loop.ErrGuard
	}
	return n, err
}

// reject ends a request whose body turned out to be wrong while it was on its way.
func (c *session) reject(refused *refusal) outcome {
	if refused != goneClient {
		c.x.Status = refused.code
		c.decline(refused.closing())
	}
	return outcome{how: left, err: refused, sent: true}
}

// dial makes a connection where that may block.
func (r *Router) dial(to route.Replica) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(r.context, r.options.DialTime)
	defer cancel()
	if r.options.Dial != nil {
		return r.options.Dial(ctx, to)
	}
	if to.Gateway {
		return nil, fmt.Errorf("replica %s is behind a gateway, and this router was given no way to it", to.ID)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", to.Address)
}

// appendRequest writes the head that a replica gets: the client's, but for what concerned its connection.
func (c *session) appendRequest(out []byte, m *replica) []byte {
	q := &c.request
	out = append(out, q.Method...)
	out = append(out, ' ')
	out = append(out, c.x.path...)
	out = append(out, q.Query...)
	out = append(out, " HTTP/1.1\r\n"...)
	if q.Host == nil {
		out = append(out, "Host: "...)
		out = append(out, m.Address...)
		out = append(out, "\r\n"...)
	}
	id := false
	for i := range q.Fields {
		f := &q.Fields[i]
		if f.Drop || f.Is.Hop() || f.Is == h1.Authorization && (!c.x.Endpoint.Public || auth.Mentioned(f.Value)) || f.Is == h1.RequestID && (id || len(f.Value) != len(c.x.ID)) {
			continue
		}
		if w := c.x.watch; w != nil && w.AppendRequest != nil && c.instead(w, f.Name) {
			continue
		}
		id = id || f.Is == h1.RequestID
		out = append(out, f.Line...)
	}
	if q.Body.Chunked {
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	if !id {
		out = appendField(out, "X-Request-Id: ", c.x.ID)
	}
	if w := c.x.watch; w != nil && w.AppendRequest != nil {
		out = c.append(out, w.AppendRequest)
	}
	return append(out, '\r', '\n')
}

func appendField(out []byte, name string, value []byte) []byte {
	out = append(out, name...)
	out = append(out, value...)
	return append(out, '\r', '\n')
}

// readAnswer reads the head of the replica's answer, and leaves out those that only say to wait. It
// returns where in the buffer the head ends.
func (c *session) readAnswer(w *wire) (int, error) {
	up := &c.x.upload
	c.r.buffers.need(&up.back, smallBuffer)
	for looked := 0; ; {
		if up.got == len(up.back) {
			if up.begin > 0 || up.got >= c.r.options.HeadBytes {
				return 0, fmt.Errorf("its answer's head has more than %d bytes", c.r.options.HeadBytes)
			}
			bigger := c.r.buffers.get(bigBuffer)
			copy(bigger, up.back[:up.got])
			c.r.buffers.put(up.back)
			up.back = bigger
		}
		n, err := c.hear(w, up.back[up.got:])
		up.got += n
		if err != nil && n == 0 {
			return 0, err
		}
		for {
			end := h1.End(up.back[up.begin:up.got], looked)
			if looked = up.got - up.begin; end == 0 {
				break
			}
			if wrong := c.answer.Read(up.back[up.begin:up.begin+end], c.request.Head(), c.r.options.HeadFields); wrong != nil {
				return 0, fmt.Errorf("its answer cannot be read: %w", wrong)
			}
			if c.answer.Status >= 200 {
				return up.begin + end, nil
			}
			if c.answer.Status == 101 {
				return 0, errors.New("it changes to another protocol, which nobody has asked for")
			}
			up.begin, looked = up.begin+end, 0
		}
	}
}

// appendAnswer writes the head that the client gets.
func (c *session) appendAnswer(out []byte, keep bool) []byte {
	a := &c.answer
	out = append(out, "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(a.Status), 10)
	out = append(out, ' ')
	out = append(out, a.Reason...)
	out = append(out, '\r', '\n')
	for i := range a.Fields {
		f := &a.Fields[i]
		if f.Drop || f.Is.Hop() || f.Is == h1.RequestID || f.Is == h1.Invoked || f.Is == h1.AnswerID { // those are the router's to say
			continue
		}
		out = append(out, f.Line...)
	}
	if a.Body.Chunked && c.request.Minor == 1 {
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	out = appendField(out, "X-Request-Id: ", c.x.ID)
	out = append(out, "X-Amzn-Invoked-Production-Variant: "...)
	out = append(out, c.x.Fleet.Variant...)
	out = append(out, '\r', '\n')
	if c.x.made {
		out = append(out, "Set-Cookie: "...)
		out = append(out, c.x.Endpoint.Sticky.Cookie...)
		out = append(out, '=')
		out = appendField(out, string(c.x.session), []byte("; Path=/; HttpOnly; SameSite=Lax"))
	}
	if c.x.watch != nil && c.x.watch.AppendHead != nil {
		out = c.append(out, c.x.watch.AppendHead)
	}
	switch {
	case !keep:
		out = append(out, "Connection: close\r\n"...)
	case c.request.Minor == 0:
		out = append(out, "Connection: keep-alive\r\n"...)
	}
	return append(out, '\r', '\n')
}
