// Package queue replays the queueing experiments of the Tiresias simulator (Gu et al.,
// NSDI 2019, its scheme "count"): rigid jobs on a number of equal GPUs, preemption free
// of cost. Policies fifo, fifo-skip, srtf and srsf give the reference's start and end
// of every job; clary is Clary's own scheduler on the same jobs.
package queue

import (
	"io"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/scheduler/sim/sheet"
)

// The bounds of a trace: times far beyond a century, and sums of them, fit 63 bits.
const (
	MaxTime = 1 << 36 // seconds
	MaxGPUs = 1 << 24
)

// Job is a line of a trace. Times are in seconds.
type Job struct {
	ID       string
	GPUs     int64
	Submit   int64
	Duration int64
	Model    string // a class of jobs; may be empty
}

// Read parses a trace: job_id, num_gpu, submit_time, duration and perhaps model_name.
// Jobs of no duration, of more GPUs than there are, and ids that come twice are refused.
func Read(file string, in io.Reader, gpus int64) ([]Job, error) {
	if gpus < 1 || gpus > MaxGPUs {
		return nil, fault.New(fault.Invalid, "gpus: %d is out of range: from 1 to %d", gpus, MaxGPUs)
	}
	var jobs []Job
	lines := map[string]int{}
	err := sheet.Read(file, in, []string{"job_id", "num_gpu", "submit_time", "duration"}, func(row *sheet.Row) error {
		job := Job{
			ID: row.Text("job_id"), GPUs: row.Int("num_gpu", 1, MaxGPUs), Submit: row.Int("submit_time", 0, MaxTime),
			Duration: row.Int("duration", 1, MaxTime), Model: row.Maybe("model_name"),
		}
		if row.Err() != nil {
			return row.Err()
		}
		if first, twice := lines[job.ID]; twice {
			return row.Wrong("job_id", "%q is on line %d already", job.ID, first)
		}
		if job.GPUs > gpus {
			return row.Wrong("num_gpu", "%d, but there are %d GPUs: this job could never run", job.GPUs, gpus)
		}
		lines[job.ID] = row.Line()
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
