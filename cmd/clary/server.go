package main

import (
	"net"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/operate"
	"github.com/clary-ml/clary/coordinator"
	"github.com/clary-ml/clary/internal/ops"
	"github.com/clary-ml/clary/internal/version"
	"github.com/clary-ml/clary/workload"
	"github.com/clary-ml/clary/workload/endpoint"
	"github.com/clary-ml/clary/workload/processing"
	"github.com/clary-ml/clary/workload/training"
	"github.com/clary-ml/clary/workload/transform"
	"github.com/clary-ml/clary/workload/tuning"
)

// ballast is memory that is never touched, so that it takes no room; the garbage
// collector counts it, and runs once for so many bytes instead of every 4 MiB. The state
// is in a mapped file, so a coordinator's heap is small and its turnover large.
const ballast = 64 << 20

// workloads are the kinds of job that coordinators of this build run.
func workloads() map[cluster.Kind]workload.Kind {
	return map[cluster.Kind]workload.Kind{
		cluster.KindTraining: training.Kind{}, cluster.KindTuning: tuning.Kind{}, cluster.KindProcessing: processing.Kind{},
		cluster.KindTransform: transform.Kind{}, cluster.KindEndpoint: endpoint.Kind{},
	}
}

func newServerCommand() *cobra.Command {
	var config coordinator.Config
	var shared memberFlags
	var store operate.StoreFlags
	command := &cobra.Command{
		Use:   "server",
		Short: "Run a coordinator: one of the machines that decide",
		Long: "Run a coordinator. The first one, started in an empty folder with nobody to join, founds the cluster: it makes\n" +
			"the certificate authority and leaves an admin's token in its data folder. Others join it with a token.\n" +
			"Three coordinators go on when one fails, five when two do.",
		Example: "  clary server --id a --data /var/lib/clary --listen 10.0.0.1:7420\n" +
			"  clary server --id b --data /var/lib/clary --listen 10.0.0.2:7420 --join 10.0.0.1:7420 --token-file join.token",
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
			if config.Store, err = store.Read(); err != nil {
				return err
			}
			config.ID, config.Data, config.Join = shared.id, shared.data, shared.join
			config.Version = version.String()
			if config.Executable, err = os.Executable(); err != nil {
				return err
			}
			defer runtime.KeepAlive(make([]byte, ballast))
			return coordinator.Run(command.Context(), config, workloads())
		},
	}
	shared.add(command, "coordinator", "127.0.0.1:7427")
	flags := command.Flags()
	flags.StringVar(&config.Listen, "listen", net.JoinHostPort(ownAddress(), "7420"), "host:port of clients, agents and the other coordinators")
	flags.StringVar(&config.Advertise, "advertise", "", "host:port under which others reach --listen (default --listen)")
	flags.StringVar(&config.Gossip, "gossip", "0.0.0.0:7421", "host:port of membership, UDP and TCP")
	flags.BoolVar(&config.NoDecisions, "no-decisions", false, "do not record what the scheduler decides, in decisions below --data, for clary replay")
	store.Add(flags)
	flags.StringVar(&config.StoreListen, "object-store-listen", net.JoinHostPort(ownAddress(), "7423"), "host:port of the embedded store, on the coordinator that founds the cluster")
	addFront(flags, &config.Serve, "serve", net.JoinHostPort(ownAddress(), "7426"))
	return command
}

// ownAddress is the address of this machine that the default route would use, and
// loopback where there is none. Nothing is sent.
func ownAddress() string {
	conn, err := net.Dial("udp", "192.0.2.1:9") // an address reserved for documentation
	if err != nil {
		return "127.0.0.1"
	}
	defer conn.Close()
	if local, ok := conn.LocalAddr().(*net.UDPAddr); ok {
		return local.IP.String()
	}
	return "127.0.0.1"
}
