package operate

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/internal/fault"
)

func (a app) completeCoordinators() cobra.CompletionFunc {
	return a.Complete(func(ctx context.Context, c *client.Client) []string {
		info, _ := c.Info(ctx)
		ids := make([]string, len(info.Coordinators))
		for i, m := range info.Coordinators {
			ids[i] = cobra.CompletionWithDesc(m.ID, m.Address)
		}
		return ids
	})
}

func (a app) membersCommand() *cobra.Command {
	var wait int
	command := &cobra.Command{
		Use: "members", Short: "Show each coordinator: who votes, who leads, its version, how far its log is",
		Example: "  clary cluster members\n  clary cluster members --wait 3\n  clary cluster members -o json", Args: shell.Takes(),
		RunE: a.With(func(ctx context.Context, c *client.Client, _ []string) error {
			members, err := a.awaitCoordinators(ctx, c, func(members []client.Member) string {
				if wait == 0 {
					return ""
				}
				return missing(members, wait)
			})
			if err != nil {
				return err
			}
			return a.Print(members, func(out io.Writer) error {
				rows := make([][]string, len(members))
				for i, m := range members {
					rows[i] = []string{m.ID, m.Address, roleOf(m), shell.Word(m.Alive, "alive", "silent"), m.Version, behindText(m), m.Problem}
				}
				if err := shell.Table(out, []string{"coordinator", "address", "role", "state", "version", "log", "problem"}, rows); err != nil {
					return err
				}
				return a.advise(members)
			})
		}),
	}
	command.Flags().IntVarP(&wait, "wait", "w", 0, "wait until so many vote, and all answer and are up to date: between two restarts")
	return command
}

// caughtUp is by how many entries the log of a coordinator that is up to date may be behind, while others are added: so many
// may be missing of one that gets its vote, too.
const caughtUp = 256

// missing says what is not yet as it is when so many coordinators vote and one of them may be restarted; "" if it is.
func missing(members []client.Member, want int) string {
	voters := 0
	for _, m := range members {
		switch {
		case !m.Alive:
			return fmt.Sprintf("%s does not answer", m.ID)
		case !m.Voter:
			return fmt.Sprintf("%s has no vote yet: %s", m.ID, behindText(m))
		case m.Behind > caughtUp:
			return fmt.Sprintf("%s is %s", m.ID, behindText(m))
		}
		voters++
	}
	if voters < want {
		return fmt.Sprintf("%d of %d vote", voters, want)
	}
	return ""
}

func roleOf(m client.Member) string {
	switch {
	case m.Leader:
		return "leader"
	case m.Voter:
		return "votes"
	}
	return "catching up"
}

func behindText(m client.Member) string {
	switch {
	case !m.Alive:
		return ""
	case m.Behind == 0:
		return "up to date"
	}
	return fmt.Sprintf("%d behind", m.Behind)
}

// advise says how many coordinators may fail, if that is not what one would expect.
func (a app) advise(members []client.Member) error {
	voters, alive := 0, 0
	for _, m := range members {
		if m.Voter {
			voters++
		}
		if m.Voter && m.Alive {
			alive++
		}
	}
	spare := alive - (voters/2 + 1)
	switch {
	case spare < 0:
		a.Note("\nclary: %d of %d voters answer, which is no majority: nothing can be changed until more do", alive, voters)
	case spare == 0 && voters > 1:
		a.Note("\nclary: none of them may fail now%s", shell.Word(voters == 2, ": add a third with clary cluster add ID", ""))
	case voters%2 == 0:
		a.Note("\nclary: %d voters bear no more failures than %d", voters, voters-1)
	}
	return nil
}

func (a app) addCoordinatorCommand() *cobra.Command {
	var address, path string
	var wait bool
	command := &cobra.Command{
		Use:   "add ID",
		Short: "Make a join token for another coordinator and print what to run on its machine",
		Long: "Make a join token for another coordinator and print what to run on its machine. It gets the log first, and\n" +
			"votes as soon as it has caught up. Three coordinators go on when one fails, five when two do; add one at a time.",
		Example: "  clary cluster add d\n  clary cluster add d --address 10.0.0.4:7420 --wait\n  clary cluster add d --token-file d.token",
		Args:    shell.Takes("ID"),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			return a.addCoordinator(ctx, c, addition{id: args[0], address: address, path: path, wait: wait})
		}),
	}
	flags := command.Flags()
	flags.StringVar(&address, "address", "", "host:port at which the others will reach it (default: found out there)")
	flags.StringVar(&path, "token-file", "", "write the token to this file (0600) and do not show it: copy the file to the machine")
	flags.BoolVarP(&wait, "wait", "w", false, "wait until it votes")
	return command
}

