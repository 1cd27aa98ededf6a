package client

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// MetricsRequest says which metrics of a job to read.
type MetricsRequest struct {
	Job          string
	Task         string   // "worker-1" or a role; all tasks if empty
	Names        []string // patterns like "val_*"; none is all that tasks said
	Attempt      int32    // 0 joins all attempts
	Since, Until time.Time
	Points       int32 // at most so many of each series; 0 is 1,000
}

// Metrics reads the history of a job's metrics. The notes tell what could not be read now.
func (c *Client) Metrics(ctx context.Context, request MetricsRequest) (series []cluster.Series, notes []string, err error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.QueryMetricsResponse, error) {
		return claryv1.NewMetricsClient(conn).Query(ctx, &claryv1.QueryMetricsRequest{
			Job: request.Job, Task: request.Task, Names: request.Names, Attempt: request.Attempt,
			Since: nanos(request.Since), Until: nanos(request.Until), Points: request.Points,
		})
	})
	return each(response.GetSeries(), wire.SeriesFromProto), response.GetNotes(), err
}
