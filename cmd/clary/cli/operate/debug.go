package operate

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/ops"
	"github.com/clary-ml/clary/internal/quantity"
)

func (a app) debugCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "debug",
		Short:   "Look into the cluster's processes",
		Example: "  clary debug pprof a cpu\n  clary debug pprof a heap --file a.heap",
		Args:    shell.Takes(),
		RunE:    func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(a.pprofCommand())
	return command
}

func (a app) pprofCommand() *cobra.Command {
	var role, path string
	length := "10s"
	command := &cobra.Command{
		Use:   "pprof MEMBER cpu|heap|goroutine",
		Short: "Measure a coordinator or an agent as Go's pprof does, into a file",
		Long: "Measure the process of a coordinator or an agent: where its CPU time goes, what is on its heap, or what its goroutines\n" +
			"do. What comes is a file for go tool pprof. It takes the role admin.",
		Example: "  clary debug pprof a cpu --length 30s\n  clary debug pprof a heap --file a.heap\n  clary debug pprof a goroutine --file - | go tool pprof -top -",
		Args:    shell.Takes("MEMBER", "PROFILE"),
	}
	command.ValidArgsFunction = func(command *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 1 {
			return ops.Profiles(), cobra.ShellCompDirectiveNoFileComp
		}
		return a.Complete(memberNames)(command, args, begun)
	}
	flags := command.Flags()
	flags.StringVar(&role, "role", "", "agent or coordinator, if one of each has that name")
	flags.StringVar(&length, "length", length, "for how long cpu is measured, from 1s to 2m")
	flags.StringVarP(&path, "file", "f", "", "where to write it, - for standard output (default: MEMBER-PROFILE-TIME.pprof)")
	_ = command.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{cluster.RoleAgent, cluster.RoleCoordinator}, cobra.ShellCompDirectiveNoFileComp))
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		lasts, err := quantity.ParseDuration(length)
		if err != nil {
			return fault.New(fault.Invalid, "--length: %w", err)
		}
		request := client.ProfileRequest{Member: args[0], Role: role, Profile: args[1], Length: lasts.Std()}
		if err := ops.CheckProfile(request.Profile, request.Length); err != nil {
			return err
		}
		if request.Profile == ops.CPU {
			a.Note("clary: measuring %s for %s", request.Member, request.Length)
		}
		return a.profileMember(ctx, c, request, path)
	})
	return command
}

// profileMember writes a profile where it is wanted, whole or not at all.
func (a app) profileMember(ctx context.Context, c *client.Client, request client.ProfileRequest, path string) error {
	var profile bytes.Buffer
	if err := c.Profile(ctx, request, &profile); err != nil {
		return err
	}
	if path == "-" {
		_, err := io.Copy(a.Out, &profile)
		return err
	}
	if path == "" {
		path = fmt.Sprintf("%s-%s-%s.pprof", filepath.Base(request.Member), request.Profile, time.Now().Format("20060102-150405"))
	}
	if err := atomicfile.Write(path, profile.Bytes(), 0o600); err != nil {
		return fault.New(fault.Invalid, "--file: %w", err)
	}
	value := struct {
		Member  string `json:"member"`
		Profile string `json:"profile"`
		File    string `json:"file"`
		Bytes   int    `json:"bytes"`
	}{request.Member, request.Profile, path, profile.Len()}
	return a.Print(value, func(out io.Writer) error {
		_, err := fmt.Fprintf(out, "%s: %s; go tool pprof -top %s shows it\n", path, cluster.FormatBytes(int64(profile.Len())), path)
		return err
	})
}

// memberNames are all coordinators and nodes, for completion.
func memberNames(ctx context.Context, c *client.Client) []string {
	var names []string
	info, _ := c.Info(ctx)
	for _, m := range info.Coordinators {
		names = append(names, cobra.CompletionWithDesc(m.ID, cluster.RoleCoordinator))
	}
	nodes, _ := c.Nodes(ctx)
	for _, view := range nodes {
		names = append(names, cobra.CompletionWithDesc(view.Node.ID, cluster.RoleAgent))
	}
	return names
}
