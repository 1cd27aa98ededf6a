package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
)

func (a app) keysCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "keys",
		Short: "Show the cluster's keys, and replace them while it runs",
		Long: "Show the cluster's keys and which of them each member goes by, and replace them while the cluster runs. No key\n" +
			"is ever shown. Users' tokens are replaced with clary token rotate, members are shut out with clary nodes revoke.",
		Example: "  clary keys show\n  clary keys rotate ca\n  clary keys rotate gossip --wait",
		Args:    shell.Takes(),
		RunE:    func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	show := &cobra.Command{
		Use: "show", Short: "Show which keys are in force, and which each member goes by", Example: "  clary keys show -o json", Args: shell.Takes(),
		RunE: a.With(func(ctx context.Context, c *client.Client, _ []string) error {
			keys, err := c.Keys(ctx)
			if err != nil {
				return err
			}
			return a.showKeys(keys)
		}),
	}
	command.AddCommand(show, a.rotateKeysCommand())
	return command
}

type keysJSON struct {
	client.Keys
	Revoked []revocationJSON `json:"revoked"`
}

type revocationJSON struct {
	Role     string `json:"role"`
	ID       string `json:"id"`
	Reason   string `json:"reason"`
	By       string `json:"by"`
	At       string `json:"at"`
	Rejoined bool   `json:"rejoined"` // with another key
}

func revocationToJSON(r cluster.Revocation) revocationJSON {
	return revocationJSON{r.Role, r.ID, r.Reason, r.By, shell.Moment(r.At), r.Admitted != ""}
}

func (a app) showKeys(keys client.Keys) error {
	value := keysJSON{Keys: keys, Revoked: []revocationJSON{}}
	for _, r := range keys.Revoked {
		value.Revoked = append(value.Revoked, revocationToJSON(r))
	}
	return a.Print(value, func(out io.Writer) error {
		goes := "nothing"
		if keys.Rotates != "" {
			goes = string(keys.Rotates) + ", in the phase " + string(keys.Phase) + ", by " + keys.By
		}
		if err := shell.Fields(out, "rotates", goes, "generation", strconv.FormatUint(keys.Generation, 10)); err != nil {
			return err
		}
		var rows [][]string
		for _, ca := range keys.CAs {
			rows = append(rows, []string{ca.Pin, shell.Word(ca.Signs, "signs", "is trusted"), shell.Date(ca.NotAfter.UnixNano())})
		}
		fmt.Fprintln(out)
		if err := shell.Table(out, []string{"ca", "use", "ends"}, rows); err != nil {
			return err
		}
		rows = nil
		for _, m := range keys.Members {
			ends := ""
			if !m.NotAfter.IsZero() {
				ends = shell.Date(m.NotAfter.UnixNano())
			}
			rows = append(rows, []string{m.Role, m.ID, memberKeys(m), shortPin(m.CAPin), ends})
		}
		fmt.Fprintln(out)
		if err := shell.Table(out, []string{"role", "member", "keys", "ca", "certificate ends"}, rows); err != nil || len(value.Revoked) == 0 {
			return err
		}
		rows = nil
		for _, r := range keys.Revoked {
			rows = append(rows, []string{r.Role, r.ID, shell.Date(r.At), r.By, shell.Word(r.Admitted != "", "joined anew", "is shut out"), r.Reason})
		}
		fmt.Fprintln(out)
		return shell.Table(out, []string{"role", "revoked", "at", "by", "state", "reason"}, rows)
	})
}

// memberKeys says how far a member is.
func memberKeys(m client.MemberKeys) string {
	switch {
	case m.Problem != "":
		return m.Problem
	case m.Confirmed:
		return "up to date"
	case m.TasksBehind > 0:
		return fmt.Sprintf("behind: %d of its tasks have certificates from before", m.TasksBehind)
	}
	return "behind"
}

// shortPin is enough of a pin to tell two apart.
func shortPin(pin string) string { return pin[:min(len(pin), len("sha256:")+12)] }