// addition is a coordinator that is to come.
type addition struct {
	id, address, path string
	wait              bool
}

func (a app) addCoordinator(ctx context.Context, c *client.Client, n addition) error {
	var p cluster.Problems
	if cluster.CheckName(&p, "ID", n.id); p.Err() != nil {
		return fault.New(fault.Invalid, "%w", p)
	}
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(info.Coordinators, func(m client.Coordinator) bool { return m.ID == n.id }) {
		return fault.New(fault.Conflict, "ID: there is a coordinator %s already: choose another, or remove that one first with clary cluster remove %s", n.id, n.id)
	}
	token, secret, err := c.CreateToken(ctx, cluster.TokenJoin, "", cluster.RoleCoordinator, 0)
	if err != nil {
		return err
	}
	file := cmp.Or(n.path, n.id+".token")
	value := struct {
		ID      string          `json:"id"`
		Token   shell.TokenJSON `json:"token"`
		Command string          `json:"command"`
	}{n.id, shell.TokenToJSON(token), joinCommand(info, n, file)}
	if n.path == "" {
		value.Token.Secret = secret
	} else if err := atomicfile.Write(n.path, []byte(secret+"\n"), 0o600); err != nil {
		return fault.New(fault.Invalid, "the token %s was made but %s cannot be written: %w: revoke it and try again", token.ID, n.path, err)
	}
	err = a.Print(value, func(out io.Writer) error {
		fmt.Fprintf(out, "On the new machine, within %s:\n\n", shell.Span(time.Until(time.Unix(0, token.Expires)).Round(time.Minute)))
		if n.path == "" {
			fmt.Fprintf(out, "  (umask 077; echo %s >%s)\n", secret, file)
		}
		_, err := fmt.Fprintf(out, "  %s\n", value.Command)
		return err
	})
	if err != nil || !n.wait {
		return err
	}
	return a.awaitVoter(ctx, c, n.id)
}

// joinCommand is what to run on the new machine.
func joinCommand(info client.Info, n addition, file string) string {
	parts := []string{"clary server --id " + n.id}
	if n.address != "" {
		parts = append(parts, "--listen "+n.address)
	}
	return strings.Join(append(parts, "--join "+door(info), "--token-file "+file), " ")
}

// door is where somebody may join: at the leader, or at whoever is there.
func door(info client.Info) string {
	address := ""
	for _, m := range info.Coordinators {
		if m.Leader || m.Alive && address == "" {
			address = m.Address
		}
	}
	return address
}

// awaitVoter waits until a coordinator votes, and says how far it is.
func (a app) awaitVoter(ctx context.Context, c *client.Client, id string) error {
	_, err := a.awaitCoordinators(ctx, c, func(members []client.Member) string {
		for _, m := range members {
			switch {
			case m.ID == id && m.Voter:
				return ""
			case m.ID == id:
				return "it has joined, and is " + behindText(m)
			}
		}
		return "waiting for it to join"
	})
	if err == nil {
		a.Note("clary: %s votes", id)
	}
	return err
}

