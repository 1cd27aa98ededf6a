package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/clienttest"
	"github.com/clary-ml/clary/client/invoke"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload/endpoint"
)

// playEndpoint is an endpoint's life: its replicas are healthy at once, unless its name begins with
// crash. An update takes over, unless a model of it has bad in its name: then it is rolled back.
func playEndpoint(ctx context.Context, c *clienttest.Cluster, job cluster.Job) {
	spec, _ := endpoint.Parse(job.Spec)
	fleets, err := spec.Fleets(1, nil)
	if err != nil {
		return
	}
	for i := range fleets {
		fleets[i].Share = 1
	}
	now := time.Now().UnixNano()
	note := cluster.EndpointNote{At: now, What: "created", Text: "generation 1", By: job.Owner}
	c.Log(job.Name, job.Name+"/main-1-0/server-0.1", "stderr", "cannot load the model\n")
	c.UpdateEndpoint(job.Name, func(e *clienttest.Endpoint) {
		e.Generation, e.Last, e.Spec, e.Fleets, e.Notes, e.Known = 1, 1, job.Spec, fleets, []cluster.EndpointNote{note}, true
	})
	if strings.HasPrefix(job.Name, "crash") {
		c.UpdateEndpoint(job.Name, func(e *clienttest.Endpoint) {
			e.Replicas = []client.ReplicaView{{
				Variant: "main", Generation: 1, Gang: "main-1-0", State: client.ReplicaFailed, Attempt: 4, Failures: 3,
				FailedTask: job.Name + "/main-1-0/server-0.1", Failure: "exit code 1",
			}}
		})
		return
	}
	c.Update(job.Name, func(v *client.JobView) { v.Job.State, v.Job.Started = cluster.JobRunning, now })
	for {
		view, _, changed := c.Job(job.Name)
		if view.Job.Cancel {
			c.Update(job.Name, func(v *client.JobView) { v.Job.State, v.Job.Ended = cluster.JobCancelled, now })
			return
		}
		if e, _ := c.Endpoint(job.Name); e.Rollout != nil || len(e.Replicas) != wanted(e) {
			c.UpdateEndpoint(job.Name, func(e *clienttest.Endpoint) { settle(e, now) })
			continue
		}
		if e, _ := c.Endpoint(job.Name); e.Experiment != nil && string(e.Experiment.State) == "{}" {
			c.UpdateEndpoint(job.Name, func(e *clienttest.Endpoint) { compare(&e.Endpoint, now) })
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// compare counts what an experiment's variants did: green is a fifth faster, which ends a test of latency,
// and of errors there are too few to tell.
func compare(e *cluster.Endpoint, now int64) {
	x, trial, _, err := endpoint.Testing(*e)
	if err != nil {
		return
	}
	trial.Generation = e.Generation
	for range 2000 {
		trial.A.Requests, trial.B.Requests = trial.A.Requests+1, trial.B.Requests+1
		for _, wobble := range []float64{-0.5, 0.5} {
			trial.A.Logs.Add(math.Log(0.05) + wobble)
			trial.B.Logs.Add(math.Log(0.04) + wobble)
		}
	}
	trial.A.Errors, trial.B.Errors = 3, 2
	_ = endpoint.Count(e, trial)
	if v := x.Judge(trial.A.Arm(x.A), trial.B.Arm(x.B)); v.Done() {
		ended := *e.Experiment
		ended.Ended, ended.Verdict = now, v.Why
		e.Experiment = &ended
	}
}

func wanted(e clienttest.Endpoint) int {
	n := 0
	for _, fleet := range e.Fleets {
		n += int(fleet.Replicas)
	}
	return n
}

// settle ends an update, and has each fleet its replicas.
func settle(e *clienttest.Endpoint, now int64) {
	if r := e.Rollout; r != nil {
		e.Rollout = nil
		if strings.Contains(string(r.Spec), "bad") {
			e.Notes = append(e.Notes, cluster.EndpointNote{At: now, What: "rolled-back", Text: "its replicas did not start: exit code 7"})
			return
		}
		spec, _ := endpoint.Parse(r.Spec)
		e.Previous, e.Spec, e.Generation = e.Spec, r.Spec, r.To
		e.Fleets, _ = spec.Fleets(r.To, nil)
		for i := range e.Fleets {
			e.Fleets[i].Share = 1
		}
	}
	e.Replicas, e.Figures = nil, nil
	for _, fleet := range e.Fleets {
		for number := range fleet.Replicas {
			gang := fleet.GangName(number)
			e.Replicas = append(e.Replicas, client.ReplicaView{
				Variant: fleet.Variant, Generation: fleet.Generation, Number: number, Gang: gang, Task: e.Job + "/" + gang + "/server-0.1",
				Node: "n1", State: client.ReplicaHealthy, Since: now, Healthy: now, Attempt: 1, InFlight: 2,
			})
		}
		e.Figures = append(e.Figures, client.FleetFigures{
			Variant: fleet.Variant, Generation: fleet.Generation, Window: 10 * time.Second, Requests: 50, Errors: 1, P50: 2 * time.Millisecond, P99: 9 * time.Millisecond,
		})
	}
}

// answer is a router that answers with what it was asked, by the variant that is named, or in turn.
func answer() http.Handler {
	rewarded := map[string]bool{"id-green": true, "id-blue": true}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		name, what, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/endpoints/"), "/")
		variant := r.Header.Get(invoke.HeaderVariant)
		if variant == "" {
			variant = "blue"
		}
		w.Header().Set(invoke.HeaderRequest, "r1")
		switch {
		case r.Header.Get("Authorization") != "Bearer "+clienttest.Token:
			http.Error(w, `{"error":"no token"}`, http.StatusUnauthorized)
		case name == "full":
			w.Header().Set("Retry-After", "1")
			http.Error(w, `{"error":"the queue of full is full"}`, http.StatusTooManyRequests)
		case name != "churn":
			http.Error(w, `{"error":"there is no endpoint `+name+`"}`, http.StatusNotFound)
		case what == "rewards" && !slices.ContainsFunc([]string{"id-blue", "id-green"}, func(id string) bool { return rewarded[id] && strings.Contains(string(body), id) }):
			http.Error(w, `{"error":"inference_id: is none of this endpoint's"}`, http.StatusBadRequest)
		case what == "async-invocations":
			w.Header().Set(invoke.HeaderOutput, "s3://answers/1.out")
			w.Header().Set(invoke.HeaderFailure, "s3://answers/1.json")
			w.WriteHeader(http.StatusAccepted)
		case what == "rewards":
			w.WriteHeader(http.StatusNoContent)
		default:
			w.Header().Set(invoke.HeaderInvoked, variant)
			w.Header().Set(invoke.HeaderAnswered, "id-"+variant)
			w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
			fmt.Fprintf(w, "%s", body)
		}
	})
}
