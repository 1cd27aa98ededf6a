package decisions

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/scheduler"
)

// Outcome is what came of repeating a record.
type Outcome struct {
	Segments  int
	Decisions int64 // repeated and compared
	Placed    int   // gangs that they place
	Evicted   int
	Torn      bool // the record ends within a frame: whoever wrote it was stopped
	// Differs says how the first decision that was not repeated differs; "" if all were.
	Differs string
	// Last is the last decision that was repeated.
	Last *Decided
	// Whys say, where they were asked for, why a job waited just before the last decision.
	Whys []cluster.Why
}

// Until says where to stop repeating, and what to tell then. The zero value repeats all.
type Until struct {
	Decision int64  // of the last segment that has it; 0 is the end
	Explain  string // a job: why it waits, before that decision
}

// Replay repeats a record: a new scheduler is told what was told, and at every decision has to decide the same. It stops
// at the first difference. Rubbish is refused with the offset where it begins.
func Replay(from io.Reader, until Until) (Outcome, error) {
	r, out := newReader(from), Outcome{}
	var c *scheduler.Cluster
	gangs := map[string][]string{} // by job: gangs that were told of
	for {
		at := r.offset
		told, err := r.next()
		switch {
		case err == io.EOF:
			return out.explained(c, gangs, until, r)
		case errors.Is(err, errTorn):
			out.Torn = true
			return out.explained(c, gangs, until, r)
		case err != nil:
			return out, err
		case told.Begin != nil:
			c = scheduler.New(scheduler.Options{})
			out.Segments++
			clear(gangs)
			continue
		case c == nil:
			return out, fault.New(fault.Invalid, "offset %d: the record does not begin with what was known", r.offset)
		case told.Decided == nil:
			if err := guarded(at, func() { told.To(c) }); err != nil {
				return out, err
			}
			if told.Waits != nil {
				gangs[told.Waits.Gang.Job] = append(gangs[told.Waits.Gang.Job], told.Waits.Gang.ID())
			}
			continue
		}
		d := told.Decided
		stops := until.Decision > 0 && d.Number == until.Decision
		var plan cluster.Plan
		err = guarded(at, func() {
			if stops && until.Explain != "" {
				out.Whys = c.LookAt(distinct(gangs[until.Explain]), d.Now, nil).Whys()
			}
			plan = c.Plan(d.Now)
		})
		if err != nil {
			return out, err
		}
		if out.Differs = difference(d.Plan, plan); out.Differs != "" {
			out.Differs = fmt.Sprintf("decision %d of segment %d: %s", d.Number, out.Segments, out.Differs)
			return out, nil
		}
		out.Decisions++
		out.Placed += len(plan.Placements)
		out.Evicted += len(plan.Evictions)
		out.Last = d
		if stops {
			return out, nil
		}
	}
}

// explained ends at the end of a record.
func (out Outcome) explained(c *scheduler.Cluster, gangs map[string][]string, until Until, r *reader) (Outcome, error) {
	if out.Segments == 0 {
		return out, fault.New(fault.Invalid, "offset %d: the record is empty", r.offset)
	}
	if until.Decision > 0 {
		return out, fault.New(fault.NotFound, "there is no decision %d: the record has %d", until.Decision, out.Decisions)
	}
	if until.Explain != "" {
		now := int64(0)
		if out.Last != nil {
			now = out.Last.Now
		}
		err := guarded(r.offset, func() { out.Whys = c.LookAt(distinct(gangs[until.Explain]), now, nil).Whys() })
		return out, err
	}
	return out, nil
}

// guarded has the scheduler do what a record says. One that was forged may say what no leader was ever told: what breaks then is
// the record's fault, and told with its place.
func guarded(offset int64, do func()) (err error) {
	defer func() {
		if broken := recover(); broken != nil {
			err = fault.New(fault.Invalid, "offset %d: what the record says here the scheduler cannot take: %v", offset, broken)
		}
	}()
	do()
	return nil
}

func distinct(ids []string) []string { return slices.Compact(slices.Sorted(slices.Values(ids))) }

// difference says how a plan differs from the one that was recorded, "" if it does not, in any bit.
func difference(recorded, repeated cluster.Plan) string {
	for i := range max(len(recorded.Placements), len(repeated.Placements)) {
		switch {
		case i >= len(repeated.Placements):
			return fmt.Sprintf("it placed %s, which now waits", recorded.Placements[i].Gang)
		case i >= len(recorded.Placements):
			return fmt.Sprintf("it left %s waiting, which is now placed", repeated.Placements[i].Gang)
		}
		was, is := wire.PlacementToProto(recorded.Placements[i]), wire.PlacementToProto(repeated.Placements[i])
		if !same(was, is) {
			return fmt.Sprintf("it placed %s, and now %s", was, is)
		}
	}
	for i := range max(len(recorded.Evictions), len(repeated.Evictions)) {
		switch {
		case i >= len(repeated.Evictions):
			return fmt.Sprintf("it had %s make room, which now goes on", recorded.Evictions[i].Gang)
		case i >= len(recorded.Evictions):
			return fmt.Sprintf("it let %s go on, which now makes room", repeated.Evictions[i].Gang)
		}
		was, is := wire.EvictionToProto(recorded.Evictions[i]), wire.EvictionToProto(repeated.Evictions[i])
		if !same(was, is) {
			return fmt.Sprintf("it had %s make room, and now %s", was, is)
		}
	}
	return ""
}

func same(a, b proto.Message) bool {
	exactly := proto.MarshalOptions{Deterministic: true}
	was, err := exactly.Marshal(a)
	is, wrong := exactly.Marshal(b)
	return err == nil && wrong == nil && bytes.Equal(was, is)
}
