package command

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// Limits on one task's report.
const (
	MaxReason  = 4096 // bytes; longer ones are cut
	MaxOutputs = 256
	MaxMetrics = 256
)

// Apply implements Command. Reports that are out of date, of unknown tasks or of another
// node's are left out and listed; a report that changes nothing is not worth a word.
func (c ReportTasks) Apply(tx *state.Tx, now int64) (Result, error) {
	if _, known := tx.Node(c.Node); !known {
		return Result{}, fault.New(fault.NotFound, "node %q does not exist: it must introduce itself first", cluster.Clip(c.Node))
	}
	var result Result
	for _, report := range c.Reports {
		task, reason := reported(tx, c.Node, report)
		if reason != "" {
			result.Refused = append(result.Refused, Refusal{ID: report.Task, Reason: reason})
			continue
		}
		status := merge(task.Status, report.Status, now)
		if reflect.DeepEqual(status, task.Status) {
			continue
		}
		task.Status = status
		tx.PutTask(task)
	}
	return result, nil
}

// reported finds the task, or says why the report does not count.
func reported(tx *state.Tx, node string, report TaskReport) (cluster.Task, string) {
	task, exists := tx.Task(report.Task)
	was, is := task.Status.State, report.Status.State
	switch {
	case !exists:
		return task, "the task does not exist"
	case task.Allocation.Node != node:
		return task, fmt.Sprintf("the task belongs to node %q", task.Allocation.Node)
	case was == is:
	case was.Ended():
		return task, fmt.Sprintf("the task has %s already", was)
	case !was.CanBecome(is):
		return task, fmt.Sprintf("%s cannot become %q", was, cluster.Clip(string(is)))
	}
	if len(report.Status.Outputs) > MaxOutputs {
		return task, fmt.Sprintf("%d outputs: at most %d", len(report.Status.Outputs), MaxOutputs)
	}
	if len(report.Status.Progress.Metrics) > MaxMetrics {
		return task, fmt.Sprintf("%d metrics: at most %d", len(report.Status.Progress.Metrics), MaxMetrics)
	}
	return task, ""
}

// merge lays a report over what was known. An ended task keeps all that is known of it,
// the start of a process is said once, and silence about progress does not undo it.
func merge(known, report cluster.TaskStatus, now int64) cluster.TaskStatus {
	if known.State.Ended() {
		return known
	}
	if known.Started != 0 {
		report.Started = known.Started
	}
	if len(report.Reason) > MaxReason {
		report.Reason = strings.ToValidUTF8(report.Reason[:MaxReason], "")
	}
	if reflect.ValueOf(report.Progress).IsZero() {
		report.Progress = known.Progress
	}
	report.Progress.Checkpoint = max(report.Progress.Checkpoint, known.Progress.Checkpoint)
	if report.State != cluster.TaskRunning {
		report.Healthy = 0
	}
	switch {
	case !report.State.Ended():
		report.Ended = 0
	case report.Ended == 0:
		report.Ended = now
	}
	return report
}
