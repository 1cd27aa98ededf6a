package operate

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/workload/placement"
)

func (a app) nodesCommand() *cobra.Command {
	var stale bool
	command := &cobra.Command{
		Use:     "nodes [NODE]",
		Aliases: []string{"node"},
		Short:   "List nodes and what they have left, or show one",
		Example: "  clary nodes\n  clary nodes a -o yaml\n  clary nodes drain a --deadline 10m --reason 'new disk'",
		Args:    shell.Takes("[NODE]"), ValidArgsFunction: a.CompleteNodes(),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			if len(args) == 1 {
				view, err := c.Node(ctx, args[0], client.ReadOption(stale))
				if err != nil {
					return err
				}
				return a.Print(shell.NodeToJSON(view), func(out io.Writer) error { return showNode(out, view) })
			}
			return a.listNodes(ctx, c, client.ReadOption(stale))
		}),
	}
	shell.StaleFlag(command, &stale)
	command.AddCommand(a.drainCommand(), a.cordonCommand(), a.uncordonCommand(), a.taintCommand(), a.removeCommand(), a.revokeNodeCommand())
	return command
}

func (a app) listNodes(ctx context.Context, c *client.Client, read client.ReadOption) error {
	views, err := c.Nodes(ctx, read)
	if err != nil {
		return err
	}
	list := make([]shell.NodeJSON, len(views))
	rows := make([][]string, len(views))
	for i, view := range views {
		list[i] = shell.NodeToJSON(view)
		n := view.Node
		rows[i] = []string{
			n.ID, nodeState(n), fmt.Sprintf("%g of %g", list[i].Cores.Used, list[i].Cores.Total),
			cluster.FormatBytes(view.Used.Memory) + " of " + cluster.FormatBytes(n.Memory), gpuText(view),
			strconv.Itoa(len(view.Tasks)), n.Address, cmp.Or(n.Reason, taintText(n.Taints)),
		}
	}
	return a.Print(list, func(out io.Writer) error {
		if len(views) == 0 {
			a.Note("no nodes: start an agent with clary agent --join TOKEN on a machine that shall run jobs")
			return nil
		}
		return shell.Table(out, []string{"node", "state", "cores used", "memory used", "gpus used", "tasks", "address", "reason"}, rows)
	})
}

func gpuText(view client.NodeView) string {
	if len(view.Node.Devices) == 0 {
		return ""
	}
	models := map[string]int{}
	for _, device := range view.Node.Devices {
		models[device.Model]++
	}
	var texts []string
	for _, model := range shell.SortedKeys(models) {
		texts = append(texts, fmt.Sprintf("%d %s", models[model], model))
	}
	return usedGPUs(view) + " of " + strings.Join(texts, ", ")
}

func showNode(out io.Writer, view client.NodeView) error {
	n := view.Node
	return shell.Fields(
		out,
		"node", n.ID, "state", nodeState(n), "reason", n.Reason, "address", n.Address, "version", n.Version,
		"cores", fmt.Sprintf("%g of %g used", float64(view.Used.MilliCPU)/1000, float64(n.MilliCPU)/1000),
		"memory", cluster.FormatBytes(view.Used.Memory)+" of "+cluster.FormatBytes(n.Memory)+" used",
		"disk", cluster.FormatBytes(n.Disk)+" free", "gpus", gpuText(view), "labels", shell.LabelText(n.Labels), "taints", taintText(n.Taints),
		"devices", devicesText(view), "cached", cachedText(n.Cached),
		"joined", shell.Suffixed(shell.Ago(n.Joined), " ago"), "tasks", strings.Join(view.Tasks, "\n"),
	)
}

// cachedText says how many inputs a node has in its cache.
func cachedText(digests []uint32) string {
	switch len(digests) {
	case 0:
		return ""
	case 1:
		return "1 input of jobs"
	}
	return fmt.Sprintf("%d inputs of jobs", len(digests))
}

