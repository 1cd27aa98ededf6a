package client

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// ProfileRequest says what to measure of whom.
type ProfileRequest struct {
	Member  string        // a node's or a coordinator's id
	Role    string        // agent or coordinator; "" if only one has the id
	Profile string        // cpu, heap or goroutine
	Length  time.Duration // of cpu
}

// Profile measures a member's process and writes what go tool pprof reads. It is sent to one coordinator, once: half a
// profile is worth nothing.
func (c *Client) Profile(ctx context.Context, r ProfileRequest, to io.Writer) error {
	if _, err := c.WhoAmI(ctx); err != nil { // finds a coordinator that answers
		return err
	}
	p := c.peers[int(c.next.Load())%len(c.peers)]
	stream, err := claryv1.NewDebugClient(p.conn).Profile(ctx, &claryv1.ProfileRequest{Member: r.Member, Role: r.Role, Profile: r.Profile, Length: int64(r.Length)})
	if err != nil {
		return p.explain(wire.FromStatus(err))
	}
	got := 0
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) && got == 0 {
			return fault.New(fault.Internal, "the profile of %s is empty", r.Member)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return p.explain(wire.FromStatus(err))
		}
		got += len(part.GetData())
		if _, err := to.Write(part.GetData()); err != nil {
			return err
		}
	}
}
