// Package training is the kind of job that trains a model: a network declared in the
// job, trained by workers with parameter servers, or any program of the user's own.
package training

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/internal/strictjson"
	"github.com/clary-ml/clary/trainer/spec"
	"github.com/clary-ml/clary/workload/placement"
)

// Spec is what a training job asks for. Either it declares a network, whose fields
// (network, optimizer, data, epochs, batch, seed, ...) stand at the top level, or it
// names a program.
type Spec struct {
	spec.Training

	// Workers and Servers are for a network: how many compute gradients, and over how
	// many parameter servers the weights are split. 0 means 1.
	Workers int32 `json:"workers,omitempty"`
	Servers int32 `json:"servers,omitempty"`
	// MinWorkers makes the job elastic: it starts with as many workers as there is room for, at least so
	// many and at most Workers, and goes on from its checkpoint with more or fewer. 0 means Workers.
	MinWorkers int32 `json:"min_workers,omitempty"`

	// Program runs instead of a network, as many times as Instances says; 0 means 1.
	Program   *Program `json:"program,omitempty"`
	Instances int32    `json:"instances,omitempty"`
	// MinInstances makes the job elastic, as MinWorkers does.
	MinInstances int32 `json:"min_instances,omitempty"`
	// Script runs instead of a program.
	Script *Script `json:"script,omitempty"`
	// Image is a container image that program or script run in: a registry's reference, or
	// the s3:// address of a file of docker save or an OCI archive. On its own it runs what
	// it is made to run, with the argument "train". Entrypoint stands in for the image's own.
	Image      string   `json:"image,omitempty"`
	Entrypoint []string `json:"entrypoint,omitempty"`
	// ContainerNetwork is bridge for an address of the container's own behind the node's; by
	// default it has the node's network.
	ContainerNetwork cluster.Network `json:"container_network,omitempty"`
	// Hyperparameters are for a program or a script: it finds them in input/config, and a
	// script in its arguments and SM_ variables too.
	Hyperparameters map[string]json.RawMessage `json:"hyperparameters,omitempty"`
	// Framework is how instances find each other: torch, or hosts for any other. With one,
	// they start when all are ready.
	Framework cluster.Framework `json:"framework,omitempty"`
	// NetworkIsolation cuts each instance off from every network.
	NetworkIsolation bool `json:"network_isolation,omitempty"`

	// Exclusive keeps a program or script from ever running twice: where the node loses the cluster for so long
	// that it may count as lost, its tasks end at once, before they are started elsewhere.
	Exclusive bool `json:"exclusive,omitempty"`

	// Secrets of the job's queue are given to a program, script or image, each as a variable
	// or as a file below /run/secrets.
	Secrets []Secret `json:"secrets,omitempty"`
	// Metrics are found in what a program, script or image writes. One that is called epoch,
	// step or total says where the work stands.
	Metrics []Metric `json:"metrics,omitempty"`
	// Inputs maps channels such as train and validation to s3:// addresses, or to objects
	// that say more.
	Inputs map[string]Input `json:"inputs,omitempty"`
	// Output is an s3:// prefix that published outputs are copied to; "" copies nothing.
	Output string `json:"output,omitempty"`

	// Resources are for each worker or instance; ServerResources for each server.
	Resources       Resources `json:"resources,omitzero"`
	ServerResources Resources `json:"server_resources,omitzero"`

	// Labels are what a node must have, in exactly these values.
	Labels map[string]string `json:"labels,omitempty"`
	// Placement is more of where tasks run: constraints, affinity, topology.
	Placement placement.Spec `json:"placement,omitzero"`
	// Grace is the time between SIGTERM and SIGKILL; 0 means two minutes.
	Grace quantity.Duration `json:"grace,omitzero"`
	// Disk is the most that one task may write on its node's disk: its folders and /tmp. 0
	// leaves it to the node. It is a bound and not a promise: nothing is set aside.
	Disk quantity.Bytes `json:"disk,omitzero"`
	// ReadOnlyRoot keeps a container from writing anywhere but to its folders and /tmp.
	ReadOnlyRoot bool `json:"read_only_root,omitempty"`
	// Checkpoints mirrors the checkpoints folder and restores it before a restart. If
	// unset it is on, and off for a program on the node itself.
	Checkpoints *bool `json:"checkpoints,omitempty"`
	// Track keeps the curve of a metric with the progress of the job's tasks.
	Track *Track `json:"track,omitempty"`
	// Restore is the s3:// prefix of an earlier job's checkpoints, to go on from them.
	Restore string `json:"restore,omitempty"`
}

// Program is a command with its environment.
type Program struct {
	Command []string          `json:"command"`
	Env     map[string]string `json:"env,omitempty"`
	Dir     string            `json:"dir,omitempty"`
}

// Secret hands a secret on: as the variable Env, as the file File, or as a file of its own
// name if neither is said.
type Secret struct {
	Name string `json:"name"`
	Env  string `json:"env,omitempty"`
	File string `json:"file,omitempty"`
}

