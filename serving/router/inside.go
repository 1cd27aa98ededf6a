package router

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/serving/router/loop"
)

// Origin says who has sent a request.
type Origin uint8

const (
	// FromClient is from a connection that was let in.
	FromClient Origin = iota
	// Inside is from this process: nobody asks for a token or counts it against a rate, its body may have any
	// length that it says beforehand, and its answer may take as long as its sender waits, up to an hour.
	Inside
	// Mirrored is a copy of another request, from this process: it is in no count.
	Mirrored
)

const longestInside = time.Hour

// timeout is how long the answer may take to begin and, if it is no stream, to end.
func (c *session) timeout() time.Duration {
	if c.origin == Inside {
		return longestInside
	}
	return c.x.entry.limits.Timeout
}

// Inside asks the router from within its process, as its clients do over the network: what it makes of
// queues, retries and replicas is theirs too. It works while the router runs.
func (r *Router) Inside(origin Origin) *http.Transport {
	return &http.Transport{
		DialContext:         func(context.Context, string, string) (net.Conn, error) { return r.pair(origin) },
		MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second, DisableCompression: true,
	}
}

// pair is a connection to the router that never leaves this machine's memory.
func (r *Router) pair(origin Origin) (net.Conn, error) {
	if r.draining.Load() {
		return nil, errors.New("the router ends")
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	file := os.NewFile(uintptr(ends[1]), "router")
	conn, err := net.FileConn(file) // which has a descriptor of its own
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, errors.Join(err, unix.Close(ends[0]))
	}
	seed := uint64(r.group.Now())<<20 ^ uint64(ends[0])
	r.group.Start(ends[0], func(strand *loop.Strand, sock *loop.Sock) {
		c := &session{r: r, strand: strand, sock: sock, conn: sock, origin: origin, random: max(mix(seed^hashOf(r.boot)), 1)}
		c.serve()
	})
	return conn, nil
}
