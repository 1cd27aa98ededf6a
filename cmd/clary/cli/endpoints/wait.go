package endpoints

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
)

const (
	shownLog = 15 // lines of a replica that failed
	// givenUp is how often a replica may fail in a row until waiting for it ends.
	givenUp = 3
)

// settle shows an endpoint until its replicas are healthy and no update is in progress, and what failed
// meanwhile. generation is the one that is to be in force then; 0 is any.
func (a app) settle(ctx context.Context, c *client.Client, name string, generation int64, timeout time.Duration) (client.EndpointView, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, shell.Exitf(124, "%s is not ready after %s: it goes on; see clary endpoint status %s", name, timeout, name))
		defer cancel()
	}
	line := a.NewLine()
	defer line.End()
	told := map[string]bool{} // failures that were shown, by what they say
	var last client.EndpointView
	for view, err := range c.WatchEndpoint(ctx, name) {
		if ctx.Err() != nil {
			if err := shell.GaveUp(ctx); err != nil {
				return last, err
			}
			return last, shell.Exitf(shell.ExitInterrupted, "%s goes on without you: see clary endpoint status %s", name, name)
		}
		if err != nil {
			return last, err
		}
		last = view
		for _, replica := range view.Replicas {
			if same := replica.Variant + "\x00" + replica.Failure; replica.FailedTask != "" && !told[same] {
				told[same] = true
				line.Clear()
				a.showFailure(ctx, c, name, replica)
			}
		}
		text := settlingText(view, time.Now())
		line.Draw(text, withoutTime(view, text))
		if done, err := settled(view, generation); done || err != nil {
			return view, err
		}
	}
	return last, nil
}

// showFailure tells why a replica failed, and the end of its log.
func (a app) showFailure(ctx context.Context, c *client.Client, name string, r client.ReplicaView) {
	a.Note("%s failed: %s", r.Gang, shell.OneLine(r.Failure))
	request := client.LogRequest{Job: name, Task: r.FailedTask, Tail: shownLog}
	if _, attempt, ok := strings.Cut(r.FailedTask[strings.LastIndexByte(r.FailedTask, '/')+1:], "."); ok {
		_, _ = fmt.Sscan(attempt, &request.Attempt)
	}
	for chunk, err := range c.Logs(ctx, request) {
		if err != nil {
			a.Note("  its log cannot be read: %s", shell.OneLine(err.Error()))
			return
		}
		for _, entry := range chunk.Entries {
			a.Note("  | %s", shell.OneLine(strings.TrimRight(string(entry.Text), "\n")))
		}
	}
}

// settlingText is an endpoint on its way in one line.
func settlingText(view client.EndpointView, now time.Time) string {
	parts := []string{view.Job.Name, endpointState(view)}
	if view.Endpoint.Rollout != nil {
		parts[1] = strings.ReplaceAll(rolloutText(view.Endpoint, now), "\n", "  ")
	}
	parts = append(parts, fmt.Sprintf("%d of %d replicas healthy", healthyOf(view, nil), wantedOf(view)))
	for _, replica := range view.Replicas {
		if replica.State == client.ReplicaWaiting && replica.Reason != "" {
			parts = append(parts, replica.Gang+" waits: "+shell.OneLine(replica.Reason))
			break
		}
	}
	return shell.Joined(parts...)
}

// withoutTime is a line's news where lines are not drawn over: it has no clock in it.
func withoutTime(view client.EndpointView, text string) string {
	if r := view.Endpoint.Rollout; r != nil {
		state := fmt.Sprintf("generation %d to %d: %s", r.From, r.To, strings.ReplaceAll(string(r.Phase), "_", " "))
		if r.Phase == cluster.RolloutBaking {
			state += fmt.Sprintf(", step %d of %d", r.Step+1, len(r.Steps))
		}
		return shell.Joined(view.Job.Name, state, fmt.Sprintf("%d of %d replicas healthy", healthyOf(view, nil), wantedOf(view)), shell.OneLine(r.Reason))
	}
	return text
}

// settled reports whether an endpoint is as it was asked for, or why it will not be.
func settled(view client.EndpointView, generation int64) (bool, error) {
	job, e := view.Job, view.Endpoint
	switch {
	case job.State.Ended() || job.Cancel:
		return true, shell.Exitf(shell.ExitFailed, "%s %s: %s", job.Name, shell.StateText(job), shell.OneLine(job.Reason))
	case e.Rollout == nil && generation > 0 && e.Generation != generation:
		return true, shell.Exitf(shell.ExitFailed, "%s is at generation %d again: %s", job.Name, e.Generation, shell.OneLine(lastNote(e)))
	}
	whole := e.Rollout == nil && job.State == cluster.JobRunning
	for _, fleet := range e.Fleets {
		if !fleet.Retired && healthyOf(view, &fleet) < int(fleet.Replicas) {
			whole = false
		}
	}
	if whole || e.Rollout != nil {
		return whole, nil
	}
	for _, replica := range view.Replicas {
		if replica.Failures >= givenUp && replica.State != client.ReplicaDraining {
			return true, shell.Exitf(shell.ExitFailed, "%s failed %d times in a row: %s\nit is tried again and again: see clary logs %s, correct it with clary endpoint update %s, or end it with clary cancel %s",
				replica.Gang, replica.Failures, shell.OneLine(replica.Failure), job.Name, job.Name, job.Name)
		}
	}
	return false, nil
}

// lastNote is the newest thing that happened, in words.
func lastNote(e cluster.Endpoint) string {
	if len(e.Notes) == 0 {
		return ""
	}
	note := e.Notes[len(e.Notes)-1]
	return note.What + ": " + note.Text
}
