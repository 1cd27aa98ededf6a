package tiresias

import (
	"io"
	"math"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/scheduler/sim/sheet"
)

// The experiment's cluster and clock, in seconds.
const (
	Nodes       = 16
	GPUsPerNode = 4
	Tick        = 60 // between two rounds
	Restart     = 30 // without progress, at every start
	MaxTime     = 1 << 36
)

// Job is a line of a workload.
type Job struct {
	Name     string
	Submit   int64
	App      string
	Replicas int64
	Batch    int64
}

// Read parses a workload: name, time, application, num_replicas and batch_size.
func Read(file string, in io.Reader, profiles Profiles) ([]Job, error) {
	var jobs []Job
	lines := map[string]int{}
	err := sheet.Read(file, in, []string{"name", "time", "application", "num_replicas", "batch_size"}, func(row *sheet.Row) error {
		job := Job{
			Name: row.Text("name"), Submit: row.Int("time", 0, MaxTime), App: row.Text("application"),
			Replicas: row.Int("num_replicas", 1, maxReplicas), Batch: row.Int("batch_size", 1, maxBatch),
		}
		if row.Err() != nil {
			return row.Err()
		}
		if first, twice := lines[job.Name]; twice {
			return row.Wrong("name", "%q is on line %d already", job.Name, first)
		}
		if job.Replicas > Nodes*GPUsPerNode {
			return row.Wrong("num_replicas", "%d, but there are %d GPUs: this job could never run", job.Replicas, Nodes*GPUsPerNode)
		}
		if profiles[job.App] == nil {
			return row.Wrong("application", "%q has no profile below traces", job.App)
		}
		lines[job.Name] = row.Line()
		jobs = append(jobs, job)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(jobs) == 0 {
		return nil, fault.New(fault.Invalid, "%s: no jobs", file)
	}
	return jobs, nil
}

// job is a job's life in the simulation.
type job struct {
	Job
	app *App

	held     []held // GPUs by node, in the order in which they were taken; empty: it does not run
	config   config
	loading  int64 // seconds of the start that are still ahead
	epoch    int
	progress float64
	ran      int64 // ticks that found it running, in seconds
	starts   int
	ended    int64 // 0 while it is not over
	told     told
}

// told is what Clary's scheduler has been told of a job.
type told int

const (
	untold told = iota
	submitted
	finished
)

type held struct{ node, gpus int }

// start gives a job its GPUs.
func (j *job) start(on []held) error {
	placement := make([]int, len(on))
	for i, h := range on {
		placement[i] = h.gpus
	}
	config, err := j.app.config(j.Batch, placement)
	if err != nil {
		return err
	}
	j.held, j.config, j.loading = on, config, Restart
	j.starts++
	return nil
}

// stop takes them away; progress is kept.
func (j *job) stop() { j.held, j.loading = nil, 0 }

// advance lets the job run for some seconds from now. An epoch ends at a whole second.
func (j *job) advance(now, seconds int64) {
	if len(j.held) == 0 || j.ended > 0 {
		return
	}
	loading := min(j.loading, seconds)
	j.loading -= loading
	now, seconds = now+loading, seconds-loading
	for seconds > 0 && j.ended == 0 {
		rate := j.app.rate(j.config, j.Replicas, j.epoch)
		next := j.app.endOf(j.epoch)
		made := float64(rate * float64(seconds))
		if j.progress+made < next {
			j.progress += made
			return
		}
		took := min(int64(math.RoundToEven((next-j.progress)/rate)), seconds)
		j.progress = next
		now, seconds = now+took, seconds-took
		if j.epoch++; j.epoch == j.app.Epochs {
			j.ended = now
		}
	}
}
