package steps

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/steward"
	"github.com/clary-ml/clary/serving/experiment"
	"github.com/clary-ml/clary/workload/endpoint"
)

// keepEvery is how often counts are kept in the log: a new leader goes on from there, and what was
// counted since is lost, of both variants alike.
const keepEvery = 5 * time.Second

// Experiments count what variants that are compared did, and end the experiment when there is an answer:
// the better one takes the requests, if that was asked for.
func Experiments(log *slog.Logger) steward.Step {
	return func(e *cluster.Endpoint, in steward.Input) bool {
		if e.Experiment == nil || e.Experiment.Ended != 0 {
			return false
		}
		changed, err := test(e, in)
		if err != nil {
			log.Warn("an experiment does not go on", "endpoint", e.Job, "error", err)
			return false
		}
		return changed
	}
}

// promoting says that a variant becomes large enough for another's requests.
func promoting(e cluster.Endpoint) bool {
	if e.Experiment == nil || e.Experiment.Ended != 0 {
		return false
	}
	_, t, _, err := endpoint.Testing(e)
	return err == nil && t.Promoting
}

// test looks at an experiment once.
func test(e *cluster.Endpoint, in steward.Input) (changed bool, err error) {
	x, t, _, err := endpoint.Testing(*e)
	if err != nil {
		return false, err
	}
	now := in.Now.UnixNano()
	end := func(verdict string) (bool, error) {
		if err := endpoint.Count(e, t); err != nil {
			return false, err
		}
		ended, err := endpoint.EndExperiment(*e, verdict, endpoint.Asked{Now: now})
		if err == nil {
			*e = ended
		}
		return err == nil, err
	}
	if t.Promoting {
		return promote(e, in, x, end)
	}
	if t.Generation != e.Generation || e.Rollout != nil {
		return end("no answer: an update has begun, and what was compared is replaced")
	}
	if shares := endpoint.Shares(*e, x); shares != t.Traffic {
		if shares[0] == 0 || shares[1] == 0 {
			return end("no answer: one of the variants has no requests any more")
		}
		t = endpoint.Trial{Generation: t.Generation, Mirrored: t.Mirrored, Through: now, Traffic: shares}
		e.Note(cluster.EndpointNote{At: now, What: "experiment", Text: "the variants' weights have changed: counts begin anew"})
		return true, endpoint.Count(e, t)
	}
	due := now-t.Through >= int64(keepEvery)
	count(&t, in.Seen.Fleet(x.A, t.Generation).Samples, in.Seen.Fleet(x.B, t.Generation).Samples, now)
	verdict := x.Judge(t.A.Arm(x.A), t.B.Arm(x.B))
	done := verdict.Done() && in.Seen.Known // half of the routers may have seen the half that is not like the rest
	switch {
	case !done && !due:
		return false, nil
	case !done:
		return true, endpoint.Count(e, t)
	}
	t.Call = verdict.Call
	if verdict.Call == experiment.Promote && x.Promote {
		t.Promoting = true
		if err := endpoint.Count(e, t); err != nil {
			return false, err
		}
		_, err := promote(e, in, x, end)
		return err == nil, err
	}
	return end(verdict.Why)
}

// count takes in samples that are newer than what was counted. What is not kept yet is counted again
// the next time.
func count(t *endpoint.Trial, a, b []steward.Sample, now int64) {
	since := t.Through
	for _, s := range a {
		if s.At.UnixNano() > since {
			t.A.Requests += s.Requests
			t.A.Errors += s.Errors
			t.A.Logs, t.A.Rewards = t.A.Logs.Plus(s.Logs), t.A.Rewards.Plus(s.Rewards)
		}
	}
	for _, s := range b {
		switch {
		case s.At.UnixNano() <= since:
		case t.Mirrored:
			t.B.Requests += s.Shadow.Requests
			t.B.Errors += s.Shadow.Errors
			t.B.Logs = t.B.Logs.Plus(s.Shadow.Logs)
		default:
			t.B.Requests += s.Requests
			t.B.Errors += s.Errors
			t.B.Logs, t.B.Rewards = t.B.Logs.Plus(s.Logs), t.B.Rewards.Plus(s.Rewards)
		}
	}
	t.Through = now
}

// promote gives B the requests of A: first as many replicas, and when they answer, its weight.
func promote(e *cluster.Endpoint, in steward.Input, x endpoint.Experiment, end func(string) (bool, error)) (changed bool, err error) {
	_, t, _, err := endpoint.Testing(*e)
	if err != nil {
		return false, err
	}
	a, b := e.Fleet(cluster.FleetID(x.A, t.Generation)), e.Fleet(cluster.FleetID(x.B, t.Generation))
	if e.Rollout != nil || t.Generation != e.Generation || a < 0 || b < 0 {
		return end(fmt.Sprintf("%s is better, but an update has begun: it was not promoted", x.B))
	}
	if endpoint.Shares(*e, x) != t.Traffic {
		return end(x.B + " is better, but the variants' weights have changed: it was not promoted")
	}
	verdict := x.Judge(t.A.Arm(x.A), t.B.Arm(x.B))
	want := max(e.Fleets[a].Replicas, e.Fleets[b].Replicas)
	if scaling, scales, err := endpoint.Scaling(e.Fleets[b]); err == nil && scales {
		want = min(want, int32(max(scaling.Min, scaling.Max)))
	}
	if fleet := e.Fleets[b]; fleet.Replicas < want {
		scaled, err := endpoint.Scale(*e, fleet.ID(), want, fleet.Scaler, "it takes the requests of "+x.A, in.Now.UnixNano())
		if err != nil {
			return false, err
		}
		*e = scaled
		return true, nil
	}
	samples := in.Seen.Fleet(x.B, t.Generation).Samples
	ready := 0
	if len(samples) > 0 {
		ready = samples[len(samples)-1].Ready
	}
	settings, err := endpoint.Settings(*e)
	switch {
	case err != nil:
		return false, err
	case ready < int(want) && in.Now.UnixNano()-t.Through > int64(settings.Startup()): // Through is when there was an answer
		return end(fmt.Sprintf("%s is better, but %d of its %d replicas answer after %s: it was not promoted", x.B, ready, want, settings.Startup()))
	case ready < int(want) || !in.Seen.Known:
		return false, nil // they start
	}
	weights := map[string]float64{x.A: 0, x.B: e.Fleets[a].Weight + e.Fleets[b].Weight}
	shifted, err := endpoint.SetWeights(in.Job, *e, weights, endpoint.Asked{Now: in.Now.UnixNano()})
	if err != nil {
		return false, err
	}
	*e = shifted
	return end(verdict.Why + ": done")
}
