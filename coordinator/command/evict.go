package command

import (
	"cmp"
	"fmt"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
)

// evict tells a gang to end and begin again, or says why it must not be. What it holds stays its own
// until its tasks have ended: nothing is given back here, and so nothing twice.
func evict(tx *state.Tx, e cluster.Eviction, now int64) string {
	gang, exists := tx.Gang(e.Gang)
	if !exists {
		return "the gang does not exist"
	}
	if reason := unevictable(tx, gang, e, now); reason != "" {
		return reason
	}
	if reason := unneeded(tx, gang, e, now); reason != "" {
		return reason
	}
	gang.Stop, gang.Moves, gang.StopReason, gang.For = true, true, e.Reason, e.For
	if e.For != e.Gang {
		gang.Evicted++
	}
	if e.Resizes() {
		gang.Resized = append(resizedLately(gang, now), now)
	}
	tx.PutGang(gang)
	return ""
}

// resizedLately are the instants that count against the limit.
func resizedLately(gang cluster.Gang, now int64) []int64 {
	var lately []int64
	for _, at := range gang.Resized {
		if at > now-int64(cluster.ResizeWindow) {
			lately = append(lately, at)
		}
	}
	return lately
}

// unevictable says why the gang may not be told to make room, or nothing.
func unevictable(tx *state.Tx, gang cluster.Gang, e cluster.Eviction, now int64) string {
	switch {
	case gang.Attempt != e.Attempt:
		return fmt.Sprintf("planned for attempt %d, it is at attempt %d", e.Attempt, gang.Attempt)
	case gang.Revision != e.Revision:
		return fmt.Sprintf("planned at revision %d, it is at revision %d", e.Revision, gang.Revision)
	case gang.Stop || gang.Moves:
		return "it ends or moves already"
	case gang.Handover:
		return "it must not pause: another takes its place before it ends"
	case gang.NonPreemptible && e.For != e.Gang:
		return "it is not preemptible"
	}
	if job, exists := tx.Job(gang.Job); !exists || job.State.Ended() || job.Cancel {
		return "its job has ended or was cancelled"
	}
	placed, holds := int64(0), false
	for task := range tx.TasksOfGang(gang.ID()) {
		if task.Attempt == gang.Attempt {
			placed, holds = task.Assigned, holds || !task.Status.State.Ended()
		}
	}
	queue, _ := tx.Queue(gang.Queue) // the default one may be stored nowhere
	switch left := cmp.Or(queue.MinRuntime, cluster.DefaultMinRuntime) - time.Duration(now-placed); {
	case !holds:
		return "it holds nothing"
	case left > 0:
		return fmt.Sprintf("it is left alone for %s more: it was placed a moment ago", left)
	}
	return ""
}

// unneeded says why what the eviction is for does not call for it, or nothing.
func unneeded(tx *state.Tx, gang cluster.Gang, e cluster.Eviction, now int64) string {
	if e.Resizes() {
		if reason := resizable(gang, e, now); reason != "" {
			return reason
		}
	}
	if e.For == e.Gang {
		if !e.Resizes() {
			return "it is to make room for itself"
		}
		return ""
	}
	other, exists := tx.Gang(e.For)
	switch {
	case !exists:
		return fmt.Sprintf("%q, which it is to make room for, does not exist", cluster.Clip(e.For))
	case other.Stop || other.Held:
		return other.ID() + ", which it is to make room for, is held or told to stop"
	case tx.HasTask(other.TaskID(other.Roles[0].Name, 0)):
		return other.ID() + ", which it is to make room for, has got a place"
	}
	return ""
}

// resizable says why the gang cannot go on with these numbers of tasks, or nothing.
func resizable(gang cluster.Gang, e cluster.Eviction, now int64) string {
	if !gang.Elastic() {
		return "it is not elastic"
	}
	if reason := gang.CheckCounts(e.Counts); reason != "" {
		return reason
	}
	if lately := resizedLately(gang, now); len(lately) >= cluster.MaxResizes {
		return fmt.Sprintf("it was resized %d times within %s: no more for %s", len(lately), cluster.ResizeWindow,
			time.Duration(lately[0]+int64(cluster.ResizeWindow)-now))
	}
	same := true
	for i, count := range e.Counts {
		same = same && count == gang.Tasks(i)
	}
	if same {
		return "it has these numbers of tasks"
	}
	return ""
}
