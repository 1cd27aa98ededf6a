package operate

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/queuefile"
	"github.com/clary-ml/clary/internal/fault"
)

// queueFlags are what can be set of a queue.
type queueFlags struct {
	parent, order, backfill         string
	weight, maxRunning, maxWaiting  int32
	userRunning                     int32
	guarantee, borrow, lend, ofUser []string
	preempt, firm                   []string
	minRuntime, halfLife            time.Duration
}

func (f *queueFlags) add(command *cobra.Command, a app) {
	flags := command.Flags()
	flags.StringVar(&f.parent, "parent", "", "put it below this queue; none is below the root")
	flags.Int32Var(&f.weight, "weight", 1, "its part of what no guarantee covers, beside its siblings'")
	flags.StringSliceVar(&f.guarantee, "guarantee", nil, "what it gets back whenever it asks: gpus=8,gpus/A100=4,cores=64,memory=1TiB; RESOURCE=none takes one out")
	flags.StringSliceVar(&f.borrow, "borrow", nil, "how much more than its guarantee it may hold; a resource that is not named is not limited")
	flags.StringSliceVar(&f.lend, "lend", nil, "how much of its guarantee others may use while it does not; not named is all")
	flags.StringSliceVar(&f.firm, "unpreemptible", nil, "what jobs with --preemptible=false may hold of it together, like gpus=4; not named is no limit")
	flags.Int32Var(&f.maxRunning, "max-running", 0, "jobs that run at a time; 0 is no limit")
	flags.Int32Var(&f.maxWaiting, "max-waiting", 0, "jobs that wait; one more is refused. 0 is no limit")
	flags.StringSliceVar(&f.ofUser, "user", nil, "what one user may hold of it, like gpus=4")
	flags.Int32Var(&f.userRunning, "user-max-running", 0, "jobs of one user that run at a time; 0 is no limit")
	flags.StringVar(&f.order, "order", "", "fifo, or shortest: the job that is expected to be done soonest goes first")
	flags.StringVar(&f.backfill, "backfill", "", "what may overtake a job that waits for room: none, easy or conservative")
	flags.StringSliceVar(&f.preempt, "preempt", nil, "whom its jobs may evict: within=never|lower|longer (longer needs --order shortest), reclaim=never|lower|any, fair=never|lower|any")
	flags.DurationVar(&f.minRuntime, "min-runtime", 0, "what runs is not evicted earlier than that")
	flags.DurationVar(&f.halfLife, "half-life", 0, "how long until what was used counts half; 0 counts only what is used now")
	_ = command.RegisterFlagCompletionFunc("parent", a.CompleteQueues(false))
	_ = command.RegisterFlagCompletionFunc("order", cobra.FixedCompletions([]string{"fifo", "shortest"}, cobra.ShellCompDirectiveNoFileComp))
	_ = command.RegisterFlagCompletionFunc("backfill", cobra.FixedCompletions([]string{"none", "easy", "conservative"}, cobra.ShellCompDirectiveNoFileComp))
}

// apply changes what the flags name that were given.
func (f *queueFlags) apply(q *cluster.Queue, flags *pflag.FlagSet) error {
	if flags.Changed("parent") {
		q.Parent = f.parent
		if f.parent == "none" {
			q.Parent = ""
		}
	}
	for name, set := range map[string]func(){ // each sets a field of its own
		"weight":           func() { q.Weight = f.weight },
		"max-running":      func() { q.MaxRunning = f.maxRunning },
		"max-waiting":      func() { q.MaxWaiting = f.maxWaiting },
		"user-max-running": func() { q.User.MaxRunning = f.userRunning },
		"order":            func() { q.Order = cluster.QueueOrder(f.order) },
		"backfill":         func() { q.Backfill = cluster.Backfill(f.backfill) },
		"min-runtime":      func() { q.MinRuntime = f.minRuntime },
		"half-life":        func() { q.HalfLife = f.halfLife },
	} {
		if flags.Changed(name) {
			set()
		}
	}
	for _, quota := range []struct {
		flag  string
		parts []string
		of    *cluster.Quota
	}{{"guarantee", f.guarantee, &q.Guarantee}, {"borrow", f.borrow, &q.Borrow}, {"lend", f.lend, &q.Lend}, {"unpreemptible", f.firm, &q.Unpreemptible}, {"user", f.ofUser, &q.User.Most}} {
		for _, part := range quota.parts {
			changed, err := queuefile.Change(*quota.of, part)
			if err != nil {
				return fault.New(fault.Invalid, "--%s: %w", quota.flag, err)
			}
			*quota.of = changed
		}
	}
	return f.applyPreempt(q)
}

