package operate

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/coordinator"
	"github.com/clary-ml/clary/coordinator/backup"
	"github.com/clary-ml/clary/internal/fault"
)

func (a app) snapshotCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "snapshot FILE",
		Short: "Copy all that the cluster has agreed on to a file",
		Long: "Copy all that the cluster has agreed on to a file: jobs, queues, users' tokens (as hashes), secrets (sealed), models,\n" +
			"settings, the audit. It ends with its checksum, which is verified. Objects and keys are not in it: with it belongs\n" +
			"a copy of keyring.json from a coordinator's data folder, which opens everything and is to be kept apart. A backup\n" +
			"(clary cluster backup) has both, encrypted.",
		Example: "  clary cluster snapshot cluster.snapshot\n  clary cluster restore cluster.snapshot --keyring keyring.json --id a --data /var/lib/clary/coordinator --advertise 10.0.0.1:7420",
		Args:    shell.Takes("FILE"),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			header, size, err := saveSnapshot(ctx, c, args[0])
			if err != nil {
				return err
			}
			value := struct {
				File string `json:"file"`
				Size int64  `json:"size"`
				backup.Header
			}{args[0], size, header}
			return a.Print(value, func(out io.Writer) error {
				_, err := fmt.Fprintf(out, "%s: %s, revision %d, format %d, checksum verified\n", args[0], cluster.FormatBytes(size), header.Revision, header.Format)
				return err
			})
		}),
	}
}

// saveSnapshot writes a snapshot beside where it shall be, verifies it, and puts it there.
func saveSnapshot(ctx context.Context, c *client.Client, path string) (backup.Header, int64, error) {
	if _, err := os.Lstat(path); err == nil {
		return backup.Header{}, 0, fault.New(fault.Conflict, "FILE: %s exists: name another, or delete it", path)
	}
	part, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return backup.Header{}, 0, fault.New(fault.Invalid, "FILE: %w", err)
	}
	defer os.Remove(part.Name()) // after the link there is one name too many
	defer part.Close()
	buffered := bufio.NewWriterSize(part, 256<<10)
	if err := c.TakeSnapshot(ctx, buffered); err != nil {
		return backup.Header{}, 0, err
	}
	size, err := int64(0), errors.Join(buffered.Flush(), part.Sync())
	if err == nil {
		size, err = part.Seek(0, io.SeekCurrent)
	}
	if err == nil {
		_, err = part.Seek(0, io.SeekStart)
	}
	if err != nil {
		return backup.Header{}, 0, err
	}
	header, err := backup.ReadSnapshot(part, filepath.Dir(path), func(_ backup.Header, state io.Reader) error {
		_, err := io.Copy(io.Discard, state)
		return err
	})
	if err == nil {
		err = os.Link(part.Name(), path)
	}
	return header, size, err
}

// restoration is what the flags of clary cluster restore say.
type restoration struct {
	coordinator.Restoration
	store     StoreFlags
	keyFile   string
	fromStore string
	yes       bool
}

func (a app) restoreCommand() *cobra.Command {
	var r restoration
	command := &cobra.Command{
		Use:   "restore FILE|s3://BUCKET/KEY",
		Short: "Make the first coordinator of a new life of the cluster from a backup or snapshot (offline)",
		Long: "Make the data folder of the first coordinator of a new life of the cluster from a backup or snapshot. It asks no cluster and\n" +
			"starts nothing: start the coordinator afterwards as usual (clary server), and have others join it (clary cluster add).\n" +
			"Users' contexts and tokens go on working. Nodes count as lost until their agents come, which they do by themselves if\n" +
			"they find the coordinator where one was before; jobs that had not ended begin again. Join tokens hold no more.\n\n" +
			"An s3:// address that does not name a backup is the newest below it.\n\n" +
			"What was agreed on after the snapshot is lost, and so are the cluster's former coordinators: none takes part in the\n" +
			"new life, and their folders are to be deleted. Do this only when a majority of them is gone for good.",
		Example: "  clary cluster restore s3://backups/clary --from-store backup-store.json --key-file age.key --id a --advertise 10.0.0.1:7420\n" +
			"  clary cluster restore cluster.snapshot --keyring keyring.json --id a --data /var/lib/clary/coordinator --advertise 10.0.0.1:7420",
		Args: shell.Takes("FILE|s3://BUCKET/KEY"),
		RunE: func(command *cobra.Command, args []string) error {
			if err := a.CheckFormat(); err != nil {
				return err
			}
			return a.restore(command.Context(), r, args[0])
		},
	}
	flags := command.Flags()
	flags.StringVar(&r.ID, "id", "", "name of the coordinator, as clary server will have it")
	flags.StringVar(&r.Data, "data", "/var/lib/clary/coordinator", "its folder, in which no coordinator has been; a folder objects may be there")
	flags.StringVar(&r.Advertise, "advertise", "", "host:port under which others will reach it")
	flags.StringVar(&r.Keyring, "keyring", "", "file with the keyring that belongs to the snapshot")
	flags.StringVar(&r.keyFile, "key-file", "", "file with a secret key of age that a backup is encrypted for")
	flags.StringVar(&r.fromStore, "from-store", "", "file that says how to reach the S3 of an s3:// address: like "+backup.StoreFile)
	r.store.Add(flags)
	flags.BoolVarP(&r.yes, "yes", "y", false, "do not ask")
	return command
}

