package endpoints

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
)

type endpointJSON struct {
	Name       string           `json:"name"`
	State      cluster.JobState `json:"state"`
	Reason     string           `json:"reason,omitempty"`
	Owner      string           `json:"owner"`
	Queue      string           `json:"queue"`
	Generation int64            `json:"generation"`
	Last       int64            `json:"last_generation"`
	URLs       []string         `json:"urls,omitempty"`
	Known      bool             `json:"known"` // all routers have told: figures that are not there are 0
	Requests   float64          `json:"requests_per_second"`
	Rollout    *rolloutJSON     `json:"rollout,omitempty"`
	Experiment *experimentJSON  `json:"experiment,omitempty"`
	Fleets     []fleetJSON      `json:"fleets"`
	Replicas   []replicaJSON    `json:"replicas"`
	Notes      []noteJSON       `json:"notes,omitempty"`
	Submitted  string           `json:"submitted"`
	Revision   uint64           `json:"revision"`
	Spec       json.RawMessage  `json:"spec,omitempty"`
}

type rolloutJSON struct {
	From    int64                `json:"from"`
	To      int64                `json:"to"`
	Phase   cluster.RolloutPhase `json:"phase"`
	Steps   []float64            `json:"steps"`
	Step    int32                `json:"step"`
	Bake    string               `json:"bake,omitempty"`
	Startup string               `json:"startup,omitempty"`
	Wait    string               `json:"wait,omitempty"`
	Started string               `json:"started"`
	Since   string               `json:"since"`
	By      string               `json:"by,omitempty"`
	Alarm   string               `json:"alarm,omitempty"`
	Reason  string               `json:"reason,omitempty"`
}

type experimentJSON struct {
	Spec    json.RawMessage `json:"spec,omitempty"`
	State   json.RawMessage `json:"state,omitempty"`
	By      string          `json:"by,omitempty"`
	Started string          `json:"started,omitempty"`
	Ended   string          `json:"ended,omitempty"`
	Verdict string          `json:"verdict,omitempty"`
}

type fleetJSON struct {
	Variant    string          `json:"variant"`
	Generation int64           `json:"generation"`
	Weight     float64         `json:"weight"`
	Traffic    float64         `json:"traffic"` // of the endpoint's requests, from 0 to 1
	Replicas   int32           `json:"replicas"`
	Healthy    int             `json:"healthy"`
	Retired    bool            `json:"retired,omitempty"`
	Models     []shell.PinJSON `json:"models,omitempty"`
	Figures    *figuresJSON    `json:"figures,omitempty"`
	Spec       json.RawMessage `json:"spec,omitempty"`
}

// figuresJSON are rates a second over a window, and durations in seconds.
type figuresJSON struct {
	Window      float64      `json:"window"`
	Requests    float64      `json:"requests"`
	Errors      float64      `json:"errors"`
	Refused     float64      `json:"refused"`
	P50         float64      `json:"p50"`
	P99         float64      `json:"p99"`
	Concurrency float64      `json:"concurrency"`
	InFlight    int64        `json:"in_flight"`
	Waiting     int64        `json:"waiting"`
	Total       int64        `json:"total"`
	TotalErrors int64        `json:"total_errors"`
	Rewards     int64        `json:"rewards,omitempty"`
	Reward      float64      `json:"mean_reward,omitempty"`
	Shadow      *figuresJSON `json:"shadow,omitempty"`
}

type replicaJSON struct {
	Name       string `json:"name"`
	Variant    string `json:"variant"`
	Generation int64  `json:"generation"`
	State      string `json:"state"`
	Reason     string `json:"reason,omitempty"`
	Task       string `json:"task,omitempty"`
	Node       string `json:"node,omitempty"`
	Started    string `json:"started,omitempty"`
	Healthy    string `json:"healthy,omitempty"`
	Attempt    int32  `json:"attempt"`
	Failures   int32  `json:"failures,omitempty"`
	InFlight   int64  `json:"in_flight"`
	Ejected    bool   `json:"ejected,omitempty"`
	EjectedWhy string `json:"ejected_why,omitempty"`
	NotBefore  string `json:"not_before,omitempty"`
	FailedTask string `json:"failed_task,omitempty"`
	Failure    string `json:"failure,omitempty"`
}

type noteJSON struct {
	At   string `json:"at"`
	What string `json:"what"`
	Text string `json:"text,omitempty"`
	By   string `json:"by,omitempty"`
}

