package endpoint

import (
	"iter"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/serving/autoscale"
)

// Own reports whether a policy's metric is one that the replicas tell, or their agents of them, and not the
// routers.
func Own(metric autoscale.Metric) bool {
	switch metric {
	case "", autoscale.Concurrency, autoscale.Requests, autoscale.Latency, autoscale.Backlog:
		return false
	}
	return true
}

// wanted are the metrics of a fleet's replicas that somebody looks at.
func wanted(e cluster.Endpoint, f cluster.Fleet) map[string]bool {
	names := map[string]bool{}
	if spec, scales, err := Scaling(f); err == nil && scales {
		for _, policy := range spec.Policies {
			if Own(policy.Metric) {
				names[string(policy.Metric)] = true
			}
		}
	}
	if alarms, watched := Watched(e); watched && alarms.Metric != nil && f.Generation == e.Rollout.To {
		names[alarms.Metric.Name] = true
	}
	return names
}

// Told says that an endpoint's scaling or alarms look at metrics that its replicas tell.
func Told(e cluster.Endpoint) bool {
	for _, f := range e.Fleets {
		if !f.Retired && len(wanted(e, f)) > 0 {
			return true
		}
	}
	return false
}

// Backlogs are what waits for an endpoint asynchronously, for each fleet whose scaling looks at it, by the
// fleet's ID: its share of it, as of all other requests.
func Backlogs(e cluster.Endpoint, waiting float64) map[string]float64 {
	backlogs := map[string]float64{}
	traffic := e.Traffic()
	for i, f := range e.Fleets {
		spec, scales, err := Scaling(f)
		if f.Retired || err != nil || !scales {
			continue
		}
		if spec.Looks(autoscale.Backlog) {
			backlogs[f.ID()] = waiting * traffic[i]
		}
	}
	return backlogs
}

// Measured are the metrics that somebody looks at, by the ID of their fleet and their name: the mean of
// what replicas that are healthy and stay have told last.
func Measured(e cluster.Endpoint, tasks iter.Seq[cluster.Task]) map[string]map[string]float64 {
	looked, sums, counts := map[string]map[string]bool{}, map[string]map[string]float64{}, map[string]map[string]float64{}
	for _, f := range e.Fleets {
		if names := wanted(e, f); !f.Retired && len(names) > 0 {
			looked[f.ID()], sums[f.ID()], counts[f.ID()] = names, map[string]float64{}, map[string]float64{}
		}
	}
	for task := range tasks {
		id, _, ok := cluster.ReplicaOf(gangName(task))
		if !ok || looked[id] == nil || task.Status.State != cluster.TaskRunning || task.Status.Healthy == 0 || e.Fleets[e.Fleet(id)].Drains(gangName(task)) {
			continue
		}
		for name := range looked[id] {
			if value, told := task.Status.Progress.Metrics[name]; told {
				sums[id][name] += value
				counts[id][name]++
			}
		}
	}
	for id, values := range sums {
		for name := range values {
			values[name] /= counts[id][name]
		}
	}
	return sums
}