func (a app) rotateKeysCommand() *cobra.Command {
	var r rotation
	command := &cobra.Command{
		Use:   "rotate ca|gossip|data",
		Short: "Replace the CA, gossip's key, or the key that secrets are sealed with",
		Long: "Replace a key while the cluster runs, in three phases: add makes a new one that everybody knows, use has it\n" +
			"used, drop forgets the old one. Each phase begins when every member is through with the one before.\n\n" +
			"Without --phase it goes on from where the rotation is. The old CA is not dropped unless --wait says so: contexts of\n" +
			"clary login learn of the new one with the first command in between, and those that run none, like join tokens from\n" +
			"before, are refused afterwards.",
		Example: "  clary keys rotate ca\n  clary keys rotate ca --phase drop --yes\n  clary keys rotate gossip\n  clary keys rotate ca --phase cancel",
		Args:    shell.Takes("KEY"), ValidArgs: rotated,
	}
	flags := command.Flags()
	flags.StringVar(&r.phase, "phase", "", "take this one step: add, use, drop, or cancel after add")
	flags.BoolVarP(&r.wait, "wait", "w", false, "drop the old key as well, once every member uses the new one")
	flags.BoolVar(&r.force, "force", false, "with --phase: do not wait for members that are behind; some may have to join anew")
	flags.BoolVarP(&r.yes, "yes", "y", false, "do not ask")
	flags.DurationVar(&r.limit, "timeout", 5*time.Minute, "how long members may take for each phase")
	command.RunE = func(command *cobra.Command, args []string) error {
		switch {
		case !slices.Contains(rotated, args[0]):
			return shell.Usage(command, "%q cannot be rotated: ca, gossip or data can", args[0])
		case r.phase != "" && !slices.Contains(rotationSteps, r.phase):
			return shell.Usage(command, "--phase: %q is no step: add, use, drop or cancel", r.phase)
		case r.force && r.phase == "":
			return shell.Usage(command, "--force goes with --phase: say which step is to be taken without those who are behind")
		}
		r.what = cluster.Rotation(args[0])
		return a.With(func(ctx context.Context, c *client.Client, _ []string) error {
			if err := a.confirmRotation(ctx, c, r); err != nil {
				return err
			}
			if r.phase == "" {
				return a.rotate(ctx, c, r)
			}
			keys, err := c.RotateKeys(ctx, r.what, cluster.Phase(r.phase), r.force)
			if err != nil {
				return err
			}
			return errors.Join(a.PinSigner(keys), a.showKeys(keys))
		})(command, args)
	}
	return command
}

// What can be rotated, and the steps of that.
var (
	rotated       = []string{string(cluster.RotateCA), string(cluster.RotateGossip), string(cluster.RotateData)}
	rotationSteps = []string{string(cluster.PhaseAdd), string(cluster.PhaseUse), string(cluster.StepDrop), string(cluster.StepAbort)}
)

// rotation is what of a rotation was asked for.
type rotation struct {
	what             cluster.Rotation
	phase            string
	wait, force, yes bool
	limit            time.Duration
}

// confirmRotation asks before what shuts somebody out.
func (a app) confirmRotation(ctx context.Context, c *client.Client, r rotation) error {
	if r.force && !r.yes {
		keys, err := c.Keys(ctx)
		if err != nil {
			return err
		}
		var behind []string
		for _, m := range keys.Members {
			if !m.Confirmed {
				behind = append(behind, m.Role+" "+m.ID)
			}
		}
		if len(behind) > 0 {
			return a.Confirm(ctx, false, "Go on without "+strings.Join(behind, ", ")+", which may have to join anew")
		}
	}
	if r.what == cluster.RotateCA && (r.wait && r.phase == "" || r.phase == string(cluster.StepDrop)) {
		return a.Confirm(ctx, r.yes, "Drop the old CA: contexts that have run no command since the new one signs, and join tokens from before, are refused from then on")
	}
	return nil
}

