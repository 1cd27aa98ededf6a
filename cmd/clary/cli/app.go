// Package cli holds the commands that speak to a cluster as a user does: through the
// client, with a table for people and -o json or yaml for scripts.
package cli

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/config"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload/jobfile"
)

// App is what the commands need from outside.
type App struct {
	In     io.Reader
	Out    io.Writer
	Err    io.Writer
	Getenv func(string) string

	// Terminal says that Err is a terminal of a person: progress may be drawn there.
	Terminal bool
	// OutTerminal says that Out is one: what is meant to be seen may be drawn there.
	OutTerminal bool
	// Width is how many columns that terminal has now.
	Width func() int
	// ReadSecret asks a person for a secret without showing it; nil if there is nobody.
	ReadSecret func(prompt string) (string, error)

	// Kinds are the kinds of job that this build knows.
	Kinds map[cluster.Kind]jobfile.Kind

	contextName string
	renewed     bool // this command has put another token into the place of the one that it showed
	format      string
}

// System is the App of a real process.
func System(kinds map[cluster.Kind]jobfile.Kind) *App {
	app := &App{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Kinds: kinds}
	app.Terminal = term.IsTerminal(int(os.Stderr.Fd())) && os.Getenv("TERM") != "dumb" && os.Getenv("CI") == ""
	app.OutTerminal = term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("TERM") != "dumb"
	app.Width = func() int {
		if columns, _, err := term.GetSize(int(os.Stderr.Fd())); err == nil && columns > 0 {
			return columns
		}
		return 80
	}
	if term.IsTerminal(int(os.Stdin.Fd())) {
		app.ReadSecret = func(prompt string) (string, error) {
			_, _ = io.WriteString(os.Stderr, prompt)
			secret, err := term.ReadPassword(int(os.Stdin.Fd()))
			_, _ = io.WriteString(os.Stderr, "\n")
			return string(secret), err
		}
	}
	return app
}

// The groups of `clary help`.
const (
	GroupJobs    = "jobs"
	GroupData    = "data"
	GroupServing = "serving"
	GroupCluster = "cluster"
)

// Groups are the headings under which help lists the commands.
func Groups() []*cobra.Group {
	return []*cobra.Group{
		{ID: GroupJobs, Title: "Jobs:"},
		{ID: GroupData, Title: "Data and models:"},
		{ID: GroupServing, Title: "Endpoints:"},
		{ID: GroupCluster, Title: "The cluster:"},
	}
}

// Commands are all commands of this package, for the root to adopt.
func (a *App) Commands() []*cobra.Command {
	groups := map[string][]func() *cobra.Command{
		GroupJobs: {
			a.trainCommand, a.tuneCommand, a.sweepCommand, a.sweepsCommand, a.trialsCommand, a.runCommand, a.processCommand, a.transformCommand, a.submitCommand, a.jobsCommand, a.jobCommand, a.logsCommand, a.metricsCommand, a.attachCommand, a.execCommand, a.portForwardCommand, a.waitCommand,
			a.cancelCommand, a.rerunCommand, a.releaseCommand, a.deleteCommand, a.whyCommand, a.schemaCommand,
		},
		GroupData:    {a.cpCommand, a.lsCommand, a.rmCommand, a.s3Command, a.profileCommand, a.prepareCommand, a.modelsCommand, a.evaluateCommand, a.predictCommand, a.serveCommand},
		GroupServing: {a.deployCommand, a.invokeCommand, a.abCommand, a.endpointCommand, a.endpointsCommand},
		GroupCluster: {a.nodesCommand, a.topCommand, a.doctorCommand, a.queueCommand, a.settingsCommand, a.gcCommand, a.clusterCommand, a.keysCommand, a.tokenCommand, a.secretCommand, a.auditCommand, a.debugCommand, a.loginCommand, a.contextCommand, a.benchCommand, a.simCommand, a.replayCommand, a.versionCommand},
	}
	var commands []*cobra.Command
	for _, group := range Groups() {
		for _, construct := range groups[group.ID] {
			command := construct()
			command.GroupID = group.ID
			flags := command.PersistentFlags()
			flags.StringVar(&a.contextName, "context", "", "the cluster to speak to; see clary context")
			flags.StringVarP(&a.format, "output", "o", "table", "table, json or yaml")
			_ = command.RegisterFlagCompletionFunc("context", a.completeContexts)
			_ = command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
			a.completeQueueFlags(command)
			commands = append(commands, command)
		}
	}
	return commands
}

// connect makes a client of the chosen context.
func (a *App) connect(options ...client.Option) (*client.Client, error) {
	to, err := a.cluster()
	if err != nil {
		return nil, err
	}
	return client.Dial(to, options...)
}

// cluster is the chosen context.
func (a *App) cluster() (config.Context, error) {
	path, err := config.Path(a.Getenv)
	if err != nil {
		return config.Context{}, err
	}
	file, err := config.Load(path)
	if err != nil {
		return config.Context{}, err
	}
	return file.Resolve(a.contextName, a.Getenv)
}

// with runs a command's body with a client and closes it afterwards.
func (a *App) with(body func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(command *cobra.Command, args []string) error {
		if err := a.checkFormat(); err != nil {
			return err
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		err = body(command.Context(), c, args)
		if followed := a.follow(c); followed != nil { // the command itself is done
			a.note("clary: the context is not changed: %s", followed)
		}
		a.warnOfEnds(c)
		return err
	}
}

// completionTime bounds what a press of the tab key may cost.
const completionTime = 2 * time.Second

// complete offers names of the cluster; when it cannot be asked there are none.
func (a *App) complete(names func(context.Context, *client.Client) []string) cobra.CompletionFunc {
	return func(command *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c, err := a.connect(client.WithPatience(completionTime))
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

// completeJobs offers the jobs in the given states, or all.
func (a *App) completeJobs(states ...cluster.JobState) cobra.CompletionFunc {
	return a.complete(func(ctx context.Context, c *client.Client) []string {
		jobs, _, _ := c.Jobs(ctx, client.Filter{States: states, Limit: 200, Stale: true})
		names := make([]string, len(jobs))
		for i, job := range jobs {
			names[i] = cobra.CompletionWithDesc(job.Name, string(job.State))
		}
		return names
	})
}

func (a *App) completeNodes() cobra.CompletionFunc {
	return a.complete(func(ctx context.Context, c *client.Client) []string {
		nodes, _ := c.Nodes(ctx)
		names := make([]string, len(nodes))
		for i, view := range nodes {
			names[i] = cobra.CompletionWithDesc(view.Node.ID, string(view.Node.State))
		}
		return names
	})
}

func (a *App) completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	path, err := config.Path(a.Getenv)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	file, _ := config.Load(path)
	return file.Names(), cobra.ShellCompDirectiveNoFileComp
}
