package operate

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/queuefile"
	"github.com/clary-ml/clary/internal/fault"
)

func (a app) queueCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "queue",
		Short: "See and change who may have how much of the cluster",
		Long: "See and change who may have how much of the cluster. Queues make a tree; jobs are in those that have none below\n" +
			"them. A queue gets back what it is guaranteed whenever it asks, may borrow what others do not use, and lends what it\n" +
			"does not use itself; weights divide the rest. docs/queues.md says more.",
		Example: "  clary queue list\n  clary queue create vision --guarantee gpus=8 --weight 2\n  clary queue apply -f queues.yaml --dry-run",
		Args:    shell.Takes(),
		RunE:    func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(a.listQueuesCommand(), a.showQueueCommand(), a.setQueueCommand(), a.createQueueCommand(), a.deleteQueueCommand(), a.applyQueuesCommand(), a.exportQueuesCommand())
	return command
}

// queueJSON is a queue as -o json and yaml show it.
type queueJSON struct {
	queuefile.Queue
	Used    queuefile.Quota `json:"used"`
	Beyond  queuefile.Quota `json:"borrowed,omitempty"`
	Lately  queuefile.Quota `json:"lately,omitempty"` // the mean of late, if the past counts
	Share   float64         `json:"share"`
	Running int32           `json:"running"`
	Waiting int64           `json:"waiting"`
	Jobs    bool            `json:"takes_jobs"`
	Owners  []ownerJSON     `json:"owners,omitempty"`
}

type ownerJSON struct {
	Owner   string          `json:"owner"`
	Used    queuefile.Quota `json:"used"`
	Running int32           `json:"running"`
}

func queueToJSON(v cluster.QueueView) queueJSON {
	shown := queueJSON{
		Queue: queuefile.Of(v.Queue), Used: amountOf(v.Used), Beyond: amountOf(v.Beyond), Lately: amountOf(v.Mean),
		Share: v.Share, Running: v.Running, Waiting: v.Waiting, Jobs: v.TakesJobs,
	}
	shown.Weight = &v.Queue.Weight
	for _, o := range v.Owners {
		shown.Owners = append(shown.Owners, ownerJSON{o.Owner, amountOf(o.Used), o.Running})
	}
	return shown
}

// amountOf are the resources of an amount that are not nothing.
func amountOf(amount cluster.Amount) queuefile.Quota {
	quota := queuefile.Quota{}
	for _, resource := range resourcesOf(amount) {
		quota[resource] = queuefile.Text(resource, amount.Of(resource))
	}
	return quota
}

func resourcesOf(amount cluster.Amount) []string {
	var names []string
	for _, resource := range []string{cluster.ResourceCores, cluster.ResourceMemory, cluster.ResourceGPUs} {
		if amount.Of(resource) != 0 {
			names = append(names, resource)
		}
	}
	for _, m := range amount.Models {
		names = append(names, cluster.ResourceGPUs+"/"+m.Model)
	}
	return names
}

func amountLine(amount cluster.Amount) string {
	var parts []string
	for _, resource := range resourcesOf(amount) {
		parts = append(parts, cluster.FormatAmount(resource, amount.Of(resource)))
	}
	return strings.Join(parts, ", ")
}

func (a app) listQueuesCommand() *cobra.Command {
	var stale bool
	command := &cobra.Command{
		Use: "list", Short: "Show the tree of queues: what each is guaranteed, holds and has borrowed", Args: shell.Takes(),
		Long: "Show the tree of queues. SHARE is the part of the cluster that a queue holds beyond its guarantee, over its weight:\n" +
			"among those whose guarantee does not cover their next job, the one with the least share is served next.",
		Example: "  clary queue list\n  clary queue list -o json",
	}
	command.Flags().BoolVar(&stale, "stale", false, "what the nearest coordinator knows, which may be a moment old")
	command.RunE = a.With(func(ctx context.Context, c *client.Client, _ []string) error {
		views, _, err := c.Queues(ctx, stale)
		if err != nil {
			return err
		}
		shown := make([]queueJSON, len(views))
		rows := make([][]string, len(views))
		depth := map[string]int{}
		for i, v := range views {
			shown[i] = queueToJSON(v)
			q := v.Queue
			depth[q.Name] = depth[q.Parent] + 1
			rows[i] = []string{
				strings.Repeat("· ", depth[q.Name]-1) + q.Name, strconv.Itoa(int(q.Weight)), dashed(queuefile.Line(q.Guarantee)), amountLine(v.Used),
				amountLine(v.Beyond), fmt.Sprintf("%.1f%%", 100*v.Share), limited(int64(v.Running), q.MaxRunning), limited(v.Waiting, q.MaxWaiting),
			}
		}
		return a.Print(shown, func(out io.Writer) error {
			return shell.Table(out, []string{"queue", "weight", "guarantee", "used", "borrowed", "share", "running", "waiting"}, rows)
		})
	})
	return command
}

