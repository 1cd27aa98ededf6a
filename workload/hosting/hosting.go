// Package hosting is what jobs have in common that serve models: how a user names a server, and the
// role that it becomes. The server speaks SageMaker's contract for hosting: it listens where it is
// told to, and answers /ping and /invocations.
package hosting

import (
	"cmp"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/workload/placement"
	"github.com/clary-ml/clary/workload/training"
)

// Server is a model and the server that answers for it.
type Server struct {
	// Model is what the server finds in /opt/ml/model, unpacked if it is a .tar.gz.
	Model string `json:"model,omitempty"`
	// Image is a container image of a server, which is started with the argument serve; Program is a
	// command that is one, or in an image its arguments; Script is code that is brought to the node.
	// Without any of them Clary's own model server is it. The server listens at the port that
	// SAGEMAKER_BIND_TO_PORT says, or at Port.
	Image      string            `json:"image,omitempty"`
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Program    *training.Program `json:"program,omitempty"`
	Script     *training.Script  `json:"script,omitempty"`
	// Port is where a server listens that cannot be told.
	Port int32 `json:"port,omitempty"`
	// StartupTimeout is how long the server may take until /ping answers; 0 means four minutes.
	StartupTimeout quantity.Duration `json:"startup_timeout,omitzero"`

	// Secrets of the job's queue are given to each server.
	Secrets []training.Secret `json:"secrets,omitempty"`
	// Resources are for each server.
	Resources training.Resources `json:"resources,omitzero"`
	// Labels are what a node must have, in exactly these values.
	Labels map[string]string `json:"labels,omitempty"`
	// Placement is more of where tasks run: constraints, affinity, topology.
	Placement placement.Spec `json:"placement,omitzero"`
	// Grace is the time between SIGTERM and SIGKILL; 0 means 30 seconds.
	Grace quantity.Duration `json:"grace,omitzero"`
	// Disk is the most that a task may write on its node's disk; 0 leaves it to the node.
	Disk quantity.Bytes `json:"disk,omitzero"`
	// ReadOnlyRoot keeps a container from writing anywhere but to its folders and /tmp.
	ReadOnlyRoot bool `json:"read_only_root,omitempty"`
}

const (
	// serveArgument is what SageMaker starts a serving image with.
	serveArgument = "serve"

	defaultStartup = 4 * time.Minute
	longestStartup = time.Hour
	defaultGrace   = 30 * time.Second
)

// Own reports whether Clary's model server is the server.
func (s Server) Own() bool { return s.Program == nil && s.Script == nil && s.Image == "" }

// Startup is how long the server may take until it answers.
func (s Server) Startup() quantity.Duration {
	return cmp.Or(s.StartupTimeout, quantity.Duration(defaultStartup))
}

// GraceTime is the time between SIGTERM and SIGKILL.
func (s Server) GraceTime() quantity.Duration {
	return cmp.Or(s.Grace, quantity.Duration(defaultGrace))
}

// training is the training job that runs the same: what programs, scripts and images are is
// decided there.
func (s Server) training(instances int32) training.Spec {
	off, program := false, s.Program
	if s.Own() {
		program = &training.Program{Command: []string{"clary", "serve"}}
	}
	return training.Spec{
		Program: program, Script: s.Script, Image: s.Image, Entrypoint: s.Entrypoint, Instances: instances, Secrets: s.Secrets,
		Resources: s.Resources, Labels: s.Labels, Placement: s.Placement, Grace: s.GraceTime(), Disk: s.Disk, ReadOnlyRoot: s.ReadOnlyRoot, Checkpoints: &off,
	}
}

// Validate reports the mistakes in a server that runs so many times; those of its role are left.
func (s Server) Validate(instances int32) cluster.Problems {
	p := s.training(instances).Validate()
	if s.Model != "" {
		cluster.CheckInputAddress(&p, "model", s.Model)
	}
	if s.Port < 0 || s.Port > 65535 {
		p.Add("port", "%d is out of range: from 1 to 65535", s.Port)
	}
	if d := s.StartupTimeout; d != 0 && (d.Std() < time.Second || d.Std() > longestStartup) {
		p.Add("startup_timeout", "%s is out of range: from 1s to %s", d.Std(), longestStartup)
	}
	return p
}

// Role is the server as so many tasks of a gang.
func (s Server) Role(name string, instances int32) (cluster.Role, error) {
	roles, err := s.training(instances).Roles()
	if err != nil {
		return cluster.Role{}, err
	}
	role := roles[0]
	role.Name = name
	role.Ask.Ports = 1
	if s.Port > 0 {
		role.Ask.Ports = 0 // it takes what it wants
	}
	program := &role.Program
	program.Port = s.Port
	program.Clary = s.Own()
	program.Contract, program.Outputs, program.Script = cluster.ContractServing, false, ""
	if s.Image != "" && s.Script == nil {
		program.Command = nil
		switch {
		case s.Program != nil && len(s.Program.Command) > 0:
			program.Command = s.Program.Command
		case len(s.Entrypoint) == 0:
			program.Command = []string{serveArgument}
		}
	}
	if s.Model != "" {
		program.Inputs = []cluster.Input{{Channel: "model", URI: s.Model, Model: true}}
	}
	return role, nil
}
