package fsm_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
)

func TestReplicasAreEqualInWhatEndpointsGoThrough(t *testing.T) {
	exercised := equalReplicas(t, func(d drawer) command.Command {
		if d.s.Index() < 4 {
			return pick(d, []func() command.Command{d.register, d.putNode, d.deploy}, "first")()
		}
		return pick(d, []func() command.Command{
			d.deploy, d.update, d.update, d.scale, d.scale, d.scale, d.retire, d.retire, d.dropReplica, d.dropReplica, d.dropReplica, d.leave, d.leave,
			d.register, d.part, d.putNode, d.commit, d.commit, d.finish, d.nodeState, d.drop,
		}, "command")()
	})
	for _, what := range []string{"an endpoint", "a change of an endpoint", "a new replica", "a replica goes", "an end"} {
		for _, answer := range []string{"accepted", "refused"} {
			if exercised[what+" "+answer] < 1 {
				t.Errorf("%s %s: %d times", what, answer, exercised[what+" "+answer])
			}
		}
	}
	t.Log(exercised)
}

func server() cluster.Role {
	return cluster.Role{Name: "server", Count: 1, Ask: cluster.Ask{MilliCPU: 100}, Program: cluster.Program{Command: []string{"serve"}}}
}

// fleet is one that serves a version, if there is one.
func (d drawer) fleet(generation int64, share float64) cluster.Fleet {
	f := cluster.Fleet{Variant: "blue", Generation: generation, Role: server(), Weight: 1, Share: share, Replicas: 1}
	if version, ok := d.version(); ok && !d.one(4) {
		f.Models = []cluster.ModelPin{version.Pin("model://" + version.Ref())}
	}
	return f
}

func (d drawer) deploy() command.Command {
	name := d.name("endpoint", 2)
	job := cluster.Job{Name: name, Kind: cluster.KindEndpoint, Owner: "ada", Queue: cluster.DefaultQueue, State: cluster.JobQueued, Attempt: 1}
	e := cluster.Endpoint{Job: name, Generation: 1, Last: 1, Fleets: []cluster.Fleet{d.fleet(1, 1)}}
	return command.Record{Changes: []command.Change{{Job: &job}, {Endpoint: &e}}}
}

// served draws an endpoint with its job, and a record that checks the job, mostly.
func (d drawer) served() (cluster.Endpoint, command.Record, bool) {
	e, exists := d.s.Endpoint(d.name("endpoint", 2))
	job, _ := d.s.Job(e.Job)
	var record command.Record
	if !d.one(10) {
		record.Changes = []command.Change{{Expect: d.expect(job.Revision), Check: &command.Key{Kind: state.KindJob, ID: job.Name}}}
	}
	return e, record, exists
}

func put(record command.Record, expect uint64, e cluster.Endpoint) command.Record {
	record.Changes = append(record.Changes, command.Change{Expect: expect, Endpoint: &e})
	return record
}

func (d drawer) update() command.Command {
	e, record, exists := d.served()
	if !exists {
		return d.deploy()
	}
	e.Last++
	if d.one(8) {
		e.Last--
	}
	e.Fleets = append(e.Fleets, d.fleet(e.Last, 0))
	return put(record, d.expect(e.Revision), e)
}

// scale makes the next replica of a fleet, mostly.
func (d drawer) scale() command.Command {
	e, record, exists := d.served()
	if !exists || len(e.Fleets) == 0 {
		return d.deploy()
	}
	f := &e.Fleets[rapid.IntRange(0, len(e.Fleets)-1).Draw(d.T, "fleet")]
	number := f.Next
	if d.one(6) {
		number--
	}
	gang := cluster.Gang{Job: e.Job, Name: f.GangName(max(number, 0)), Queue: cluster.DefaultQueue, Owner: "ada", Attempt: 1, Roles: []cluster.Role{f.Role}, Handover: true}
	f.Next++
	record.Changes = append(record.Changes, command.Change{Gang: &gang})
	return put(record, d.expect(e.Revision), e)
}

// retire has a fleet go, or takes away one that goes.
func (d drawer) retire() command.Command {
	e, record, exists := d.served()
	if !exists || len(e.Fleets) == 0 {
		return d.deploy()
	}
	at := rapid.IntRange(0, len(e.Fleets)-1).Draw(d.T, "fleet")
	if e.Fleets[at].Retired {
		e.PreviousModels = e.Fleets[at].Models
		e.Fleets = slices.Delete(e.Fleets, at, at+1)
	} else {
		e.Fleets[at].Retired, e.Fleets[at].Share = true, 0
		for i := range e.Fleets { // another one has all
			if !e.Fleets[i].Retired {
				e.Fleets[i].Share = 1
				break
			}
		}
	}
	return put(record, d.expect(e.Revision), e)
}

func (d drawer) dropReplica() command.Command {
	gangs := slices.Collect(d.s.Gangs())
	if len(gangs) == 0 {
		return d.scale()
	}
	gang := pick(d, gangs, "gang")
	return command.Record{Changes: []command.Change{{Expect: d.expect(gang.Revision), Delete: &command.Key{Kind: state.KindGang, ID: gang.ID()}}}}
}

// leave ends the job of an endpoint.
func (d drawer) leave() command.Command {
	job, exists := d.s.Job(d.name("endpoint", 2))
	if !exists {
		return d.deploy()
	}
	job.State = cluster.JobCancelled
	return command.Record{Changes: []command.Change{{Expect: d.expect(job.Revision), Job: &job}}}
}

// checkEndpoints: each has its job, its fleets outlive their replicas, and no replica is counted anew.
func checkEndpoints(t *rapid.T, s *state.Snapshot) {
	for e := range s.Endpoints() {
		job, exists := s.Job(e.Job)
		if !exists || job.Kind != cluster.KindEndpoint || job.State.Ended() && len(e.Fleets) > 0 {
			t.Fatalf("%+v of job %+v", e, job)
		}
		if err := e.Validate().Err(); err != nil {
			t.Fatalf("%+v: %v", e, err)
		}
		for gang := range s.GangsOf(e.Job) {
			fleet, number, _ := cluster.ReplicaOf(gang.Name)
			if at := e.Fleet(fleet); at < 0 || number >= e.Fleets[at].Next {
				t.Fatalf("%s is there, and %+v", gang.ID(), e.Fleets)
			}
		}
	}
}

// countEndpoints counts what endpoints went through.
func (y tally) countEndpoints(c command.Command, result command.Result) {
	record, is := c.(command.Record)
	if !is {
		return
	}
	answer := "accepted"
	if result.Err != nil {
		answer = "refused"
	}
	for _, change := range record.Changes {
		what := ""
		switch {
		case change.Endpoint != nil && change.Expect == 0:
			what = "an endpoint"
		case change.Endpoint != nil:
			what = "a change of an endpoint"
		case change.Gang != nil && change.Gang.Handover:
			what = "a new replica"
		case change.Delete != nil && change.Delete.Kind == state.KindGang:
			what = "a replica goes"
		case change.Job != nil && change.Job.Kind == cluster.KindEndpoint && change.Job.State.Ended():
			what = "an end"
		default:
			continue
		}
		y[what+" "+answer]++
	}
}
