package operate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
)

// nodeState is a node's state as people read it: one that is drained and keeps what runs is cordoned.
func nodeState(n cluster.Node) string {
	switch {
	case n.State != cluster.NodeDraining:
		return string(n.State)
	case !n.Empties:
		return "cordoned"
	case n.Deadline != 0:
		return "draining until " + time.Unix(0, n.Deadline).Format("15:04:05")
	}
	return string(n.State)
}

func (a app) cordonCommand() *cobra.Command {
	var reason string
	command := a.changeNode("cordon", "Give a node nothing new; what runs there goes on", "%s gets nothing new; clary nodes uncordon takes it back",
		func(ctx context.Context, c *client.Client, id string) (cluster.Node, error) {
			return c.Drain(ctx, id, reason)
		})
	command.Example = "  clary nodes cordon a --reason 'noisy fan'"
	command.Flags().StringVar(&reason, "reason", "", "why, for those who look at the node later")
	return command
}

func (a app) uncordonCommand() *cobra.Command {
	command := a.changeNode("uncordon", "Take a cordoned or drained node back", "%s is ready",
		func(ctx context.Context, c *client.Client, id string) (cluster.Node, error) { return c.Resume(ctx, id) })
	command.Aliases = []string{"resume"}
	return command
}

// drainFlags are how a node is emptied.
type drainFlags struct {
	reason, deadline string
	move, wait       bool
}

func (a app) drainCommand() *cobra.Command {
	var f drainFlags
	command := a.changeNode("drain", "Empty a node: what can move does, the rest ends by itself or at a deadline", "%s gets nothing new; clary nodes uncordon takes it back",
		func(ctx context.Context, c *client.Client, id string) (cluster.Node, error) {
			node, err := f.start(ctx, c, id)
			if err == nil && f.wait {
				err = a.awaitEmpty(ctx, c, id)
			}
			return node, err
		})
	command.Long = "Empty a node: it gets nothing new, and what loses nothing by it starts again elsewhere, which costs its job no retry:\n" +
		"replicas of endpoints, jobs with checkpoints, and what has not begun. The rest is waited for; at the deadline it is\n" +
		"asked to end too, with its job's grace. Progress is shown until the node is empty; Ctrl-C only stops looking."
	command.Example = "  clary nodes drain a --deadline 10m --reason 'new disk'\n  clary nodes drain a --move\n  clary nodes drain a --wait=false"
	flags := command.Flags()
	flags.StringVar(&f.reason, "reason", "", "why, for those who look at the node later")
	flags.StringVar(&f.deadline, "deadline", "", "how long what cannot move may go on, e.g. 10m, 2h (default: until it has ended)")
	flags.BoolVar(&f.move, "move", false, "everything ends and starts again elsewhere now: a deadline of 0")
	flags.BoolVarP(&f.wait, "wait", "w", true, "wait until nothing runs there any more")
	command.MarkFlagsMutuallyExclusive("deadline", "move")
	return command
}

func (f drainFlags) start(ctx context.Context, c *client.Client, id string) (cluster.Node, error) {
	if f.move {
		return c.Empty(ctx, id, f.reason)
	}
	var at time.Time
	if f.deadline != "" {
		after, err := quantity.ParseDuration(f.deadline)
		if err != nil {
			return cluster.Node{}, fault.New(fault.Invalid, "--deadline: %w", err)
		}
		if after < 0 {
			return cluster.Node{}, fault.New(fault.Invalid, "--deadline: %s is over already: name how long from now, as in 10m", f.deadline)
		}
		now, err := clusterTime(ctx, c)
		if err != nil {
			return cluster.Node{}, err
		}
		at = now.Add(after.Std())
	}
	return c.DrainBy(ctx, id, f.reason, at)
}

// clusterTime is what the cluster's clock shows: an instant that it is told must not be judged by another's, which may be wrong.
func clusterTime(ctx context.Context, c *client.Client) (time.Time, error) {
	info, err := c.Info(ctx)
	if err == nil && info.Now.IsZero() { // of an earlier version
		info.Now = time.Now()
	}
	return info.Now, err
}

// emptyEvery is how often it is looked whether a node is empty.
const emptyEvery = time.Second

// awaitEmpty waits until a node has no task, and says which are left.
func (a app) awaitEmpty(ctx context.Context, c *client.Client, id string) error {
	clock := time.NewTicker(emptyEvery)
	defer clock.Stop()
	left := 0
	for said := ""; ; {
		view, err := c.Node(ctx, id)
		if ctx.Err() != nil {
			return a.leaveDraining(ctx.Err(), id, left)
		}
		if err != nil || len(view.Tasks) == 0 {
			return err
		}
		if view.Node.State == cluster.NodeReady {
			return fault.New(fault.Conflict, "%s was taken back meanwhile, with %d tasks on it: clary audit --what nodes says by whom", id, len(view.Tasks))
		}
		left = len(view.Tasks)
		if now := stillThere(view); now != said {
			said = now
			a.Note("clary: %s", now)
		}
		select {
		case <-clock.C:
		case <-ctx.Done():
			return a.leaveDraining(ctx.Err(), id, left)
		}
	}
}

func (a app) leaveDraining(err error, id string, left int) error {
	if errors.Is(err, context.Canceled) {
		a.Note("clary: %s goes on being drained, %d tasks are left: clary nodes %s shows it, clary nodes uncordon %s takes it back", id, left, id, id)
	}
	return err
}

// shownTasks are how many of the tasks that are left are named.
const shownTasks = 3

// stillThere says what is left on a node that is drained.
func stillThere(view client.NodeView) string {
	names := strings.Join(view.Tasks[:min(len(view.Tasks), shownTasks)], ", ")
	if more := len(view.Tasks) - shownTasks; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	text := fmt.Sprintf("%d tasks are left on %s: %s", len(view.Tasks), view.Node.ID, names)
	if view.Node.Deadline != 0 {
		text += "; they are ended at " + time.Unix(0, view.Node.Deadline).Format("15:04:05")
	}
	return text
}
