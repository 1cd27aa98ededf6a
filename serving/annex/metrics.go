package annex

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/clary-ml/clary/serving/capture"
)

// metrics are what the router tells of its annex.
func (a *Annex) metrics() []prometheus.Collector {
	if a.keeper == nil {
		return nil
	}
	counter := func(name, help string, of func(capture.Stats) int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "clary_router_captured_" + name, Help: help}, func() float64 { return float64(of(a.keeper.Stats())) })
	}
	return []prometheus.Collector{
		counter("total", "Requests whose capture is in the object store.", func(s capture.Stats) int64 { return s.Kept }),
		counter("dropped_total", "Requests whose capture is lost: there was no room, or the store did not take it.", func(s capture.Stats) int64 { return s.Dropped }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "clary_router_captured_held_bytes", Help: "What captures take that are not in the store yet."}, func() float64 {
			return float64(a.keeper.Stats().Held)
		}),
	}
}
