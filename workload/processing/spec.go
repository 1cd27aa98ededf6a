// Package processing is the kind of job that makes data of data: any image, script or command
// over inputs and outputs in the object store, on one instance or on several.
package processing

import (
	"maps"
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/internal/strictjson"
	"github.com/clary-ml/clary/trainer/steps"
	"github.com/clary-ml/clary/workload/placement"
	"github.com/clary-ml/clary/workload/training"
)

// Spec is what a processing job asks for: a program, a script or an image to run, what it reads
// and what is kept of what it writes.
type Spec struct {
	// Program is a command with its environment; in an image its arguments, instead of the image's
	// own. Script is code that is brought to the node. Image is a container image that either runs
	// in, or that runs what it is made to run.
	Program    *training.Program `json:"program,omitempty"`
	Script     *training.Script  `json:"script,omitempty"`
	Image      string            `json:"image,omitempty"`
	Entrypoint []string          `json:"entrypoint,omitempty"`

	// Steps are ready-made and need no code: the plan of clary prepare, over the table of the input
	// called input, into the one output. Profile writes a page of what is in that table beside it.
	Steps   *steps.Plan `json:"steps,omitempty"`
	Profile bool        `json:"profile,omitempty"`

	// Inputs are given to each instance, or shared out among them; Outputs are brought to the store.
	// Both are maps of names to s3:// addresses, or to objects that say more.
	Inputs  map[string]Input  `json:"inputs,omitempty"`
	Outputs map[string]Output `json:"outputs,omitempty"`

	// Instances are how many run, together or not at all; 0 means 1. All must succeed.
	Instances int32 `json:"instances,omitempty"`
	// Cluster is ray, dask or spark: the instances become the engine's own cluster, and what is to
	// run runs on the first one, against it.
	Cluster cluster.Engine `json:"cluster,omitempty"`
	// Framework is how instances find each other: torch, or hosts for any other. With one, they
	// start when all are ready.
	Framework cluster.Framework `json:"framework,omitempty"`
	// ContainerNetwork is bridge for an address of the container's own behind the node's.
	ContainerNetwork cluster.Network `json:"container_network,omitempty"`
	// NetworkIsolation cuts each instance off from every network.
	NetworkIsolation bool `json:"network_isolation,omitempty"`

	// Secrets of the job's queue are given to each instance, each as a variable or as a file below
	// /run/secrets.
	Secrets []training.Secret `json:"secrets,omitempty"`
	// Metrics are found in what an instance writes.
	Metrics []training.Metric `json:"metrics,omitempty"`

	// Resources are for each instance.
	Resources training.Resources `json:"resources,omitzero"`
	// Labels are what a node must have, in exactly these values.
	Labels map[string]string `json:"labels,omitempty"`
	// Placement is more of where tasks run: constraints, affinity, topology.
	Placement placement.Spec `json:"placement,omitzero"`
	// Grace is the time between SIGTERM and SIGKILL; 0 means two minutes.
	Grace quantity.Duration `json:"grace,omitzero"`
	// Disk is the most that one instance may write on its node's disk; 0 leaves it to the node.
	Disk quantity.Bytes `json:"disk,omitzero"`
	// ReadOnlyRoot keeps a container from writing anywhere but to its folders and /tmp.
	ReadOnlyRoot bool `json:"read_only_root,omitempty"`
}

// Parse reads a spec and reports every mistake in it; the spec is only good without any.
func Parse(data []byte) (Spec, cluster.Problems) {
	var s Spec
	if problems := strictjson.Decode(data, &s); len(problems) > 0 {
		return Spec{}, problems
	}
	return s, s.Validate()
}

// Validate reports every mistake, each with the path of its field.
func (s Spec) Validate() cluster.Problems {
	var p cluster.Problems
	switch {
	case s.ready():
		s.validateSteps(&p)
		p.Under("placement", s.Placement.Validate())
	case s.Program == nil && s.Script == nil && s.Image == "":
		p.Add("", "there is nothing to run: name a program, a script or an image, or ready-made steps")
	default:
		p.Under("", s.training().Validate())
		s.validateCluster(&p)
	}
	s.validateInputs(&p)
	s.validateOutputs(&p)
	if len(p) == 0 {
		p.Under("", s.validateFolders())
	}
	if len(p) > 0 {
		return p
	}
	// What is left are the limits that every gang has: they are checked on the gang.
	roles, err := s.Roles()
	if err != nil {
		p.Add("", "%s", err)
		return p
	}
	return cluster.Gang{Job: "job", Name: "main", Queue: cluster.DefaultQueue, Attempt: 1, Roles: roles}.Validate()
}

// training is the training job that runs the same: what programs, scripts and images are is
// decided there.
func (s Spec) training() training.Spec {
	off := false
	return training.Spec{
		Program: s.Program, Script: s.Script, Image: s.Image, Entrypoint: s.Entrypoint, Instances: s.Instances, Framework: s.Framework,
		ContainerNetwork: s.ContainerNetwork, NetworkIsolation: s.NetworkIsolation, Secrets: s.Secrets, Metrics: s.Metrics,
		Resources: s.Resources, Labels: s.Labels, Placement: s.Placement, Grace: s.Grace, Disk: s.Disk, ReadOnlyRoot: s.ReadOnlyRoot, Checkpoints: &off,
	}
}

// Roles are the tasks of the job's one gang.
func (s Spec) Roles() ([]cluster.Role, error) {
	var role cluster.Role
	if s.ready() {
		ready, err := s.stepsRole()
		if err != nil {
			return nil, err
		}
		role = ready
	} else {
		roles, err := s.training().Roles()
		if err != nil {
			return nil, err
		}
		role = roles[0]
	}
	program := &role.Program
	program.Contract, program.Outputs, program.Script = cluster.ContractProcessing, false, ""
	if s.Image != "" && s.Script == nil { // no argument "train"
		program.Command = nil
		if s.Program != nil {
			program.Command = s.Program.Command
		}
	}
	if s.Cluster != cluster.EngineNone {
		s.engage(&role)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Inputs)) {
		program.Inputs = append(program.Inputs, s.input(name))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Outputs)) {
		program.Exports = append(program.Exports, s.export(name))
	}
	return []cluster.Role{role}, nil
}

// validateFolders refuses folders that lie in one another: what is whose could not be told.
func (s Spec) validateFolders() cluster.Problems {
	var p cluster.Problems
	type place struct{ field, folder string }
	var places []place
	for _, name := range slices.Sorted(maps.Keys(s.Inputs)) {
		places = append(places, place{"inputs." + name + ".path", s.input(name).Folder})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Outputs)) {
		places = append(places, place{"outputs." + name + ".path", s.export(name).Folder})
	}
	for i, a := range places {
		for _, b := range places[i+1:] {
			switch {
			case a.folder == b.folder:
				p.Add(b.field, "%s is that of %s too: each takes a folder of its own", absolute(b.folder), a.field)
			case strings.HasPrefix(b.folder, a.folder+"/"), strings.HasPrefix(a.folder, b.folder+"/"):
				p.Add(b.field, "%s and %s of %s lie in one another: each takes a folder of its own", absolute(b.folder), absolute(a.folder), a.field)
			}
		}
	}
	return p
}
