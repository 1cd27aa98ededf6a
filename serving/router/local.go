package router

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"

	"github.com/clary-ml/clary/serving/router/h1"
)

type exchangeKey struct{}

// Of is the exchange that a request of Options.Handlers belongs to, until its handler returns.
func Of(ctx context.Context) *Exchange {
	x, _ := ctx.Value(exchangeKey{}).(*Exchange)
	return x
}

// handler is who answers an action that is not for a replica; nil if it is.
func (r *Router) handler(action []byte) http.Handler {
	if len(r.options.Handlers) == 0 {
		return nil
	}
	word, _, _ := bytes.Cut(action, []byte("/"))
	return r.options.Handlers[string(word)]
}

// local lets a handler answer, on a goroutine that may block.
func (c *session) local(h http.Handler) (keep bool) {
	c.strand.Leave()
	defer c.strand.Return()
	timeout := DefaultTimeout
	if c.x.entry != nil {
		timeout = c.x.entry.limits.Timeout
	}
	ctx, cancel := context.WithTimeout(context.WithValue(c.r.context, exchangeKey{}, &c.x.Exchange), timeout)
	defer cancel()
	request, err := c.httpRequest(ctx)
	if err != nil {
		return c.finish(refuse(http.StatusBadRequest, "the request's URL cannot be read: %v", err))
	}
	w := &localAnswer{c: c, header: http.Header{}, keep: c.request.Keep && !c.r.draining.Load()}
	if !run(c.r, h, w, request) {
		return false
	}
	return w.end()
}

// run calls a handler; a panic is its own end only.
func run(r *Router, h http.Handler, w http.ResponseWriter, request *http.Request) (ok bool) {
	defer func() {
		if fault := recover(); fault != nil {
			r.options.Log.Error("a handler broke", "path", request.URL.Path, "panic", fault, "stack", string(debug.Stack()))
		}
	}()
	h.ServeHTTP(w, request)
	return true
}

func (c *session) httpRequest(ctx context.Context) (*http.Request, error) {
	q := &c.request
	where, err := url.ParseRequestURI(string(q.Path) + string(q.Query))
	if err != nil {
		return nil, err
	}
	request := (&http.Request{
		Method: string(q.Method), URL: where, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Host: string(q.Host),
		ContentLength: q.Body.Length, Body: io.NopCloser(&localBody{c: c}), RequestURI: string(q.Path) + string(q.Query),
	}).WithContext(ctx)
	if q.Body.Chunked {
		request.ContentLength = -1
	}
	for i := range q.Fields {
		f := &q.Fields[i]
		if !f.Drop && !f.Is.Hop() && f.Is != h1.Authorization && f.Is != h1.Host {
			request.Header.Add(string(f.Name), string(f.Value))
		}
	}
	return request, nil
}

// localBody is a request's body as a handler reads it.
type localBody struct {
	c    *session
	asks bool // the client was told to go on
}

// Read reads what comes, and fails if it is too much or too slow.
func (b *localBody) Read(p []byte) (int, error) {
	c, u := b.c, &b.c.x.upload
	for {
		if c.from < c.to && !u.done() {
			data, refused := u.piece(c, min(c.to-c.from, len(p)))
			if refused != nil {
				return 0, refused
			}
			if len(data) > 0 {
				return copy(p, data), nil
			}
			continue
		}
		if u.done() {
			return 0, io.EOF
		}
		if c.request.Continue && !b.asks {
			b.asks = true
			if err := c.goOn(); err != nil {
				return 0, err
			}
		}
		base := c.x.upload.start
		if refused := c.more(c.x.Began, func() (int, error) {
			n, err := c.conn.Read(c.in[base:])
			c.from, c.to = base, base+n
			return n, err
		}); refused != nil {
			return 0, refused
		}
	}
}

// localAnswer is an answer that a handler writes.
type localAnswer struct {
	c      *session
	header http.Header
	status int
	body   []byte // that was not sent yet
	begun  bool   // the head was sent
	keep   bool
	err    error
}

const localBuffer = 32 << 10

// Header is of http.ResponseWriter.
func (w *localAnswer) Header() http.Header { return w.header }

// WriteHeader is of http.ResponseWriter.
func (w *localAnswer) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

// Write is of http.ResponseWriter. What is short is sent in one piece, with its length.
func (w *localAnswer) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.body = append(w.body, p...)
	if len(w.body) >= localBuffer {
		w.Flush()
	}
	return len(p), w.err
}

// Flush is of http.Flusher.
func (w *localAnswer) Flush() {
	w.WriteHeader(http.StatusOK)
	if !w.begun {
		w.begin(-1)
	}
	if w.c.request.Head() {
		w.body = w.body[:0]
	}
	if n := len(w.body); n > 0 && w.c.request.Minor == 1 {
		w.send(append(strconv.AppendInt(nil, int64(n), 16), '\r', '\n'))
		w.send(append(w.body, '\r', '\n'))
	} else if n > 0 {
		w.send(w.body)
	}
	w.body = w.body[:0]
}

func (w *localAnswer) send(p []byte) {
	if w.err == nil {
		w.c.strand.SetDeadline(w.c.r.group.Now() + w.c.r.options.BodyStall)
		_, w.err = w.c.conn.Write(p)
	}
}

// begin sends the head: with a length, or with chunks to come if that is -1.
func (w *localAnswer) begin(length int) {
	w.begun = true
	c := w.c
	w.keep = c.x.upload.skip(c) && w.keep && (length >= 0 || c.request.Minor == 1)
	c.x.Status = w.status
	out := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\n", w.status, http.StatusText(w.status))
	w.header.Del("Content-Length")
	switch {
	case length >= 0:
		w.header.Set("Content-Length", strconv.Itoa(length))
	case c.request.Minor == 1:
		w.header.Set("Transfer-Encoding", "chunked")
	}
	if !w.keep {
		w.header.Set("Connection", "close")
	}
	w.header.Set("X-Request-Id", string(c.x.ID))
	var text bytes.Buffer
	_ = w.header.Write(&text) // it also makes sure that no value has a line's end
	w.send(append(append(out, text.Bytes()...), '\r', '\n'))
}

// end sends what is left. It returns whether the connection is good for another request.
func (w *localAnswer) end() bool {
	w.WriteHeader(http.StatusOK)
	switch {
	case !w.begun:
		w.begin(len(w.body))
		if !w.c.request.Head() {
			w.send(w.body)
		}
	case w.c.request.Minor == 1 && !w.c.request.Head():
		w.Flush()
		w.send([]byte("0\r\n\r\n"))
	default:
		w.Flush()
	}
	if w.err == nil && !w.keep && !w.c.x.upload.done() {
		w.c.linger()
	}
	return w.keep && w.err == nil
}

// ping200 answers /ping: whether this router takes requests.
func (r *Router) ping200(w http.ResponseWriter, _ *http.Request) {
	if r.draining.Load() {
		http.Error(w, `{"error":"the router ends: ask another"}`, http.StatusServiceUnavailable)
	}
}

// ping asks a replica how it is.
func (r *Router) ping(ctx context.Context, m *replica) error {
	ctx, cancel := context.WithTimeout(ctx, r.options.PingTime)
	defer cancel()
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return r.dial(m.Replica) }, DisableKeepAlives: true, ResponseHeaderTimeout: r.options.PingTime}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://replica/ping", nil)
	if err != nil {
		return err
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("it answered %s", answer.Status)
	}
	return nil
}
