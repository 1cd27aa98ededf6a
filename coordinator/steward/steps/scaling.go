package steps

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/steward"
	"github.com/clary-ml/clary/serving/autoscale"
	"github.com/clary-ml/clary/workload/endpoint"
)

// follower is what one fleet's scaling remembers.
type follower struct {
	spec   []byte // that the scaler was made of
	scaler autoscale.Scaler
	state  autoscale.State
	seen   time.Time
	// A change is proposed, and not known to be made: if it is not, next is forgotten.
	proposed bool
	replicas int32
	next     autoscale.State
}

// forgotten is after how long a fleet that nobody has asked about is forgotten.
const forgotten = 10 * time.Minute

// Scaling has fleets follow their load. It remembers what autoscale does; a new leader begins with what
// the endpoint keeps.
func Scaling(log *slog.Logger) steward.Step {
	followers := map[string]*follower{}
	return func(e *cluster.Endpoint, in steward.Input) (changed bool) {
		for key, f := range followers {
			if in.Now.Sub(f.seen) > forgotten {
				delete(followers, key)
			}
		}
		for _, fleet := range e.Fleets {
			spec, scales, err := endpoint.Scaling(fleet)
			if err != nil {
				log.Warn("a fleet does not scale", "endpoint", e.Job, "fleet", fleet.ID(), "error", err)
			}
			if err != nil || !scales || fleet.Retired {
				continue
			}
			key := e.Job + "/" + fleet.ID()
			f := followers[key]
			if f == nil || !bytes.Equal(f.spec, fleet.Spec) {
				scaler, err := autoscale.New(spec)
				if err != nil {
					log.Warn("a fleet does not scale", "endpoint", e.Job, "fleet", fleet.ID(), "error", err)
					continue
				}
				if f == nil {
					f = &follower{state: stateOf(fleet)}
					followers[key] = f
				}
				f.spec, f.scaler = fleet.Spec, scaler
			}
			f.seen = in.Now
			changed = f.follow(e, fleet, in, log) || changed
		}
		return changed
	}
}

// stateOf is what the endpoint keeps of a fleet's state; without any, a change of its number by
// hand or by an update counts as one that added.
func stateOf(fleet cluster.Fleet) (state autoscale.State) {
	if len(fleet.Scaler) > 0 && json.Unmarshal(fleet.Scaler, &state) == nil {
		return state
	}
	return autoscale.State{}
}

// follow decides of one fleet.
func (f *follower) follow(e *cluster.Endpoint, fleet cluster.Fleet, in steward.Input, log *slog.Logger) bool {
	if f.proposed && fleet.Replicas == f.replicas {
		f.state = f.next
	}
	f.proposed = false
	series := measurements(in.Seen.Fleet(fleet.Variant, fleet.Generation).Samples, f.scaler.Spec().LongestWindow(), in.Now)
	decision, next := f.scaler.Decide(in.Now, int(fleet.Replicas), series, f.state)
	n := int32(decision.Replicas)
	if n == fleet.Replicas {
		f.state = next
		return false
	}
	// Who does not hear all routers takes nothing away, nor does an update or a promotion in progress.
	if n < fleet.Replicas && (!in.Seen.Known || e.Rollout != nil || promoting(*e)) {
		return false
	}
	text, err := json.Marshal(next)
	if err == nil {
		var scaled cluster.Endpoint
		if scaled, err = endpoint.Scale(*e, fleet.ID(), n, text, decision.Why, in.Now.UnixNano()); err == nil {
			*e = scaled
			f.proposed, f.replicas, f.next = true, n, next
			return true
		}
	}
	log.Warn("a fleet does not scale", "endpoint", e.Job, "fleet", fleet.ID(), "replicas", n, "error", err)
	return false
}

// measurements are a fleet's samples as autoscale has them, as far back as it looks.
func measurements(samples []steward.Sample, span time.Duration, now time.Time) []autoscale.Measurement {
	from := len(samples)
	for from > 0 && now.Sub(samples[from-1].At) < span {
		from--
	}
	var series []autoscale.Measurement
	for i := from; i < len(samples); i++ {
		s := samples[i]
		arrived := float64(s.Requests + s.InFlight + s.Waiting) // those that ended, and what more there is now
		if i > 0 {
			arrived -= float64(samples[i-1].InFlight + samples[i-1].Waiting)
		}
		m := autoscale.Measurement{
			At: s.At, Ready: s.Ready, Waiting: float64(s.Waiting), Latency: s.Latency,
			Values: map[autoscale.Metric]float64{
				autoscale.Requests:    max(arrived, 0) / s.Span.Seconds(),
				autoscale.Concurrency: s.Concurrency(),
			},
		}
		for name, value := range s.Values {
			if metric := autoscale.Metric(name); endpoint.Own(metric) || metric == autoscale.Backlog { // else an alarm's, of a name that means something else here
				m.Values[metric] = value
			}
		}
		series = append(series, m)
	}
	return series
}
