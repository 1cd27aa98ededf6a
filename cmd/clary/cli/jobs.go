package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// jobStates in the order of a job's life, for flags and completion.
var jobStates = []string{"queued", "running", "publishing", "stopping", "succeeded", "failed", "cancelled"}

func (a *App) jobsCommand() *cobra.Command {
	var filter client.Filter
	var states, labels []string
	command := &cobra.Command{
		Use:   "jobs",
		Short: "List jobs, the newest last",
		Example: `  clary jobs
  clary jobs --state running,queued --owner ada
  clary jobs --archived --owner ada
  clary jobs -o json | jq -r '.[].name'`,
		Args: takes(),
	}
	flags := command.Flags()
	flags.StringSliceVar(&states, "state", nil, "only these: "+strings.Join(jobStates, ", "))
	flags.StringVar(&filter.Owner, "owner", "", "only this user's")
	flags.StringVar(&filter.Queue, "queue", "", "only this queue's")
	flags.StringSliceVar(&labels, "label", nil, "only those with this label, as key=value")
	flags.BoolVar(&filter.Archived, "archived", false, "those that ended long ago and are archived, instead")
	staleFlag(command, &filter.Stale)
	limit := flags.Int("limit", 1000, "at most so many, in the order of their names; 0 is all")
	_ = command.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(jobStates, cobra.ShellCompDirectiveNoFileComp))
	command.RunE = a.with(func(ctx context.Context, c *client.Client, _ []string) error {
		var err error
		if filter.Labels, err = pairs("--label", labels); err != nil {
			return err
		}
		for _, state := range states {
			if !slices.Contains(jobStates, state) {
				return usage(command, "--state: %q is unknown: %s", state, strings.Join(jobStates, ", "))
			}
			filter.States = append(filter.States, cluster.JobState(state))
		}
		filter.Limit = min(max(*limit, 0), 1000)
		return a.listJobs(ctx, c, filter, *limit)
	})
	return command
}

func (a *App) listJobs(ctx context.Context, c *client.Client, filter client.Filter, limit int) error {
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
	list := make([]jobJSON, len(jobs))
	for i, job := range jobs {
		list[i] = jobToJSON(client.JobView{Job: job})
		list[i].Spec = nil // clary job NAME shows it
	}
	if more {
		a.note("there are more than %d jobs: raise --limit, or ask for some states only", limit)
	}
	return a.print(list, func(out io.Writer) error {
		if len(jobs) == 0 {
			if filter.Archived {
				a.note("no job is archived: clary settings show says when one is (retention.jobs)")
				return nil
			}
			a.note("no jobs: submit one with clary run, clary train or clary submit")
			return nil
		}
		rows := make([][]string, len(jobs))
		for i, job := range jobs {
			rows[i] = []string{job.Name, stateText(job), string(job.Kind), job.Owner, job.Queue, strconv.Itoa(int(job.Attempt)), ago(job.Submitted), took(job), cut(job.Reason, 60)}
		}
		return table(out, []string{"name", "state", "kind", "owner", "queue", "attempt", "age", "ran", "reason"}, rows)
	})
}

// pairs reads key=value flags.
func pairs(flag string, texts []string) (map[string]string, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	values := map[string]string{}
	for _, text := range texts {
		key, value, found := strings.Cut(text, "=")
		if !found || key == "" {
			return nil, fault.New(fault.Invalid, "%s: %q is not key=value", flag, text)
		}
		values[key] = value
	}
	return values, nil
}

func stateText(job cluster.Job) string {
	switch {
	case job.State == cluster.JobQueued && job.Held:
		return "queued (held)"
	case job.Cancel && !job.State.Ended():
		return string(job.State) + " (cancelled)"
	}
	return string(job.State)
}

// took is how long the job has run, or ran.
func took(job cluster.Job) string {
	switch {
	case job.Started == 0:
		return ""
	case job.Ended == 0:
		return ago(job.Started)
	}
	return span(time.Duration(job.Ended - job.Started))
}

