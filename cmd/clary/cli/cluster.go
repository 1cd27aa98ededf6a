package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/version"
)

func (a *App) nodesCommand() *cobra.Command {
	var stale bool
	command := &cobra.Command{
		Use:     "nodes [NODE]",
		Aliases: []string{"node"},
		Short:   "List nodes and what they have left, or show one",
		Example: "  clary nodes\n  clary nodes a -o yaml\n  clary nodes drain a --deadline 10m --reason 'new disk'",
		Args:    takes("[NODE]"), ValidArgsFunction: a.completeNodes(),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			if len(args) == 1 {
				view, err := c.Node(ctx, args[0], client.ReadOption(stale))
				if err != nil {
					return err
				}
				return a.print(nodeToJSON(view), func(out io.Writer) error { return showNode(out, view) })
			}
			return a.listNodes(ctx, c, client.ReadOption(stale))
		}),
	}
	staleFlag(command, &stale)
	command.AddCommand(a.drainCommand(), a.cordonCommand(), a.uncordonCommand(), a.taintCommand(), a.removeCommand(), a.revokeNodeCommand())
	return command
}

func (a *App) listNodes(ctx context.Context, c *client.Client, read client.ReadOption) error {
	views, err := c.Nodes(ctx, read)
	if err != nil {
		return err
	}
	list := make([]nodeJSON, len(views))
	rows := make([][]string, len(views))
	for i, view := range views {
		list[i] = nodeToJSON(view)
		n := view.Node
		rows[i] = []string{
			n.ID, nodeState(n), fmt.Sprintf("%g of %g", list[i].Cores.Used, list[i].Cores.Total),
			cluster.FormatBytes(view.Used.Memory) + " of " + cluster.FormatBytes(n.Memory), gpuText(view),
			strconv.Itoa(len(view.Tasks)), n.Address, cmp.Or(n.Reason, taintText(n.Taints)),
		}
	}
	return a.print(list, func(out io.Writer) error {
		if len(views) == 0 {
			a.note("no nodes: start an agent with clary agent --join TOKEN on a machine that shall run jobs")
			return nil
		}
		return table(out, []string{"node", "state", "cores used", "memory used", "gpus used", "tasks", "address", "reason"}, rows)
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
	for _, model := range sortedKeys(models) {
		texts = append(texts, fmt.Sprintf("%d %s", models[model], model))
	}
	return usedGPUs(view) + " of " + strings.Join(texts, ", ")
}

func showNode(out io.Writer, view client.NodeView) error {
	n := view.Node
	return fields(
		out,
		"node", n.ID, "state", nodeState(n), "reason", n.Reason, "address", n.Address, "version", n.Version,
		"cores", fmt.Sprintf("%g of %g used", float64(view.Used.MilliCPU)/1000, float64(n.MilliCPU)/1000),
		"memory", cluster.FormatBytes(view.Used.Memory)+" of "+cluster.FormatBytes(n.Memory)+" used",
		"disk", cluster.FormatBytes(n.Disk)+" free", "gpus", gpuText(view), "labels", labelText(n.Labels), "taints", taintText(n.Taints),
		"devices", devicesText(view), "cached", cachedText(n.Cached),
		"joined", suffixed(ago(n.Joined), " ago"), "tasks", strings.Join(view.Tasks, "\n"),
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
func (a *App) changeNode(use, short, said string, do func(context.Context, *client.Client, string) (cluster.Node, error)) *cobra.Command {
	return &cobra.Command{
		Use: use + " NODE", Short: short, Example: "  clary nodes " + use + " a",
		Args: takes("NODE"), ValidArgsFunction: a.completeNodes(),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			node, err := do(ctx, c, args[0])
			if err != nil {
				return err
			}
			return a.print(nodeToJSON(client.NodeView{Node: node}), func(out io.Writer) error {
				_, err := fmt.Fprintf(out, said+"\n", args[0])
				return err
			})
		}),
	}
}

func (a *App) removeCommand() *cobra.Command {
	return a.changeNode("remove", "Forget a lost node for good", forgotten,
		func(ctx context.Context, c *client.Client, id string) (cluster.Node, error) {
			return cluster.Node{ID: id}, c.RemoveNode(ctx, id)
		})
}

// forgotten is what is said of a node that was removed: its certificate is as good as before.
const forgotten = "%[1]s is forgotten. It is a node again if its agent comes back: a machine that was stolen is shut out with\n" +
	"clary nodes revoke %[1]s, while it is on the list"

func (a *App) clusterCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "cluster",
		Aliases: []string{"info"},
		Short:   "Show the coordinators, who leads, and who you are",
		Long:    "Show the coordinators, who leads, and who you are. Coordinators that the context does not know yet are\nadded to it, so that commands reach the cluster when the others are gone.",
		Example: "  clary cluster\n  clary cluster members\n  clary cluster add d",
		Args:    takes(),
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			info, err := c.Info(ctx)
			if err != nil {
				return err
			}
			who, err := c.WhoAmI(ctx)
			if err != nil {
				return err
			}
			if err := a.learn(info); err != nil {
				return err
			}
			value := struct {
				client.Info
				You client.Identity `json:"you"`
			}{info, who}
			return a.print(value, func(out io.Writer) error {
				if err := fields(out, "you", who.Name+" ("+who.Role+")", "version", info.Version, "ca pin", info.CAPin, "revision", strconv.FormatUint(info.Revision, 10)); err != nil {
					return err
				}
				rows := make([][]string, len(info.Coordinators))
				for i, m := range info.Coordinators {
					rows[i] = []string{m.ID, m.Address, word(m.Leader, "leader", "follower"), word(m.Alive, "alive", "not seen"), word(m.Voter, "yes", "no")}
				}
				fmt.Fprintln(out)
				return table(out, []string{"coordinator", "address", "role", "state", "votes"}, rows)
			})
		}),
	}
	command.AddCommand(a.membersCommand(), a.addCoordinatorCommand(), a.removeCoordinatorCommand(), a.transferCommand(), a.upgradeStatusCommand(), a.snapshotCommand(), a.backupCommand(), a.restoreCommand(), a.recoverCommand())
	return command
}

func word(condition bool, yes, no string) string {
	if condition {
		return yes
	}
	return no
}

func (a *App) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this binary",
		Example: "  clary version -o json",
		Args:    takes(),
		RunE: func(*cobra.Command, []string) error {
			if err := a.checkFormat(); err != nil {
				return err
			}
			value := struct {
				Version  string `json:"version"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
			}{version.String(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return a.print(value, func(out io.Writer) error {
				_, err := fmt.Fprintf(out, "clary %s (%s, %s)\n", value.Version, value.Go, value.Platform)
				return err
			})
		},
	}
}