// Metric finds a number in what a task writes: the first group of a regular expression (RE2).
type Metric struct {
	Name  string `json:"name"`
	Regex string `json:"regex"`
}

// Track says which points of a metric's curve are kept: the first at or after each of the
// steps, and the newest.
type Track struct {
	Metric string    `json:"metric"`
	Steps  []float64 `json:"steps,omitempty"`
	// ByStep counts in steps; otherwise in epochs.
	ByStep bool `json:"by_step,omitempty"`
}

// Resources are what one task is promised. What is 0 gets a default: one core, and
// memory by the size of the network (1 GiB for a program).
type Resources struct {
	Cores  quantity.Cores `json:"cores,omitzero"`
	Memory quantity.Bytes `json:"memory,omitzero"`
	// GPUs is a number of whole ones, or a share of one such as 0.25; with MIG a number of slots.
	GPUs quantity.GPUs `json:"gpus,omitzero"`
	// GPUModel is one model, or several separated by commas.
	GPUModel string `json:"gpu_model,omitempty"`
	// GPUMemory is that much of one GPU's memory, which others may share.
	GPUMemory quantity.Bytes `json:"gpu_memory,omitzero"`
	// MIG is a profile such as 1g.10gb, of GPUs that are cut into slots.
	MIG string `json:"mig,omitempty"`
}

// Limits on one training job.
const (
	MaxWorkers = 1024
	MaxServers = 256

	minDisk = 1 << 20
)

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
	case s.Program != nil && s.Script != nil:
		p.Add("script", "stands beside program: remove one of the two")
	case s.Program != nil || s.Script != nil || s.Image != "":
		s.validateProgram(&p)
	case len(s.Network.Input) == 0 && len(s.Network.Layers) == 0:
		p.Add("network", "is missing: declare a network, or name a program, a script or an image to run")
	default:
		s.validateNetwork(&p)
	}
	s.validateInputs(&p)
	if s.Output != "" {
		cluster.CheckTarget(&p, "output", s.Output)
	}
	if s.Restore != "" {
		checkAddress(&p, "restore", s.Restore)
		if s.Checkpoints != nil && !*s.Checkpoints || s.Checkpoints == nil && s.Program != nil && s.Image == "" {
			p.Add("restore", "is for a job with checkpoints: set checkpoints: true")
		}
	}
	if s.Disk != 0 && s.Disk < minDisk {
		p.Add("disk", "%s is too little: from %s on", cluster.FormatBytes(int64(s.Disk)), cluster.FormatBytes(minDisk))
	}
	if s.ReadOnlyRoot && s.Image == "" {
		p.Add("read_only_root", "is for an image: a process sees the node's root read-only anyway")
	}
	s.Resources.validate(&p, "resources")
	s.ServerResources.validate(&p, "server_resources")
	p.Under("placement", s.Placement.Validate())
	if len(p) > 0 {
		return p
	}
	// What is left are the limits that every gang has: they are checked on the gang.
	p.Under("", s.limits())
	return p
}

func (s Spec) validateProgram(p *cluster.Problems) {
	form := "program"
	switch {
	case s.Script != nil:
		form = "script"
		s.Script.validate(p)
		if s.Image != "" && s.Script.Requirements != "" {
			p.Add("script.requirements", "is for a node's own Python: an image brings its packages")
		}
	case s.Program == nil:
		form = "image"
	case len(s.Program.Command) == 0 && s.Image == "":
		p.Add("program.command", "is empty: name the program and its arguments, as a list")
	}
	s.validateHyperparameters(p)
	for i, secret := range s.Secrets {
		if s.Image != "" && secret.Env != "" {
			p.Add(fmt.Sprintf("secrets[%d].env", i), "is for a process: a container engine would write the variable to its disk; use file")
		}
	}
	definitions := make([]cluster.MetricDefinition, len(s.Metrics))
	for i, metric := range s.Metrics {
		definitions[i] = cluster.MetricDefinition(metric)
	}
	p.Under("metrics", cluster.CheckMetrics(definitions))
	s.validateNetworkOf(p)
	if s.NetworkIsolation && s.Instances > 1 {
		p.Add("network_isolation", "cuts instances off from each other too: it is for one instance")
	}
	if s.Exclusive && s.Image != "" {
		p.Add("exclusive", "is for a process: nobody would end a container if its node lost the cluster and its agent")
	}
	inRange(p, "instances", s.Instances, cluster.MaxTasks)
	checkLeast(p, "min_instances", s.MinInstances, "instances", s.Instances)
	alone := []struct {
		field string
		set   bool
	}{
		{"network", len(s.Network.Input) > 0 || len(s.Network.Layers) > 0 || s.Network.Loss != ""},
		{"optimizer", s.Optimizer != spec.Optimizer{}},
		{"epochs", s.Epochs != 0},
		{"batch", s.Batch != 0},
		{"workers", s.Workers != 0},
		{"min_workers", s.MinWorkers != 0},
		{"servers", s.Servers != 0},
		{"server_resources", s.ServerResources != Resources{}},
	}
	for _, other := range alone {
		if other.set {
			p.Add(other.field, "is for a declared network, and %s is set: remove one of the two", form)
		}
	}
}