// rotate walks through the phases of a rotation from where it is.
func (a app) rotate(ctx context.Context, c *client.Client, r rotation) error {
	steps := []cluster.Phase{cluster.PhaseAdd, cluster.PhaseUse, cluster.StepDrop}
	if r.what == cluster.RotateCA && !r.wait {
		steps = steps[:2]
	}
	keys, err := c.Keys(ctx)
	if err != nil {
		return err
	}
	if keys.Rotates == r.what && keys.Phase != "" {
		steps = steps[slices.Index(steps, keys.Phase)+1:]
	}
	for _, step := range steps {
		if keys, err = a.awaitMembers(ctx, c, r.limit); err != nil {
			return err
		}
		if keys, err = c.RotateKeys(ctx, r.what, step, false); err != nil {
			return err
		}
		if err := a.PinSigner(keys); err != nil {
			return err
		}
		a.Note("clary: %s: %s", r.what, step)
	}
	if keys, err = a.awaitMembers(ctx, c, r.limit); err != nil {
		return err
	}
	if keys.Rotates == cluster.RotateCA {
		a.Note("clary: the new CA signs, and every member's certificate comes from it; the old one is still trusted. Drop it with\n" +
			"clary keys rotate ca --phase drop once all users have run a command (their contexts learn of the new CA by that).")
	}
	return a.showKeys(keys)
}

// confirmEvery is how often members are asked how far they are.
const confirmEvery = time.Second

// awaitMembers waits until every member is through with the phase that the cluster is in.
func (a app) awaitMembers(ctx context.Context, c *client.Client, limit time.Duration) (client.Keys, error) {
	clock := time.NewTicker(confirmEvery)
	defer clock.Stop()
	said, until := "", time.Now().Add(limit)
	for {
		keys, err := c.Keys(ctx)
		if err != nil {
			return keys, err
		}
		late := ""
		for _, m := range keys.Members {
			if !m.Confirmed {
				late = fmt.Sprintf("%s %s: %s", m.Role, m.ID, memberKeys(m))
				break
			}
		}
		if late == "" {
			return keys, nil
		}
		if time.Now().After(until) {
			return keys, fault.New(fault.Unready, "the rotation stops here, and goes on when it is asked for again: %s: start it, or remove it from the cluster, or take the next step with --phase and --force", late)
		}
		if late != said {
			said = late
			a.Note("clary: waiting for %s", late)
		}
		select {
		case <-clock.C:
		case <-ctx.Done():
			return keys, ctx.Err()
		}
	}
}

func (a app) revokeNodeCommand() *cobra.Command {
	var reason string
	var coordinator, force, yes bool
	command := &cobra.Command{
		Use:   "revoke NODE",
		Short: "Shut a node out at once: nobody believes its certificate any more",
		Long: "Shut a node out at once: nobody believes its certificate any more, connections with it are closed, and what runs\n" +
			"there counts as lost and starts again elsewhere. It comes back only by joining anew, with an empty data folder and\n" +
			"a new token. It still knows gossip's key: clary keys rotate gossip takes that from it.",
		Example: "  clary nodes revoke a --reason 'stolen from the rack' --yes\n  clary nodes revoke c3 --coordinator --reason 'key leaked' --yes",
		Args:    shell.Takes("NODE"), ValidArgsFunction: a.CompleteNodes(),
	}
	flags := command.Flags()
	flags.StringVar(&reason, "reason", "", "why, for all who ask what became of it")
	flags.BoolVar(&coordinator, "coordinator", false, "NODE is a coordinator: it leaves the quorum, too")
	flags.BoolVar(&force, "force", false, "with --coordinator: though the cluster stops deciding without it, or its objects go with it")
	flags.BoolVarP(&yes, "yes", "y", false, "do not ask")
	command.RunE = func(command *cobra.Command, args []string) error {
		if reason == "" {
			return shell.Usage(command, "--reason is missing: say why, for all who ask what became of the node")
		}
		role := cluster.RoleAgent
		if coordinator {
			role = cluster.RoleCoordinator
		}
		return a.With(func(ctx context.Context, c *client.Client, args []string) error {
			if err := a.Confirm(ctx, yes, "Shut "+role+" "+args[0]+" out: what runs there is lost, and it has to join anew"); err != nil {
				return err
			}
			revoked, err := c.Revoke(ctx, role, args[0], reason, force)
			if err != nil {
				return err
			}
			return a.Print(revocationToJSON(revoked), func(out io.Writer) error {
				_, err := fmt.Fprintf(out, "%s is shut out; clary keys rotate gossip takes gossip's key from it\n", revoked.ID)
				return err
			})
		})(command, args)
	}
	return command
}
