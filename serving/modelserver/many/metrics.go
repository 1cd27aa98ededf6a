package many

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics are what /metrics tells. Models are not named there: there may be any number of them.
type metrics struct {
	registry  *prometheus.Registry
	asked     [coming + 1]prometheus.Counter
	loads     *prometheus.CounterVec
	seconds   prometheus.Histogram
	evictions prometheus.Counter
	requests  *prometheus.CounterVec
	took      prometheus.Histogram
}

func newMetrics(s *Set) *metrics {
	asked := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "clary_models_asked_total", Help: "Requests by whether their model was loaded already."}, []string{"loaded"})
	m := &metrics{
		registry: prometheus.NewRegistry(),
		asked:    [...]prometheus.Counter{there: asked.WithLabelValues("yes"), stale: asked.WithLabelValues("yes"), coming: asked.WithLabelValues("no")},
		loads:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "clary_models_loads_total", Help: "Loads of models by how they went."}, []string{"outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "clary_models_load_seconds", Help: "How long loads took, the wait for room included.", Buckets: prometheus.ExponentialBuckets(0.01, 3, 10),
		}),
		evictions: prometheus.NewCounter(prometheus.CounterOpts{Name: "clary_models_evictions_total", Help: "Models that were unloaded to make room."}),
		requests:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "clary_requests_total", Help: "Requests by endpoint and status code."}, []string{"endpoint", "code"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "clary_request_seconds", Help: "How long requests took, from their header to their answer.", Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 16),
		}),
	}
	gauge := func(name, help string, of func(*Set) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return of(s)
		})
	}
	m.registry.MustRegister(asked, m.loads, m.seconds, m.evictions, m.requests, m.took,
		gauge("clary_models_loaded", "Models that are loaded.", func(s *Set) float64 { return float64(s.recent.Len()) }),
		gauge("clary_models_bytes", "Bytes of the files of models that take room.", func(s *Set) float64 { return float64(s.taken.bytes) }),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// loaded counts a load.
func (m *metrics) loaded(took time.Duration, err error) {
	outcome := "loaded"
	if err != nil {
		outcome = "failed"
	}
	m.loads.WithLabelValues(outcome).Inc()
	m.seconds.Observe(took.Seconds())
}
