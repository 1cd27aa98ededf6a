package wire

import (
	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// SeriesToProto converts the history of a metric.
func SeriesToProto(s cluster.Series) *claryv1.Series {
	return &claryv1.Series{
		Task: s.Task, Name: s.Name, Attempt: s.Attempt, Points: list(s.Points, PointToProto),
		Count: s.Count, Min: s.Min, Max: s.Max,
	}
}

// SeriesFromProto converts the history of a metric.
func SeriesFromProto(s *claryv1.Series) cluster.Series {
	return cluster.Series{
		Task: s.GetTask(), Name: s.GetName(), Attempt: s.GetAttempt(), Points: list(s.GetPoints(), PointFromProto),
		Count: s.GetCount(), Min: s.GetMin(), Max: s.GetMax(),
	}
}

// PointToProto converts a metric's value at a time.
func PointToProto(p cluster.Point) *claryv1.Point {
	return &claryv1.Point{Time: p.Time, Epoch: p.Epoch, Step: p.Step, Value: p.Value}
}

// PointFromProto converts a metric's value at a time.
func PointFromProto(p *claryv1.Point) cluster.Point {
	return cluster.Point{Time: p.GetTime(), Epoch: p.GetEpoch(), Step: p.GetStep(), Value: p.GetValue()}
}
