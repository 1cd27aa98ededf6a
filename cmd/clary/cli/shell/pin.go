package shell

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/config"
	"github.com/clary-ml/clary/internal/atomicfile"
)

// PinSigner has the context pin the CA that signs now: whoever rotates it speaks over a connection from before.
func (a *App) PinSigner(keys client.Keys) error {
	for _, ca := range keys.CAs {
		if ca.Signs {
			return a.repin(ca.Pin)
		}
	}
	return nil
}

// follow remembers the CA that has taken the place of the one that the context pins, and says so.
func (a *App) follow(c *client.Client) error {
	if successor := c.Successor(); successor != "" {
		return a.repin(successor)
	}
	return nil
}

func (a *App) repin(successor string) error {
	if a.Getenv(config.EnvPin) != "" {
		return nil
	}
	return a.ChangeContext(func(to config.Context) (config.Context, bool) {
		changed := to.CAPin != successor
		to.CAPin = successor
		if changed {
			a.Note("clary: the cluster has a new CA, for which the one that was pinned vouches: the context pins %s now", successor)
		}
		return to, changed
	})
}

// ChangeContext changes the context in use where it is kept.
func (a *App) ChangeContext(change func(config.Context) (config.Context, bool)) error {
	path, err := config.Path(a.Getenv)
	if err != nil {
		return err
	}
	file, err := config.Load(path)
	if err != nil {
		return err
	}
	name := cmp.Or(a.ContextName, a.Getenv(config.EnvContext), file.Current)
	to, known := file.Contexts[name]
	if !known {
		return nil
	}
	changed := false
	if file.Contexts[name], changed = change(to); !changed {
		return nil
	}
	return config.Save(path, file)
}

// SaveCA writes the CA beside the contexts, since S3 programs take it as a file. Each CA
// has a file of its own: a user may know several clusters.
func (a *App) SaveCA(pem string) (string, error) {
	contexts, err := config.Path(a.Getenv)
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(contexts), fmt.Sprintf("ca-%.6x.pem", sha256.Sum256([]byte(pem))))
	return path, atomicfile.Write(path, []byte(pem), 0o600)
}

// warnOfEnds says what the context in use stands on, and ends soon.
func (a *App) warnOfEnds(c *client.Client) {
	if ends := c.TokenEnds(); !ends.IsZero() && !a.Renewed {
		what, remedy := "the token of this context", "clary token rotate puts a new one into its place"
		if a.Getenv(config.EnvToken) != "" {
			what, remedy = "the token in "+config.EnvToken, "clary token rotate --token-file FILE makes a new one"
		}
		a.Note("clary: %s ends in %s: %s", what, Shortly(time.Until(ends)), remedy)
	}
	for _, warning := range c.CertificateWarnings(time.Now()) {
		a.Note("clary: %s", warning)
	}
}
