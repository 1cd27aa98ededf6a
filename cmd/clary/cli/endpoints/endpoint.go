package endpoints

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
)

func (a app) endpointCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "endpoint",
		Short:   "See and change endpoints: names that answer while what is behind them changes",
		Long:    "See and change endpoints. clary deploy makes one, clary invoke asks it.",
		Example: "  clary endpoint status churn --watch\n  clary endpoint weights churn blue=90 green=10\n  clary endpoint rollback churn",
		Args:    shell.Takes(),
	}
	list := a.listEndpointsCommand("list", "clary endpoint list -o json")
	command.RunE = list.RunE
	command.AddCommand(list, a.endpointStatusCommand(), a.endpointHistoryCommand())
	command.AddCommand(a.endpointControls()...)
	return command
}

func (a app) endpointsCommand() *cobra.Command {
	return a.listEndpointsCommand("endpoints", "clary endpoints --owner ada")
}

func (a app) listEndpointsCommand(use, example string) *cobra.Command {
	var filter client.EndpointFilter
	command := &cobra.Command{Use: use, Short: "List endpoints with their variants, replicas and requests", Example: "  " + example, Args: shell.Takes()}
	flags := command.Flags()
	flags.StringVar(&filter.Owner, "owner", "", "only this user's")
	flags.BoolVar(&filter.Ended, "all", false, "also those that have ended")
	shell.StaleFlag(command, &filter.Stale)
	command.RunE = a.With(func(ctx context.Context, c *client.Client, _ []string) error {
		list, rows := []endpointJSON{}, [][]string{}
		for view, err := range c.Endpoints(ctx, filter) {
			if err != nil {
				return err
			}
			e := endpointToJSON(view)
			list = append(list, e)
			rows = append(rows, []string{
				e.Name, endpointState(view), e.Owner, strings.Join(variantTexts(e), " "), fmt.Sprintf("%d/%d", healthyOf(view, nil), wantedOf(view)),
				rateText(e.Requests, view.Known), shell.Ago(view.Job.Submitted), shell.Cut(view.Job.Reason, 60),
			})
		}
		return a.Print(list, func(out io.Writer) error {
			if len(list) == 0 {
				a.Note("no endpoints: make one with clary deploy MODEL")
				return nil
			}
			return shell.Table(out, []string{"name", "state", "owner", "variants", "healthy", "requests/s", "age", "reason"}, rows)
		})
	})
	return command
}

// endpointState is an endpoint's state in a word, its update included.
func endpointState(view client.EndpointView) string {
	if r := view.Endpoint.Rollout; r != nil && view.Job.State == cluster.JobRunning {
		return strings.ReplaceAll(string(r.Phase), "_", " ")
	}
	return shell.StateText(view.Job)
}

// variantTexts read like "blue=90%".
func variantTexts(e endpointJSON) []string {
	var names []string
	shares := map[string]float64{}
	for _, f := range e.Fleets {
		if f.Retired {
			continue
		}
		if _, seen := shares[f.Variant]; !seen {
			names = append(names, f.Variant)
		}
		shares[f.Variant] += f.Traffic
	}
	for i, name := range names {
		names[i] = name + "=" + percent(shares[name])
	}
	return names
}

func percent(share float64) string {
	return strconv.FormatFloat(100*share, 'g', 3, 64) + "%"
}

func rateText(perSecond float64, known bool) string {
	switch {
	case !known:
		return ""
	case perSecond >= 10 || perSecond == 0:
		return fmt.Sprintf("%.0f", perSecond)
	}
	return fmt.Sprintf("%.2g", perSecond)
}

// healthyOf counts healthy replicas of a fleet, or of all.
func healthyOf(view client.EndpointView, fleet *cluster.Fleet) int {
	n := 0
	for _, replica := range view.Replicas {
		if replica.State == client.ReplicaHealthy && (fleet == nil || replica.Variant == fleet.Variant && replica.Generation == fleet.Generation) {
			n++
		}
	}
	return n
}

func wantedOf(view client.EndpointView) int {
	n := 0
	for _, fleet := range view.Endpoint.Fleets {
		if !fleet.Retired {
			n += int(fleet.Replicas)
		}
	}
	return n
}

func (a app) endpointStatusCommand() *cobra.Command {
	var watch, stale bool
	command := &cobra.Command{
		Use:   "status NAME",
		Short: "Show an endpoint: variants, replicas, an update's step, requests, what happened and why",
		Long: "Show an endpoint: its variants with their share of the requests, and what routers saw of them over the last seconds;\n" +
			"its replicas, with what those wait for that have no room, and why those failed that did; an update in progress, and\n" +
			"what happened lately and why.",
		Example: "  clary endpoint status churn\n  clary endpoint status churn --watch\n  clary endpoint status churn -o json | jq .replicas",
		Args:    shell.Takes("NAME"), ValidArgsFunction: a.completeEndpoints(),
	}
	command.Flags().BoolVarP(&watch, "watch", "w", false, "show it again whenever it changes, until it has ended or Ctrl-C")
	shell.StaleFlag(command, &stale)
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		if watch {
			return a.followEndpoint(ctx, c, args[0])
		}
		view, err := c.Endpoint(ctx, args[0], client.ReadOption(stale))
		if err != nil {
			return err
		}
		return a.Print(endpointToJSON(view), func(out io.Writer) error { return showEndpoint(out, view, time.Now()) })
	})
	return command
}

