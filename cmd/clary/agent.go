package main

import (
	"fmt"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/agent"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/ops"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/internal/version"
)

// agentFlags are amounts as people write them.
type agentFlags struct {
	ports, cores, memory, cache, images, uids, taskDisk string
}

func newAgentCommand() *cobra.Command {
	var config agent.Config
	var shared memberFlags
	var amounts agentFlags
	command := &cobra.Command{
		Use:   "agent",
		Short: "Run an agent: a machine that runs tasks",
		Long: "Run an agent. It joins the cluster with a token on its first start, says what this machine has, and runs what\n" +
			"it is told. Tasks live on while the agent is stopped, upgraded or killed.",
		Example: "  clary agent --id gpu-1 --data /var/lib/clary/agent --join 10.0.0.1:7420 --token-file join.token\n" +
			"  clary agent --simulate-gpus 8xA100 --join 10.0.0.1:7420 --token-file join.token",
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			var err error
			if config.Token, err = shared.secret(); err != nil {
				return err
			}
			if config.Log, err = shared.logger(); err != nil {
				return err
			}
			if config.Metrics, err = ops.Listen(shared.metrics, !command.Flags().Changed("metrics-listen"), config.Log); err != nil {
				return err
			}
			config.LogLevel = &shared.level
			config.ID, config.Data, config.Join = shared.id, shared.data, shared.join
			config.Version = version.String()
			if err := amounts.read(&config); err != nil {
				return err
			}
			if config.Executable, err = os.Executable(); err != nil {
				return err
			}
			return agent.Run(command.Context(), config)
		},
	}
	shared.add(command, "agent", "127.0.0.1:7428")
	flags := command.Flags()
	flags.StringVar(&config.Address, "address", ownAddress(), "host under which other machines reach this machine's tasks")
	flags.StringVar(&config.Listen, "listen", net.JoinHostPort(ownAddress(), "7424"), "host:port on which coordinators ask for logs and routers reach this machine's tasks")
	flags.StringVar(&config.Gossip, "gossip", "0.0.0.0:7425", "host:port of membership, UDP and TCP")
	addFront(flags, &config.Ingress, "ingress", "")
	flags.StringVar(&config.SimulateGPUs, "simulate-gpus", "", "offer GPUs that do not exist, like 8xA100, 2xH100-80GB,4xT4, 2xA100:mig or 8xH100:nvlink=4:numa=4")
	flags.StringToStringVar(&config.GPUSpeeds, "gpu-speed", nil, "how fast models of GPUs are in multiples of an A100's, like L40S=0.9,B200=6; what is not said is from their data sheets")
	flags.StringToStringVar(&config.Labels, "label", nil, "labels that jobs can ask for, like disk=nvme; clary.rack=r1,clary.zone=a say where the machine stands")
	flags.StringVar(&amounts.ports, "ports", "20000-20999", "TCP ports that tasks may be given")
	flags.StringVar(&config.PipIndex, "pip-index", "", "URL of the package index for Python environments (default: pip's own)")
	flags.StringVar(&config.Wheelhouse, "wheelhouse", "", "folder of wheels that Python environments are made from, and from nothing else")
	flags.StringVar(&config.Engine, "container-engine", "", "address of dockerd or Podman, like unix:///run/docker.sock, or none (default: the first that is there)")
	flags.StringToStringVar(&config.Mirrors, "registry-mirror", nil, "where to ask for a registry's images first, like docker.io=mirror.local:5000")
	flags.StringVar(&amounts.images, "images", "", "most that container images may hold which the agent brought, like 100GiB; the least used go first (default: a quarter of the disk)")
	flags.StringVar(&amounts.uids, "task-uids", "200000-299999", "users that tasks run as, one for each queue; 0-0 runs them as the agent")
	flags.StringVar(&amounts.taskDisk, "task-disk", "", "most that a task may write on this machine's disk if its job does not say, like 50GiB (default: a quarter of the disk)")
	flags.StringVar(&amounts.cores, "cores", "", "cores to offer (default: all)")
	flags.StringVar(&amounts.memory, "memory", "", "memory to offer, like 12GiB (default: nine tenths)")
	flags.StringVar(&amounts.cache, "cache", "20GiB", "most that the cache of inputs may hold, a quarter of it of those that are fetched as they are read")
	return command
}

// read puts the amounts into the configuration; each mistake is named by its flag.
func (f agentFlags) read(config *agent.Config) error {
	if n, err := fmt.Sscanf(f.ports, "%d-%d", &config.PortFirst, &config.PortLast); err != nil || n != 2 {
		return fault.New(fault.Invalid, "--ports: %q is no range like 20000-20999", f.ports)
	}
	if n, err := fmt.Sscanf(f.uids, "%d-%d", &config.UIDFirst, &config.UIDLast); err != nil || n != 2 {
		return fault.New(fault.Invalid, "--task-uids: %q is no range like 200000-299999", f.uids)
	}
	if f.cores != "" {
		cores, err := quantity.ParseCores(f.cores)
		if err != nil {
			return fault.New(fault.Invalid, "--cores: %w", err)
		}
		config.MilliCPU = int64(cores)
	}
	for flag, amount := range map[string]struct {
		text string
		into *int64
	}{"--memory": {f.memory, &config.Memory}, "--cache": {f.cache, &config.CacheBytes}, "--images": {f.images, &config.ImageBytes}, "--task-disk": {f.taskDisk, &config.TaskDisk}} {
		if amount.text == "" {
			continue
		}
		bytes, err := quantity.ParseBytes(amount.text)
		if err != nil {
			return fault.New(fault.Invalid, "%s: %w", flag, err)
		}
		*amount.into = int64(bytes)
	}
	return nil
}
