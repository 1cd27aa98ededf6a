package metric

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"github.com/clary-ml/clary/cluster"
)

// MaxSeries bounds what a collection holds of one task.
const MaxSeries = 2 * MaxNames

// Collection makes series of one attempt's rows, in the order of their times. Its zero
// value is ready.
type Collection struct {
	// Wants says which metrics are collected; nil is all.
	Wants func(name string) bool

	last   map[string]place // by source
	series map[string]*cluster.Series
}

// place is where a source is in its work: a row that does not say so goes on with it.
type place struct {
	epoch int32
	step  int64
}

// Add takes in a row that a source said at a time. Rows of one source share epoch and step.
func (c *Collection) Add(source string, time int64, row Row) {
	if c.series == nil {
		c.series, c.last = map[string]*cluster.Series{}, map[string]place{}
	}
	now := c.last[source]
	if row.Epoch != nil {
		now.epoch = *row.Epoch
	}
	if row.Step != nil {
		now.step = *row.Step
	}
	c.last[source] = now
	for name, value := range row.Values {
		if c.Wants != nil && !c.Wants(name) {
			continue
		}
		series := c.series[name]
		if series == nil {
			if len(c.series) >= MaxSeries {
				continue
			}
			series = &cluster.Series{Name: name, Min: math.Inf(1), Max: math.Inf(-1)}
			c.series[name] = series
		}
		series.Count++
		series.Min, series.Max = min(series.Min, value), max(series.Max, value)
		series.Points = append(series.Points, cluster.Point{Time: time, Epoch: now.epoch, Step: now.step, Value: value})
	}
}

// Series are what was collected, by name.
func (c *Collection) Series() []cluster.Series {
	var all []cluster.Series
	for _, name := range slices.Sorted(maps.Keys(c.series)) {
		all = append(all, *c.series[name])
	}
	return all
}

// Join puts a later attempt's series behind the earlier ones of the same task and name. A
// later attempt goes on from a checkpoint: what the earlier one did beyond it was lost, and
// is left out, so that a step is there once.
func Join(earlier, later []cluster.Series) []cluster.Series {
	joined := slices.Clone(earlier)
	for _, next := range later {
		i := slices.IndexFunc(joined, func(s cluster.Series) bool { return s.Task == next.Task && s.Name == next.Name })
		if i < 0 {
			joined = append(joined, next)
			continue
		}
		joined[i] = join(joined[i], next)
	}
	slices.SortStableFunc(joined, func(a, b cluster.Series) int {
		return cmp.Or(cmp.Compare(a.Task, b.Task), cmp.Compare(a.Name, b.Name))
	})
	return joined
}

func join(earlier, later cluster.Series) cluster.Series {
	kept := slices.Clone(earlier.Points)
	if len(later.Points) > 0 && later.Points[0].Step > 0 {
		first := later.Points[0].Step
		kept = slices.DeleteFunc(kept, func(p cluster.Point) bool { return p.Step >= first })
	}
	out := later
	out.Points = append(kept, later.Points...)
	out.Count, out.Min, out.Max = 0, math.Inf(1), math.Inf(-1)
	for _, p := range out.Points {
		out.Count++
		out.Min, out.Max = min(out.Min, p.Value), max(out.Max, p.Value)
	}
	return out
}

// Thin leaves at most so many points, at least the first and the last, such that a drawn
// line keeps its shape: largest triangle three buckets (S. Steinarsson, Downsampling Time
// Series for Visual Representation, 2013, section 4.2), over the points' places.
func Thin(points []cluster.Point, most int) []cluster.Point {
	if most < 3 || len(points) <= most {
		return points
	}
	thin := make([]cluster.Point, 0, most)
	thin = append(thin, points[0])
	bucket := func(i int) int { return 1 + i*(len(points)-2)/(most-2) } // where bucket i begins
	chosen := 0
	for i := range most - 2 {
		begin, end := bucket(i), bucket(i+1)
		nextX, nextY := centre(points, end, min(bucket(i+2), len(points)))
		best, area := begin, -1.0
		for j := begin; j < end; j++ {
			a := math.Abs((float64(chosen)-nextX)*(points[j].Value-points[chosen].Value) -
				float64(chosen-j)*(nextY-points[chosen].Value))
			if a > area {
				best, area = j, a
			}
		}
		thin = append(thin, points[best])
		chosen = best
	}
	return append(thin, points[len(points)-1])
}

// centre is the middle of the points from begin to end, in place and value.
func centre(points []cluster.Point, begin, end int) (x, y float64) {
	if begin >= end {
		begin, end = len(points)-1, len(points)
	}
	for i := begin; i < end; i++ {
		x += float64(i) / float64(end-begin)
		y += points[i].Value / float64(end-begin)
	}
	return x, y
}
