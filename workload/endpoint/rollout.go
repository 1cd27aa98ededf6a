package endpoint

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/cluster"
)

// crashLimit is how often in a row a new replica may fail before its update is rolled back.
const crashLimit = 3

// rollout has an update in progress go on by one edge.
func (s *step) rollout() {
	r := s.e.Rollout
	if r == nil {
		return
	}
	if r.Phase == cluster.RolloutRollingBack {
		finishBack(&s.e, s.now)
		return
	}
	s.listen()
	if reason := s.broken(); reason != "" {
		rollBack(&s.e, reason, s.now)
		s.wake(s.now)
		return
	}
	s.catchUp()
	short := s.short()
	due := due(*r)
	limit := due + int64(r.Startup)
	switch {
	case s.now < due:
		s.wake(due)
	case short == "" && s.watched(due):
		s.advance()
		s.wake(s.now)
	case s.now >= limit && short == "":
		rollBack(&s.e, fmt.Sprintf("nobody watched its alarms for %s: not all routers tell what they see, or replicas no metric", r.Startup), s.now)
		s.wake(s.now)
	case s.now >= limit:
		rollBack(&s.e, fmt.Sprintf("not all new replicas answered within %s: %s", r.Startup, short), s.now)
		s.wake(s.now)
	default:
		s.wake(limit)
	}
}

// due is when the step or phase that an update is at has had its time.
func due(r cluster.Rollout) int64 {
	switch r.Phase {
	case cluster.RolloutBaking:
		return r.Since + int64(r.Bake)
	case cluster.RolloutRetiring:
		return r.Since + int64(r.Wait)
	}
	return r.Since
}

// watched says that an update's alarms, if it has any, were looked at until a step's end.
func (s *step) watched(due int64) bool {
	_, any := Watched(s.e)
	return !any || s.e.Rollout.Watched >= due
}

// listen notes since when new fleets that should answer do not.
func (s *step) listen() {
	for i := range s.e.Fleets {
		f := &s.e.Fleets[i]
		if f.Generation != s.e.Rollout.To {
			continue
		}
		switch silent := s.e.Rollout.Phase != cluster.RolloutStarting && f.Replicas > 0 && s.serving(*f) == 0; {
		case !silent:
			f.Silent = 0
		case f.Silent == 0:
			f.Silent = s.now
		}
	}
}

// patience is how long a fleet may be silent: until a busy replica would be started anew, and it or
// another, on another node or after a cold start, has had the time to start.
func patience(f cluster.Fleet) time.Duration {
	var p cluster.Probe
	if f.Role.Program.Probe != nil {
		p = *f.Role.Program.Probe
	}
	p = p.WithDefaults()
	return p.Startup + time.Duration(p.Failures)*p.Every
}

// advance goes to the next step or phase: all new replicas answer, and the time of the last is over.
func (s *step) advance() {
	r := s.e.Rollout
	r.Since = s.now
	switch {
	case r.Phase == cluster.RolloutStarting:
		r.Phase, r.Step = cluster.RolloutBaking, 0
	case r.Phase == cluster.RolloutRetiring:
		finish(&s.e, s.now)
		return
	case int(r.Step) == len(r.Steps)-1:
		r.Phase = cluster.RolloutRetiring
		s.note("shifted", fmt.Sprintf("generation %d has passed its last step", r.To))
		return
	default:
		r.Step++
	}
	share(&s.e, r.From, 1-r.Steps[r.Step])
	share(&s.e, r.To, r.Steps[r.Step])
	s.note("shifted", fmt.Sprintf("%s to generation %d", percent(r.Steps[r.Step]), r.To))
}

// broken says why the new version is no good, or nothing.
func (s *step) broken() string {
	r := s.e.Rollout
	if r.Alarm != "" {
		return r.Alarm
	}
	for _, f := range s.e.Fleets {
		if f.Generation != r.To || f.Retired {
			continue
		}
		for _, one := range s.replicas[f.ID()] {
			if one.gang.Failures >= crashLimit && !one.healthy() {
				return fmt.Sprintf("the new replica %s failed %d times in a row%s", one.gang.Name, one.gang.Failures, s.last(one.gang.Name))
			}
		}
		if f.Silent == 0 {
			continue
		}
		if most := patience(f); s.now >= f.Silent+int64(most) {
			return fmt.Sprintf("no replica of %s has answered in generation %d for %s%s", f.Variant, r.To, most, s.last(f.ID()))
		}
		s.wake(f.Silent + int64(patience(f)))
	}
	return ""
}