func dashed(text string) string {
	if text == "none" {
		return ""
	}
	return text
}

// limited reads like "3" or "3 of 10".
func limited(n int64, most int32) string {
	if most == 0 {
		return strconv.FormatInt(n, 10)
	}
	return fmt.Sprintf("%d of %d", n, most)
}

func (a app) showQueueCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show QUEUE", Short: "Show one queue: its limits and rules, and who holds what of it", Example: "  clary queue show vision",
		Args: shell.Takes("QUEUE"), ValidArgsFunction: a.CompleteQueues(false),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			v, err := a.queue(ctx, c, args[0])
			if err != nil {
				return err
			}
			return a.Print(queueToJSON(v), func(out io.Writer) error { return showQueue(out, v) })
		}),
	}
}

// queue finds one queue.
func (a app) queue(ctx context.Context, c *client.Client, name string) (cluster.QueueView, error) {
	views, _, err := c.Queues(ctx, false)
	if err != nil {
		return cluster.QueueView{}, err
	}
	for _, v := range views {
		if v.Queue.Name == name {
			return v, nil
		}
	}
	return cluster.QueueView{}, fault.New(fault.NotFound, "there is no queue %q: see clary queue list", cluster.Clip(name))
}

func showQueue(out io.Writer, v cluster.QueueView) error {
	q := v.Queue.Effective()
	owners := make([]string, len(v.Owners))
	for i, o := range v.Owners {
		owners[i] = fmt.Sprintf("%s: %s in %d jobs", o.Owner, amountLine(o.Used), o.Running)
	}
	span := func(text string) string { return strings.TrimSuffix(text, "0s") }
	pairs := []string{
		"queue", q.Name, "parent", q.Parent, "weight", strconv.Itoa(int(q.Weight)),
		"guarantee", dashed(queuefile.Line(q.Guarantee)), "borrows at most", dashed(queuefile.Line(q.Borrow)), "lends at most", dashed(queuefile.Line(q.Lend)),
		"unpreemptible", limitsOf(q.Unpreemptible),
		"used", amountLine(v.Used), "borrowed", amountLine(v.Beyond), "lately", amountLine(v.Mean), "share", fmt.Sprintf("%.1f%%", 100*v.Share),
		"running", limited(int64(v.Running), q.MaxRunning), "waiting", limited(v.Waiting, q.MaxWaiting),
		"a user", dashed(queuefile.Line(q.User.Most)), "jobs of a user", limitOnly(q.User.MaxRunning),
		"order", string(q.Order), "backfill", string(q.Backfill),
		"evicts", fmt.Sprintf("within %s, to reclaim %s, for its share %s", q.Preempt.Within, q.Preempt.Reclaim, q.Preempt.Fair),
	}
	if q.MinRuntime > 0 {
		pairs = append(pairs, "runs undisturbed", span(q.MinRuntime.String()))
	}
	if q.HalfLife > 0 {
		pairs = append(pairs, "half-life", span(q.HalfLife.String()))
	}
	return shell.Fields(out, append(pairs, "held by", strings.Join(owners, "\n"))...)
}

// limitsOf is a quota where there is one.
func limitsOf(q cluster.Quota) string {
	if len(q) == 0 {
		return ""
	}
	return queuefile.Line(q)
}

func limitOnly(most int32) string {
	if most == 0 {
		return ""
	}
	return strconv.Itoa(int(most))
}
