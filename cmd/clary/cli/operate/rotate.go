package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/config"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
)

// tokenState is whether a token is good, and for how long if that is not long. Of a join token that a machine has used it is that: nobody
// else can join with it.
func tokenState(token cluster.Token, now time.Time) string {
	left := time.Unix(0, token.Expires).Sub(now)
	switch {
	case token.Revoked:
		return "revoked"
	case token.BoundKey != "":
		return "used"
	case token.Expires == 0:
		return "valid"
	case left <= 0:
		return "expired"
	case token.Kind == cluster.TokenUser && auth.EndsSoon(token, now):
		return "expires in " + shell.Shortly(left)
	}
	return "valid"
}

func (a app) rotateTokenCommand() *cobra.Command {
	var overlap, ttl, path string
	command := &cobra.Command{
		Use:   "rotate [ID]",
		Short: "Make a new token for the same user and role; the old one goes on for a while",
		Long: "Make a new token for the same user and role, and end the old one after an overlap. Without ID it is the one that this\n" +
			"command itself uses: the context holds the new one afterwards. Another's takes an admin.",
		Example: "  clary token rotate\n  clary token rotate 4f2a --overlap 7d --token-file ci.token",
		Args:    shell.Takes("[ID]"),
	}
	flags := command.Flags()
	flags.StringVar(&overlap, "overlap", "24h", "how long the old token goes on beside the new one; 0 ends it at once")
	flags.StringVar(&ttl, "ttl", "", "valid for so long (default: as long as the old one was)")
	flags.StringVar(&path, "token-file", "", "write the secret to this file (0600) and do not show it")
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		lasts, err := durations(overlap, ttl)
		if err != nil {
			return err
		}
		own, id := len(args) == 0, ""
		if !own {
			id = args[0]
		}
		token, secret, old, err := c.RotateToken(ctx, id, lasts[0], lasts[1])
		if err != nil {
			return err
		}
		a.Renewed = own
		if own && path == "" && a.Getenv(config.EnvToken) == "" {
			return a.keepToken(token, secret, old)
		}
		if err := a.giveToken(token, secret, path); err != nil {
			return err
		}
		a.Note("clary: the old token %s ends at %s", old.ID, shell.Date(old.Expires))
		return nil
	})
	return command
}

func durations(overlap, ttl string) ([2]time.Duration, error) {
	var lasts [2]time.Duration
	for i, flag := range []struct{ name, text string }{{"--overlap", overlap}, {"--ttl", ttl}} {
		if flag.text == "" || flag.text == "0" {
			continue
		}
		parsed, err := quantity.ParseDuration(flag.text)
		if err != nil {
			return lasts, fault.New(fault.Invalid, "%s: %w", flag.name, err)
		}
		lasts[i] = parsed.Std()
	}
	return lasts, nil
}

// keepToken puts a new token into the context that the command was run with.
func (a app) keepToken(token cluster.Token, secret string, old cluster.Token) error {
	kept := false
	err := a.ChangeContext(func(to config.Context) (config.Context, bool) {
		to.Token, kept = secret, true
		return to, true
	})
	if err == nil && !kept {
		err = errors.New("there is none")
	}
	if err != nil {
		a.Note("clary: the new token is not kept in a context: %v", err)
		return a.giveToken(token, secret, "")
	}
	return a.Print(shell.TokenToJSON(token), func(out io.Writer) error {
		_, err := fmt.Fprintf(out, "the context holds the token %s now; the old one, %s, ends at %s\n", token.ID, old.ID, shell.Date(old.Expires))
		return err
	})
}
