// Package operate has the commands of operators: members, nodes, queues, keys, settings, and what they look at.
package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/config"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
)

func (a app) tokenCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "token",
		Short:   "Make, list, rotate and revoke tokens of users and of machines that join",
		Example: "  clary token create ada --role user --token-file ada.token\n  clary token create --join agent\n  clary token list",
		Args:    shell.Takes(),
		RunE:    func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	list := &cobra.Command{
		Use: "list", Short: "List tokens, without their secrets", Example: "  clary token list", Args: shell.Takes(),
		RunE: a.With(func(ctx context.Context, c *client.Client, _ []string) error { return a.listTokens(ctx, c) }),
	}
	revoke := &cobra.Command{
		Use: "revoke ID", Short: "Make a token worthless at once", Example: "  clary token revoke 4f2a", Args: shell.Takes("ID"),
		ValidArgsFunction: a.Complete(func(ctx context.Context, c *client.Client) []string {
			tokens, _ := c.Tokens(ctx)
			ids := make([]string, len(tokens))
			for i, token := range tokens {
				ids[i] = cobra.CompletionWithDesc(token.ID, token.Name+" "+token.Role)
			}
			return ids
		}),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			token, err := c.RevokeToken(ctx, args[0])
			if err != nil {
				return err
			}
			return a.Print(shell.TokenToJSON(token), func(out io.Writer) error {
				_, err := fmt.Fprintf(out, "%s is revoked\n", token.ID)
				return err
			})
		}),
	}
	command.AddCommand(a.createTokenCommand(), list, a.rotateTokenCommand(), revoke)
	return command
}

func (a app) createTokenCommand() *cobra.Command {
	var role, join, ttl, path string
	command := &cobra.Command{
		Use:   "create [USER]",
		Short: "Make a token for a user, or with --join for machines",
		Long: "Make a token for a user, or with --join for a machine that shall become an agent or a coordinator. Its\n" +
			"secret is shown once, or written to a file that only you can read.",
		Example: `  clary token create ada --role user --token-file ada.token
  clary token create ci --role viewer --ttl 30d
  clary token create --join agent --token-file agent.token`,
		Args: shell.Takes("[USER]"),
	}
	flags := command.Flags()
	flags.StringVar(&role, "role", cluster.RoleUser, "viewer, invoker (asks endpoints only), user or admin")
	flags.StringVar(&join, "join", "", "make a join token: agent or coordinator")
	flags.StringVar(&ttl, "ttl", "", "valid for so long, e.g. 12h, 30d (default: users for ever, machines for an hour)")
	flags.StringVar(&path, "token-file", "", "write the secret to this file (0600) and do not show it")
	_ = command.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{cluster.RoleViewer, cluster.RoleInvoker, cluster.RoleUser, cluster.RoleAdmin}, cobra.ShellCompDirectiveNoFileComp))
	_ = command.RegisterFlagCompletionFunc("join", cobra.FixedCompletions([]string{cluster.RoleAgent, cluster.RoleCoordinator}, cobra.ShellCompDirectiveNoFileComp))
	command.RunE = func(command *cobra.Command, args []string) error {
		kind, name := cluster.TokenUser, ""
		switch {
		case join != "" && (len(args) > 0 || command.Flags().Changed("role")):
			return shell.Usage(command, "--join is for machines: it goes without a user and a role")
		case join != "":
			kind, role = cluster.TokenJoin, join
		case len(args) == 0:
			return shell.Usage(command, "USER is missing: whose token shall it be? Or --join agent for a machine")
		default:
			name = args[0]
		}
		var life quantity.Duration
		if ttl != "" {
			var err error
			if life, err = quantity.ParseDuration(ttl); err != nil {
				return fault.New(fault.Invalid, "--ttl: %w", err)
			}
		}
		return a.With(func(ctx context.Context, c *client.Client, _ []string) error {
			token, secret, err := c.CreateToken(ctx, kind, name, role, life.Std())
			if err != nil {
				return err
			}
			return a.giveToken(token, secret, path)
		})(command, args)
	}
	return command
}

