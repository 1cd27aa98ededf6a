package operate

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
)

func (a app) secretCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "secret",
		Short: "Keep values that only tasks see: passwords, keys, tokens",
		Long: "Keep values that only tasks see. A secret belongs to a queue, and jobs of that queue may ask for it with\n" +
			"--secret. It is stored sealed and never shown again, to nobody.",
		Example: "  clary secret set db-password <password.txt\n  clary run --secret db-password=PASSWORD -- ./load.sh\n  clary secret list",
		Args:    shell.Takes(),
		RunE:    func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(a.setSecretCommand(), a.listSecretsCommand(), a.deleteSecretCommand())
	return command
}

func (a app) setSecretCommand() *cobra.Command {
	var queue, path string
	command := &cobra.Command{
		Use:   "set NAME",
		Short: "Store a value, read from standard input or a file",
		Long: "Store a value, read from standard input or a file: an argument would be seen by all who list processes. One\n" +
			"end of line at its end is left out. Set again it is a new version; tasks that run keep what they were given.",
		Example: "  clary secret set db-password <password.txt\n  clary secret set api-key --queue lab --from-file key.pem",
		Args:    shell.Takes("NAME"),
	}
	command.Flags().StringVar(&queue, "queue", cluster.DefaultQueue, "queue whose jobs may ask for it")
	command.Flags().StringVar(&path, "from-file", "", "read the value from this file, as it is")
	_ = command.MarkFlagFilename("from-file")
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		value, err := a.readSecret(path)
		if err != nil {
			return err
		}
		secret, err := c.SetSecret(ctx, queue, args[0], value)
		if err != nil {
			return err
		}
		return a.Print(secret, func(out io.Writer) error {
			_, err := fmt.Fprintf(out, "%s in queue %s, version %d\n", secret.Name, secret.Queue, secret.Version)
			return err
		})
	})
	return command
}

// readSecret reads a value that is at most as large as one may be.
func (a app) readSecret(path string) ([]byte, error) {
	from := a.In
	if path != "" {
		file, err := os.Open(path)
		if err != nil {
			return nil, fault.New(fault.Invalid, "--from-file: %w", err)
		}
		defer file.Close()
		from = file
	}
	value, err := io.ReadAll(io.LimitReader(from, cluster.MaxSecretValue+1))
	if err != nil {
		return nil, fault.New(fault.Invalid, "read the value: %w", err)
	}
	if len(value) > cluster.MaxSecretValue {
		return nil, fault.New(fault.Invalid, "the value is larger than %s", cluster.FormatBytes(cluster.MaxSecretValue))
	}
	if path == "" {
		value = bytes.TrimSuffix(bytes.TrimSuffix(value, []byte("\n")), []byte("\r"))
	}
	if len(value) == 0 {
		return nil, fault.New(fault.Invalid, "the value is empty: write it to standard input, or name a file with --from-file")
	}
	return value, nil
}

func (a app) listSecretsCommand() *cobra.Command {
	var queue string
	command := &cobra.Command{
		Use: "list", Short: "List secrets, without their values", Example: "  clary secret list --queue lab", Args: shell.Takes(),
	}
	command.Flags().StringVar(&queue, "queue", "", "only of this queue")
	command.RunE = a.With(func(ctx context.Context, c *client.Client, _ []string) error {
		secrets, err := c.Secrets(ctx, queue)
		if err != nil {
			return err
		}
		rows := make([][]string, len(secrets))
		for i, s := range secrets {
			rows[i] = []string{s.Name, s.Queue, strconv.FormatInt(s.Version, 10), s.Owner, shell.Ago(s.Updated.UnixNano())}
		}
		return a.Print(secrets, func(out io.Writer) error {
			return shell.Table(out, []string{"name", "queue", "version", "set by", "age"}, rows)
		})
	})
	return command
}

func (a app) deleteSecretCommand() *cobra.Command {
	var queue string
	command := &cobra.Command{
		Use: "delete NAME", Short: "Forget a secret; tasks that run keep what they were given", Example: "  clary secret delete db-password", Args: shell.Takes("NAME"),
		ValidArgsFunction: a.Complete(func(ctx context.Context, c *client.Client) []string {
			secrets, _ := c.Secrets(ctx, "")
			names := make([]string, len(secrets))
			for i, s := range secrets {
				names[i] = cobra.CompletionWithDesc(s.Name, s.Queue)
			}
			return names
		}),
	}
	command.Flags().StringVar(&queue, "queue", cluster.DefaultQueue, "queue that it belongs to")
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		if err := c.DeleteSecret(ctx, queue, args[0]); err != nil {
			return err
		}
		return a.Print(map[string]string{"deleted": args[0]}, func(out io.Writer) error {
			_, err := fmt.Fprintf(out, "%s is deleted\n", args[0])
			return err
		})
	})
	return command
}
