package training

import (
	"maps"
	"math"
	"time"

	"github.com/clary-ml/clary/cluster"
)

const (
	roleWorker = "worker"
	roleServer = "server"

	defaultGrace  = 2 * time.Minute
	workerCores   = 1000 // thousandths, where the user names none
	serverCores   = 250  // a server adds and multiplies: a worker computes far longer
	programMemory = 1 << 30

	// A worker's and a server's memory beside what its network needs: the binary, the
	// garbage collector's head room, the data.
	workerOverhead = 512 << 20
	serverOverhead = 128 << 20
	memoryStep     = 64 << 20 // defaults are rounded up to a multiple of this
)

// Roles are the tasks of the job's one gang.
func (s Spec) Roles() ([]cluster.Role, error) {
	if s.Program != nil || s.Script != nil || s.Image != "" {
		return []cluster.Role{s.programRole()}, nil
	}
	return s.networkRoles()
}

func (s Spec) programRole() cluster.Role {
	instances := max(s.Instances, 1)
	ask := s.Resources.ask(workerCores, programMemory)
	if instances > 1 || s.Framework != cluster.FrameworkNone {
		ask.Ports = 1
	}
	program := cluster.Program{
		Hyperparameters: s.hyperparameters(), Inputs: s.inputs(), Framework: s.Framework, Grace: s.grace(), Disk: int64(s.Disk), Outputs: true, Exclusive: s.Exclusive,
		Checkpoints: s.Checkpoints != nil && *s.Checkpoints, Restore: s.Restore, Track: (*cluster.Tracking)(s.Track),
	}
	for _, secret := range s.Secrets {
		program.Secrets = append(program.Secrets, cluster.SecretRef(secret))
	}
	for _, metric := range s.Metrics {
		program.Metrics = append(program.Metrics, cluster.MetricDefinition(metric))
	}
	program.Network = s.ContainerNetwork
	if s.NetworkIsolation {
		program.Network = cluster.NetworkNone
	}
	if script := s.Script; script != nil {
		program.Command, program.Env = script.command(), script.Env
		program.Source, program.Script, program.Python = script.Source, script.Entry, script.python()
	}
	if own := s.Program; own != nil {
		program.Command, program.Env, program.Dir = own.Command, own.Env, own.Dir
	}
	if s.Checkpoints == nil {
		program.Checkpoints = s.Script != nil || s.Image != ""
	}
	role := cluster.Role{Name: roleWorker, Count: instances, Min: s.MinInstances, Ask: ask, Labels: s.Labels, Program: program}
	if s.Image != "" {
		s.contain(&role)
	}
	s.Placement.Apply(&role)
	return role
}

// trainArgument is what SageMaker starts a training image with.
const trainArgument = "train"

// contain has the role run in a container, on nodes that can.
func (s Spec) contain(role *cluster.Role) {
	role.Program.Image, role.Program.Entrypoint, role.Program.ReadOnly = s.Image, s.Entrypoint, s.ReadOnlyRoot
	if len(role.Program.Command) == 0 && len(s.Entrypoint) == 0 {
		role.Program.Command = []string{trainArgument}
	}
	role.Labels = maps.Clone(role.Labels)
	if role.Labels == nil {
		role.Labels = map[string]string{}
	}
	role.Labels[cluster.LabelContainers] = cluster.LabelYes
}

// networkRoles are the parameter servers, each with a port to listen on, and the workers.
func (s Spec) networkRoles() ([]cluster.Role, error) {
	run, err := s.run()
	if err != nil {
		return nil, err
	}
	worker, server := s.memory()
	serverAsk := s.ServerResources.ask(serverCores, server)
	serverAsk.Ports = 1
	roles := []cluster.Role{
		{
			Name: roleServer, Count: max(s.Servers, 1), Ask: serverAsk, Labels: s.Labels,
			Program: cluster.Program{
				Command: []string{"clary", "trainer", "server"}, Spec: run, Grace: s.grace(), Disk: int64(s.Disk), Clary: true,
			},
		},
		{
			Name: roleWorker, Count: max(s.Workers, 1), Min: s.MinWorkers, Ask: s.Resources.ask(workerCores, worker), Labels: s.Labels,
			Program: cluster.Program{
				Command: []string{"clary", "trainer", "worker"}, Spec: run, Inputs: s.inputs(), Grace: s.grace(), Disk: int64(s.Disk),
				Checkpoints: s.Checkpoints == nil || *s.Checkpoints, Restore: s.Restore, Track: (*cluster.Tracking)(s.Track), Outputs: true, Clary: true,
			},
		},
	}
	for i := range roles {
		s.Placement.Apply(&roles[i])
	}
	return roles, nil
}

// memory estimates what a worker and a server need when the job does not say: weights,
// gradients and optimiser state, the activations of its share of a batch, and an
// overhead. The garbage collector may let a heap grow to twice what lives.
func (s Spec) memory() (worker, server int64) {
	plan, problems := s.Network.Plan()
	if len(problems) > 0 {
		return workerOverhead, serverOverhead
	}
	workers, servers := int(max(s.Workers, 1)), int64(max(s.Servers, 1))
	fewest := workers // of whom each has most rows
	if s.MinWorkers > 0 {
		fewest = int(s.MinWorkers)
	}
	rows := (s.Batch + fewest - 1) / fewest
	worker, allServers := s.Footprint(plan, rows, workers)
	return round(2*worker + workerOverhead), round(2*allServers/servers + serverOverhead)
}

func round(n int64) int64 {
	return min((n+memoryStep-1)/memoryStep*memoryStep, cluster.MaxMemory)
}

// ask fills in what the user left open.
func (r Resources) ask(cores, memory int64) cluster.Ask {
	whole, milli := r.GPUs.Split()
	ask := cluster.Ask{
		MilliCPU: int64(r.Cores), Memory: int64(r.Memory), GPUs: int32(min(whole, math.MaxInt32)), GPUModel: r.GPUModel,
		GPUMilli: int32(milli), GPUMemory: int64(r.GPUMemory), MIG: r.MIG,
	}
	if ask.MIG != "" && ask.GPUs == 0 && !ask.Shares() {
		ask.GPUs = 1
	}
	if ask.MilliCPU == 0 {
		ask.MilliCPU = cores
	}
	if ask.Memory == 0 {
		ask.Memory = memory
	}
	return ask
}

func (s Spec) grace() time.Duration {
	if s.Grace == 0 {
		return defaultGrace
	}
	return s.Grace.Std()
}
