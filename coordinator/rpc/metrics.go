package rpc

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/monitor/metric"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/storage/journal"
)

// Bounds on one question about metrics.
const (
	maxMetricPatterns = 256
	maxMetricReaders  = 8 // tasks read at once: each may hold some hundred thousand points
	maxMetricQueries  = 8 // questions answered at once; others wait
	usualPoints       = 1000
	maxPoints         = 100_000
)

// metrics answers from what tasks have said of their work and used of their nodes.
type metrics struct {
	claryv1.UnimplementedMetricsServer
	jobs *jobs
	seats
}

func newMetrics(jobs *jobs) *metrics {
	return &metrics{jobs: jobs, seats: newSeats(maxMetricQueries, "questions about metrics are answered")}
}

// Query reads the metrics of a job's tasks, one series for each task and name: over all
// attempts, or one.
func (s *metrics) Query(ctx context.Context, request *claryv1.QueryMetricsRequest) (*claryv1.QueryMetricsResponse, error) {
	wants, err := wantedMetrics(request)
	if err != nil {
		return nil, err
	}
	tasks, err := s.tasks(ctx, request)
	if err != nil {
		return nil, err
	}
	rise, err := s.take(ctx)
	if err != nil {
		return nil, err
	}
	defer rise()
	query := journal.Query{Since: request.GetSince(), Until: request.GetUntil()}
	points := int(cmp.Or(request.GetPoints(), usualPoints))
	response := &claryv1.QueryMetricsResponse{}
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxMetricReaders)
	for _, attempts := range tasks {
		group.Go(func() error {
			series, notes, err := s.read(ctx, attempts, query, wants)
			mu.Lock()
			defer mu.Unlock()
			for _, one := range series {
				one.Points = metric.Thin(one.Points, points)
				response.Series = append(response.Series, wire.SeriesToProto(one))
			}
			response.Notes = append(response.Notes, notes...)
			return err
		})
	}
	err = group.Wait()
	slices.SortFunc(response.GetSeries(), func(a, b *claryv1.Series) int {
		return cmp.Or(cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetTask(), b.GetTask()))
	})
	slices.Sort(response.Notes)
	return response, err
}

// wantedMetrics checks a request and returns which metrics it asks for.
func wantedMetrics(request *claryv1.QueryMetricsRequest) (func(string) bool, error) {
	names := request.GetNames()
	switch since, until := request.GetSince(), request.GetUntil(); {
	case request.GetPoints() < 0 || request.GetPoints() > maxPoints:
		return nil, fault.New(fault.Invalid, "points: %d is out of range: from 1 to %d, 0 for %d", request.GetPoints(), maxPoints, usualPoints)
	case until != 0 && until <= since:
		return nil, fault.New(fault.Invalid, "until: is not after since")
	case len(names) > maxMetricPatterns:
		return nil, fault.New(fault.Invalid, "names: %d are too many: at most %d", len(names), maxMetricPatterns)
	case len(names) == 0:
		return func(name string) bool { return !strings.HasPrefix(name, cluster.UsagePrefix) }, nil
	}
	for _, name := range names {
		if _, err := path.Match(name, ""); err != nil {
			return nil, fault.New(fault.Invalid, "names: %q is no pattern: * stands for any characters, [ab] for one of these, \\ takes the next as it is", cluster.Clip(name))
		}
	}
	return func(name string) bool {
		return slices.ContainsFunc(names, func(pattern string) bool {
			matched, _ := path.Match(flat(pattern), flat(name))
			return matched || pattern == name
		})
	}, nil
}

// flat has no slashes: to a pattern they are characters like others.
func flat(name string) string { return strings.ReplaceAll(name, "/", "\x00") }

// tasks are the asked for tasks of a job that have started: for each role and index its
// attempts, oldest first.
func (s *metrics) tasks(ctx context.Context, request *claryv1.QueryMetricsRequest) ([][]cluster.Task, error) {
	snapshot, err := s.jobs.replica.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	_, _, tasks, err := s.jobs.tasksOf(ctx, snapshot, request.GetJob())
	if err != nil {
		return nil, err
	}
	var all [][]cluster.Task
	place := map[string]int{}
	for _, task := range tasks {
		of := request.GetAttempt()
		if task.Status.Started == 0 || of != 0 && task.Attempt != of || !named(task, request.GetTask()) {
			continue
		}
		name := memberName(task)
		at, known := place[name]
		if !known {
			at = len(all)
			place[name], all = at, append(all, nil)
		}
		all[at] = append(all[at], task)
	}
	if len(all) > maxLogReaders {
		return nil, fault.New(fault.Invalid, "task: the job has %d tasks, at most %d can be read at once: name one", len(all), maxLogReaders)
	}
	for _, attempts := range all {
		slices.SortFunc(attempts, func(a, b cluster.Task) int { return cmp.Compare(a.Attempt, b.Attempt) })
	}
	return all, nil
}

// memberName is a task's place in its gang: "worker-0".
func memberName(task cluster.Task) string { return fmt.Sprintf("%s-%d", task.Role, task.Index) }

// read makes series of what one task said in all of its attempts. What cannot be read is
// told in notes.
func (s *metrics) read(ctx context.Context, attempts []cluster.Task, query journal.Query, wants func(string) bool) (series []cluster.Series, notes []string, err error) {
	for _, task := range attempts {
		collection := metric.Collection{Wants: wants}
		reader := logReader{jobs: s.jobs, task: task, record: metricsFolder, query: query}
		reader.to = func(_ context.Context, entries []*claryv1.LogEntry) error {
			for _, entry := range entries {
				if row, ok := metric.ParseRow(entry.GetText()); ok {
					collection.Add(entry.GetStream(), entry.GetTime(), row)
				}
			}
			return nil
		}
		reader.note = func(_ context.Context, text string) error {
			notes = append(notes, text)
			return nil
		}
		if err := reader.read(ctx); err != nil {
			return series, notes, err
		}
		said := collection.Series()
		for i := range said {
			said[i].Task, said[i].Attempt = memberName(task), task.Attempt
		}
		series = metric.Join(series, said)
	}
	return series, notes, nil
}
