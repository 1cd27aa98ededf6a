package operate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/coordinator/backup"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/storage/object"
)

func (a app) backupCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "backup",
		Short: "Back the cluster up to an S3, encrypted, or show its backups",
		Long: "Back the cluster up to an S3, encrypted, or show its backups. A backup is a snapshot with the keyring: whoever can decrypt it\n" +
			"has the cluster. Where it goes, for whom, how often and how many are kept is set with clary settings (backup.to,\n" +
			"backup.recipients, backup.every, backup.keep); the keys of the S3 are in " + backup.StoreFile + " in the data folder of each coordinator.",
		Example: "  clary settings set backup.to=s3://backups/clary backup.recipients=age1… backup.every=6h\n  clary cluster backup now\n  clary cluster backup list",
		Args:    shell.Takes(),
		RunE:    func(command *cobra.Command, _ []string) error { return shell.Usage(command, "say now or list") },
	}
	command.AddCommand(
		&cobra.Command{
			Use: "now", Short: "Make a backup now, and wait until it is there", Example: "  clary cluster backup now", Args: shell.Takes(),
			RunE: a.With(func(ctx context.Context, c *client.Client, _ []string) error {
				made, revision, err := c.Backup(ctx)
				if err != nil {
					return err
				}
				value := struct {
					client.Backup
					Revision uint64 `json:"revision"`
				}{made, revision}
				return a.Print(value, func(out io.Writer) error {
					_, err := fmt.Fprintf(out, "%s: %s, revision %d\n", made.URI, cluster.FormatBytes(made.Size), revision)
					return err
				})
			}),
		},
		&cobra.Command{
			Use: "list", Short: "Show the backups that there are, the newest first", Example: "  clary cluster backup list", Args: shell.Takes(),
			RunE: a.With(func(ctx context.Context, c *client.Client, _ []string) error {
				found, err := c.Backups(ctx)
				if err != nil {
					return err
				}
				return a.Print(backupsJSON{found.To, quantity.Duration(found.Every), found.Failed, found.List}, func(out io.Writer) error { return a.showBackups(out, found) })
			}),
		},
	)
	return command
}

type backupsJSON struct {
	To     string            `json:"to"`
	Every  quantity.Duration `json:"every"` // "0s": not by themselves
	Failed string            `json:"failed,omitempty"`
	List   []client.Backup   `json:"backups"`
}

func (a app) showBackups(out io.Writer, found client.Backups) error {
	if found.Failed != "" {
		a.Note("clary: the last was not made, or they cannot be listed: %s", found.Failed)
	}
	if found.To == "" {
		a.Note("clary: nowhere to: clary settings set backup.to=s3://bucket/prefix backup.recipients=age1… backup.every=6h")
		return nil
	}
	if found.Every == 0 {
		a.Note("clary: none is made by itself: clary settings set backup.every=6h")
	}
	rows := make([][]string, len(found.List))
	for i, b := range found.List {
		rows[i] = []string{b.URI, cluster.FormatBytes(b.Size), b.Made.Format(time.RFC3339), shell.Ago(b.Made.UnixNano())}
	}
	return shell.Table(out, []string{"backup", "size", "made", "age"}, rows)
}

// restorable opens what is to be restored: a file, or an object in an S3. An address that ends in a slash, or names a folder of
// backups, is the newest below it.
func restorable(ctx context.Context, from, storeFile string) (io.ReadCloser, error) {
	if !strings.HasPrefix(from, "s3://") {
		if storeFile != "" {
			return nil, fault.New(fault.Invalid, "--from-store: goes with an s3:// address, not with a file")
		}
		file, err := os.Open(from)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fault.New(fault.NotFound, "FILE: %s does not exist", from)
		}
		if err != nil {
			return nil, fault.New(fault.Invalid, "FILE: %w", err)
		}
		return file, nil
	}
	if storeFile == "" {
		return nil, fault.New(fault.Invalid, "--from-store: is not given: name a file like %s of a coordinator's data folder, with endpoint, access_key and secret_key", backup.StoreFile)
	}
	config, err := backup.LoadStore(storeFile)
	if err != nil {
		return nil, fault.New(fault.KindOf(err), "--from-store: %w", err)
	}
	at, err := object.ParseURI(from)
	if err != nil {
		return nil, err
	}
	store, err := object.Open(config)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(at.Key, ".age") {
		if at, err = newestBackup(ctx, store, at); err != nil {
			return nil, err
		}
	}
	return store.Get(ctx, at, 0, -1)
}

// newestBackup finds the newest backup below a prefix, which must be of one cluster.
func newestBackup(ctx context.Context, store *object.Client, below object.URI) (object.URI, error) {
	objects, err := store.List(ctx, below)
	if err != nil {
		return below, err
	}
	var newest object.URI
	var made time.Time
	of := ""
	for _, o := range objects {
		name := path.Base(o.URI.Key)
		rest, ours := strings.CutPrefix(name, "clary-")
		id, _, _ := strings.Cut(rest, "-")
		at, _, ok := backup.Parse(name, id)
		if !ours || !ok {
			continue
		}
		if of = cmp.Or(of, id); id != of {
			return below, fault.New(fault.Invalid, "FILE: below %s there are backups of more than one cluster (%s and %s): name one", below, of, id)
		}
		if at.After(made) {
			newest, made = o.URI, at
		}
	}
	if of == "" {
		return below, fault.New(fault.NotFound, "FILE: there is no backup below %s", below)
	}
	return newest, nil
}