// followEndpoint shows every view: on a terminal one over the other, elsewhere one after the other.
func (a app) followEndpoint(ctx context.Context, c *client.Client, name string) error {
	for view, err := range c.WatchEndpoint(ctx, name) {
		if err != nil {
			return err
		}
		if err := a.Print(endpointToJSON(view), func(out io.Writer) error {
			if a.OutTerminal {
				fmt.Fprint(out, "\x1b[H\x1b[2J")
			}
			err := showEndpoint(out, view, time.Now())
			if !a.OutTerminal {
				fmt.Fprintln(out)
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// shownNotes is how much of its history a status shows.
const shownNotes = 6

func showEndpoint(out io.Writer, view client.EndpointView, now time.Time) error {
	e, job := view.Endpoint, view.Job
	var urls []string
	for _, router := range view.Routers {
		urls = append(urls, endpointURL(router.URL, job.Name))
	}
	err := shell.Fields(
		out, "name", job.Name, "state", shell.StateText(job), "reason", job.Reason, "owner", job.Owner, "queue", job.Queue, "generation", strconv.FormatInt(e.Generation, 10),
		"url", strings.Join(urls, "\n"), "requests", trafficText(view), "update", rolloutText(e, now), "experiment", experimentText(e), "age", shell.Ago(job.Submitted),
	)
	if err != nil {
		return err
	}
	if err := shell.Section(out, []string{"variant", "generation", "model", "traffic", "replicas", "healthy", "requests/s", "errors", "p50", "p99", "in flight", "waiting"}, fleetRows(view)); err != nil {
		return err
	}
	if err := shell.Section(out, []string{"replica", "state", "node", "for", "in flight", "restarts", "note"}, replicaRows(view, now)); err != nil {
		return err
	}
	return shell.Section(out, noteHeading, noteRows(e.Notes[max(0, len(e.Notes)-shownNotes):]))
}

func endpointURL(router, name string) string { return router + "/endpoints/" + name + "/invocations" }

// trafficText is what passed through all routers lately.
func trafficText(view client.EndpointView) string {
	if !view.Known {
		return ""
	}
	var requests, errors, refused float64
	for _, f := range view.Figures {
		requests, errors, refused = requests+f.Requests, errors+f.Errors, refused+f.Refused
	}
	text := rateText(requests, true) + "/s"
	if errors > 0 {
		text += ", " + percent(errors/requests) + " of them failed"
	}
	if refused > 0 {
		text += ", " + rateText(refused, true) + "/s refused"
	}
	return text
}

// rolloutText says where an update stands, and how long its step has left.
func rolloutText(e cluster.Endpoint, now time.Time) string {
	r := e.Rollout
	if r == nil {
		return ""
	}
	text := fmt.Sprintf("generation %d to %d: %s", r.From, r.To, strings.ReplaceAll(string(r.Phase), "_", " "))
	passed := now.Sub(time.Unix(0, r.Since))
	left := func(d time.Duration) string { return shell.Span(max(d-passed, 0)) + " left" }
	switch r.Phase {
	case cluster.RolloutStarting:
		text += ", " + left(r.Startup)
	case cluster.RolloutBaking:
		text += fmt.Sprintf(", step %d of %d (%s of the requests), %s", r.Step+1, len(r.Steps), percent(r.Steps[min(int(r.Step), len(r.Steps)-1)]), left(r.Bake))
	case cluster.RolloutRetiring:
		text += ", the old replicas stay " + left(r.Wait)
	}
	if r.By != "" {
		text += ", asked for by " + r.By
	}
	if why := r.Alarm; why != "" && r.Reason == "" {
		text += "\n" + shell.OneLine(why)
	}
	if r.Reason != "" {
		text += "\n" + shell.OneLine(r.Reason)
	}
	return text
}

func experimentText(e cluster.Endpoint) string {
	switch x := e.Experiment; {
	case x == nil:
		return ""
	case x.Ended == 0:
		return shell.Joined("goes on for "+shell.Ago(x.Started), shell.OneLine(x.Verdict))
	default:
		return shell.Joined("ended "+shell.Ago(x.Ended)+" ago", shell.OneLine(x.Verdict))
	}
}

func fleetRows(view client.EndpointView) [][]string {
	var rows [][]string
	for i, fleet := range view.Endpoint.Fleets {
		seen := view.Fleet(fleet.Variant, fleet.Generation)
		row := []string{
			fleet.Variant, strconv.FormatInt(fleet.Generation, 10), servedText(fleet), percent(view.Endpoint.Traffic()[i]), strconv.Itoa(int(fleet.Replicas)),
			strconv.Itoa(healthyOf(view, &fleet)),
		}
		if fleet.Retired {
			row[4] = "retired"
		}
		if !view.Known {
			rows = append(rows, append(row, "", "", "", "", "", ""))
			continue
		}
		errors := ""
		if seen.Errors > 0 {
			errors = percent(seen.Errors / seen.Requests)
		}
		rows = append(rows, append(row, rateText(seen.Requests, true), errors, latency(seen.P50), latency(seen.P99), strconv.FormatInt(seen.InFlight, 10), shell.NonZero(seen.Waiting)))
		if s := seen.Shadow; s != nil {
			rows = append(rows, []string{fleet.Variant + " (mirrored)", row[1], row[2], "", "", "", rateText(s.Requests, true), "", latency(s.P50), latency(s.P99), strconv.FormatInt(s.InFlight, 10), ""})
		}
	}
	return rows
}

func latency(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return quick(d)
}

func replicaRows(view client.EndpointView, now time.Time) [][]string {
	var rows [][]string
	for _, r := range view.Replicas {
		since, note := r.Since, r.Reason
		if r.State == client.ReplicaHealthy {
			since = r.Healthy
		} else if r.Failure != "" {
			note = shell.Joined(note, "last failure: "+r.Failure)
		}
		if r.NotBefore > 0 {
			note = shell.Joined("starts again in "+shell.Span(time.Unix(0, r.NotBefore).Sub(now)), note)
		}
		if r.Ejected {
			note = shell.Joined("left out by a router: "+r.EjectedWhy, note)
		}
		rows = append(rows, []string{r.Gang, r.State, r.Node, shell.Ago(since), shell.NonZero(r.InFlight), shell.NonZero(int64(r.Attempt) - 1), shell.Cut(shell.OneLine(note), 100)})
	}
	return rows
}

func (a app) endpointHistoryCommand() *cobra.Command {
	return &cobra.Command{
		Use: "history NAME", Short: "Show what happened to an endpoint, by whom and why", Example: "  clary endpoint history churn",
		Args: shell.Takes("NAME"), ValidArgsFunction: a.completeEndpoints(),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			view, err := c.Endpoint(ctx, args[0])
			if err != nil {
				return err
			}
			return a.Print(endpointToJSON(view).Notes, func(out io.Writer) error { return shell.Table(out, noteHeading, noteRows(view.Endpoint.Notes)) })
		}),
	}
}

var noteHeading = []string{"ago", "what", "by", "why"}

func noteRows(notes []cluster.EndpointNote) [][]string {
	var rows [][]string
	for _, note := range notes {
		rows = append(rows, []string{shell.Ago(note.At), note.What, note.By, note.Text})
	}
	return rows
}

// completeEndpoints offers endpoints.
func (a app) completeEndpoints() cobra.CompletionFunc {
	return a.Complete(func(ctx context.Context, c *client.Client) []string {
		var names []string
		for view, err := range c.Endpoints(ctx, client.EndpointFilter{Stale: true}) {
			if err != nil {
				break
			}
			names = append(names, cobra.CompletionWithDesc(view.Job.Name, endpointState(view)))
		}
		return names
	})
}

// completeInvocation offers an endpoint, and after it a file.
func (a app) completeInvocation() cobra.CompletionFunc {
	endpoints := a.completeEndpoints()
	return func(command *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 1 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return endpoints(command, args, begun)
	}
}

// completeVariants offers the variants of the endpoint that is named already.
func (a app) completeVariants(command *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.variantsOf(command, args[0], "")
}

// completeAssignments offers an endpoint, and after it its variants, to be followed by = and a number.
func (a app) completeAssignments() cobra.CompletionFunc {
	endpoints := a.completeEndpoints()
	return func(command *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return endpoints(command, args, begun)
		}
		names, directive := a.variantsOf(command, args[0], "=")
		return names, directive | cobra.ShellCompDirectiveNoSpace
	}
}

func (a app) variantsOf(command *cobra.Command, endpoint, suffix string) ([]string, cobra.ShellCompDirective) {
	return a.Complete(func(ctx context.Context, c *client.Client) []string {
		view, err := c.Endpoint(ctx, endpoint, client.ReadOption(true))
		if err != nil {
			return nil
		}
		var names []string
		for i, fleet := range view.Endpoint.Fleets {
			if !fleet.Retired && view.Endpoint.Fleet(fleet.ID()) == i {
				names = append(names, fleet.Variant+suffix)
			}
		}
		return names
	})(command, nil, "")
}