func (f *queueFlags) applyPreempt(q *cluster.Queue) error {
	rules := map[string]*cluster.PreemptRule{"within": &q.Preempt.Within, "reclaim": &q.Preempt.Reclaim, "fair": &q.Preempt.Fair}
	for _, part := range f.preempt {
		name, rule, ok := strings.Cut(part, "=")
		to := rules[name]
		if !ok || to == nil {
			return fault.New(fault.Invalid, "--preempt: %q is not within=, reclaim= or fair= and a rule", cluster.Clip(part))
		}
		*to = cluster.PreemptRule(rule)
	}
	return nil
}

func (a app) createQueueCommand() *cobra.Command {
	var set queueFlags
	command := &cobra.Command{
		Use: "create QUEUE", Short: "Make a queue", Args: shell.Takes("QUEUE"),
		Example: "  clary queue create lab --guarantee gpus=16,cores=128\n  clary queue create vision --parent lab --guarantee gpus=8 --borrow gpus=4 --user gpus=4",
	}
	set.add(command, a)
	dry := addDryRun(command)
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		queue := cluster.Queue{Name: args[0], Weight: 1}
		if err := set.apply(&queue, command.Flags()); err != nil {
			return err
		}
		return a.editQueues(ctx, c, client.QueueEdit{Put: []cluster.Queue{queue}, Create: true, DryRun: *dry})
	})
	return command
}

func (a app) setQueueCommand() *cobra.Command {
	var set queueFlags
	command := &cobra.Command{
		Use: "set QUEUE", Short: "Change a queue, from the next round on", Args: shell.Takes("QUEUE"), ValidArgsFunction: a.CompleteQueues(false),
		Long: "Change a queue, from the next round on. What is not named stays as it is. Nothing is taken from those who run: a limit\n" +
			"below what is held lets nothing more in until enough has ended.",
		Example: "  clary queue set vision --weight 3 --max-running 20\n  clary queue set vision --borrow gpus=none --guarantee gpus/A100=4",
	}
	set.add(command, a)
	dry := addDryRun(command)
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		view, err := a.queue(ctx, c, args[0])
		if err != nil {
			return err
		}
		if err := set.apply(&view.Queue, command.Flags()); err != nil {
			return err
		}
		return a.editQueues(ctx, c, client.QueueEdit{Put: []cluster.Queue{view.Queue}, DryRun: *dry})
	})
	return command
}

func (a app) deleteQueueCommand() *cobra.Command {
	command := &cobra.Command{
		Use: "delete QUEUE", Short: "Delete a queue that has no jobs and none below it", Args: shell.Takes("QUEUE"), ValidArgsFunction: a.CompleteQueues(false),
		Example: "  clary queue delete vision",
	}
	dry := addDryRun(command)
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		return a.editQueues(ctx, c, client.QueueEdit{Delete: args, DryRun: *dry})
	})
	return command
}