// last is the newest that is known of trouble with a replica, or a replica of a fleet.
func (s *step) last(name string) string {
	for _, note := range slices.Backward(s.e.Notes) {
		if note.What == "restarted" && strings.HasPrefix(note.Text, name) {
			return ": " + note.Text
		}
	}
	return ""
}

// catchUp has new fleets be as large as the old ones have become.
func (s *step) catchUp() {
	for i := range s.e.Fleets {
		f := &s.e.Fleets[i]
		if at := s.e.Fleet(cluster.FleetID(f.Variant, s.e.Rollout.From)); f.Generation == s.e.Rollout.To && at >= 0 {
			f.Replicas = max(f.Replicas, s.e.Fleets[at].Replicas)
		}
	}
}

// short says which new fleets have fewer replicas that answer than it takes to go on.
func (s *step) short() string {
	var short []string
	for _, f := range s.e.Fleets {
		if f.Generation != s.e.Rollout.To {
			continue
		}
		if n, need := s.serving(f), s.need(f); n < need {
			short = append(short, fmt.Sprintf("%d of %d of %s%s", n, need, f.Variant, s.last(f.ID())))
		}
	}
	return strings.Join(short, ", ")
}

// need is how many replicas of a new fleet must answer for its update to go on: at first all. Later the
// load may want more than there is room for while the old ones are there, and then it is as many as
// answer of those, or as its variant began with.
func (s *step) need(f cluster.Fleet) int32 {
	if s.e.Rollout.Phase == cluster.RolloutStarting {
		return f.Replicas
	}
	enough := int32(1)
	if at := s.e.Fleet(cluster.FleetID(f.Variant, s.e.Rollout.From)); at >= 0 {
		enough = max(enough, s.serving(s.e.Fleets[at]))
	} else if v, err := variantOf(f); err == nil {
		enough = max(enough, v.replicas())
	}
	return min(f.Replicas, enough)
}

// share gives a generation its share of the requests.
func share(e *cluster.Endpoint, generation int64, of float64) {
	for i := range e.Fleets {
		if e.Fleets[i].Generation == generation && !e.Fleets[i].Retired {
			e.Fleets[i].Share = of
		}
	}
}

// retire has all replicas of a generation go.
func retire(e *cluster.Endpoint, generation int64) {
	for i := range e.Fleets {
		if e.Fleets[i].Generation == generation {
			e.Fleets[i].Retired, e.Fleets[i].Share = true, 0
		}
	}
}

// rollBack gives all requests back to the old replicas.
func rollBack(e *cluster.Endpoint, reason string, now int64) {
	r := e.Rollout
	r.Phase, r.Since, r.Reason = cluster.RolloutRollingBack, now, cut(reason, cluster.MaxEndpointText)
	share(e, r.To, 0)
	share(e, r.From, 1)
}

// finishBack ends an update that was rolled back.
func finishBack(e *cluster.Endpoint, now int64) {
	r := e.Rollout
	retire(e, r.To)
	share(e, r.From, 1)
	e.Rollout = nil
	e.Note(cluster.EndpointNote{At: now, What: "rolled-back", Text: fmt.Sprintf("to generation %d: %s", r.From, r.Reason)})
}

// finish ends an update that has taken over.
func finish(e *cluster.Endpoint, now int64) {
	r := e.Rollout
	e.Previous, e.PreviousModels = e.Spec, modelsOf(*e, r.From)
	e.Spec, e.Generation = r.Spec, r.To
	retire(e, r.From)
	share(e, r.To, 1)
	for i := range e.Fleets {
		e.Fleets[i].Silent = 0
	}
	e.Rollout = nil
	e.Note(cluster.EndpointNote{At: now, What: "updated", Text: fmt.Sprintf("generation %d has taken over from %d", r.To, r.From)})
}

// modelsOf are what the references to models of a generation mean, each once.
func modelsOf(e cluster.Endpoint, generation int64) []cluster.ModelPin {
	var pins []cluster.ModelPin
	for _, f := range e.Fleets {
		if f.Generation != generation {
			continue
		}
		for _, pin := range f.Models {
			if !slices.Contains(pins, pin) {
				pins = append(pins, pin)
			}
		}
	}
	return pins
}

func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-3], "") + "..."
}
