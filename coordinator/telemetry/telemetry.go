// Package telemetry is what a coordinator measures of itself, in Prometheus' form. How many series there
// are is bounded: no label has a job's or a user's name, and of queues the first hundred are shown. The names are
// documented in docs/operations.md, and a test compares the two.
package telemetry

import (
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/headroom"
	"github.com/clary-ml/clary/coordinator/janitor"
	"github.com/clary-ml/clary/coordinator/planner"
	"github.com/clary-ml/clary/coordinator/replica"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/alpn"
	"github.com/clary-ml/clary/internal/ops"
	"github.com/clary-ml/clary/storage/object/embedded"
)

// Sources are what is read when metrics are asked for.
type Sources struct {
	ops.Process
	Raft    func() replica.Stats
	Planner func() planner.Counts
	Nodes   func() []cluster.Node
	Read    func() (*state.Snapshot, error)              // as this coordinator has it
	Store   func() bool                                  // whether the object store's address is known
	Objects func() (counts embedded.Counts, served bool) // of the embedded object store, if it is served here
	Janitor func() janitor.Counts
	Disk    func() headroom.Disk // whether that is enough
	Port    func() alpn.Counts   // connections to the coordinator's port
	Refuses func() bool          // whether the cluster takes nothing new
	Backups func() Backups       // on the leader
}

// Backups is what is told of the cluster's backups.
type Backups struct {
	Newest   time.Time // the zero time: none is known
	Failures int       // since the start
}

// Telemetry is the registry, and what is counted as it happens.
type Telemetry struct {
	*prometheus.Registry
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	appends prometheus.Histogram
}

// maxQueues are how many queues have series of their own.
const maxQueues = 100

// census bounds what counting costs: for so many times as long as it took, its figures are shown again.
const censusShare = 20

// New makes the registry. others are collectors that are served beside, those of a router.
func New(s Sources, others ...prometheus.Collector) *Telemetry {
	t := &Telemetry{
		Registry: prometheus.NewRegistry(),
		calls:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "clary_rpc_requests_total", Help: "Calls that have ended, by method and outcome: ok, ended (the caller went away) or the kind of error."}, []string{"method", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "clary_rpc_seconds", Help: "How long calls took, by method; a stream's is its whole life.", Buckets: []float64{.001, .005, .025, .1, .5, 2.5, 10, 60},
		}, []string{"method"}),
		appends: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "clary_raft_append_seconds", Help: "How long an append to the raft log took, its fsync included.", Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5},
		}),
	}
	t.MustRegister(t.calls, t.seconds, t.appends, s.Process, &collector{sources: s})
	t.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	t.MustRegister(others...)
	return t
}

// Observe counts a call. A method that is not ours is counted as one, whatever it is called.
func (t *Telemetry) Observe(method, outcome string, took time.Duration) {
	name, ours := strings.CutPrefix(method, "/clary.v1.")
	if !ours {
		name = "unknown"
	}
	t.calls.WithLabelValues(name, outcome).Inc()
	t.seconds.WithLabelValues(name).Observe(took.Seconds())
}

// Appended counts an append to the raft log.
func (t *Telemetry) Appended(took time.Duration) { t.appends.Observe(took.Seconds()) }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("clary_"+name, help, labels, nil)
}

var (
	leaderDesc    = describe("raft_leader", "1 if this coordinator leads.")
	termDesc      = describe("raft_term", "The term of raft.")
	lastDesc      = describe("raft_last_index", "The newest entry in this coordinator's log.")
	committedDesc = describe("raft_committed_index", "The newest entry that a majority is known to have.")
	appliedDesc   = describe("raft_applied_index", "The newest entry in this coordinator's state.")
	plansDesc     = describe("planner_plans_total", "How often the scheduler has planned here.")
	decidedDesc   = describe("planner_decisions_total", "Placements and evictions that it decided here.")
	plannedDesc   = describe("planner_seconds_total", "The time that planning has taken here.")
	waitingDesc   = describe("planner_waiting_gangs", "Gangs that wait for room; on the leader only.")
	nodesDesc     = describe("nodes", "Nodes by state.", "state")
	jobsDesc      = describe("jobs", "Jobs on record, by state and kind.", "state", "kind")
	tasksDesc     = describe("tasks", "Tasks on record, by state.", "state")
	queueDesc     = describe("queue_used", "What a queue itself holds: cores, memory_bytes or gpus.", "queue", "resource")
	runningDesc   = describe("queue_running_gangs", "Gangs of a queue that run.", "queue")
	storeDesc     = describe("object_store_known", "1 if it is known where the object store is.")
	askedDesc     = describe("object_store_requests_total", "Requests to the embedded object store, by HTTP method and outcome: ok, refused (4xx) or failed (5xx).", "method", "outcome")
	movedDesc     = describe("object_store_bytes_total", "Bytes of objects that were read or written, as they were announced.", "direction")
	backupDesc    = describe("backup_newest_timestamp_seconds", "When the newest backup was made; on the leader only, 0 if none is known.")
	failedDesc    = describe("backup_failures_total", "Backups that were due and could not be made, of this coordinator's.")
	removedDesc   = describe("janitor_removed_total", "What was over and has gone here, by kind.", "kind")
	freedDesc     = describe("janitor_freed_bytes_total", "What that has freed in the object store.")
	levelDesc     = describe("disk_level", "0 if the disk of the data folder has room, 1 if it is low, 2 if nothing more is put onto it.")
	leastDesc     = describe("disk_wanted_bytes", "With less free the disk is low.")
	connsDesc     = describe("connections", "Connections to the coordinator's port: of members, and of guests, who show no certificate of the cluster.", "of")
	turnedDesc    = describe("connections_refused_total", "Guests' connections that were refused, since there were too many.")
	refusesDesc   = describe("refuses_changes", "1 if the cluster takes nothing new, for its coordinators' disks.")
)

