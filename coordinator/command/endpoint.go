package command

import (
	"reflect"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// endpointPut is how a record changes an endpoint, to be checked when all of it is known.
type endpointPut struct {
	job string
	old cluster.Endpoint
}

// putEndpoint makes an endpoint, or changes it. It is held against its job and its replicas by
// checkEndpoints.
func (w *recording) putEndpoint(endpoint cluster.Endpoint, expected uint64) error {
	old, existed := w.Endpoint(endpoint.Job)
	if err := w.expect(state.KindEndpoint, endpoint.Job, expected, old.Revision); err != nil {
		return err
	}
	w.endpoints = append(w.endpoints, endpointPut{endpoint.Job, old})
	if endpoint.Revision = old.Revision; existed && reflect.DeepEqual(endpoint, old) {
		return nil
	}
	if err := invalid(state.KindEndpoint, endpoint.Job, endpoint.Validate()); err != nil {
		return err
	}
	if err := endpointMayBecome(old, endpoint); err != nil {
		return err
	}
	for _, fleet := range endpoint.Fleets {
		at := old.Fleet(fleet.ID())
		if at >= 0 {
			if err := fleetMayBecome(endpoint.Job, old.Fleets[at], fleet); err != nil {
				return err
			}
			continue
		}
		if fleet.Generation <= old.Last {
			return fault.New(fault.Conflict, "endpoint %q: fleet %s: generation %d was given before: the next is %d", endpoint.Job, fleet.ID(), fleet.Generation, old.Last+1)
		}
		if err := w.checkThere("endpoint", endpoint.Job, fleet.Models); err != nil {
			return err
		}
	}
	w.PutEndpoint(endpoint)
	return nil
}

// endpointMayBecome says whether a stored endpoint may be replaced by another form of it.
func endpointMayBecome(old, endpoint cluster.Endpoint) error {
	if endpoint.Last < old.Last {
		return fault.New(fault.Invalid, "endpoint %q: last: %d comes before %d", endpoint.Job, endpoint.Last, old.Last)
	}
	was, is := old.Rollout, endpoint.Rollout
	switch {
	case is == nil:
		return nil
	case was == nil || was.To != is.To:
		if is.Phase != cluster.RolloutStarting || is.To <= old.Last {
			return fault.New(fault.Conflict, "endpoint %q: rollout: a new one is %s, with a generation after %d", endpoint.Job, cluster.RolloutStarting, old.Last)
		}
	case was.Phase != is.Phase && !was.Phase.CanBecome(is.Phase):
		return fault.New(fault.Conflict, "endpoint %q: rollout: %s cannot become %s", endpoint.Job, was.Phase, is.Phase)
	case was.From != is.From || was.Started != is.Started:
		return fault.New(fault.Invalid, "endpoint %q: rollout: from and started never change", endpoint.Job)
	}
	return nil
}

func fleetMayBecome(job string, old, fleet cluster.Fleet) error {
	switch {
	case fleet.Next < old.Next:
		return fault.New(fault.Invalid, "endpoint %q: fleet %s: next: %d comes before %d", job, fleet.ID(), fleet.Next, old.Next)
	case old.Retired && !fleet.Retired:
		return fault.New(fault.Conflict, "endpoint %q: fleet %s: retired: that is not taken back", job, fleet.ID())
	case !reflect.DeepEqual(old.Role, fleet.Role) || !reflect.DeepEqual(old.Models, fleet.Models):
		return fault.New(fault.Invalid, "endpoint %q: fleet %s: role and models never change: that takes a new generation", job, fleet.ID())
	}
	return nil
}

// checkEndpoints holds each endpoint that the record puts against its job, which the record names
// too, and against its replicas: a fleet is gone when they are.
func (w *recording) checkEndpoints() error {
	for _, put := range w.endpoints {
		job, exists := w.Job(put.job)
		switch {
		case !exists:
			return fault.New(fault.Conflict, "endpoint %q: its job does not exist", put.job)
		case job.Kind != cluster.KindEndpoint:
			return fault.New(fault.Invalid, "endpoint %q: its job is of kind %s", put.job, job.Kind)
		case !w.named[Key{Kind: state.KindJob, ID: put.job}]:
			return fault.New(fault.Invalid, "endpoint %q: the record must put or check its job too, at the revision it was read", put.job)
		}
		endpoint, _ := w.Endpoint(put.job)
		if job.State.Ended() && len(endpoint.Fleets) > 0 {
			return fault.New(fault.Conflict, "endpoint %q: its job has %s, and %d of its fleets are there", put.job, job.State, len(endpoint.Fleets))
		}
		gone := map[string]bool{}
		for _, fleet := range put.old.Fleets {
			gone[fleet.ID()] = endpoint.Fleet(fleet.ID()) < 0
		}
		for gang := range w.GangsOf(put.job) {
			if fleet, _, _ := cluster.ReplicaOf(gang.Name); gone[fleet] {
				return fault.New(fault.Conflict, "endpoint %q: fleet %s: its replica %s is still there", put.job, fleet, gang.Name)
			}
		}
	}
	return nil
}

// checkEnd lets the job of an endpoint end when the endpoint has no fleets any more.
func (w *recording) checkEnd(job cluster.Job) error {
	if endpoint, exists := w.Endpoint(job.Name); exists && job.State.Ended() && len(endpoint.Fleets) > 0 {
		return fault.New(fault.Conflict, "job %q: its endpoint has %d fleets: they go first", job.Name, len(endpoint.Fleets))
	}
	return nil
}

// checkReplica demands that a new gang of an endpoint is the next replica of one of its fleets, as the
// fleet has it. Numbers only rise, so that no replica has the name of one that was deleted.
func (w *recording) checkReplica(id string, job cluster.Job) error {
	if job.Kind != cluster.KindEndpoint {
		return nil
	}
	gang, _ := w.Gang(id)
	endpoint, _ := w.Endpoint(job.Name)
	name, number, _ := cluster.ReplicaOf(gang.Name)
	at := endpoint.Fleet(name)
	if at < 0 {
		return fault.New(fault.Conflict, "gang %q: its endpoint has no fleet %s", id, cluster.Clip(name))
	}
	fleet, first := endpoint.Fleets[at], int32(0)
	for _, put := range w.endpoints {
		if put.job != job.Name {
			continue
		}
		if was := put.old.Fleet(name); was >= 0 {
			first = put.old.Fleets[was].Next
		}
		if number < first || number >= fleet.Next {
			break
		}
		if len(gang.Roles) != 1 || !reflect.DeepEqual(gang.Roles[0], fleet.Role) {
			return fault.New(fault.Invalid, "gang %q: roles: a replica is what its fleet says", id)
		}
		return nil
	}
	return fault.New(fault.Conflict, "gang %q: the record must put its endpoint too, which counts it as new; the next replica has number %d", id, fleet.Next)
}