// validateNetworkOf checks what a container may reach.
func (s Spec) validateNetworkOf(p *cluster.Problems) {
	const field = "container_network"
	switch {
	case s.ContainerNetwork == cluster.NetworkHost:
	case s.ContainerNetwork != cluster.NetworkBridge:
		p.Add(field, "%q is unknown: bridge, or nothing; see network_isolation too", cluster.Clip(string(s.ContainerNetwork)))
	case s.Image == "":
		p.Add(field, "is for a container: name an image")
	case s.NetworkIsolation:
		p.Add(field, "stands beside network_isolation: remove one of the two")
	case s.Instances > 1 || s.Framework != cluster.FrameworkNone:
		p.Add(field, "%q is for one instance alone: nobody could reach its ports", s.ContainerNetwork)
	}
}

func (s Spec) validateNetwork(p *cluster.Problems) {
	for _, problem := range s.Training.Validate() {
		p.Add(problem.Path, "%s", problem.Message)
	}
	inRange(p, "workers", s.Workers, MaxWorkers)
	checkLeast(p, "min_workers", s.MinWorkers, "workers", s.Workers)
	inRange(p, "servers", s.Servers, MaxServers)
	for _, other := range []struct {
		field string
		set   bool
	}{
		{"instances", s.Instances != 0},
		{"min_instances", s.MinInstances != 0},
		{"hyperparameters", len(s.Hyperparameters) > 0},
		{"framework", s.Framework != ""},
		{"entrypoint", len(s.Entrypoint) > 0},
		{"container_network", s.ContainerNetwork != ""},
		{"secrets", len(s.Secrets) > 0},
		{"metrics", len(s.Metrics) > 0},
		{"network_isolation", s.NetworkIsolation},
		{"exclusive", s.Exclusive},
	} {
		if other.set {
			p.Add(other.field, "is for a program or a script: a network has workers and servers, and fields of its own")
		}
	}
	workers := int(max(s.Workers, 1))
	if s.Batch > 0 && s.Batch < workers {
		p.Add("batch", "%d rows for %d workers: give at least one row to each", s.Batch, workers)
	}
	if s.Inputs["train"].URI == "" {
		p.Add("inputs.train", "is missing: say where the training data is, as s3://bucket/key")
	}
}

// limits are those of the gang that the spec makes.
func (s Spec) limits() cluster.Problems {
	var p cluster.Problems
	roles, err := s.Roles()
	if err != nil {
		p.Add("", "%s", err)
		return p
	}
	gang := cluster.Gang{Job: "job", Name: "main", Queue: cluster.DefaultQueue, Attempt: 1, Roles: roles}
	return gang.Validate()
}

func (r Resources) validate(p *cluster.Problems, field string) {
	ask := r.ask(0, 0)
	for _, problem := range ask.Validate() {
		switch problem.Field {
		case "milli_cpu":
			p.Add(field+".cores", "%s is out of range: from 0 to %d", cluster.FormatCores(ask.MilliCPU), cluster.MaxMilliCPU/1000)
		default:
			p.Add(field+"."+problem.Field, "%s", problem.Text)
		}
	}
}

func inRange(p *cluster.Problems, field string, value, most int32) {
	if value < 0 || value > most {
		p.Add(field, "%d is out of range: from 1 to %d", value, most)
	}
}

// checkLeast checks the least of what may be between it and the most.
func checkLeast(p *cluster.Problems, field string, least int32, of string, most int32) {
	if least < 0 || least > max(most, 1) {
		p.Add(field, "%d is out of range: from 1 to %s, which is %d", least, of, max(most, 1))
	}
}

func checkAddress(p *cluster.Problems, field, uri string) {
	rest, isS3 := strings.CutPrefix(uri, "s3://")
	if bucket, _, _ := strings.Cut(rest, "/"); !isS3 || bucket == "" {
		p.Add(field, "%q is not s3://bucket/key", cluster.Clip(uri))
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// run returns what the workers and servers read: the network's part, and how many they
// are.
func (s Spec) run() ([]byte, error) {
	run := spec.Run{Training: s.Training, Workers: int(max(s.Workers, 1)), Servers: int(max(s.Servers, 1))}
	if least := s.MinWorkers; least > 0 && least < s.Workers { // each attempt finds out how many they are
		run.Workers, run.Elastic = 0, true
	}
	data, err := json.Marshal(run)
	if err != nil {
		return nil, fmt.Errorf("write the network's spec: %w", err)
	}
	return data, nil
}
