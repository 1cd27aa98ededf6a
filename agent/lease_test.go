package agent

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/agent/diskuse"
	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/agent/supervisor"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// spoken is a stream on which the test is the coordinator.
type spoken struct {
	coordinatorStream
	ctx  context.Context //nolint:containedctx // a stream has one
	said chan *claryv1.CoordinatorMessage
	told chan *claryv1.AgentMessage
}

func (s *spoken) Send(message *claryv1.AgentMessage) error {
	select {
	case s.told <- message:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

func (s *spoken) Recv() (*claryv1.CoordinatorMessage, error) {
	select {
	case message := <-s.said:
		return message, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

// idle is a driver without tasks.
type idle struct{ runtime.Driver }

func (idle) Recover(context.Context) ([]runtime.Found, error) { return nil, nil }

func TestANodeCountsOnItsLeaseOnceItKnowsAllThatItShouldRun(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		book, err := ledger.Open(filepath.Join(dir, "ledger.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer book.Close() //nolint:errcheck // only a test's
		tasks, err := supervisor.Open(t.Context(), supervisor.Config{Root: dir, Driver: idle{}, Ledger: book})
		if err != nil {
			t.Fatal(err)
		}
		defer tasks.Close()
		ctx, cancel := context.WithCancel(t.Context())
		stream := &spoken{ctx: ctx, said: make(chan *claryv1.CoordinatorMessage), told: make(chan *claryv1.AgentMessage)}
		cache, err := staging.OpenCache(filepath.Join(dir, "cache"), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		roomy := func(string) (diskuse.Room, error) { return diskuse.Room{Free: 1 << 30, Total: 1 << 30}, nil }
		a := &agent{tasks: tasks, cache: cache, shelf: &shelf{room: roomy}, log: slog.New(slog.DiscardHandler)}
		l := &link{agent: a, stream: stream, acks: make(chan *claryv1.Ack, 1), every: time.Second, lease: 6 * time.Second}
		ended := make(chan error, 2)
		go func() { ended <- l.follow(ctx) }()
		go func() { ended <- l.beat(ctx) }()
		defer func() { cancel(); <-ended; <-ended }()

		beat := func() {
			message := <-stream.told
			stream.said <- &claryv1.CoordinatorMessage{Message: &claryv1.CoordinatorMessage_Ack{Ack: &claryv1.Ack{Sequence: message.GetBeat().GetSequence(), LeaseRenewed: true}}}
			synctest.Wait()
		}
		desired := func(whole bool) {
			stream.said <- &claryv1.CoordinatorMessage{Message: &claryv1.CoordinatorMessage_Desired{Desired: &claryv1.Desired{Whole: whole}}}
			synctest.Wait()
		}
		beat()
		desired(false)
		beat()
		if left := a.leaseLeft(); left != 0 {
			t.Errorf("before it is told what to end it counts on %s", left)
		}
		desired(true)
		beat()
		if left := a.leaseLeft(); left != l.lease {
			t.Errorf("then it counts on %s, want %s", left, l.lease)
		}
	})
}