func cut(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

func (a *App) jobCommand() *cobra.Command {
	var stale bool
	command := &cobra.Command{
		Use:     "job NAME",
		Short:   "Show a job: its state, its tasks, its outputs",
		Example: "  clary job digits\n  clary job digits -o yaml",
		Args:    takes("NAME"), ValidArgsFunction: a.completeJobs(),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			view, err := c.Job(ctx, args[0], client.ReadOption(stale))
			if err != nil {
				return err
			}
			return a.print(jobToJSON(view), func(out io.Writer) error { return a.showJob(out, view) })
		}),
	}
	staleFlag(command, &stale)
	return command
}

func (a *App) showJob(out io.Writer, view client.JobView) error {
	job := view.Job
	err := fields(
		out,
		"name", job.Name, "kind", string(job.Kind), "state", stateText(job), "reason", job.Reason,
		"owner", job.Owner, "queue", job.Queue, "priority", nonZero(int64(job.Priority)), "labels", labelText(job.Labels), "register", job.Register, "models", pinsText(job.Models),
		"attempt", strconv.Itoa(int(job.Attempt)), "failures", nonZero(int64(job.Failures)), "preempted", timesText(job.Preempted),
		"submitted", suffixed(ago(job.Submitted), " ago"), "ran", took(job), "archived", suffixed(ago(view.Archived), " ago"),
		"progress", progressText(view), "metrics", metricsText(leading(view).Progress.Metrics),
		"message", oneLine(exitMessage(view)),
	)
	if err != nil {
		return err
	}
	if len(view.Tasks) > 0 {
		rows := make([][]string, len(view.Tasks))
		for i, task := range view.Tasks {
			rows[i] = []string{shortTask(task), string(task.Status.State), task.Allocation.Node, holds(task.Allocation.Resources), exitText(task), cut(task.Status.Reason, 70)}
		}
		fmt.Fprintln(out)
		if err := table(out, []string{"task", "state", "node", "holds", "exit", "reason"}, rows); err != nil {
			return err
		}
	}
	if view.Publication != nil && len(view.Publication.Outputs) > 0 {
		var rows [][]string
		for _, output := range view.Publication.Outputs {
			rows = append(rows, []string{output.Name, amount(output), output.URI})
		}
		fmt.Fprintln(out)
		return table(out, []string{"output", "size", "uri"}, rows)
	}
	return nil
}

// amount is how much an output is.
func amount(output cluster.Output) string {
	size := cluster.FormatBytes(output.Size)
	if output.Files > 0 {
		size += fmt.Sprintf(" in %d file", output.Files)
		if output.Files > 1 {
			size += "s"
		}
	}
	return size
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

func nonZero(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func suffixed(text, suffix string) string {
	if text == "" {
		return ""
	}
	return text + suffix
}

func labelText(labels map[string]string) string {
	var texts []string
	for _, key := range sortedKeys(labels) {
		texts = append(texts, key+"="+labels[key])
	}
	return strings.Join(texts, " ")
}

func sortedKeys[K ~string, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// shortTask is "worker-0.1": a task's ID without its job and gang.
func shortTask(task cluster.Task) string {
	return task.ID[strings.LastIndexByte(task.ID, '/')+1:]
}

func holds(r cluster.Resources) string {
	text := cluster.FormatCores(r.MilliCPU) + ", " + cluster.FormatBytes(r.Memory)
	if n := len(r.Devices); n > 0 {
		text += fmt.Sprintf(", %d GPU", n)
	}
	for _, part := range partsToJSON(r.Shares, "") {
		text += ", " + part.text() + " of a GPU"
	}
	return text
}

func exitText(task cluster.Task) string {
	if !task.Status.State.Ended() || task.Status.State == cluster.TaskLost {
		return ""
	}
	return strconv.Itoa(int(task.Status.ExitCode))
}
