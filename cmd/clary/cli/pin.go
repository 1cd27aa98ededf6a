package cli

import (
	"cmp"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/config"
)

// pinSigner has the context pin the CA that signs now: whoever rotates it speaks over a connection from before.
func (a *App) pinSigner(keys client.Keys) error {
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
	return a.changeContext(func(to config.Context) (config.Context, bool) {
		changed := to.CAPin != successor
		to.CAPin = successor
		if changed {
			a.note("clary: the cluster has a new CA, for which the one that was pinned vouches: the context pins %s now", successor)
		}
		return to, changed
	})
}

// changeContext changes the context in use where it is kept.
func (a *App) changeContext(change func(config.Context) (config.Context, bool)) error {
	path, err := config.Path(a.Getenv)
	if err != nil {
		return err
	}
	file, err := config.Load(path)
	if err != nil {
		return err
	}
	name := cmp.Or(a.contextName, a.Getenv(config.EnvContext), file.Current)
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
