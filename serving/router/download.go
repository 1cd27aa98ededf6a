package router

import (
	"errors"
	"io"
	"time"

	"github.com/clary-ml/clary/serving/router/h1"
	"github.com/clary-ml/clary/serving/router/loop"
)

const leastRoom = 4 << 10 // to read into at once

// download is an answer's body on its way.
type download struct {
	body   h1.Body
	left   int64
	chunk  h1.Chunked
	decode bool // the client does not know chunks
	ended  bool
}

func (d *download) done() bool {
	switch {
	case d.body.Chunked:
		return d.chunk.Done()
	case d.body.Length < 0:
		return d.ended
	}
	return d.left == 0
}

// take cuts off what text has of the body: what the client is to get of it, and how much of text that was.
func (d *download) take(c *session, text []byte) (pass []byte, n int, err *h1.Error) {
	if !d.body.Chunked {
		n = len(text)
		if d.body.Length >= 0 {
			n = int(min(d.left, int64(n)))
			d.left -= int64(n)
		}
		if c.x.watch != nil {
			c.x.AnswerBody.add(text[:n])
		}
		return text[:n], n, nil
	}
	decoded := text[:0]
	for n < len(text) && !d.chunk.Done() {
		data, used, err := d.chunk.Next(text[n:])
		if err != nil {
			return text[:n], n, err
		}
		n += used
		if c.x.watch != nil {
			c.x.AnswerBody.add(data)
		}
		if d.decode {
			decoded = append(decoded, data...) // it is shorter than what was read
		}
	}
	if d.decode {
		return decoded, n, nil
	}
	return text[:n], n, nil
}

// passOn sends the client the answer whose head was read up to end, and what follows as it comes.
func (c *session) passOn(w *wire, end int) outcome {
	a, up := &c.answer, &c.x.upload
	c.x.Status, c.x.Answer, up.head = a.Status, a, end
	down := download{body: a.Body, left: a.Body.Length, decode: a.Body.Chunked && c.request.Minor == 0}
	keep := c.request.Keep && up.done() && a.Body.Length >= 0 && !down.decode && !c.r.draining.Load()
	c.r.buffers.need(&c.out, smallBuffer)
	c.out = c.appendAnswer(c.out[:0], keep)
	stream := a.Body.Chunked || a.Body.Length < 0
	if stream {
		c.x.Took = c.r.group.Now() - c.now
	}
	if w.sock != nil {
		w.sock.Guard(nil)
	}
	got := c.pour(w, &down, up.back[end:up.got], stream)
	began := c.now
	c.now = c.r.group.Now()
	got.took = c.now - began
	if !stream {
		c.x.Took = got.took
	}
	got.keep = keep && got.how == answered
	return got
}

// pour sends the head, and the body whose beginning is here.
func (c *session) pour(w *wire, down *download, here []byte, stream bool) outcome {
	out := c.out
	for first := true; ; first = false {
		pass, n, wrong := down.take(c, here)
		if n < len(here) {
			c.answer.Keep = false // it sends what nobody has asked for
		}
		switch {
		case !first:
			out = pass
		case len(out)+len(pass) <= cap(out):
			out = append(out, pass...)
			c.out = out
		default:
			if _, err := c.conn.Write(out); err != nil {
				return outcome{how: left, err: err, sent: true}
			}
			out = pass
		}
		if !down.done() || !first {
			c.strand.SetDeadline(c.r.group.Now() + c.r.options.BodyStall)
		}
		if _, err := c.conn.Write(out); err != nil {
			return outcome{how: left, err: err, sent: true}
		}
		if wrong != nil {
			return c.broken(wrong)
		}
		if down.done() {
			return outcome{how: answered, sent: true}
		}
		var err error
		if here, err = c.pull(w, down, stream); errors.Is(err, loop.ErrGuard) {
			return outcome{how: left, err: err, sent: true}
		} else if err != nil {
			return c.broken(err)
		}
	}
}

// pull reads more of the answer's body.
func (c *session) pull(w *wire, down *download, stream bool) ([]byte, error) {
	up, timeout := &c.x.upload, c.timeout()
	room := up.back[up.head:] // the answer's head is still needed
	if down.left > smallBuffer || up.filled || len(room) < leastRoom {
		c.r.buffers.need(&up.bulk, bigBuffer)
		room = up.bulk
	}
	until := c.now + timeout
	if stream {
		until = c.r.group.Now() + timeout
	}
	c.strand.SetDeadline(until)
	if w.sock == nil {
		_ = w.SetDeadline(time.Now().Add(until - c.r.group.Now()))
	} else {
		w.sock.Guard(c.sock)
		defer w.sock.Guard(nil)
	}
	n, err := c.hear(w, room)
	if n > 0 {
		up.filled = n == len(room)
		return room[:n], nil
	}
	if err == io.EOF && down.body.Length < 0 {
		down.ended = true
		return nil, nil
	}
	return nil, err
}

// broken is an answer whose end cannot be had: the client must not take what it got for all.
func (c *session) broken(err error) outcome {
	c.sock.Reset()
	_ = c.sock.Close()
	return outcome{how: cut, err: err, sent: true}
}
