package endpoint

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/autoscale"
)

// RoleServer is the one role of a replica's gang.
const RoleServer = "server"

// ManyVariable has Clary's server serve all models of a folder, and FolderVariable says which, below
// the contract's base.
const (
	ManyVariable   = "SAGEMAKER_MULTI_MODEL"
	FolderVariable = "CLARY_MODELS"
)

// behindRouters is how Clary's own server runs: routers reach it on its own node, where nobody else has
// business, and limit what it gets. Their limits change while it runs, so it has none below the highest.
var behindRouters = []string{"--host", "127.0.0.1", "--max-payload", "10GiB", "--timeout", "1h"}

// Fleets are what the spec's variants are in a generation: nothing runs of them yet, and they have no
// share of the requests. What references to models mean is put in their place.
func (s Spec) Fleets(generation int64, pins []cluster.ModelPin) ([]cluster.Fleet, error) {
	fleets := make([]cluster.Fleet, len(s.Variants))
	for i, v := range s.Variants {
		text, err := json.Marshal(v)
		if err != nil {
			return nil, fault.New(fault.Invalid, "variant %s: %w", v.ID(), err)
		}
		role, err := s.role(v)
		if err != nil {
			return nil, fault.New(fault.Invalid, "variant %s: %w", v.ID(), err)
		}
		fleet := cluster.Fleet{Variant: v.ID(), Generation: generation, Spec: text, Weight: v.weight(), Replicas: v.replicas()}
		for _, pin := range pins {
			if pin.Ref == v.Model {
				fleet.Models = append(fleet.Models, pin)
			}
		}
		roles := []cluster.Role{role}
		cluster.PinModels(roles, fleet.Models)
		fleet.Role = roles[0]
		fleet.Role.Spread = fleet.ID()
		fleets[i] = fleet
	}
	return fleets, nil
}

// Refs are the references to models of a spec, each once.
func (s Spec) Refs() []string {
	fleets, err := s.Fleets(1, nil)
	if err != nil {
		return nil
	}
	gangs := make([]cluster.Gang, len(fleets))
	for i, fleet := range fleets {
		gangs[i].Roles = []cluster.Role{fleet.Role}
	}
	return cluster.ModelRefs(gangs)
}

// role is what one replica of a variant is.
func (s Spec) role(v Variant) (cluster.Role, error) {
	role, err := v.Role(RoleServer, 1)
	if err != nil {
		return role, err
	}
	program := &role.Program
	if v.Own() {
		program.Command = append(slices.Clone(program.Command), behindRouters...)
	}
	if v.Port > 0 {
		program.Network = cluster.NetworkBridge // each has an address of its own
	}
	program.Probe = &cluster.Probe{
		Path: v.Probe.Path, Startup: v.Startup().Std(), Every: v.Probe.Every.Std(), Timeout: v.Probe.Timeout.Std(), Failures: s.failures(v.Probe),
	}
	if s.Models != "" {
		const channel = "models"
		program.Inputs = []cluster.Input{{Channel: channel, URI: s.Models, Mode: cluster.InputFastFile}}
		program.Env = map[string]string{ManyVariable: "true", FolderVariable: "input/data/" + channel}
	}
	return role, nil
}

// failures of a probe are as many as take a minute, or as long as a request may.
func (s Spec) failures(p Probe) int32 {
	if p.Failures != nil {
		return *p.Failures
	}
	every := max(cluster.Probe{Every: p.Every.Std()}.WithDefaults().Every, time.Millisecond)
	return int32(min(math.Ceil(float64(max(time.Minute, s.Limits.Timeout.Std()))/float64(every)), 1000))
}

// gang is a replica of a fleet.
func gang(job cluster.Job, fleet cluster.Fleet, number int32) cluster.Gang {
	return cluster.Gang{
		Job: job.Name, Name: fleet.GangName(number), Queue: job.Queue, Owner: job.Owner, Priority: job.Priority, Attempt: 1,
		Roles: []cluster.Role{fleet.Role}, Submitted: job.Submitted, Held: job.Held, Handover: true, Labels: job.Labels,
	}
}

// read reads the spec of an endpoint without checking it again: one that was accepted goes on under a
// newer version with stricter rules.
func read(text []byte) (Spec, error) {
	var s Spec
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fault.New(fault.Invalid, "the endpoint's spec cannot be read: %w", err)
	}
	return s, nil
}

// Scaling is how a fleet's replicas follow the load, if they do.
func Scaling(f cluster.Fleet) (autoscale.Spec, bool, error) {
	v, err := variantOf(f)
	if err != nil || v.Scaling == nil {
		return autoscale.Spec{}, false, err
	}
	return *v.Scaling, true, nil
}

// variantOf is what a fleet was made of.
func variantOf(f cluster.Fleet) (v Variant, err error) {
	if err := json.Unmarshal(f.Spec, &v); err != nil {
		return v, fault.New(fault.Invalid, "the spec of fleet %s cannot be read: %w", f.ID(), err)
	}
	return v, nil
}

// Settings are the parts of a spec that are the endpoint's and no variant's: those in force, and from
// the first step of an update on the coming ones.
func Settings(e cluster.Endpoint) (Spec, error) {
	if r := e.Rollout; r != nil && (r.Phase == cluster.RolloutBaking || r.Phase == cluster.RolloutRetiring) {
		return read(r.Spec)
	}
	return read(e.Spec)
}

// Watched are the alarms of an update in progress, and whether there are any to watch now.
func Watched(e cluster.Endpoint) (Alarms, bool) {
	r := e.Rollout
	if r == nil || r.Alarm != "" || r.Phase != cluster.RolloutBaking && r.Phase != cluster.RolloutRetiring {
		return Alarms{}, false
	}
	s, err := read(r.Spec)
	if err != nil || s.Update.Alarms == nil {
		return Alarms{}, false
	}
	return s.Update.Alarms.WithDefaults(), true
}

// Quiet notes that the alarms of an update were looked at now, and nothing was found: without that, a step
// whose time is over does not end. It reports whether there was anything to note.
func Quiet(e cluster.Endpoint, now int64) (cluster.Endpoint, bool) {
	if _, any := Watched(e); !any || now < due(*e.Rollout) || e.Rollout.Watched >= due(*e.Rollout) {
		return e, false
	}
	e = clone(e)
	e.Rollout.Watched = now
	return e, true
}

func encode(s Spec) ([]byte, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fault.New(fault.Internal, "write the endpoint's spec: %w", err)
	}
	if len(text) > cluster.MaxEndpointSpec {
		return nil, fault.New(fault.Invalid, "spec: %d bytes: at most %d", len(text), cluster.MaxEndpointSpec)
	}
	return text, nil
}

func percent(share float64) string { return fmt.Sprintf("%.4g %%", share*100) }
