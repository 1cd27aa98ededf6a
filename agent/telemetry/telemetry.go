// Package telemetry is what an agent measures of itself and its machine, in Prometheus' form. How many series
// there are is bounded by the machine's GPUs; no label has a job's or a user's name. The names are documented in
// docs/operations.md, and a test compares the two.
package telemetry

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/clary-ml/clary/agent/device"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/ops"
)

// Sources are what is read when metrics are asked for.
type Sources struct {
	ops.Process
	Tasks   func() []cluster.TaskStatus
	Linked  func() (linked bool, leaseSeconds float64) // to a coordinator
	Devices func() []cluster.Device
	Usage   func(uuid string) map[string]float64 // of a device: see device.Gauge
	Cache   func() staging.Stats
}

// New makes the registry. others are collectors that are served beside, those of a router.
func New(s Sources, others ...prometheus.Collector) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(s.Process, collector{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registry.MustRegister(others...)
	return registry
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("clary_"+name, help, labels, nil)
}

var (
	tasksDesc   = describe("agent_tasks", "Tasks that this node has, by state.", "state")
	linkedDesc  = describe("agent_linked", "1 while there is a connection to a coordinator.")
	leaseDesc   = describe("agent_lease_seconds", "For how long this node counts as alive for sure.")
	devicesDesc = describe("agent_gpus", "GPUs, by model and health.", "model", "healthy")
	usedDesc    = describe("agent_gpu_utilization", "Share of the last moments in which a GPU worked, 0 to 1.", "gpu")
	memoryDesc  = describe("agent_gpu_memory_bytes", "Memory of a GPU that is in use.", "gpu")
	powerDesc   = describe("agent_gpu_power_watts", "What a GPU draws.", "gpu")
	heatDesc    = describe("agent_gpu_temperature_celsius", "The temperature of a GPU's chip.", "gpu")
	cachedDesc  = describe("agent_cache_bytes", "What the cache of inputs holds.")
	filesDesc   = describe("agent_cache_files", "Files in the cache of inputs.")
	hitsDesc    = describe("agent_cache_hits_total", "Inputs that were in the cache.")
	missesDesc  = describe("agent_cache_misses_total", "Inputs that had to be fetched.")
)

type collector struct{ s Sources }

// Describe is of prometheus.Collector.
func (collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		tasksDesc, linkedDesc, leaseDesc, devicesDesc, usedDesc, memoryDesc, powerDesc, heatDesc, cachedDesc, filesDesc, hitsDesc, missesDesc,
	} {
		out <- d
	}
}

// Collect is of prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v int64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
	states := map[string]int{string(cluster.TaskRunning): 0}
	for _, status := range c.s.Tasks() {
		states[string(status.State)]++
	}
	for state, n := range states {
		gauge(tasksDesc, float64(n), state)
	}
	linked, lease := c.s.Linked()
	gauge(linkedDesc, map[bool]float64{true: 1}[linked])
	gauge(leaseDesc, lease)
	c.gpus(gauge)
	cache := c.s.Cache()
	gauge(cachedDesc, float64(cache.Bytes))
	gauge(filesDesc, float64(cache.Files))
	counter(hitsDesc, cache.Hits)
	counter(missesDesc, cache.Misses)
}

func (c collector) gpus(gauge func(*prometheus.Desc, float64, ...string)) {
	models := map[[2]string]int{}
	for i, d := range c.s.Devices() {
		models[[2]string{d.Model, strconv.FormatBool(d.Healthy)}]++
		usage := c.s.Usage(d.UUID)
		for name, desc := range map[string]*prometheus.Desc{device.Utilization: usedDesc, device.Memory: memoryDesc, device.Power: powerDesc, device.Temperature: heatDesc} {
			if value, told := usage[name]; told {
				gauge(desc, value, strconv.Itoa(i))
			}
		}
	}
	for key, n := range models {
		gauge(devicesDesc, float64(n), key[0], key[1])
	}
}
