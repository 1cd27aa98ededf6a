package submit

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/workload/hosting"
	"github.com/clary-ml/clary/workload/training"
)

// ServerFlags say what the server of a model is: of a batch transform and of an endpoint alike.
type ServerFlags struct {
	resources ResourceFlags
	script    ScriptFlags // its entry, source, requirements and python

	image        string
	entrypoint   []string
	readOnly     bool
	startup      string
	port         int32
	env, secrets []string
}

// PortHelp says what --port means for a server that reads the contract.
const PortHelp = "where the server listens, if it does not at SAGEMAKER_BIND_TO_PORT; "

// Register adds the flags to a command; port explains --port.
func (f *ServerFlags) Register(command *cobra.Command, port string) {
	f.resources.Register(command)
	flags := command.Flags()
	flags.StringVar(&f.image, "image", "", "container image of a server, started with serve or with what stands after --")
	flags.StringArrayVar(&f.entrypoint, "entrypoint", nil, "program to start in the container instead of the image's own; once for each word")
	flags.BoolVar(&f.readOnly, "read-only-root", false, "the container writes to its folders and /tmp only")
	flags.StringVar(&f.script.Entry, "script", "", "a script that is a server: .py, .sh or a program; what stands after -- is given to it")
	flags.StringVar(&f.script.Source, "source", "", "folder of its code, without what .gitignore names (default: the script alone)")
	flags.StringVar(&f.script.Requirements, "requirements", "", "requirements.txt to install, once on each node")
	flags.StringVar(&f.script.Python, "python", "", "Python interpreter on the node (default \"python3\")")
	flags.Int32Var(&f.port, "port", 0, port)
	flags.StringArrayVarP(&f.env, "env", "e", nil, "variable of the server's environment, as KEY=VALUE, or KEY to pass your own on")
	flags.StringArrayVar(&f.secrets, "secret", nil, SecretHelp)
	flags.StringVar(&f.startup, "startup-timeout", "", "how long the server may take to be healthy (default 4m)")
	_ = command.MarkFlagFilename("script", "py", "sh")
	_ = command.MarkFlagDirname("source")
}

// Server is what the flags describe, but its model; args is what stands after --. missing is what to say
// if there is no server and no model either, empty if there is one. What lies here is uploaded, unless it is
// a dry run.
func (a App) Server(ctx context.Context, c *client.Client, command *cobra.Command, f *ServerFlags, missing string, dryRun bool, args []string) (hosting.Server, error) {
	var t training.Spec
	if err := f.resources.Apply(command, &t); err != nil {
		return hosting.Server{}, err
	}
	s := hosting.Server{Port: f.port, Resources: t.Resources, Disk: t.Disk, Grace: t.Grace, Labels: t.Labels, Placement: t.Placement}
	if f.startup != "" {
		d, err := quantity.ParseDuration(f.startup)
		if err != nil {
			return s, fault.New(fault.Invalid, "--startup-timeout: %w", err)
		}
		s.StartupTimeout = d
	}
	if f.script.Entry == "" {
		if err := f.script.NoSource(command); err != nil {
			return s, err
		}
		if f.image == "" && len(args) == 0 && missing != "" {
			return s, shell.Usage(command, "%s is missing: name one that clary trained, or a server: an --image, a --script, or a command after --", missing)
		}
		if f.image == "" && len(args) == 0 && len(f.env) > 0 {
			return s, shell.Usage(command, "--env is for a server of your own: name an --image, a --script, or a command after --")
		}
	}
	var err error
	if s.Secrets, err = SecretRefs(f.secrets); err != nil {
		return s, err
	}
	image := ImageFlags{Image: f.image, entrypoint: f.entrypoint, readOnly: f.readOnly}
	if f.image == "" && (len(f.entrypoint) > 0 || f.readOnly) {
		return s, shell.Usage(command, "--entrypoint and --read-only-root are for a container: name one with --image")
	}
	if f.image != "" {
		if err := image.Apply(ctx, a, c, command, &t, dryRun); err != nil {
			return s, err
		}
		s.Image, s.Entrypoint, s.ReadOnlyRoot = t.Image, t.Entrypoint, t.ReadOnlyRoot
	}
	return s, a.serverProgram(ctx, c, f, &s, dryRun, args)
}

// serverProgram is the command or the script of a server.
func (a App) serverProgram(ctx context.Context, c *client.Client, f *ServerFlags, s *hosting.Server, dryRun bool, args []string) error {
	env, err := a.Environment(f.env)
	if err != nil {
		return err
	}
	if f.script.Entry == "" {
		if len(args) > 0 || len(env) > 0 {
			s.Program = &training.Program{Command: args, Env: env}
		}
		return nil
	}
	s.Script = &training.Script{Python: f.script.Python, Arguments: args, Env: env}
	if f.script.Requirements != "" {
		if s.Script.Requirements, err = ReadRequirements(f.script.Requirements); err != nil {
			return err
		}
	}
	s.Script.Entry, s.Script.Source, err = a.PackScript(ctx, c, &f.script, dryRun)
	return err
}
