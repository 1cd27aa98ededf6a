// Package router is the data plane of endpoints: it reads requests, chooses who answers them by a
// table that may change at any time, and brings the answers back.
//
// It is an HTTP/1.1 reverse proxy of its own, on event loops of its own (package loop), since
// that is what keeps it beside the fastest. DESIGN.md says how.
package router

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/clary-ml/clary/serving/route"
)

// Options are what a router is made with. What is 0 has a default.
type Options struct {
	// Name is the router's in reports.
	Name string
	// TLS is what clients are answered with; nil is plain HTTP.
	TLS *tls.Config
	// Dial connects to a replica; nil is TCP to its address. A TCP connection's socket is taken
	// over; any other connection is used as it is, at the cost of a goroutine while it is.
	Dial func(ctx context.Context, replica route.Replica) (net.Conn, error)
	Log  *slog.Logger
	// Observer sees exchanges; nil is nobody.
	Observer Observer
	// Handlers answer what comes after /endpoints/NAME/ themselves, by its first word. They may block.
	Handlers map[string]http.Handler
	// Shadows tells how copies went that were sent to a fleet; nil is that there are none.
	Shadows func(*route.Endpoint, *route.Fleet) *route.ShadowReport
	// Metrics are told beside the router's own.
	Metrics []prometheus.Collector
	// OpenMetrics lets anyone read /metrics where requests come in.
	OpenMetrics bool

	Loops          int           // event loops: one for each processor
	MaxConnections int           // of clients: a third of the files that may be open
	PerClient      int           // connections of one IP address: no bound
	HeadBytes      int           // of a request or an answer, at most: 32 KiB
	HeadFields     int           // header fields of one, at most: 100
	HeadTime       time.Duration // for a request's head, from its first byte: 10 s
	IdleTime       time.Duration // between requests: 75 s
	BodyStall      time.Duration // without a byte of a body, or of room for an answer: 30 s
	BodyRate       int64         // bytes a second that a body comes with, after BodyStall: 500
	DialTime       time.Duration // for a connection to a replica: 5 s
	Drain          time.Duration // for what is being answered at the end: 30 s
	PingTime       time.Duration // for a sick replica's answer to /ping: 2 s
}

const (
	maxHead     = 64 << 10
	bodyGather  = 64 << 10 // a body up to this is read whole before a replica is asked, and can be sent again
	smallBuffer = 16 << 10
	bigBuffer   = maxHead + bodyGather + smallBuffer
)

// whole puts the defaults in.
func (o Options) whole(files uint64) Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = int(min(files/3, 1<<18))
	}
	or := func(n *int, otherwise int) {
		if *n <= 0 {
			*n = otherwise
		}
	}
	or(&o.HeadBytes, 32<<10)
	or(&o.HeadFields, 100)
	o.HeadBytes = min(o.HeadBytes, maxHead)
	if o.BodyRate <= 0 {
		o.BodyRate = 500
	}
	for d, otherwise := range map[*time.Duration]time.Duration{
		&o.HeadTime: 10 * time.Second, &o.IdleTime: 75 * time.Second, &o.BodyStall: 30 * time.Second,
		&o.DialTime: 5 * time.Second, &o.Drain: 30 * time.Second, &o.PingTime: 2 * time.Second,
	} {
		if *d <= 0 {
			*d = otherwise
		}
	}
	return o
}

// Limits of endpoints that say nothing else.
const (
	DefaultBody        = 64 << 20
	DefaultTimeout     = 60 * time.Second
	DefaultConcurrency = 1024
	DefaultQueue       = 1024
	DefaultQueueTime   = 10 * time.Second
	DefaultRetries     = 2
	DefaultHoldTime    = 60 * time.Second
)

// limits puts the defaults in.
func limits(l route.Limits) route.Limits {
	if l.Body == 0 {
		l.Body = DefaultBody
	}
	if l.Concurrency == 0 {
		l.Concurrency = DefaultConcurrency
	}
	if l.Queue == 0 {
		l.Queue = DefaultQueue
	}
	switch {
	case l.Retries == 0:
		l.Retries = DefaultRetries
	case l.Retries < 0:
		l.Retries = 0
	}
	for d, otherwise := range map[*time.Duration]time.Duration{
		&l.Timeout: DefaultTimeout, &l.QueueTime: DefaultQueueTime, &l.HoldTime: DefaultHoldTime,
	} {
		if *d == 0 {
			*d = otherwise
		}
	}
	if l.Burst == 0 {
		l.Burst = int(max(l.Rate, l.PerToken, 1))
	}
	return l
}