func endpointToJSON(view client.EndpointView) endpointJSON {
	job, e := view.Job, view.Endpoint
	out := endpointJSON{
		Name: job.Name, State: job.State, Reason: job.Reason, Owner: job.Owner, Queue: job.Queue, Generation: e.Generation, Last: e.Last, Known: view.Known,
		Fleets: []fleetJSON{}, Replicas: []replicaJSON{}, Submitted: shell.Moment(job.Submitted), Revision: e.Revision, Spec: asJSON(e.Spec),
	}
	for _, router := range view.Routers {
		out.URLs = append(out.URLs, endpointURL(router.URL, job.Name))
	}
	if r := e.Rollout; r != nil {
		out.Rollout = &rolloutJSON{
			From: r.From, To: r.To, Phase: r.Phase, Steps: r.Steps, Step: r.Step, Bake: shell.DurationText(r.Bake), Startup: shell.DurationText(r.Startup), Wait: shell.DurationText(r.Wait),
			Started: shell.Moment(r.Started), Since: shell.Moment(r.Since), By: r.By, Alarm: r.Alarm, Reason: r.Reason,
		}
	}
	if x := e.Experiment; x != nil {
		out.Experiment = &experimentJSON{asJSON(x.Spec), asJSON(x.State), x.By, shell.Moment(x.Started), shell.Moment(x.Ended), x.Verdict}
	}
	traffic := e.Traffic()
	for i, fleet := range e.Fleets {
		f := fleetJSON{
			Variant: fleet.Variant, Generation: fleet.Generation, Weight: fleet.Weight, Traffic: traffic[i], Replicas: fleet.Replicas,
			Healthy: healthyOf(view, &fleet), Retired: fleet.Retired, Models: shell.PinsToJSON(fleet.Models), Spec: asJSON(fleet.Spec),
		}
		if view.Known {
			seen := view.Fleet(fleet.Variant, fleet.Generation)
			f.Figures = figuresToJSON(&seen)
			out.Requests += seen.Requests
		}
		out.Fleets = append(out.Fleets, f)
	}
	for _, r := range view.Replicas {
		out.Replicas = append(out.Replicas, replicaJSON{
			r.Gang, r.Variant, r.Generation, r.State, r.Reason, r.Task, r.Node, shell.Moment(r.Since), shell.Moment(r.Healthy), r.Attempt, r.Failures, r.InFlight,
			r.Ejected, r.EjectedWhy, shell.Moment(r.NotBefore), r.FailedTask, r.Failure,
		})
	}
	for _, note := range e.Notes {
		out.Notes = append(out.Notes, noteJSON{shell.Moment(note.At), note.What, note.Text, note.By})
	}
	return out
}

func asJSON(text []byte) json.RawMessage {
	if !json.Valid(text) {
		return nil
	}
	return text
}

func figuresToJSON(f *client.FleetFigures) *figuresJSON {
	if f == nil {
		return nil
	}
	return &figuresJSON{
		f.Window.Seconds(), f.Requests, f.Errors, f.Refused, f.P50.Seconds(), f.P99.Seconds(), f.Concurrency, f.InFlight, f.Waiting, f.Total, f.TotalErrors,
		f.Rewards, f.Reward, figuresToJSON(f.Shadow),
	}
}

// servedText is what a fleet serves: its model as it was named, with what that meant, or its server.
func servedText(fleet cluster.Fleet) string {
	if len(fleet.Models) > 0 {
		var texts []string
		for _, pin := range fleet.Models {
			version := fmt.Sprintf("%s@%d", pin.Model, pin.Number)
			if ref := strings.TrimPrefix(pin.Ref, "model://"); ref != version {
				version = ref + " (" + version + ")"
			}
			texts = append(texts, version)
		}
		return strings.Join(texts, ", ")
	}
	var said struct {
		Model, Image string
		Script       *struct{ Entry string }
		Program      *struct{ Command []string }
	}
	if json.Unmarshal(fleet.Spec, &said) != nil {
		return ""
	}
	switch {
	case said.Model != "":
		return said.Model
	case said.Image != "":
		return said.Image
	case said.Script != nil:
		return said.Script.Entry
	case said.Program != nil && len(said.Program.Command) > 0:
		return said.Program.Command[0]
	}
	return ""
}
