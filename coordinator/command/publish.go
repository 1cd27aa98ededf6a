package command

import (
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// Apply implements Command. The same publication twice is one.
func (c Publish) Apply(tx *state.Tx, now int64) (Result, error) {
	if old, published := tx.Publication(c.Job); published {
		if old.Attempt == c.Attempt && slices.Equal(old.Outputs, c.Outputs) {
			return Result{}, nil
		}
		return Result{}, fault.New(fault.Conflict, "job %q: attempt %d has published its outputs already", cluster.Clip(c.Job), old.Attempt)
	}
	job, exists := tx.Job(c.Job)
	if !exists {
		return Result{}, fault.New(fault.NotFound, "job %q does not exist", cluster.Clip(c.Job))
	}
	if job.State.Ended() || job.State == cluster.JobStopping || job.Cancel {
		return Result{}, fault.New(fault.Conflict, "job %q is %s or was cancelled: nothing is published any more", job.Name, job.State)
	}
	gang, exists := tx.Gang(c.Gang)
	if !exists || gang.Job != job.Name {
		return Result{}, fault.New(fault.NotFound, "gang %q is none of job %q", cluster.Clip(c.Gang), job.Name)
	}
	if gang.Attempt != c.Attempt {
		return Result{}, fault.New(fault.Conflict, "gang %q is at attempt %d: attempt %d may not publish", c.Gang, gang.Attempt, c.Attempt)
	}
	if err := c.checkTasks(tx, gang); err != nil {
		return Result{}, err
	}
	tx.PutPublication(cluster.Publication{
		Job: job.Name, Attempt: c.Attempt, Outputs: c.Outputs, Published: now,
	})
	return Result{}, nil
}

// checkTasks demands that every task of the attempt has succeeded, or ended if it is a
// service, and that what is published is what they uploaded.
func (c Publish) checkTasks(tx *state.Tx, gang cluster.Gang) error {
	done := 0
	uploaded := map[cluster.Output]bool{}
	for task := range tx.TasksOfGang(gang.ID()) {
		if task.Attempt != gang.Attempt {
			continue
		}
		role, _ := gang.Role(task.Role)
		if task.Status.State != cluster.TaskSucceeded && !(role.Program.Service && task.Status.State.Ended()) {
			return fault.New(fault.Conflict, "gang %q: task %s is %s: outputs are published when all have succeeded",
				gang.ID(), task.ID, task.Status.State)
		}
		done++
		for _, output := range task.Status.Outputs {
			output.Name = ""
			uploaded[output] = true
		}
	}
	if done != gang.Size() {
		return fault.New(fault.Conflict, "gang %q: attempt %d was never placed", gang.ID(), gang.Attempt)
	}
	seen := map[string]bool{}
	for _, output := range c.Outputs {
		if output.Name == "" || seen[output.Name] {
			return fault.New(fault.Invalid, "outputs: name %q is empty or there twice", cluster.Clip(output.Name))
		}
		seen[output.Name] = true
		output.Name = ""
		if !uploaded[output] {
			return fault.New(fault.Invalid, "outputs: %q with this size and hash was uploaded by no task of attempt %d",
				cluster.Clip(output.URI), gang.Attempt)
		}
	}
	return nil
}
