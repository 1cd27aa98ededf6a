package ops

import "github.com/prometheus/client_golang/prometheus"

// Process collects what every process of a cluster tells of itself.
type Process struct {
	Version string
	Free    func() (free, total int64) // bytes of the disk of the data folder
	Members func() map[string]int      // that gossip sees, by role
}

var (
	buildDesc   = prometheus.NewDesc("clary_build_info", "1; the version is a label.", []string{"version"}, nil)
	freeDesc    = prometheus.NewDesc("clary_disk_free_bytes", "What the disk of the data folder has free.", nil, nil)
	totalDesc   = prometheus.NewDesc("clary_disk_bytes", "The size of the disk of the data folder.", nil, nil)
	membersDesc = prometheus.NewDesc("clary_gossip_members", "Members that gossip sees, by role.", []string{"role"}, nil)
)

// Describe is of prometheus.Collector.
func (Process) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{buildDesc, freeDesc, totalDesc, membersDesc} {
		out <- d
	}
}

// Collect is of prometheus.Collector.
func (p Process) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(buildDesc, 1, p.Version)
	free, total := p.Free()
	gauge(freeDesc, float64(free))
	gauge(totalDesc, float64(total))
	for role, n := range p.Members() {
		gauge(membersDesc, float64(n), role)
	}
}