// changeNode is a command that changes one node's state.
func (a app) changeNode(use, short, said string, do func(context.Context, *client.Client, string) (cluster.Node, error)) *cobra.Command {
	return &cobra.Command{
		Use: use + " NODE", Short: short, Example: "  clary nodes " + use + " a",
		Args: shell.Takes("NODE"), ValidArgsFunction: a.CompleteNodes(),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			node, err := do(ctx, c, args[0])
			if err != nil {
				return err
			}
			return a.Print(shell.NodeToJSON(client.NodeView{Node: node}), func(out io.Writer) error {
				_, err := fmt.Fprintf(out, said+"\n", args[0])
				return err
			})
		}),
	}
}

func (a app) removeCommand() *cobra.Command {
	return a.changeNode("remove", "Forget a lost node for good", forgotten,
		func(ctx context.Context, c *client.Client, id string) (cluster.Node, error) {
			return cluster.Node{ID: id}, c.RemoveNode(ctx, id)
		})
}

// forgotten is what is said of a node that was removed: its certificate is as good as before.
const forgotten = "%[1]s is forgotten. It is a node again if its agent comes back: a machine that was stolen is shut out with\n" +
	"clary nodes revoke %[1]s, while it is on the list"

func (a app) taintCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "taint NODE TAINT...",
		Short: "Keep tasks off a node that do not tolerate it, or take that back",
		Long: "Put taints on a node, or take them back. KEY=VALUE:no-place keeps off what does not tolerate it with --tolerate,\n" +
			"KEY=VALUE:prefer-not has it placed there last; no-place is meant where no effect is said. KEY- takes back all\n" +
			"taints of that key. What runs on the node stays.",
		Example: "  clary nodes taint gpu-1 team=vision\n  clary nodes taint gpu-1 flaky:prefer-not\n  clary nodes taint gpu-1 team-",
		Args: func(command *cobra.Command, args []string) error {
			if len(args) < 2 {
				return shell.Usage(command, "name a node, and at least one taint")
			}
			return nil
		},
		ValidArgsFunction: a.CompleteNodes(),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			var put []cluster.Taint
			var remove []string
			for _, text := range args[1:] {
				if key, back := strings.CutSuffix(text, "-"); back && !strings.ContainsAny(key, "=:") {
					remove = append(remove, key)
					continue
				}
				taint, err := placement.ParseTaint(text)
				if err != nil {
					return err
				}
				put = append(put, taint)
			}
			node, err := c.Taint(ctx, args[0], put, remove)
			if err != nil {
				return err
			}
			return a.Print(shell.NodeToJSON(client.NodeView{Node: node}), func(out io.Writer) error {
				_, err := fmt.Fprintf(out, "%s has %s\n", args[0], shell.OrNone(taintText(node.Taints), "no taints"))
				return err
			})
		}),
	}
}

func taintText(taints []cluster.Taint) string {
	texts := make([]string, len(taints))
	for i, taint := range taints {
		texts[i] = taint.String()
	}
	return strings.Join(texts, ", ")
}

// usedGPUs is how many of a node's GPUs are held: shares count as their fraction, slots as their part of
// the slices that their device has.
func usedGPUs(view client.NodeView) string {
	return fmt.Sprintf("%.3g", view.Used.GPUs())
}

// deviceText says what of a device is in use.
func deviceText(device cluster.Device, used cluster.Resources) string {
	var parts []string
	for _, part := range shell.PartsToJSON(used.Shares, device.UUID) {
		parts = append(parts, part.Text()+" in use")
	}
	for _, uuid := range used.Devices {
		if uuid == device.UUID {
			parts = append(parts, "in use")
		}
	}
	return shell.OrNone(strings.Join(parts, ", "), "free")
}

func devicesText(view client.NodeView) string {
	var lines []string
	for _, d := range view.Node.Devices {
		line := d.UUID + "  " + d.Model + ", " + deviceText(d, view.Used)
		if d.Partitioned {
			line += ", partitioned"
		}
		if !d.Healthy {
			line += ", unhealthy"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}
