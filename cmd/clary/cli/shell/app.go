// Package shell is what every command of a user stands on: the context it speaks to, its table, JSON or YAML, what is drawn on a terminal, its exit code.
package shell

import (
	"context"
	"io"
	"os"

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

	ContextName string
	Renewed     bool // this command has put another token into the place of the one that it showed
	Format      string
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

// Under puts commands under a heading of Groups.
func Under(group string, commands ...*cobra.Command) []*cobra.Command {
	for _, command := range commands {
		command.GroupID = group
	}
	return commands
}

// Finish gives commands the flags that all have.
func (a *App) Finish(commands []*cobra.Command) []*cobra.Command {
	for _, command := range commands {
		flags := command.PersistentFlags()
		flags.StringVar(&a.ContextName, "context", "", "the cluster to speak to; see clary context")
		flags.StringVarP(&a.Format, "output", "o", "table", "table, json or yaml")
		_ = command.RegisterFlagCompletionFunc("context", a.CompleteContexts)
		_ = command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
		a.completeQueueFlags(command)
	}
	return commands
}

// Connect makes a client of the chosen context.
func (a *App) Connect(options ...client.Option) (*client.Client, error) {
	to, err := a.Cluster()
	if err != nil {
		return nil, err
	}
	return client.Dial(to, options...)
}

// Cluster is the chosen context.
func (a *App) Cluster() (config.Context, error) {
	path, err := config.Path(a.Getenv)
	if err != nil {
		return config.Context{}, err
	}
	file, err := config.Load(path)
	if err != nil {
		return config.Context{}, err
	}
	return file.Resolve(a.ContextName, a.Getenv)
}

// With runs a command's body with a client and closes it afterwards.
func (a *App) With(body func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(command *cobra.Command, args []string) error {
		if err := a.CheckFormat(); err != nil {
			return err
		}
		c, err := a.Connect()
		if err != nil {
			return err
		}
		defer c.Close()
		err = body(command.Context(), c, args)
		if followed := a.follow(c); followed != nil { // the command itself is done
			a.Note("clary: the context is not changed: %s", followed)
		}
		a.warnOfEnds(c)
		return err
	}
}
