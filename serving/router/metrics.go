package router

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/clary-ml/clary/serving/route"
)

// turns count requests that came to no fleet, by status.
type turns [600]atomic.Int64

func (r *Router) turned(status int) {
	if status >= 0 && status < len(r.turns) {
		r.turns[status].Add(1)
	}
}

// Collectors are what the router measures, for a registry that serves others too.
func (r *Router) Collectors() []prometheus.Collector {
	return append([]prometheus.Collector{collector{r}}, r.options.Metrics...)
}

// Metrics answers with the router's metrics in Prometheus' form.
func (r *Router) Metrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(r.Collectors()...)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

type collector struct{ r *Router }

var (
	ofFleet   = []string{"endpoint", "variant", "generation"}
	ofReplica = append(ofFleet[:len(ofFleet):len(ofFleet)], "replica")

	requestsDesc    = describe("requests_total", "Requests that were given to replicas.", ofFleet)
	errorsDesc      = describe("errors_total", "Requests that a replica answered with 5xx, or not at all.", ofFleet)
	refusedDesc     = describe("refused_total", "Requests that no replica was given: its queue was full, or none was ready.", ofFleet)
	retriesDesc     = describe("retries_total", "Further tries of requests.", ofFleet)
	busyDesc        = describe("busy_seconds_total", "The time that requests have spent at replicas.", ofFleet)
	waitingDesc     = describe("waiting", "Requests that wait for a place at a replica.", ofFleet)
	latencyDesc     = describe("request_duration_seconds", "How long replicas took: to the end of an answer, of a stream to its beginning.", ofFleet)
	rewardsDesc     = describe("rewards_total", "Rewards that were posted back.", ofFleet)
	rewardSumDesc   = describe("reward_sum", "The sum of rewards.", ofFleet)
	shadowDesc      = describe("shadow_requests_total", "Copies of requests that were sent to a shadow.", ofFleet)
	shadowWrongDesc = describe("shadow_errors_total", "Copies that were answered with 5xx, or not at all.", ofFleet)
	shadowSameDesc  = describe("shadow_same_total", "Copies that were answered as the request was, to the byte.", ofFleet)
	shadowLostDesc  = describe("shadow_dropped_total", "Copies that were left out, since the shadow was busy.", ofFleet)
	inFlightDesc    = describe("in_flight", "Requests that a replica has.", ofReplica)
	ejectedDesc     = describe("ejected", "1 if a replica is left out, since it looks sick.", ofReplica)
	turnedDesc      = describe("turned_away_total", "Requests and connections that came to no fleet, by HTTP status.", []string{"code"})
	connectionsDesc = describe("connections", "Connections of clients.", nil)
	versionDesc     = describe("table_version", "The version of the table in force.", nil)
)

// bounds are the buckets' ends of latency, in seconds: the report's finer ones are added up to them.
var bounds = []float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}

func describe(name, help string, labels []string) *prometheus.Desc {
	return prometheus.NewDesc("clary_router_"+name, help, labels, nil)
}

// Describe is of prometheus.Collector.
func (collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		requestsDesc, errorsDesc, refusedDesc, retriesDesc, busyDesc, waitingDesc, latencyDesc, rewardsDesc, rewardSumDesc, shadowDesc, shadowWrongDesc, shadowSameDesc, shadowLostDesc, inFlightDesc, ejectedDesc, turnedDesc, connectionsDesc, versionDesc,
	} {
		out <- d
	}
}

// Collect is of prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	report := c.r.Report()
	for i := range report.Fleets {
		f := &report.Fleets[i]
		labels := []string{f.Endpoint, f.Variant, strconv.FormatInt(f.Generation, 10)}
		retries, spent := c.r.beside(f)
		counter(requestsDesc, float64(f.Requests), labels...)
		counter(errorsDesc, float64(f.Errors), labels...)
		counter(refusedDesc, float64(f.Refused), labels...)
		counter(retriesDesc, float64(retries), labels...)
		counter(busyDesc, f.Busy, labels...)
		gauge(waitingDesc, float64(f.Waiting), labels...)
		out <- latency(f, spent, labels)
		if f.Rewards.N > 0 {
			counter(rewardsDesc, float64(f.Rewards.N), labels...)
			gauge(rewardSumDesc, f.Rewards.Sum, labels...)
		}
		if s := f.Shadow; s != nil {
			counter(shadowDesc, float64(s.Requests), labels...)
			counter(shadowWrongDesc, float64(s.Errors), labels...)
			counter(shadowSameDesc, float64(s.Same), labels...)
			counter(shadowLostDesc, float64(s.Dropped), labels...)
		}
		for _, m := range f.Replicas {
			all := append(labels[:len(labels):len(labels)], m.ID)
			gauge(inFlightDesc, float64(m.InFlight), all...)
			gauge(ejectedDesc, map[bool]float64{true: 1}[m.Ejected], all...)
		}
	}
	for status := range c.r.turns {
		if n := c.r.turns[status].Load(); n > 0 {
			counter(turnedDesc, float64(n), strconv.Itoa(status))
		}
	}
	gauge(connectionsDesc, float64(c.r.clients.n.Load()))
	gauge(versionDesc, float64(report.Version))
}

// beside sums what reports do not have: retries, and the time that Latency counts.
func (r *Router) beside(of *route.FleetReport) (retries int64, spent time.Duration) {
	if f := r.table.Load().fleets()[fleetKey{of.Endpoint, of.Variant, of.Generation}]; f != nil {
		for i := range f.shards {
			retries += f.shards[i].retries.Load()
			spent += time.Duration(f.shards[i].spent.Load())
		}
	}
	return retries, spent
}

// latency adds the report's buckets up to the coarser ones that Prometheus is given.
func latency(f *route.FleetReport, spent time.Duration, labels []string) prometheus.Metric {
	buckets := make(map[float64]uint64, len(bounds))
	at, total := 0, uint64(0)
	for i, n := range f.Latency.Counts {
		for at < len(bounds) && route.UpperOf(i).Seconds() > bounds[at] {
			buckets[bounds[at]] = total
			at++
		}
		total += uint64(n)
	}
	for ; at < len(bounds); at++ {
		buckets[bounds[at]] = total
	}
	return prometheus.MustNewConstHistogram(latencyDesc, total, spent.Seconds(), buckets, labels...)
}
