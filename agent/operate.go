package agent

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/metadata"

	"github.com/clary-ml/clary/agent/telemetry"
	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/ops"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// operators is the listener for those who operate this agent.
func (a *agent) operators() *ops.Server {
	return &ops.Server{
		Listener: a.config.Metrics, TLS: pki.ServerTLS(a.self.credentials.Get), Metrics: a.measure(), Level: a.config.LogLevel, Log: a.log,
		Checks: []ops.Check{
			{Name: "coordinator", Look: func(context.Context) error {
				if _, err := a.standing(); err != nil {
					return fault.New(fault.Unready, "%w: tasks run on, and none begins; see that a coordinator can be reached from here", err)
				}
				return nil
			}},
			ops.Disk(a.config.Data),
		},
		Allow: a.allow,
	}
}

func (a *agent) measure() *prometheus.Registry {
	var routers []prometheus.Collector
	if a.ingress != nil {
		routers = a.ingress.Collectors()
	}
	return telemetry.New(telemetry.Sources{
		Process: ops.Process{
			Version: a.config.Version, Members: a.gossip.Count,
			Free: func() (int64, int64) { free, total, _ := ops.Room(a.config.Data); return free, total },
		},
		Tasks: func() []cluster.TaskStatus {
			held, _ := a.tasks.Held()
			statuses := make([]cluster.TaskStatus, len(held))
			for i, task := range held {
				statuses[i] = task.Status
			}
			return statuses
		},
		Linked: func() (bool, float64) {
			_, err := a.standing()
			return err == nil, a.leaseLeft().Seconds()
		},
		Devices: func() []cluster.Device {
			ctx, cancel := context.WithTimeout(context.Background(), gaugeEvery)
			defer cancel()
			devices, _ := a.machine.devices.Devices(ctx) // those that can be asked
			return devices
		},
		Usage: a.machine.gauge.Latest, Cache: a.cache.Stats,
	}, routers...)
}

// allowTime is how long a coordinator may take to say whose token it is.
const allowTime = 5 * time.Second

// allow asks a coordinator whose token it is: agents know no users.
func (a *agent) allow(ctx context.Context, token string, admin bool) error {
	l, err := a.standing()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), allowTime)
	defer cancel()
	who, err := claryv1.NewAdminClient(l.conn).WhoAmI(ctx, &claryv1.WhoAmIRequest{})
	if err != nil {
		return wire.FromStatus(err)
	}
	action := auth.Read
	if admin {
		action = auth.Operate
	}
	return auth.Authorize(who.GetRole(), action)
}