func (a app) restore(ctx context.Context, r restoration, path string) error {
	var err error
	if r.Restoration.Store, err = r.store.Read(); err != nil {
		return err
	}
	if r.keyFile != "" {
		key, err := os.ReadFile(r.keyFile)
		if err != nil {
			return fault.New(fault.Invalid, "--key-file: %w", err)
		}
		r.Key = string(key)
	}
	from, err := restorable(ctx, path, r.fromStore)
	if err != nil {
		return err
	}
	defer from.Close()
	if err := a.Confirm(ctx, r.yes, "Begin a new life of the cluster in "+r.Data+", in which none of its former coordinators takes part"); err != nil {
		return err
	}
	r.By, r.Now = operator(), time.Now()
	made, err := coordinator.Restore(r.Restoration, from)
	if err != nil {
		return err
	}
	value := struct {
		ID       string        `json:"id"`
		Life     string        `json:"life"`
		Snapshot backup.Header `json:"snapshot"`
		Nodes    int           `json:"nodes"`        // that count as lost until their agents come
		Again    int           `json:"begin_again"`  // gangs
		Tokens   int           `json:"join_tokens"`  // that hold no more
		Store    bool          `json:"object_store"` // it is the embedded one
	}{r.ID, made.Life, made.Header, made.Nodes, made.Again, made.Tokens, made.Embedded}
	return a.Print(value, func(out io.Writer) error {
		err := shell.Fields(
			out, "snapshot", fmt.Sprintf("of %s, revision %d", made.Header.Made.Format(time.RFC3339), made.Header.Revision), "life", made.Life,
			"nodes", fmt.Sprintf("lost until their agents come: %d", made.Nodes), "jobs", fmt.Sprintf("gangs that begin again: %d", made.Again),
			"join tokens", fmt.Sprintf("that hold no more: %d", made.Tokens),
		)
		if err == nil && made.Embedded {
			_, err = fmt.Fprintf(out, "\nObjects are in the embedded store, in %s: put those that were saved there before the start.\n", filepath.Join(r.Data, "objects"))
		}
		if err == nil {
			_, err = fmt.Fprintf(out, "\nStart it: clary server --id %s --data %s --listen %s\n", r.ID, r.Data, r.Advertise)
		}
		return err
	})
}

func (a app) recoverCommand() *cobra.Command {
	var data, advertise string
	var yes bool
	command := &cobra.Command{
		Use:   "recover",
		Short: "Begin a new life of the cluster with the one coordinator that is left (offline)",
		Long: "Begin a new life of the cluster with the one coordinator that is left, when a majority is lost for good (two of three machines\n" +
			"burnt). It works on the data folder of that coordinator, which must not run, and says first what may be lost: what the others\n" +
			"have agreed on without this one. The rest is as for clary cluster restore, which is to be preferred if there is a newer backup.\n" +
			"With a majority alive do not use it: clary cluster remove takes out the others.",
		Example: "  clary cluster recover --data /var/lib/clary/coordinator",
		Args:    shell.Takes(),
		RunE: func(command *cobra.Command, _ []string) error {
			if err := a.CheckFormat(); err != nil {
				return err
			}
			return a.recover(command.Context(), data, advertise, yes)
		},
	}
	flags := command.Flags()
	flags.StringVar(&data, "data", "/var/lib/clary/coordinator", "the coordinator's folder")
	flags.StringVar(&advertise, "advertise", "", "host:port under which others will reach it (default: as before)")
	flags.BoolVarP(&yes, "yes", "y", false, "do not ask")
	return command
}

func (a app) recover(ctx context.Context, data, advertise string, yes bool) error {
	found, err := coordinator.Survey(data)
	if err != nil {
		return err
	}
	defer found.Close()
	var others []string
	for _, member := range found.Members {
		if member.ID != found.ID {
			others = append(others, member.ID)
		}
	}
	last := "at an unknown time"
	if !found.At.IsZero() {
		last = "at " + found.At.UTC().Format(time.RFC3339)
	}
	a.Note("clary: coordinator %s has the log up to entry %d, proposed %s", found.ID, found.Last, last)
	if len(others) > 0 {
		a.Note("clary: what %s have agreed on after that without it is lost, and neither of them can come back but anew", strings.Join(others, ", "))
	}
	if found.Embedded && !found.Holds {
		a.Note("clary: the objects of the embedded store were on another machine and are lost with it: put them into %s if they could be saved", filepath.Join(data, "objects"))
	}
	if err := a.Confirm(ctx, yes, "Begin a new life of the cluster with "+found.ID+" alone"); err != nil {
		return err
	}
	made, before, err := found.Recover(advertise, operator(), time.Now())
	if err != nil {
		return err
	}
	value := struct {
		ID     string   `json:"id"`
		Life   string   `json:"life"`
		Last   uint64   `json:"last_entry"`
		Lost   []string `json:"lost"`   // coordinators
		Before string   `json:"before"` // where the former folder's content is
	}{found.ID, made.Life, found.Last, others, before}
	return a.Print(value, func(out io.Writer) error {
		_, err := fmt.Fprintf(out, "%s is a cluster of one (%s); start it as before, and add others with clary cluster add.\nWhat was in its folder is in %s: delete it when all is well.\n", found.ID, made.Life, before)
		return err
	})
}

// operator is who uses this machine, for the audit.
func operator() string {
	who, err := user.Current()
	if err != nil {
		return "root"
	}
	return cmp.Or(who.Username, "root")
}
