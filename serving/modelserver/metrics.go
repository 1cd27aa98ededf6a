package modelserver

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics are what /metrics tells.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec   // by endpoint and code
	seconds  *prometheus.HistogramVec // by endpoint
	rows     prometheus.Counter
	batches  prometheus.Histogram // rows of each
	runs     prometheus.Histogram // seconds of each
}

func newMetrics(o Options, platform string, g *Gate) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "clary_requests_total", Help: "Requests by endpoint and status code."}, []string{"endpoint", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "clary_request_seconds", Help: "How long requests took, from their header to their answer.", Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 16),
		}, []string{"endpoint"}),
		rows:    prometheus.NewCounter(prometheus.CounterOpts{Name: "clary_rows_total", Help: "Rows that requests had."}),
		batches: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "clary_batch_rows", Help: "Rows of batches.", Buckets: prometheus.ExponentialBuckets(1, 2, 11)}),
		runs: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "clary_batch_seconds", Help: "How long the model took for batches.", Buckets: prometheus.ExponentialBuckets(0.00001, 4, 12),
		}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "clary_model_info", Help: "The model that is served.", ConstLabels: prometheus.Labels{"name": o.Name, "version": o.Version, "platform": platform},
	})
	info.Set(1)
	inFlight := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "clary_requests_in_flight", Help: "Requests that are worked on or wait."},
		func() float64 { return float64(g.Requests()) })
	m.registry.MustRegister(m.requests, m.seconds, m.rows, m.batches, m.runs, info, inFlight,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) ran(_, rows int, took time.Duration) {
	m.batches.Observe(float64(rows))
	m.runs.Observe(took.Seconds())
}

// endpoint is the metrics of one, so that labels are looked up once.
type endpoint struct {
	metrics *metrics
	name    string
	seconds prometheus.Observer
	ok      prometheus.Counter
}

func (m *metrics) endpoint(name string) *endpoint {
	return &endpoint{metrics: m, name: name, seconds: m.seconds.WithLabelValues(name), ok: m.requests.WithLabelValues(name, "200")}
}

func (e *endpoint) done(began time.Time, code string) {
	e.seconds.Observe(time.Since(began).Seconds())
	if code == "200" {
		e.ok.Inc()
	} else {
		e.metrics.requests.WithLabelValues(e.name, code).Inc()
	}
}
