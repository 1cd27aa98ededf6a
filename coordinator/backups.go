package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"path"
	"sync"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/backup"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/coordinator/telemetry"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
)

const (
	backupLook  = 10 * time.Second // how often the leader looks whether a backup is due
	backupAgain = 5 * time.Second  // after one that was not made, and twice as long after each further one
	backupRetry = time.Minute      // at most
	backupTime  = time.Hour        // what one may take
)

// backups makes the cluster's backups, on whichever coordinator leads.
type backups struct {
	node   *coordinator
	making sync.Mutex // one at a time

	mu     sync.Mutex
	to     string // where newest was looked for; "" if it was not
	newest time.Time
	failed string // why the last that was tried was not made
	fails  int
}

// Run makes backups as the settings say, on the leader, and looks at once when they have changed. When the last was made is told by
// the S3 itself.
func (b *backups) Run(ctx context.Context) error {
	b.learn("", time.Time{})
	set := b.node.replica.Events().Subscribe(func(c state.Change) bool { return c.Kind == state.KindSettings })
	defer set.Close()
	again := backupAgain
	for {
		wait, err := b.round(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if b.note(err); err != nil {
			wait, again = again, min(2*again, backupRetry)
			b.node.log.Error("no backup could be made; it is tried again", "in", wait, "error", err)
		} else {
			again = backupAgain
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, open := <-set.C:
			if !open {
				return fault.New(fault.Unready, "the state is closed")
			}
		case <-time.After(wait):
		}
	}
}

// round makes a backup if one is due, and says when to look again.
func (b *backups) round(ctx context.Context) (time.Duration, error) {
	set, err := b.settings(ctx)
	if err != nil || set.Every == 0 {
		return backupLook, err
	}
	b.mu.Lock()
	known, newest := b.to == set.To, b.newest
	b.mu.Unlock()
	if !known {
		files, err := b.List(ctx)
		if err != nil {
			return 0, err
		}
		if newest = (time.Time{}); len(files) > 0 {
			newest = files[0].Made
		}
		b.learn(set.To, newest)
	}
	if due := time.Until(newest.Add(set.Every)); due > 0 {
		return min(due, backupLook), nil
	}
	_, _, err = b.Make(ctx)
	return backupLook, err
}

func (b *backups) settings(ctx context.Context) (cluster.Backup, error) {
	snapshot, err := b.node.replica.Read(ctx, true)
	if err != nil {
		return cluster.Backup{}, err
	}
	defer snapshot.Close()
	return snapshot.Settings().Backup, nil
}

func (b *backups) learn(to string, newest time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.to, b.newest = to, newest
}

// note keeps how the last try went.
func (b *backups) note(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed = ""; err != nil {
		b.failed = err.Error()
		b.fails++
	}
}

// Failed is why the last that was tried was not made, "" if it was.
func (b *backups) Failed() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

// measured is what is told of backups.
func (b *backups) measured() telemetry.Backups {
	b.mu.Lock()
	defer b.mu.Unlock()
	return telemetry.Backups{Newest: b.newest, Failures: b.fails}
}

// Make makes a backup, and deletes those that are too many of this life's.
func (b *backups) Make(ctx context.Context) (backup.File, backup.Header, error) {
	b.making.Lock()
	defer b.making.Unlock()
	ctx, cancel := context.WithTimeout(ctx, backupTime)
	defer cancel()
	set, store, to, err := b.place(ctx)
	if err != nil {
		return backup.File{}, backup.Header{}, err
	}
	file, header, err := b.write(ctx, store, set, to)
	if err != nil {
		return file, header, err
	}
	b.learn(set.To, file.Made)
	b.node.log.Info("the cluster was backed up", "to", file.URI, "bytes", file.Size, "revision", header.Revision)
	files, err := b.list(ctx, store, to)
	if err == nil {
		for _, old := range backup.Expired(files, b.node.life(), int(set.Keep)) {
			uri, wrong := object.ParseURI(old.URI)
			err = errors.Join(err, wrong, store.Delete(ctx, uri))
		}
	}
	if err != nil { // the backup is there: that there are too many is another matter
		b.node.log.Warn("old backups could not be deleted", "error", err)
	}
	return file, header, nil
}

// place is where backups go, and how to get there.
func (b *backups) place(ctx context.Context) (cluster.Backup, *object.Client, object.URI, error) {
	set, err := b.settings(ctx)
	if err != nil {
		return set, nil, object.URI{}, err
	}
	if set.To == "" {
		return set, nil, object.URI{}, fault.New(fault.Invalid, "backup.to: is empty: say where backups go, with clary settings set backup.to=s3://bucket/prefix")
	}
	to, err := object.ParseURI(set.To)
	if err != nil {
		return set, nil, to, fault.New(fault.Invalid, "backup.to: %w", err)
	}
	config, err := backup.LoadStore(b.node.config.path(backup.StoreFile))
	if fault.Is(err, fault.NotFound) {
		if config, err = b.node.store.settings(); err == nil && b.node.self.notes.Store.Endpoint == "" {
			err = fault.New(fault.Invalid, "backup.to: the embedded object store is on the disk of a coordinator, and would be lost with it: name another S3 in %s of each coordinator", b.node.config.path(backup.StoreFile))
		}
	}
	if err != nil {
		return set, nil, to, err
	}
	client, err := object.Open(config)
	return set, client, to, err
}

// write makes one backup.
func (b *backups) write(ctx context.Context, store *object.Client, set cluster.Backup, to object.URI) (backup.File, backup.Header, error) {
	var file backup.File
	recipients, err := backup.Recipients(set.RecipientList())
	if err != nil {
		return file, backup.Header{}, fault.New(fault.Invalid, "backup.%w", err)
	}
	keys := b.node.self.keyring.Get()
	part, header, err := b.node.snapshotFile(ctx)
	if err != nil {
		return file, header, err
	}
	defer part.Close()
	if header.Keyring != keys.ID {
		return file, header, fault.New(fault.Unready, "the cluster's keys are being replaced: try again in a moment")
	}
	secrets, name := backup.Secrets{}, ""
	if secrets.Keyring, err = keys.Marshal(); err != nil {
		return file, header, err
	}
	if named := b.node.self.notes.Store; named.Endpoint != "" {
		if secrets.Store, err = json.Marshal(named); err != nil {
			return file, header, err
		}
	}
	if name, err = keys.ClusterName(); err != nil {
		return file, header, err
	}
	file = backup.File{Made: header.Made.Truncate(time.Second), Life: header.Life}
	at := to.Join(backup.Name(name, header.Life, file.Made))
	file.URI = at.String()
	if err := store.EnsureBucket(ctx, to.Bucket); err != nil {
		return file, header, err
	}
	info, err := sealInto(ctx, store, at, func(w io.Writer) error {
		return backup.Seal(w, recipients, secrets, func(w io.Writer) error { _, err := io.Copy(w, part); return err })
	})
	file.Size = info.Size
	return file, header, err
}

// sealInto puts what write writes into an object, all of it or nothing.
func sealInto(ctx context.Context, store *object.Client, at object.URI, write func(io.Writer) error) (object.Info, error) {
	reader, writer := io.Pipe()
	sealed := make(chan error, 1)
	go func() {
		err := write(writer)
		_ = writer.CloseWithError(err) // never fails
		sealed <- err
	}()
	info, err := store.Put(ctx, at, reader, -1)
	_ = reader.CloseWithError(errors.Join(err, io.ErrClosedPipe)) // never fails; ends the writing if it goes on
	if failed := <-sealed; err == nil {
		err = failed
	}
	return info, err
}

// List tells of the cluster's backups, of all of its lives, the newest first.
func (b *backups) List(ctx context.Context) ([]backup.File, error) {
	_, store, to, err := b.place(ctx)
	if err != nil {
		return nil, err
	}
	return b.list(ctx, store, to)
}

func (b *backups) list(ctx context.Context, store *object.Client, to object.URI) ([]backup.File, error) {
	name, err := b.node.self.keyring.Get().ClusterName()
	if err != nil {
		return nil, err
	}
	objects, err := store.List(ctx, to.Join(backup.Prefix(name)))
	if fault.Is(err, fault.NotFound) { // the bucket is made with the first
		return nil, nil
	}
	var files []backup.File
	for _, o := range objects {
		if made, life, ok := backup.Parse(path.Base(o.URI.Key), name); ok {
			files = append(files, backup.File{URI: o.URI.String(), Size: o.Size, Made: made, Life: life})
		}
	}
	backup.Newest(files)
	return files, err
}
