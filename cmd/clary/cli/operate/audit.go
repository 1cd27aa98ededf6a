package operate

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
)

// deedJSON is an entry of the audit with the API's names.
type deedJSON struct {
	Time    string `json:"time"`
	User    string `json:"user"`
	Action  string `json:"action"`
	Object  string `json:"object,omitempty"`
	Task    string `json:"task,omitempty"`
	Node    string `json:"node,omitempty"`
	Detail  string `json:"detail,omitempty"`
	From    string `json:"from,omitempty"`
	Request string `json:"request,omitempty"`
	Outcome string `json:"outcome,omitempty"`
	Ended   string `json:"ended,omitempty"`
	Result  string `json:"result,omitempty"`
}

func deedToJSON(d cluster.Deed) deedJSON {
	return deedJSON{shell.Moment(d.Time), d.User, d.Action, d.Object, d.Task, d.Node, d.Detail, d.From, d.Request, d.Outcome, shell.Moment(d.Ended), d.Result}
}

func deedRow(d cluster.Deed) []string {
	return []string{
		shell.Date(d.Time), d.User, d.From, d.Action, cmp.Or(d.Task, brief(d.Object)), brief(cmp.Or(d.Detail, d.Result)), cmp.Or(d.Outcome, brief(d.Result)), d.Request,
	}
}

// deedLine is an entry by itself.
func deedLine(d cluster.Deed) string {
	cells := deedRow(d)
	for i, cell := range cells {
		cells[i] = cmp.Or(shell.OneLine(cell), "-")
	}
	return strings.Join(cells, "  ")
}

func (a app) auditCommand() *cobra.Command {
	var request client.AuditRequest
	var since string
	var follow bool
	command := &cobra.Command{
		Use:   "audit",
		Short: "List who did what: every change that was asked for, and how that ended",
		Long: "List who did what, oldest first: every request that changed something or was refused, and every exec, cp and\n" +
			"port-forward, with the address that it came from and its request id, which is in the coordinators' logs too.\n" +
			"What was in a request is not on record. The cluster remembers three months, and\n" +
			"100,000 at most, if clary settings say no other. It takes the role admin.",
		Example: "  clary audit --since 24h\n  clary audit --user ada --what nodes/drain\n  clary audit --since 7d --limit 0 -o json > audit.json\n  clary audit --follow",
		Args:    shell.Takes(),
	}
	flags := command.Flags()
	flags.StringVar(&since, "since", "", "only of so long ago and later, e.g. 2h, 7d")
	flags.StringVar(&request.User, "user", "", "only of this user")
	flags.StringVar(&request.Job, "job", "", "only of this job")
	flags.StringVar(&request.What, "what", "", "only of this action, like jobs/submit, or of its first word, like nodes")
	flags.BoolVarP(&follow, "follow", "f", false, "go on with what comes, until Ctrl-C; with -o json a line for each")
	flags.Int32Var(&request.Limit, "limit", 200, "the newest of them; 0 is all that there are")
	command.RunE = a.With(func(ctx context.Context, c *client.Client, _ []string) error {
		if since != "" {
			ago, err := quantity.ParseDuration(since)
			if err != nil {
				return fault.New(fault.Invalid, "--since: %w", err)
			}
			request.Since = time.Now().Add(-ago.Std())
		}
		if follow {
			return a.followAudit(ctx, c, request)
		}
		deeds, err := c.AuditAll(ctx, request)
		if err != nil {
			return err
		}
		list, rows := make([]deedJSON, len(deeds)), make([][]string, len(deeds))
		for i, d := range deeds {
			list[i], rows[i] = deedToJSON(d), deedRow(d)
		}
		return a.Print(list, func(out io.Writer) error {
			return shell.Table(out, []string{"time", "user", "from", "action", "of", "what", "outcome", "request"}, rows)
		})
	})
	return command
}

// followEvery is how often it is looked for new entries.
const followEvery = time.Second

// followAudit shows entries as they come: first those that were asked for, then what follows.
func (a app) followAudit(ctx context.Context, c *client.Client, request client.AuditRequest) error {
	if err := a.CheckFormat(); err != nil {
		return err
	}
	encoder := json.NewEncoder(a.Out)
	for {
		deeds, err := c.Audit(ctx, request)
		if ctx.Err() != nil {
			return nil // Ctrl-C is how it ends
		}
		if err != nil {
			return err
		}
		for _, d := range deeds {
			request.After, request.Limit = d.ID, 0
			if a.ForPeople() {
				_, err = fmt.Fprintln(a.Out, deedLine(d))
			} else {
				err = encoder.Encode(deedToJSON(d))
			}
			if err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followEvery):
		}
	}
}

// briefly is how much of a deed a table shows; -o json has it all.
const briefly = 72

func brief(text string) string {
	text = shell.OneLine(text)
	if runes := []rune(text); len(runes) > briefly {
		return string(runes[:briefly-1]) + "…"
	}
	return text
}