func (a app) giveToken(token cluster.Token, secret, path string) error {
	value := shell.TokenToJSON(token)
	if path == "" {
		value.Secret = secret
	} else if err := atomicfile.Write(path, []byte(secret+"\n"), 0o600); err != nil {
		return fault.New(fault.Invalid, "the token %s was made but %s cannot be written: %w: revoke it and try again", token.ID, path, err)
	}
	return a.Print(value, func(out io.Writer) error {
		if path != "" {
			_, err := fmt.Fprintf(out, "%s is in %s\n", token.ID, path)
			return err
		}
		a.Note("this secret is not shown again:")
		_, err := fmt.Fprintln(out, secret)
		return err
	})
}

func (a app) listTokens(ctx context.Context, c *client.Client) error {
	tokens, err := c.Tokens(ctx)
	if err != nil {
		return err
	}
	list := make([]shell.TokenJSON, len(tokens))
	rows := make([][]string, len(tokens))
	for i, token := range tokens {
		list[i] = shell.TokenToJSON(token)
		expires := "never"
		if token.Expires != 0 {
			expires = shell.Date(token.Expires)
		}
		rows[i] = []string{token.ID, string(token.Kind), token.Name, token.Role, shell.Ago(token.Created), expires, token.By, tokenState(token, time.Now())}
	}
	return a.Print(list, func(out io.Writer) error {
		return shell.Table(out, []string{"id", "kind", "name", "role", "age", "expires", "by", "state"}, rows)
	})
}

func (a app) loginCommand() *cobra.Command {
	var name, pin, ca, path string
	command := &cobra.Command{
		Use:   "login ADDRESS[,ADDRESS...]",
		Short: "Remember a cluster: its coordinators, its CA's pin and your token",
		Long: "Remember a cluster as a context: its coordinators' addresses, the pin of its CA and your token, which is\n" +
			"read from a file, from standard input, or asked for. Nothing is kept unless the cluster accepts it.",
		Example: `  clary login a.example:7420,b.example:7420 --ca-pin sha256:... --token-file admin.token
  clary login a.example --ca ca.crt --token-file admin.token
  cat token | clary login a.example --ca-pin sha256:... --token-file - --name lab`,
		Args: shell.Takes("ADDRESS"),
	}
	flags := command.Flags()
	flags.StringVar(&name, "name", "default", "name of the context")
	flags.StringVar(&pin, "ca-pin", "", "pin of the cluster's CA, as its first coordinator printed it")
	flags.StringVar(&ca, "ca", "", "in place of the pin: a file with the CA's certificate")
	flags.StringVar(&path, "token-file", "", "file that holds the token; - is standard input")
	command.RunE = func(command *cobra.Command, args []string) error {
		to := config.Context{Addresses: config.SplitAddresses(args[0])}
		var err error
		if to.CAPin, err = a.pin(command, pin, ca); err != nil {
			return err
		}
		if to.Token, err = a.readToken(command, path); err != nil {
			return err
		}
		return a.login(command.Context(), name, to)
	}
	return command
}

// pin is the CA's, as a flag or the environment gives it, or that of a certificate.
func (a app) pin(command *cobra.Command, pin, ca string) (string, error) {
	switch {
	case ca != "" && pin != "":
		return "", shell.Usage(command, "--ca and --ca-pin say the same: give one of them")
	case ca != "":
		text, err := os.ReadFile(ca)
		if err != nil {
			return "", fault.New(fault.Invalid, "--ca: %w", err)
		}
		cert, err := pki.ParseCertificate(text)
		if err != nil {
			return "", fault.New(fault.Invalid, "--ca: %s: %w", ca, err)
		}
		return pki.PinOf(cert), nil
	case pin != "":
		return pin, nil
	case a.Getenv(config.EnvPin) != "":
		return a.Getenv(config.EnvPin), nil
	}
	return "", shell.Usage(command, "--ca-pin is missing: the first coordinator prints it when it starts; without it this could be any machine")
}

