package agent

import (
	"context"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/agent/supervisor"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/storage/journal"
)

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