// collector reads the sources when it is asked.
type collector struct {
	sources Sources

	mu    sync.Mutex
	last  census
	until time.Time
}

// Describe is of prometheus.Collector.
func (*collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		leaderDesc, termDesc, lastDesc, committedDesc, appliedDesc, plansDesc, decidedDesc, plannedDesc, waitingDesc, nodesDesc, jobsDesc, tasksDesc,
		queueDesc, runningDesc, storeDesc, askedDesc, movedDesc, removedDesc, freedDesc, levelDesc, leastDesc, refusesDesc, connsDesc, turnedDesc, backupDesc, failedDesc,
	} {
		out <- d
	}
}

// Collect is of prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	s := c.sources
	raft := s.Raft()
	gauge(leaderDesc, one(raft.State == "Leader"))
	gauge(termDesc, float64(raft.Term))
	gauge(lastDesc, float64(raft.Last))
	gauge(committedDesc, float64(raft.Committed))
	gauge(appliedDesc, float64(raft.Applied))
	plans := s.Planner()
	counter(plansDesc, float64(plans.Plans))
	counter(decidedDesc, float64(plans.Decisions))
	counter(plannedDesc, plans.Took.Seconds())
	gauge(waitingDesc, float64(plans.Waiting))
	nodes := map[string]int{string(cluster.NodeReady): 0, string(cluster.NodeDraining): 0, string(cluster.NodeLost): 0}
	for _, node := range s.Nodes() {
		nodes[string(node.State)]++
	}
	for state, n := range nodes {
		gauge(nodesDesc, float64(n), state)
	}
	gauge(storeDesc, one(s.Store()))
	if objects, served := s.Objects(); served {
		for method, ends := range objects.Requests {
			for end, n := range ends {
				counter(askedDesc, float64(n), method, end)
			}
		}
		counter(movedDesc, float64(objects.Read), "read")
		counter(movedDesc, float64(objects.Written), "written")
	}
	gone := s.Janitor()
	counter(freedDesc, float64(gone.Bytes))
	for _, kind := range janitor.Kinds() {
		counter(removedDesc, float64(gone.Removed[kind]), string(kind))
	}
	disk := s.Disk()
	gauge(levelDesc, float64(disk.Level))
	gauge(leastDesc, float64(disk.Least))
	gauge(refusesDesc, one(s.Refuses()))
	port := s.Port()
	gauge(connsDesc, float64(port.Members), "members")
	gauge(connsDesc, float64(port.Guests), "guests")
	counter(turnedDesc, float64(port.Refused))
	backups := s.Backups()
	if raft.State == "Leader" {
		newest := float64(0)
		if !backups.Newest.IsZero() {
			newest = float64(backups.Newest.Unix())
		}
		gauge(backupDesc, newest)
	}
	counter(failedDesc, float64(backups.Failures))
	c.count().collect(gauge)
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// census is what has to be counted row by row.
type census struct {
	jobs   map[[2]string]int // by state and kind
	tasks  map[string]int
	queues []cluster.QueueUsage
}

func (c census) collect(gauge func(*prometheus.Desc, float64, ...string)) {
	for key, n := range c.jobs {
		gauge(jobsDesc, float64(n), key[0], key[1])
	}
	for state, n := range c.tasks {
		gauge(tasksDesc, float64(n), state)
	}
	for _, usage := range c.queues {
		gauge(queueDesc, float64(usage.Used.MilliCPU)/1000, usage.Queue, "cores")
		gauge(queueDesc, float64(usage.Used.Memory), usage.Queue, "memory_bytes")
		gauge(queueDesc, float64(usage.Used.MilliGPU)/1000, usage.Queue, "gpus")
		gauge(runningDesc, float64(usage.Running), usage.Queue)
	}
}

// count counts, or shows again what was counted lately.
func (c *collector) count() census {
	c.mu.Lock()
	defer c.mu.Unlock()
	begun := time.Now()
	if begun.Before(c.until) {
		return c.last
	}
	snapshot, err := c.sources.Read()
	if err != nil {
		return c.last
	}
	defer snapshot.Close()
	fresh := census{jobs: map[[2]string]int{}, tasks: map[string]int{}}
	for job := range snapshot.Jobs("") {
		fresh.jobs[[2]string{string(job.State), string(job.Kind)}]++
	}
	for task := range snapshot.Tasks() {
		fresh.tasks[string(task.Status.State)]++
	}
	for queue := range snapshot.Queues() {
		if len(fresh.queues) == maxQueues {
			break
		}
		usage := snapshot.QueueUsage(queue.Name)
		usage.Queue = queue.Name
		fresh.queues = append(fresh.queues, usage)
	}
	c.last, c.until = fresh, time.Now().Add(censusShare*time.Since(begun))
	return fresh
}
