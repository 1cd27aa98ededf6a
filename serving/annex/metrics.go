package annex

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/clary-ml/clary/serving/capture"
)

// metrics are what the router tells of its annex.
func (a *Annex) metrics() []prometheus.Collector {
	passed := prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "clary_router_passing_refused_total", Help: "Bodies that were neither captured nor copied, since too many went by at once."},
		func() float64 { return float64(a.passing.Refused()) })
	if a.keeper == nil {
		return []prometheus.Collector{passed}
	}
	counter := func(name, help string, of func(capture.Stats) int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "clary_router_captured_" + name, Help: help}, func() float64 { return float64(of(a.keeper.Stats())) })
	}
	return []prometheus.Collector{
		passed,
		backlogs{a},
		counter("total", "Requests whose capture is in the object store.", func(s capture.Stats) int64 { return s.Kept }),
		counter("dropped_total", "Requests whose capture is lost: there was no room, or the store did not take it.", func(s capture.Stats) int64 { return s.Dropped }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "clary_router_captured_held_bytes", Help: "What captures take that are not in the store yet."}, func() float64 {
			return float64(a.keeper.Stats().Held)
		}),
	}
}

var (
	backlogDesc = prometheus.NewDesc("clary_router_async_backlog", "Asynchronous requests that are not answered yet, where they are worked on.", []string{"endpoint"}, nil)
	oldestDesc  = prometheus.NewDesc("clary_router_async_oldest_seconds", "How long the oldest of them has waited.", []string{"endpoint"}, nil)
)

// backlogs tells what waits in inboxes.
type backlogs struct{ *Annex }

// Describe is of prometheus.Collector.
func (backlogs) Describe(out chan<- *prometheus.Desc) {
	out <- backlogDesc
	out <- oldestDesc
}

// Collect is of prometheus.Collector.
func (b backlogs) Collect(out chan<- prometheus.Metric) {
	b.mu.RLock()
	w := b.worker
	b.mu.RUnlock()
	if w == nil {
		return
	}
	for name, backlog := range w.Backlogs() {
		age := 0.0
		if !backlog.Oldest.IsZero() {
			age = time.Since(backlog.Oldest).Seconds()
		}
		out <- prometheus.MustNewConstMetric(backlogDesc, prometheus.GaugeValue, float64(backlog.Requests), name)
		out <- prometheus.MustNewConstMetric(oldestDesc, prometheus.GaugeValue, age, name)
	}
}