// awaitCoordinators asks for the coordinators until nothing is missing, and says what is.
func (a app) awaitCoordinators(ctx context.Context, c *client.Client, missing func([]client.Member) string) ([]client.Member, error) {
	clock := time.NewTicker(time.Second)
	defer clock.Stop()
	for said := ""; ; {
		members, _, err := c.Members(ctx)
		if err != nil {
			return nil, err
		}
		now := missing(members)
		if now == "" {
			return members, nil
		}
		if now != said {
			a.Note("clary: %s", now)
			said = now
		}
		select {
		case <-clock.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (a app) removeCoordinatorCommand() *cobra.Command {
	var force, yes bool
	command := &cobra.Command{
		Use:   "remove ID",
		Short: "Take a coordinator out of the cluster for good",
		Long: "Take a coordinator out of the cluster for good, running or not. One that runs stops by itself; its data folder is\n" +
			"worth nothing afterwards, and the machine can join anew. What would cost the cluster its majority or its objects is\n" +
			"refused with what it means, unless it is forced. A leader hands over first. It revokes nothing: a machine that was\n" +
			"stolen is shut out with clary nodes revoke ID --coordinator, before or after.",
		Example: "  clary cluster remove c\n  clary cluster remove c --yes",
		Args:    shell.Takes("ID"), ValidArgsFunction: a.completeCoordinators(),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			if err := a.Confirm(ctx, yes, "Remove coordinator "+args[0]+" for good"); err != nil {
				return err
			}
			accepted, err := c.RemoveCoordinator(ctx, args[0], force)
			if err != nil {
				return err
			}
			value := struct {
				ID       string   `json:"id"`
				Accepted []string `json:"accepted,omitempty"` // what was forced
			}{args[0], accepted}
			return a.Print(value, func(out io.Writer) error {
				for _, what := range accepted {
					a.Note("clary: accepted: %s", what)
				}
				_, err := fmt.Fprintln(out, removed(args[0]))
				return err
			})
		}),
	}
	command.Flags().BoolVar(&force, "force", false, "accept what it is refused for")
	command.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return command
}

// removed is what is said of a coordinator that was taken out: it is none any more, and yet holds all of the cluster's keys.
func removed(id string) string {
	return id + " is no coordinator any more; delete its data folder, which has all keys of the cluster in it.\n" +
		"If somebody else may have that, removing is not enough: clary nodes revoke " + id + " --coordinator --reason stolen,\n" +
		"then clary keys rotate ca --wait, and the same with gossip and data"
}

func (a app) transferCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "transfer [ID]",
		Short:   "Have another coordinator lead, and wait until it does",
		Example: "  clary cluster transfer\n  clary cluster transfer b",
		Args:    shell.Takes("[ID]"), ValidArgsFunction: a.completeCoordinators(),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			to := ""
			if len(args) == 1 {
				to = args[0]
			}
			leader, err := c.Transfer(ctx, to)
			if err != nil {
				return err
			}
			value := struct {
				Leader string `json:"leader"`
			}{leader}
			return a.Print(value, func(out io.Writer) error {
				_, err := fmt.Fprintf(out, "%s leads\n", leader)
				return err
			})
		}),
	}
}

func (a app) upgradeStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "upgrade-status",
		Short: "Show each coordinator's version, and what waits until all are upgraded",
		Long: "Show each coordinator's version, and what waits until all are upgraded. While coordinators of two versions run,\n" +
			"everything that the older one cannot read is refused. When all know a newer format it comes into force by itself, and\n" +
			"from then on older versions cannot take part any more.",
		Example: "  clary cluster upgrade-status", Args: shell.Takes(),
		RunE: a.With(func(ctx context.Context, c *client.Client, _ []string) error {
			members, formats, err := c.Members(ctx)
			if err != nil {
				return err
			}
			value := struct {
				client.Formats
				Members []client.Member `json:"members"`
			}{formats, members}
			return a.Print(value, func(out io.Writer) error { return showUpgrade(out, formats, members) })
		}),
	}
}

func showUpgrade(out io.Writer, formats client.Formats, members []client.Member) error {
	inForce := fmt.Sprintf("%d, the newest", formats.InForce)
	if formats.InForce != formats.Newest {
		inForce = fmt.Sprintf("%d of %d", formats.InForce, formats.Newest)
	}
	if err := shell.Fields(out, "format", inForce, "held back", formats.HeldBack); err != nil {
		return err
	}
	for _, held := range formats.Waiting {
		fmt.Fprintf(out, "  refused until format %d: %s\n", held.Format, held.What)
	}
	rows := make([][]string, len(members))
	for i, m := range members {
		knows := fmt.Sprint(m.Format)
		if !m.Alive {
			knows = ""
		}
		rows[i] = []string{m.ID, cmp.Or(m.Version, shell.Word(m.Alive, "an earlier one", "")), knows, shell.Word(m.Alive, "alive", "silent"), m.Problem}
	}
	fmt.Fprintln(out)
	return shell.Table(out, []string{"coordinator", "version", "knows format", "state", "problem"}, rows)
}
