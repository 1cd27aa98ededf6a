package shell

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/config"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/queuefile"
)

// completionTime bounds what a press of the tab key may cost.
const completionTime = 2 * time.Second

// Complete offers names of the cluster; when it cannot be asked there are none.
func (a *App) Complete(names func(context.Context, *client.Client) []string) cobra.CompletionFunc {
	return func(command *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c, err := a.Connect(client.WithPatience(completionTime))
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(contextOf(command)), completionTime)
		defer cancel()
		return names(ctx, c), cobra.ShellCompDirectiveNoFileComp
	}
}

func contextOf(command *cobra.Command) context.Context {
	if ctx := command.Context(); ctx != nil {
		return ctx
	}
	return context.Background()
}

// CompleteJobs offers the jobs in the given states, or all.
func (a *App) CompleteJobs(states ...cluster.JobState) cobra.CompletionFunc {
	return a.Complete(func(ctx context.Context, c *client.Client) []string {
		jobs, _, _ := c.Jobs(ctx, client.Filter{States: states, Limit: 200, Stale: true})
		names := make([]string, len(jobs))
		for i, job := range jobs {
			names[i] = cobra.CompletionWithDesc(job.Name, string(job.State))
		}
		return names
	})
}

// CompleteNodes offers the nodes, with their states.
func (a *App) CompleteNodes() cobra.CompletionFunc {
	return a.Complete(func(ctx context.Context, c *client.Client) []string {
		nodes, _ := c.Nodes(ctx)
		names := make([]string, len(nodes))
		for i, view := range nodes {
			names[i] = cobra.CompletionWithDesc(view.Node.ID, string(view.Node.State))
		}
		return names
	})
}

// CompleteContexts offers the contexts of this user.
func (a *App) CompleteContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	path, err := config.Path(a.Getenv)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	file, _ := config.Load(path)
	return file.Names(), cobra.ShellCompDirectiveNoFileComp
}

// CompleteModels offers jobs that have succeeded, and files.
func (a *App) CompleteModels() cobra.CompletionFunc {
	jobs := a.CompleteJobs(cluster.JobSucceeded)
	return func(command *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		names, _ := jobs(command, args, typed)
		return names, cobra.ShellCompDirectiveDefault // files too
	}
}

// CompleteQueues offers queues; with those only that take jobs if it is for a job.
func (a *App) CompleteQueues(forJobs bool) cobra.CompletionFunc {
	return a.Complete(func(ctx context.Context, c *client.Client) []string {
		views, _, _ := c.Queues(ctx, true)
		var names []string
		for _, view := range views {
			if view.TakesJobs || !forJobs {
				names = append(names, cobra.CompletionWithDesc(view.Queue.Name, queuefile.Line(view.Queue.Guarantee)+" guaranteed"))
			}
		}
		return names
	})
}

// completeQueueFlags offers queues wherever a command takes one.
func (a *App) completeQueueFlags(command *cobra.Command) {
	if command.Flags().Lookup("queue") != nil {
		names := a.CompleteQueues(true)
		_ = command.RegisterFlagCompletionFunc("queue", func(command *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return names(command, nil, "")
		})
	}
	for _, below := range command.Commands() {
		a.completeQueueFlags(below)
	}
}

// CompleteSweeps offers the names of tuning jobs.
func (a *App) CompleteSweeps() cobra.CompletionFunc {
	return a.Complete(func(ctx context.Context, c *client.Client) []string {
		jobs, _, _ := c.Jobs(ctx, client.Filter{Kind: cluster.KindTuning, Limit: 200, Stale: true})
		names := make([]string, len(jobs))
		for i, job := range jobs {
			names[i] = cobra.CompletionWithDesc(job.Name, string(job.State))
		}
		return names
	})
}
