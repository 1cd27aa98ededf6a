package router

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"time"

	"github.com/clary-ml/clary/serving/router/h1"
	"github.com/clary-ml/clary/serving/router/loop"
)

// session is one client's connection.
type session struct {
	r      *Router
	strand *loop.Strand
	sock   *loop.Sock
	conn   net.Conn // the socket, or TLS over it
	origin Origin
	now    time.Duration
	random uint64

	in       []byte // what has come; from in[from:to] nothing was used yet
	from, to int
	out      []byte // what is being made to send
	request  h1.Request
	answer   h1.Answer
	x        exchange
}

// serve answers a client's requests, one after the other.
func (c *session) serve() {
	defer c.close()
	if c.r.options.TLS != nil && c.origin == FromClient {
		c.strand.SetDeadline(c.r.group.Now() + c.r.options.HeadTime)
		secure := tls.Server(c.sock, c.r.options.TLS)
		c.conn = secure
		if secure.Handshake() != nil {
			return
		}
	}
	for c.await() {
		end, refused := c.readHead()
		switch {
		case refused != nil:
			c.request, c.x.ID = h1.Request{}, nil // what is left there is of the request before
			c.r.turned(refused.code)
			c.decline(refused.closing())
			return
		case end == 0:
			return
		}
		if !c.exchange(end) {
			return
		}
	}
}

func (c *session) close() {
	c.r.buffers.put(c.in)
	c.r.buffers.put(c.out)
	_ = c.conn.Close()
	_ = c.sock.Close()
}

// await waits until there is something to read, without a buffer as long as there is not.
func (c *session) await() bool {
	if c.to > c.from { // the next request came with the last
		c.to = copy(c.in, c.in[c.from:c.to])
		c.from = 0
		return true
	}
	c.from, c.to = 0, 0
	c.strand.SetDeadline(c.r.group.Now() + c.r.options.IdleTime)
	if c.conn != net.Conn(c.sock) {
		return c.awaitTLS()
	}
	for !c.sock.Readable() {
		if !c.pause() {
			return false
		}
	}
	return c.r.buffers.need(&c.in, smallBuffer)
}

// pause lets the connection idle, unless the router ends and it has had its time.
func (c *session) pause() bool {
	c.r.buffers.put(c.in)
	c.r.buffers.put(c.out)
	c.in, c.out = nil, nil
	if c.r.closing.Load() {
		return false
	}
	return c.strand.Park() == nil
}

// awaitTLS is await where TLS may have something that the socket has not.
func (c *session) awaitTLS() bool {
	for {
		c.r.buffers.need(&c.in, smallBuffer)
		c.sock.Try(true)
		n, err := c.conn.Read(c.in)
		c.sock.Try(false)
		c.to = n
		if n > 0 || !errors.Is(err, loop.ErrWait) {
			return n > 0
		}
		for !c.sock.Readable() {
			if !c.pause() {
				return false
			}
		}
	}
}

const maxEmpty = 2 // lines before a head: some clients send one too many after a body

// readHead reads until a request's head is whole. It returns where that ends; 0 if the client has
// gone before.
func (c *session) readHead() (int, *refusal) {
	o := &c.r.options
	// What is known of the last request is in a buffer that somebody else may have now.
	c.x.ID, c.request = nil, h1.Request{Fields: c.request.Fields[:0]}
	for looked, began, empty := 0, time.Duration(0), 0; ; {
		if c.to-c.from >= 2 && c.in[c.from] == '\r' && c.in[c.from+1] == '\n' && empty < maxEmpty {
			c.to = copy(c.in, c.in[c.from+2:c.to])
			c.from, looked, empty = 0, 0, empty+1
			continue
		}
		if end := h1.End(c.in[c.from:c.to], looked); end > 0 && end <= o.HeadBytes {
			end += c.from
			if err := c.request.Read(c.in[c.from:end], o.HeadFields); err != nil {
				return 0, &refusal{code: err.Status, text: err.Text}
			}
			c.x.head, c.from = c.from, end
			return end, nil
		} else if looked = c.to - c.from; end > 0 || looked >= o.HeadBytes {
			return 0, refuse(431, "the head of the request has more than %d bytes: send fewer or shorter header fields", o.HeadBytes)
		}
		if c.to == len(c.in) {
			c.grow(bigBuffer)
		}
		if looked > 0 && began == 0 {
			began = c.r.group.Now()
			c.strand.SetDeadline(began + o.HeadTime)
		}
		n, err := c.conn.Read(c.in[c.to:])
		c.to += n
		if n > 0 {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && looked > 0 {
			return 0, refuse(408, "the head of the request was not whole after %s: send it at once", o.HeadTime)
		}
		return 0, nil
	}
}

// grow gives the request more room. What was read of its head has to be read again.
func (c *session) grow(size int) {
	bigger := c.r.buffers.get(size)
	copy(bigger, c.in[:c.to])
	c.r.buffers.put(c.in)
	c.in = bigger
}

// decline answers with a refusal. It returns whether the connection is good for another request.
func (c *session) decline(refused *refusal) bool {
	if refused == goneClient {
		return false
	}
	closes := refused.close || !c.request.Keep || c.r.draining.Load()
	c.r.buffers.need(&c.out, smallBuffer)
	c.strand.SetDeadline(c.r.group.Now() + c.r.options.BodyStall)
	c.out = refused.append(c.out[:0], c.x.ID, closes, c.request.Head())
	if _, err := c.conn.Write(c.out); err != nil {
		return false
	}
	if closes && refused.close {
		c.linger()
	}
	return !closes
}

const (
	lingerTime  = 2 * time.Second
	lingerBytes = 4 << 20
)

// linger reads what a client still sends, for a while: if the connection were closed at once, the
// client's system would throw away the answer that says why.
func (c *session) linger() {
	if secure, ok := c.conn.(*tls.Conn); ok {
		_ = secure.CloseWrite()
	}
	_ = c.sock.CloseWrite()
	c.strand.SetDeadline(c.r.group.Now() + lingerTime)
	for left := lingerBytes; left > 0; {
		n, err := c.sock.Read(c.in)
		if err != nil {
			return
		}
		left -= n
	}
}

// draw is the next random number of the connection (xorshift64*, Vigna 2016): it is for spreading
// load, and no secret.
func (c *session) draw() uint64 {
	c.random ^= c.random >> 12
	c.random ^= c.random << 25
	c.random ^= c.random >> 27
	return c.random * 0x2545f4914f6cdd1d
}
