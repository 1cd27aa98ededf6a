package rpc

import (
	"context"
	"sync"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// maxBuckets is for how many users requests are counted at a time; whoever was silent long enough has a full bucket, and needs none.
const maxBuckets = 10_000

// gate counts what each user asks at this coordinator.
type gate struct {
	mu      sync.Mutex
	users   map[string]*rate.Limiter
	streams map[string]int64 // that are open
}

// request takes one request of a user, or refuses it.
func (g *gate) request(who Identity, limits cluster.Limits) error {
	if limits.UserRequests == 0 {
		return nil
	}
	g.mu.Lock()
	bucket := g.users[who.Name]
	if bucket == nil {
		if g.users == nil {
			g.users = map[string]*rate.Limiter{}
		}
		if len(g.users) >= maxBuckets {
			g.forget()
		}
		bucket = rate.NewLimiter(rate.Limit(limits.UserRequests), int(limits.UserBurst))
		g.users[who.Name] = bucket
	}
	g.mu.Unlock()
	if bucket.Limit() != rate.Limit(limits.UserRequests) || bucket.Burst() != int(limits.UserBurst) { // the settings have changed
		bucket.SetLimit(rate.Limit(limits.UserRequests))
		bucket.SetBurst(int(limits.UserBurst))
	}
	if bucket.Allow() {
		return nil
	}
	return fault.New(fault.Exhausted, "user %s has made %d requests at once and more than %d a second since, the most that this coordinator takes of one user (limits.user_burst, limits.user_requests): ask less often, or have an admin raise it with clary settings set limits.user_requests=N",
		who.Name, limits.UserBurst, limits.UserRequests)
}

// forget drops the buckets of those who were silent: they are full again. If nobody was, it drops any.
func (g *gate) forget() {
	for name, bucket := range g.users {
		if bucket.Tokens() >= float64(bucket.Burst()) {
			delete(g.users, name)
		}
	}
	for name := range g.users {
		if len(g.users) < maxBuckets {
			return
		}
		delete(g.users, name)
	}
}

// open takes note of a stream of a user, or refuses it. What it returns is to be called when the stream ends.
func (g *gate) open(who Identity, limits cluster.Limits) (done func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n := g.streams[who.Name]; limits.UserStreams > 0 && n >= limits.UserStreams {
		return nil, fault.New(fault.Exhausted, "user %s has %d streams open at this coordinator, the most that it takes of one user (limits.user_streams): end some, ask another coordinator, or have an admin raise it with clary settings set limits.user_streams=N",
			who.Name, n)
	}
	if g.streams == nil {
		g.streams = map[string]int64{}
	}
	g.streams[who.Name]++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.streams[who.Name]--; g.streams[who.Name] == 0 {
			delete(g.streams, who.Name)
		}
	}, nil
}

// admitted refuses what is new while there is no room for it, and what is beyond the settings' limits; of users alone: nodes are
// limited by how many there are. What a sweep's workers ask and tell is not counted, since a trial would fail by a refusal; they
// wait for the sweep's clerk. What it costs to refuse: BenchmarkRequest.
func (c *call) admitted(ctx context.Context) (done func(), err error) {
	who := caller(ctx)
	if who.TokenID == "" {
		return func() {}, nil
	}
	if c.guard.Refuses != nil && begins(c.method) {
		if err := c.guard.Refuses(); err != nil {
			return nil, err
		}
	}
	snapshot, err := c.guard.Replica.Read(ctx, true)
	if err != nil {
		return nil, err
	}
	limits := snapshot.Settings().Limits
	snapshot.Close()
	if !needs[c.method].often {
		if err := c.guard.gate.request(who, limits); err != nil {
			return nil, err
		}
	}
	if c.stream {
		return c.guard.gate.open(who, limits)
	}
	if of, ok := c.message.(proto.Message); ok && limits.RequestBytes < member.MaxMessage {
		if size := int64(proto.Size(of)); size > limits.RequestBytes {
			return nil, fault.New(fault.Exhausted, "the request has %d bytes, and the most that is taken is %d (limits.request_bytes): send less, or have an admin raise it with clary settings set limits.request_bytes=SIZE", size, limits.RequestBytes)
		}
	}
	return func() {}, nil
}