func (a app) applyQueuesCommand() *cobra.Command {
	command := &cobra.Command{
		Use: "apply -f FILE", Short: "Make the tree of queues what a file says, all of it or nothing", Args: shell.Takes(),
		Long: "Make the tree of queues what a file says, all of it or nothing. Queues that the file does not name are deleted, but for the\n" +
			"default one; with --keep they stay. clary queue export writes such a file.",
		Example: "  clary queue export >queues.yaml\n  clary queue apply -f queues.yaml --dry-run\n  clary queue apply -f queues.yaml",
	}
	path, keep, dry := addApply(command, "queues")
	command.RunE = a.With(func(ctx context.Context, c *client.Client, _ []string) error {
		data, err := a.readFile(*path, queuefile.MaxSize)
		if err != nil {
			return err
		}
		queues, err := queuefile.Parse(data)
		if err != nil {
			return fault.New(fault.KindOf(err), "%s: %w", *path, err)
		}
		return a.editQueues(ctx, c, client.QueueEdit{Put: queues, Replace: !*keep, DryRun: *dry})
	})
	return command
}

// addApply gives a command the flags by which it makes things what a file says.
func addApply(command *cobra.Command, things string) (path *string, keep, dry *bool) {
	path = command.Flags().StringP("file", "f", "", "the file; - is standard input")
	keep = command.Flags().Bool("keep", false, "keep the "+things+" that the file does not name")
	_ = command.MarkFlagRequired("file")
	_ = command.MarkFlagFilename("file", "yaml", "yml")
	return path, keep, addDryRun(command)
}

// readFile reads a file or standard input, and no more than a byte beyond the most.
func (a app) readFile(path string, most int64) ([]byte, error) {
	from := a.In
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, fault.New(fault.Invalid, "--file: %w", err)
		}
		defer file.Close()
		from = file
	}
	data, err := io.ReadAll(io.LimitReader(from, most+1))
	if err != nil {
		return nil, fault.New(fault.Invalid, "read %s: %w", path, err)
	}
	return data, nil
}

func (a app) exportQueuesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "export", Short: "Write the tree of queues as clary queue apply reads it", Example: "  clary queue export >queues.yaml", Args: shell.Takes(),
		RunE: a.With(func(ctx context.Context, c *client.Client, _ []string) error {
			views, _, err := c.Queues(ctx, false)
			if err != nil {
				return err
			}
			queues := make([]cluster.Queue, len(views))
			shown := queuefile.File{Queues: make([]queuefile.Queue, len(views))}
			for i, v := range views {
				queues[i], shown.Queues[i] = v.Queue, queuefile.Of(v.Queue)
			}
			return a.Print(shown, func(out io.Writer) error {
				text, err := queuefile.Format(queues)
				if err != nil {
					return err
				}
				_, err = out.Write(text)
				return err
			})
		}),
	}
}

func addDryRun(command *cobra.Command) *bool {
	return command.Flags().Bool("dry-run", false, "say what would change, and change nothing")
}

// changeJSON is a change of one queue as -o json and yaml show it.
type changeJSON struct {
	Queue  string   `json:"queue"`
	Change string   `json:"change"` // created, changed or deleted
	Fields []string `json:"fields,omitempty"`
}

// editQueues changes the tree and says what has changed.
func (a app) editQueues(ctx context.Context, c *client.Client, edit client.QueueEdit) error {
	changes, err := c.EditQueues(ctx, edit)
	if err != nil {
		return err
	}
	shown := make([]changeJSON, len(changes))
	for i, change := range changes {
		switch {
		case change.After.Name == "":
			shown[i] = changeJSON{Queue: change.Before.Name, Change: "deleted"}
		case change.Before.Name == "":
			shown[i] = changeJSON{change.After.Name, "created", queuefile.Differences(cluster.Queue{Weight: 1}, change.After)}
		default:
			shown[i] = changeJSON{change.After.Name, "changed", queuefile.Differences(change.Before, change.After)}
		}
	}
	err = a.Print(shown, func(out io.Writer) error {
		var text strings.Builder
		for _, change := range shown {
			fmt.Fprintf(&text, "%s  %s\n", change.Change, change.Queue)
			for _, field := range change.Fields {
				fmt.Fprintf(&text, "    %s\n", field)
			}
		}
		_, err := io.WriteString(out, text.String())
		return err
	})
	switch {
	case err != nil:
		return err
	case len(changes) == 0:
		a.Note("nothing changes")
	case edit.DryRun:
		a.Note("nothing was changed: this was a dry run")
	}
	return nil
}
