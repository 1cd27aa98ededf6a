package jobs

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
)

func (a app) jobsCommand() *cobra.Command {
	var filter client.Filter
	var states, labels []string
	command := &cobra.Command{
		Use:   "jobs",
		Short: "List jobs, the newest last",
		Example: `  clary jobs
  clary jobs --state running,queued --owner ada
  clary jobs --archived --owner ada
  clary jobs -o json | jq -r '.[].name'`,
		Args: shell.Takes(),
	}
	flags := command.Flags()
	flags.StringSliceVar(&states, "state", nil, "only these: "+strings.Join(shell.JobStates, ", "))
	flags.StringVar(&filter.Owner, "owner", "", "only this user's")
	flags.StringVar(&filter.Queue, "queue", "", "only this queue's")
	flags.StringSliceVar(&labels, "label", nil, "only those with this label, as key=value")
	flags.BoolVar(&filter.Archived, "archived", false, "those that ended long ago and are archived, instead")
	shell.StaleFlag(command, &filter.Stale)
	limit := flags.Int("limit", 1000, "at most so many, in the order of their names; 0 is all")
	_ = command.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(shell.JobStates, cobra.ShellCompDirectiveNoFileComp))
	command.RunE = a.With(func(ctx context.Context, c *client.Client, _ []string) error {
		var err error
		if filter.Labels, err = shell.Pairs("--label", labels); err != nil {
			return err
		}
		for _, state := range states {
			if !slices.Contains(shell.JobStates, state) {
				return shell.Usage(command, "--state: %q is unknown: %s", state, strings.Join(shell.JobStates, ", "))
			}
			filter.States = append(filter.States, cluster.JobState(state))
		}
		filter.Limit = min(max(*limit, 0), 1000)
		return a.listJobs(ctx, c, filter, *limit)
	})
	return command
}

func (a app) listJobs(ctx context.Context, c *client.Client, filter client.Filter, limit int) error {
	jobs, more := []cluster.Job{}, false
	for job, err := range c.AllJobs(ctx, filter) {
		if err != nil {
			return err
		}
		if more = limit > 0 && len(jobs) == limit; more {
			break
		}
		jobs = append(jobs, job)
	}
	slices.SortStableFunc(jobs, func(x, y cluster.Job) int { return int(min(max(x.Submitted-y.Submitted, -1), 1)) })
	list := make([]shell.JobJSON, len(jobs))
	for i, job := range jobs {
		list[i] = shell.JobToJSON(client.JobView{Job: job})
		list[i].Spec = nil // clary job NAME shows it
	}
	if more {
		a.Note("there are more than %d jobs: raise --limit, or ask for some states only", limit)
	}
	return a.Print(list, func(out io.Writer) error {
		if len(jobs) == 0 {
			if filter.Archived {
				a.Note("no job is archived: clary settings show says when one is (retention.jobs)")
				return nil
			}
			a.Note("no jobs: submit one with clary run, clary train or clary submit")
			return nil
		}
		rows := make([][]string, len(jobs))
		for i, job := range jobs {
			rows[i] = []string{job.Name, shell.StateText(job), string(job.Kind), job.Owner, job.Queue, strconv.Itoa(int(job.Attempt)), shell.Ago(job.Submitted), shell.Took(job), shell.Cut(job.Reason, 60)}
		}
		return shell.Table(out, []string{"name", "state", "kind", "owner", "queue", "attempt", "age", "ran", "reason"}, rows)
	})
}

func (a app) jobCommand() *cobra.Command {
	var stale bool
	command := &cobra.Command{
		Use:     "job NAME",
		Short:   "Show a job: its state, its tasks, its outputs",
		Example: "  clary job digits\n  clary job digits -o yaml",
		Args:    shell.Takes("NAME"), ValidArgsFunction: a.CompleteJobs(),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			view, err := c.Job(ctx, args[0], client.ReadOption(stale))
			if err != nil {
				return err
			}
			return a.Print(shell.JobToJSON(view), func(out io.Writer) error { return a.showJob(out, view) })
		}),
	}
	shell.StaleFlag(command, &stale)
	return command
}

func (a app) showJob(out io.Writer, view client.JobView) error {
	job := view.Job
	err := shell.Fields(
		out,
		"name", job.Name, "kind", string(job.Kind), "state", shell.StateText(job), "reason", job.Reason,
		"owner", job.Owner, "queue", job.Queue, "priority", shell.NonZero(int64(job.Priority)), "labels", shell.LabelText(job.Labels), "register", job.Register, "models", shell.PinsText(job.Models),
		"attempt", strconv.Itoa(int(job.Attempt)), "failures", shell.NonZero(int64(job.Failures)), "preempted", timesText(job.Preempted),
		"submitted", shell.Suffixed(shell.Ago(job.Submitted), " ago"), "ran", shell.Took(job), "archived", shell.Suffixed(shell.Ago(view.Archived), " ago"),
		"progress", submit.ProgressText(view), "metrics", submit.MetricsText(submit.Leading(view).Progress.Metrics),
		"message", shell.OneLine(shell.ExitMessage(view)),
	)
	if err != nil {
		return err
	}
	if len(view.Tasks) > 0 {
		rows := make([][]string, len(view.Tasks))
		for i, task := range view.Tasks {
			rows[i] = []string{shell.ShortTask(task), string(task.Status.State), task.Allocation.Node, holds(task.Allocation.Resources), exitText(task), shell.Cut(task.Status.Reason, 70)}
		}
		fmt.Fprintln(out)
		if err := shell.Table(out, []string{"task", "state", "node", "holds", "exit", "reason"}, rows); err != nil {
			return err
		}
	}
	if view.Publication != nil && len(view.Publication.Outputs) > 0 {
		var rows [][]string
		for _, output := range view.Publication.Outputs {
			rows = append(rows, []string{output.Name, shell.Amount(output), output.URI})
		}
		fmt.Fprintln(out)
		return shell.Table(out, []string{"output", "size", "uri"}, rows)
	}
	return nil
}

func timesText(n int32) string {
	switch n {
	case 0:
		return ""
	case 1:
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func holds(r cluster.Resources) string {
	text := cluster.FormatCores(r.MilliCPU) + ", " + cluster.FormatBytes(r.Memory)
	if n := len(r.Devices); n > 0 {
		text += fmt.Sprintf(", %d GPU", n)
	}
	for _, part := range shell.PartsToJSON(r.Shares, "") {
		text += ", " + part.Text() + " of a GPU"
	}
	return text
}

func exitText(task cluster.Task) string {
	if !task.Status.State.Ended() || task.Status.State == cluster.TaskLost {
		return ""
	}
	return strconv.Itoa(int(task.Status.ExitCode))
}
