package router

import (
	"errors"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/clary-ml/clary/serving/router/h1"
)

// upload is a request's body on its way, and the buffer for what comes back.
type upload struct {
	body  h1.Body
	left  int64 // if it is not chunked
	chunk h1.Chunked
	size  int64 // of what came, without chunks' frames

	start, end int  // what of it is in the session's buffer
	whole      bool // and there is nothing else that was sent

	back       []byte // the answer's head, and what came with it
	begin, got int
	head       int    // where the answer's head ends
	bulk       []byte // for long bodies, either way
	filled     bool   // the last read had no room for more
}

// free gives the buffers back.
func (u *upload) free(b *buffers) {
	b.put(u.back)
	b.put(u.bulk)
	u.back, u.bulk = nil, nil
}

func uploadOf(body h1.Body) upload { return upload{body: body, left: body.Length} }

// first is what of the body goes with the head.
func (u *upload) first(c *session) []byte { return c.in[u.start:u.end] }

// done says that the client has sent it all.
func (u *upload) done() bool {
	if u.body.Chunked {
		return u.chunk.Done()
	}
	return u.left == 0
}

// take cuts off what text has of the body, and tells the observer's copy.
func (u *upload) take(c *session, text []byte) (int, *refusal) {
	if !u.body.Chunked {
		n := int(min(u.left, int64(len(text))))
		u.left -= int64(n)
		u.size += int64(n)
		if c.x.watch != nil {
			c.x.RequestBody.add(text[:n])
		}
		return n, nil
	}
	taken := 0
	for taken < len(text) && !u.chunk.Done() {
		data, n, err := u.chunk.Next(text[taken:])
		if err != nil {
			return taken, &refusal{code: err.Status, text: err.Text, close: true}
		}
		taken += n
		if u.size += int64(len(data)); c.x.entry != nil && u.size > c.x.entry.limits.Body {
			return taken, c.tooLarge().closing()
		}
		if c.x.watch != nil {
			c.x.RequestBody.add(data)
		}
	}
	return taken, nil
}

// piece takes the next data, without frames, from the session's buffer: at most so many bytes of it.
func (u *upload) piece(c *session, most int) (data []byte, refused *refusal) {
	text := c.in[c.from : c.from+most]
	if !u.body.Chunked {
		n, refused := u.take(c, text)
		c.from += n
		return text[:n], refused
	}
	data, n, err := u.chunk.Next(text)
	c.from += n
	if err != nil {
		return nil, &refusal{code: err.Status, text: err.Text, close: true}
	}
	if u.size += int64(len(data)); c.x.entry != nil && u.size > c.x.entry.limits.Body {
		return nil, c.tooLarge().closing()
	}
	return data, nil
}

// skip passes over what is left of the body if that has come already.
func (u *upload) skip(c *session) bool {
	n, refused := u.take(c, c.in[c.from:c.to])
	c.from += n
	return refused == nil && u.done()
}

// short says that the body is read whole before a replica is asked.
func (u *upload) short() bool { return !u.body.Chunked && u.body.Length <= bodyGather }

// gather takes what has come of the body; a short one it reads whole, before a replica is kept busy
// with it. The head ends at end.
func (c *session) gather(end int) *refusal {
	u := &c.x.upload
	u.start, u.end, u.whole = end, end, true
	if u.done() {
		return nil
	}
	if c.request.Continue && c.to == c.from {
		if c.goOn() != nil {
			return goneClient
		}
	}
	return c.fill(u.short())
}

// goOn tells a client that waits for it to send its body. It may not read what it is told.
func (c *session) goOn() error {
	c.strand.SetDeadline(c.r.group.Now() + c.r.options.BodyStall)
	_, err := c.conn.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	return err
}

// fill reads a short body to its end, any other as far as it is here.
func (c *session) fill(short bool) *refusal {
	u := &c.x.upload
	for began := c.now; ; {
		n, refused := u.take(c, c.in[c.from:c.to])
		c.from += n
		u.end = c.from
		if refused != nil || !short || u.done() {
			return refused
		}
		if refused := c.more(began, func() (int, error) {
			n, err := c.conn.Read(c.in[c.to:])
			c.to += n
			return n, err
		}); refused != nil {
			return refused
		}
	}
}

// more reads from a client that must not stall or trickle.
func (c *session) more(began time.Duration, read func() (int, error)) *refusal {
	o := &c.r.options
	c.strand.SetDeadline(c.r.group.Now() + o.BodyStall)
	n, err := read()
	c.now = c.r.group.Now()
	spent := c.now - began
	slow := spent > o.BodyStall && float64(c.x.upload.size) < float64(o.BodyRate)*spent.Seconds()
	c.strand.SetDeadline(0)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) || err == nil && slow:
		return refuse(http.StatusRequestTimeout, "the body comes too slowly: send at least %d bytes a second, and do not pause for %s", o.BodyRate, o.BodyStall).closing()
	case n == 0: // nor is a read that had no room a reason to try for ever
		return goneClient
	}
	return nil
}

var errEarly = errors.New("it answered before it had the whole request")

// stream passes the rest of the body on as it comes.
func (u *upload) stream(c *session, w *wire) (*refusal, error) {
	c.r.buffers.need(&u.bulk, bigBuffer)
	plain := c.conn == net.Conn(c.sock)
	for began := c.now; !u.done(); {
		got := 0
		early := false
		refused := c.more(began, func() (n int, err error) {
			for plain && !c.sock.Readable() {
				if early = w.sock != nil && w.sock.Readable(); early {
					return 1, nil
				}
				if err := c.strand.Park(); err != nil {
					return 0, err
				}
			}
			room := u.bulk
			if !u.body.Chunked {
				room = room[:min(int64(len(room)), u.left)]
			}
			got, err = c.conn.Read(room)
			return got, err
		})
		if refused != nil || early {
			return refused, errEarly
		}
		n, refused := u.take(c, u.bulk[:got])
		if refused != nil {
			return refused, nil
		}
		if n < got {
			c.request.Keep = false // the next request came with this one's end; it must be sent again
		}
		u.whole = false
		c.allow(w)
		if _, err := w.Write(u.bulk[:n]); err != nil {
			return nil, err
		}
	}
	return nil, nil
}
