package clienttest

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// SetMetrics sets the history of a job's metrics.
func (c *Cluster) SetMetrics(job string, series ...cluster.Series) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.metrics[job] = series
	c.tell()
}

type metrics struct {
	claryv1.UnimplementedMetricsServer
	c *Cluster
}

func (s *metrics) Query(_ context.Context, request *claryv1.QueryMetricsRequest) (*claryv1.QueryMetricsResponse, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if _, found := s.c.jobs[request.GetJob()]; !found {
		return nil, noJob(request.GetJob())
	}
	response := &claryv1.QueryMetricsResponse{}
	for _, series := range s.c.metrics[request.GetJob()] {
		wanted := len(request.GetNames()) == 0 && !strings.HasPrefix(series.Name, cluster.UsagePrefix) ||
			slices.ContainsFunc(request.GetNames(), func(pattern string) bool { ok, _ := path.Match(pattern, series.Name); return ok })
		if wanted && (request.GetTask() == "" || request.GetTask() == series.Task) {
			response.Series = append(response.Series, wire.SeriesToProto(series))
		}
	}
	return response, nil
}