// readToken reads a token from a file, standard input, the environment or a person.
func (a app) readToken(command *cobra.Command, path string) (string, error) {
	var text []byte
	var err error
	switch {
	case path == "-":
		text, err = io.ReadAll(io.LimitReader(a.In, 4096))
	case path != "":
		text, err = os.ReadFile(path)
	case a.Getenv(config.EnvToken) != "":
		return a.Getenv(config.EnvToken), nil
	case a.ReadSecret != nil:
		var secret string
		secret, err = a.ReadSecret("token: ")
		text = []byte(secret)
	default:
		return "", shell.Usage(command, "--token-file is missing: name the file that holds your token, or - for standard input")
	}
	if err != nil {
		return "", fault.New(fault.Invalid, "read the token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fault.New(fault.Invalid, "the token is empty")
	}
	return token, nil
}

// login keeps the context if the cluster knows the token.
func (a app) login(ctx context.Context, name string, to config.Context) error {
	path, err := config.Path(a.Getenv)
	if err != nil {
		return err
	}
	file, err := config.Load(path)
	if err != nil {
		return err
	}
	if err := file.Set(name, to); err != nil {
		return err
	}
	c, err := client.Dial(to)
	if err != nil {
		return err
	}
	who, err := c.WhoAmI(ctx)
	if err == nil {
		var info client.Info
		info, err = c.Info(ctx)
		file.Contexts[name] = withCoordinators(to, info)
	}
	if err = errors.Join(err, c.Close()); err != nil {
		return err
	}
	if err := config.Save(path, file); err != nil {
		return err
	}
	return a.Print(map[string]string{"context": name, "name": who.Name, "role": who.Role}, func(out io.Writer) error {
		_, err := fmt.Fprintf(out, "you are %s (%s); the context is %s in %s\n", who.Name, who.Role, name, path)
		return err
	})
}

// maxAddresses is how many coordinators a context remembers.
const maxAddresses = 16

// withCoordinators adds the addresses of the cluster's coordinators to a context. What
// is there stays: it may be a name that only this side of a network knows.
func withCoordinators(to config.Context, info client.Info) config.Context {
	to.Addresses = slices.Clone(to.Addresses)
	for _, member := range info.Coordinators {
		added := config.Context{Addresses: []string{member.Address}, CAPin: to.CAPin}
		if added.Validate() == nil && !slices.Contains(to.Addresses, member.Address) && len(to.Addresses) < maxAddresses {
			to.Addresses = append(to.Addresses, member.Address)
		}
	}
	return to
}

// learn adds coordinators that are new to the context in use, unless the environment
// stands in for it.
func (a app) learn(info client.Info) error {
	if a.Getenv(config.EnvAddress) != "" {
		return nil
	}
	return a.ChangeContext(func(to config.Context) (config.Context, bool) {
		grown := withCoordinators(to, info)
		return grown, len(grown.Addresses) != len(to.Addresses)
	})
}

func (a app) contextCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "context",
		Short:   "List the clusters you are logged in to, and choose one",
		Example: "  clary context\n  clary context use lab\n  clary context delete lab",
		Args:    shell.Takes(),
		RunE:    func(*cobra.Command, []string) error { return a.listContexts() },
	}
	edit := func(use, short string, change func(*config.File, string) error) *cobra.Command {
		return &cobra.Command{
			Use: use + " CONTEXT", Short: short, Example: "  clary context " + use + " lab", Args: shell.Takes("CONTEXT"), ValidArgsFunction: a.CompleteContexts,
			RunE: func(_ *cobra.Command, args []string) error {
				path, err := config.Path(a.Getenv)
				if err != nil {
					return err
				}
				file, err := config.Load(path)
				if err != nil {
					return err
				}
				if err := change(&file, args[0]); err != nil {
					return err
				}
				return config.Save(path, file)
			},
		}
	}
	command.AddCommand(
		edit("use", "Speak to this cluster from now on", (*config.File).Use),
		edit("delete", "Forget a cluster and the token for it", (*config.File).Delete),
	)
	return command
}

func (a app) listContexts() error {
	if err := a.CheckFormat(); err != nil {
		return err
	}
	path, err := config.Path(a.Getenv)
	if err != nil {
		return err
	}
	file, err := config.Load(path)
	if err != nil {
		return err
	}
	type contextJSON struct {
		Name      string   `json:"name"`
		Current   bool     `json:"current"`
		Addresses []string `json:"addresses"`
		CAPin     string   `json:"ca_pin"`
	}
	list := []contextJSON{}
	var rows [][]string
	for _, name := range file.Names() {
		to := file.Contexts[name]
		list = append(list, contextJSON{name, name == file.Current, to.Addresses, to.CAPin})
		rows = append(rows, []string{shell.Word(name == file.Current, "*", " "), name, strings.Join(to.Addresses, ","), to.CAPin})
	}
	return a.Print(list, func(out io.Writer) error {
		if len(list) == 0 {
			a.Note("no contexts: log in with clary login ADDRESS")
			return nil
		}
		return shell.Table(out, []string{" ", "context", "addresses", "ca pin"}, rows)
	})
}
