package agent

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/clary-ml/clary/agent/supervisor"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/storage/journal"
)

// logsAddress is where coordinators reach this agent.
func (a *agent) logsAddress() string {
	host, _, _ := net.SplitHostPort(a.config.Listen)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = a.config.Address
	}
	_, port, _ := net.SplitHostPort(a.logs.Addr().String()) // the real one, if port 0 was asked for
	return net.JoinHostPort(host, port)
}

// serveLogs answers coordinators, and nobody else, until ctx ends.
func (a *agent) serveLogs(ctx context.Context) error {
	secured := pki.MutualTLS(a.self.credentials.Get, pki.ExpectNode(pki.Coordinator), "h2")
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(secured)),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	claryv1.RegisterTaskLogsServer(server, &taskLogs{agent: a})
	claryv1.RegisterTaskHandsServer(server, newTaskHands(a))
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	return server.Serve(a.logs)
}

// taskLogs shows what tasks wrote.
type taskLogs struct {
	claryv1.UnimplementedTaskLogsServer
	agent *agent
}

func (s *taskLogs) Read(request *claryv1.ReadLogsRequest, stream grpc.ServerStreamingServer[claryv1.ReadLogsResponse]) error {
	query, err := wire.LogQuery(request)
	if err != nil {
		return wire.ToStatus(err)
	}
	query.After, query.Streams = request.GetAfter(), request.GetStreams()
	read := map[string]func(context.Context, string, journal.Query, journal.Sink) error{
		"": s.agent.tasks.Logs, supervisor.LogsFolder: s.agent.tasks.Logs, supervisor.MetricsFolder: s.agent.tasks.Metrics,
	}[request.GetRecord()]
	if read == nil {
		return wire.ToStatus(fault.New(fault.Invalid, "record: %q is unknown: %s or %s", cluster.Clip(request.GetRecord()), supervisor.LogsFolder, supervisor.MetricsFolder))
	}
	return wire.ToStatus(read(stream.Context(), request.GetTask(), query, func(batch []journal.Entry) error {
		return stream.Send(&claryv1.ReadLogsResponse{Entries: wire.EntriesToProto(batch)})
	}))
}
