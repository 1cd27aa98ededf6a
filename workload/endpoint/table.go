package endpoint

import (
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/serving/route"
)

// Address is where a replica's task is reached, and whether through its node's gateway. Tasks that
// cannot be reached are left out.
type Address func(cluster.Task) (address string, gateway, ok bool)

// Table is what routers are told of an endpoint: of each fleet the replicas that run. Those that do not
// answer, those on their way out, and those of a version that has no share of the requests get nothing
// new, but stay: what they were asked goes on, and routers tell of it. For a fleet of which nothing
// answers requests are held: its replicas start, or start anew, or are busy and will answer.
func Table(job cluster.Job, e cluster.Endpoint, tasks []cluster.Task, address Address) (route.Endpoint, error) {
	s, err := Settings(e)
	if err != nil {
		return route.Endpoint{}, err
	}
	out := s.route()
	out.Name = e.Job
	ends := job.Cancel || job.State == cluster.JobStopping || job.State.Ended()
	replicas := map[string][]cluster.Task{}
	for _, task := range tasks {
		if task.Status.State != cluster.TaskRunning {
			continue
		}
		if fleet, _, ok := cluster.ReplicaOf(gangName(task)); ok {
			replicas[fleet] = append(replicas[fleet], task)
		}
	}
	for i, traffic := range e.Traffic() {
		f := e.Fleets[i]
		idle := ends || f.Retired || f.Share == 0
		fleet := route.Fleet{Variant: f.Variant, Generation: f.Generation, Weight: traffic, Cold: !idle}
		for _, task := range replicas[f.ID()] {
			at, gateway, ok := address(task)
			if !ok {
				continue
			}
			draining := idle || task.Status.Healthy == 0 || f.Drains(gangName(task))
			fleet.Replicas = append(fleet.Replicas, route.Replica{
				ID: task.ID, Node: task.Allocation.Node, Address: at, Gateway: gateway, Draining: draining,
			})
			fleet.Cold = fleet.Cold && draining
		}
		if !idle || len(fleet.Replicas) > 0 {
			out.Fleets = append(out.Fleets, fleet)
		}
	}
	return out, nil
}

func gangName(task cluster.Task) string { return task.Gang[min(len(task.Job)+1, len(task.Gang)):] }

// route is what of the settings routers are told.
func (s Spec) route() route.Endpoint {
	l := s.Limits
	out := route.Endpoint{
		Public: s.Public, Models: s.Models != "",
		Limits: route.Limits{
			Body: int64(l.Body), Timeout: l.Timeout.Std(), Concurrency: l.Concurrency, Queue: l.Queue, QueueTime: l.QueueTime.Std(),
			Rate: l.Rate, PerToken: l.PerToken, Burst: l.Burst, Retries: l.Retries, HoldTime: l.HoldTime.Std(),
		},
	}
	if s.Sticky != nil {
		out.Sticky = &route.Sticky{Header: s.Sticky.Header, Cookie: s.Sticky.Cookie}
	}
	if s.Shadow != nil {
		out.Shadow = &route.Shadow{Variant: s.Shadow.Variant, Share: float64(s.Shadow.Share)}
	}
	if c := s.Capture; c != nil {
		out.Capture = &route.Capture{
			Share: float64(c.Share), To: c.To, Inputs: c.Inputs == nil || *c.Inputs, Outputs: c.Outputs == nil || *c.Outputs, MaxBody: int64(c.MaxBody),
		}
	}
	if a := s.Async; a != nil {
		out.Async = &route.Async{To: a.To, Failures: a.Failures, Concurrency: a.Concurrency, Retries: a.Retries}
	}
	return out
}
