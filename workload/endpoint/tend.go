package endpoint

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload"
)

const (
	// firstBackoff is the wait before the second restart in a row; the first is at once.
	firstBackoff = time.Second
	// steady is how long a replica must have run for its earlier crashes to be forgotten.
	steady = 10 * time.Minute
)

// tend makes a fleet's replicas be as many as it wants: those that ended start anew, those that are too
// many drain, and those that are to move drain when others have taken their place.
func (s *step) tend(f *cluster.Fleet) {
	want := f.Replicas
	if f.Retired {
		want = 0
	}
	var staying, moving []replica
	for _, r := range s.replicas[f.ID()] {
		switch {
		case f.Drains(r.gang.Name):
		case r.gang.Moves && !r.gang.Stop:
			moving = append(moving, r)
		default:
			staying = append(staying, r)
		}
	}
	s.drain(f)
	staying = s.shrink(f, staying, want)
	s.move(f, staying, moving, want)
	for _, r := range staying {
		s.keep(f, r)
	}
	for n := int32(len(staying)); n < want && s.room > 0 && f.Next < cluster.MaxReplicaNumber; n++ {
		s.put(gang(s.job, *f, f.Next))
		f.Next++
	}
}

// drain stops replicas on their way out that have nothing to do any more or have had their time, and
// deletes those that have ended.
func (s *step) drain(f *cluster.Fleet) {
	limit := s.spec.Drain()
	var left []cluster.DrainingReplica
	for _, d := range f.Draining {
		at := slices.IndexFunc(s.replicas[f.ID()], func(r replica) bool { return r.gang.Name == d.Gang })
		if at < 0 {
			continue // it is gone
		}
		r := s.replicas[f.ID()][at]
		due := d.Since + int64(limit)
		switch {
		case s.room <= 0:
		case !r.placed || r.ended():
			s.remove(r)
			continue
		case r.gang.Stop:
		case d.Idle || s.now >= due:
			r.gang.Stop, r.gang.StopReason = true, "it is not needed any more"
			s.put(r.gang)
		default:
			s.wake(due)
		}
		left = append(left, d)
	}
	f.Draining = left
}

// remove deletes a replica that is not placed, or has ended.
func (s *step) remove(r replica) {
	s.deletes = append(s.deletes, r.gang)
	s.room--
}

// part has a replica go: routers leave it out from now on. What nobody can have asked anything goes
// with the next step.
func (s *step) part(f *cluster.Fleet, r replica) {
	if !r.placed || r.ended() {
		s.remove(r)
		return
	}
	f.Draining = append(slices.Clip(f.Draining), cluster.DrainingReplica{Gang: r.gang.Name, Since: s.now, Idle: r.early()})
	s.room--
	if r.early() {
		s.wake(s.now)
	}
}

// shrink parts with as many as are too many, and returns those that stay: those that do not answer go
// first, and then the newest.
func (s *step) shrink(f *cluster.Fleet, staying []replica, want int32) []replica {
	surplus := len(staying) - int(want)
	if surplus <= 0 {
		return staying
	}
	worth := func(r replica) int {
		switch {
		case r.healthy():
			return 2
		case r.placed && !r.ended():
			return 1
		}
		return 0
	}
	slices.SortFunc(staying, func(a, b replica) int {
		return cmp.Or(cmp.Compare(worth(a), worth(b)), cmp.Compare(b.number, a.number))
	})
	for surplus > 0 && s.room > 0 {
		s.part(f, staying[0])
		staying = staying[1:]
		surplus--
	}
	return staying
}

// move parts with replicas that are to leave their node, as soon as there are as many without them as
// are wanted. One that does not answer can go at once.
func (s *step) move(f *cluster.Fleet, staying, moving []replica, want int32) {
	spare := -int(want)
	for _, r := range slices.Concat(staying, moving) {
		if r.healthy() {
			spare++
		}
	}
	for _, r := range moving {
		if s.room <= 0 {
			return
		}
		if r.healthy() {
			if spare <= 0 {
				continue
			}
			spare--
		}
		s.part(f, r)
	}
}

// keep starts a replica anew that has ended, and has one that waits follow what its job's owner changes.
func (s *step) keep(f *cluster.Fleet, r replica) {
	if s.room <= 0 || s.leaves() {
		return
	}
	gang := r.gang
	if !r.ended() {
		if !r.placed && (gang.Held != s.job.Held || gang.Priority != s.job.Priority || gang.Queue != s.job.Queue) {
			gang.Held, gang.Priority, gang.Queue = s.job.Held, s.job.Priority, s.job.Queue
			s.put(gang)
		}
		return
	}
	excused := r.task.Status.State == cluster.TaskLost || gang.Stop
	if s.trouble = fmt.Sprintf("%s starts anew: %s", gang.Name, why(r.task)); gang.Stop {
		s.trouble = fmt.Sprintf("%s starts anew: %s", gang.Name, gang.StopReason)
	}
	gang.NotBefore = 0
	if !excused {
		if ran := r.task.Status.Ended - r.task.Status.Started; r.task.Status.Started > 0 && ran >= int64(steady) {
			gang.Failures = 0
		}
		if gang.Failures++; gang.Failures > 1 {
			gang.NotBefore = s.now + int64(workload.Backoff(firstBackoff, gang.Failures-1))
		}
	}
	gang.Attempt++
	gang.Stop, gang.StopReason, gang.Moves, gang.Held = false, "", false, s.job.Held
	s.put(gang)
	s.noteTrouble()
}

// noteTrouble keeps one note of what happens again and again.
func (s *step) noteTrouble() {
	s.e.Notes = slices.DeleteFunc(slices.Clone(s.e.Notes), func(n cluster.EndpointNote) bool { return n.What == "restarted" && n.Text == s.trouble })
	s.note("restarted", s.trouble)
}

// why says how a replica ended, with the last that it wrote.
func why(task cluster.Task) string {
	if task.Status.State == cluster.TaskSucceeded {
		task.Status.State = cluster.TaskFailed
		task.Status.Reason = "it ended by itself (exit code 0)"
	}
	text := workload.Describe(task)
	if task.Status.Message != "" {
		text += ": " + task.Status.Message
	}
	return cut(text, cluster.MaxEndpointText/2)
}
