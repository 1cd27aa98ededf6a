package staging

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/tree"
)

// checkpointPrefix is where one attempt of a task keeps its checkpoints below the
// job's prefix.
func checkpointPrefix(prefix string, attempt int32, task cluster.Task) string {
	return fmt.Sprintf("%s%d/%s-%d/", prefix, attempt, task.Role, task.Index)
}

// earlier are the objects from which the task goes on, by the names that they get.
//
// The tasks of an elastic role may have been others, and fewer, in the attempt before. So all of them go
// on from one attempt, the newest in which the first has some, and each gets what all of the role had
// there: of one name its own, else that of the lowest index.
func earlier(objects []Object, prefix string, task cluster.Task, elastic bool) (map[string]Object, int32, error) {
	leader := task
	if elastic {
		leader.Index = 0
	}
	newest, attempt := newestAttempt(objects, prefix, leader)
	if !elastic {
		found := map[string]Object{}
		return found, attempt, named(found, newest, checkpointPrefix(prefix, attempt, task))
	}
	byIndex := map[int32][]Object{}
	for _, object := range objects {
		rest, of := strings.CutPrefix(object.Key, fmt.Sprintf("%s%d/%s-", prefix, attempt, task.Role))
		number, _, _ := strings.Cut(rest, "/")
		if n, err := strconv.ParseInt(number, 10, 32); of && err == nil {
			byIndex[int32(n)] = append(byIndex[int32(n)], object)
		}
	}
	found := map[string]Object{}
	indexes := slices.Sorted(maps.Keys(byIndex))
	slices.Reverse(indexes) // who comes later stands
	for _, index := range append(indexes, task.Index) {
		from := task
		from.Index = index
		if err := named(found, byIndex[index], checkpointPrefix(prefix, attempt, from)); err != nil {
			return nil, 0, err
		}
	}
	return found, attempt, nil
}

// named puts objects under the names that they have below a prefix.
func named(found map[string]Object, objects []Object, below string) error {
	for _, object := range objects {
		name, err := relative(object.Key, below)
		if err != nil {
			return err
		}
		found[name] = object
	}
	return nil
}

// newestAttempt picks the objects of the newest attempt before the task's own.
func newestAttempt(objects []Object, prefix string, task cluster.Task) ([]Object, int32) {
	var newest int32
	byAttempt := map[int32][]Object{}
	for _, object := range objects {
		number, _, _ := strings.Cut(strings.TrimPrefix(object.Key, prefix), "/")
		n, err := strconv.ParseInt(number, 10, 32)
		attempt := int32(n)
		if err != nil || attempt >= task.Attempt || !strings.HasPrefix(object.Key, checkpointPrefix(prefix, attempt, task)) {
			continue
		}
		byAttempt[attempt] = append(byAttempt[attempt], object)
		newest = max(newest, attempt)
	}
	return byAttempt[newest], newest
}

// Mirror keeps a prefix of the store like a task's checkpoint folder. A file is sent once
// nobody has it open to write, or it has not changed from one look to the next; names that
// begin with '.' or end with ".tmp" are still being written.
type Mirror struct {
	Store  Store
	Folder Folder
	Bucket string
	Prefix string // ends with '/'
	// Keep leaves what the task deletes, and what was there before, in the store.
	Keep bool
	// Max is how many files there may be; 0 is a hundred thousand.
	Max int
	// Since leaves out what has not changed since: it was there when the task began, and is another's to
	// keep.
	Since time.Time
	// Sent is told of each file that is in the store now, unless it is nil. If it fails the file
	// counts as not sent.
	Sent func(ctx context.Context, name string) error

	newest time.Time        // see Whole
	sent   map[string]stamp // by name, what is in the store
	seen   map[string]stamp // as they were when they were last looked at
}

type stamp struct {
	size int64
	time time.Time
}

// NewMirror mirrors into the place of the task's own attempt below uri.
func NewMirror(store Store, uri string, task cluster.Task, folder Folder) (*Mirror, error) {
	bucket, prefix, err := ParseURI(uri)
	if err != nil {
		return nil, err
	}
	if prefix != "" && !strings.HasSuffix(prefix, "/") {
		prefix += "/"
	}
	return &Mirror{Store: store, Folder: folder, Bucket: bucket, Prefix: checkpointPrefix(prefix, task.Attempt, task)}, nil
}

// Sync sends what is new and whole, and only then deletes what is gone, so that the store always holds a checkpoint once there was one. It is not for
// concurrent use.
func (m *Mirror) Sync(ctx context.Context) error {
	here, err := m.scan(ctx)
	if err != nil {
		return err
	}
	whole := map[string]stamp{}
	for name, now := range here {
		if m.seen[name] == now || m.isClosed(name) {
			whole[name] = now
		}
	}
	m.seen = here
	return m.sync(ctx, here, whole)
}

func (m *Mirror) isClosed(name string) bool {
	file, err := m.Folder.openFile(name)
	if err != nil {
		return false
	}
	defer file.Close() //nolint:errcheck // only read
	return isClosed(file)
}

// Finish is Sync for a task that has ended: nothing changes any more.
func (m *Mirror) Finish(ctx context.Context) error {
	here, err := m.scan(ctx)
	if err != nil {
		return err
	}
	return m.sync(ctx, here, here)
}

// sync brings the store to what is here, as far as it is whole.
func (m *Mirror) sync(ctx context.Context, here, whole map[string]stamp) error {
	if m.sent == nil && len(here) == 0 {
		return nil // nothing to send, so the store need not be asked
	}
	defer func() { m.newest = m.whole(here) }()
	if m.sent == nil && m.Keep {
		m.sent = map[string]stamp{}
	}
	if m.sent == nil {
		if err := m.learn(ctx); err != nil {
			return err
		}
	}
	names := make([]string, 0, len(whole))
	for name := range whole {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { // oldest first: the newest follows
		return here[a].time.Compare(here[b].time)
	})
	var errs []error
	for _, name := range names {
		if m.sent[name] != here[name] {
			errs = append(errs, m.send(ctx, name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if m.Keep || len(here) > 0 && !m.holdsAny(here) {
		return nil // what is new is not whole yet: what is old stays
	}
	for name := range m.sent {
		if _, ok := here[name]; ok {
			continue
		}
		if err := m.Store.Delete(ctx, m.Bucket, m.Prefix+name); err != nil {
			return fault.New(fault.KindOf(err), "prune checkpoint %s: %w", name, err)
		}
		delete(m.sent, name)
	}
	return nil
}

// Whole is when the newest file was written that is in the store together with all that are older,
// as of the last look; zero if none is. Of files that make up a checkpoint, the last stands for all.
func (m *Mirror) Whole() time.Time { return m.newest }

func (m *Mirror) whole(here map[string]stamp) time.Time {
	var missing time.Time // when the oldest was written that is not in the store as it is
	for name, now := range here {
		if m.sent[name] != now && (missing.IsZero() || now.time.Before(missing)) {
			missing = now.time
		}
	}
	var newest time.Time
	for _, in := range m.sent {
		if in.time.After(newest) && (missing.IsZero() || in.time.Before(missing)) {
			newest = in.time
		}
	}
	return newest
}

func (m *Mirror) holdsAny(here map[string]stamp) bool {
	for name := range here {
		if _, sent := m.sent[name]; sent {
			return true
		}
	}
	return false
}

// learn reads what an earlier agent's mirror left in the store. Its times are not
// known, so what is here too is sent once more.
func (m *Mirror) learn(ctx context.Context) error {
	objects, err := m.Store.List(ctx, m.Bucket, m.Prefix)
	if err != nil {
		return fault.New(fault.KindOf(err), "list mirrored checkpoints: %w", err)
	}
	m.sent = map[string]stamp{}
	for _, object := range objects {
		m.sent[strings.TrimPrefix(object.Key, m.Prefix)] = stamp{size: object.Size}
	}
	return nil
}

// maxMirrored is how many files are mirrored if a mirror does not say: each is an object.
const maxMirrored = 100_000

func (m *Mirror) scan(ctx context.Context) (map[string]stamp, error) {
	found := map[string]stamp{}
	most := cmp.Or(m.Max, maxMirrored)
	root, err := m.Folder.open()
	if err != nil {
		return nil, fault.New(fault.Internal, "read checkpoints: %w", err)
	}
	defer root.Close() //nolint:errcheck // only read
	err = tree.Walk(ctx, root, func(name string, info fs.FileInfo) error {
		switch {
		case strings.HasPrefix(info.Name(), ".") || strings.HasSuffix(info.Name(), ".tmp"):
			return fs.SkipDir
		case !info.Mode().IsRegular() || !m.Since.IsZero() && changed(info).Before(m.Since):
		case len(found) == most:
			return fault.New(fault.Invalid, "more than %d files: put them into fewer, or archives", most)
		default:
			found[name] = stamp{info.Size(), info.ModTime()}
		}
		return nil
	})
	if err != nil {
		return nil, fault.New(fault.KindOf(err), "read checkpoints: %w", err)
	}
	return found, nil
}

// changed is when a file's content or name was last changed, whatever time its owner gave it.
func changed(info fs.FileInfo) time.Time {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(stat.Ctim.Unix())
	}
	return info.ModTime()
}

func (m *Mirror) send(ctx context.Context, name string) error {
	file, err := m.Folder.openFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil // pruned by the task just now
	}
	if err != nil {
		return fault.New(fault.Internal, "read checkpoint %s: %w", name, err)
	}
	defer file.Close() //nolint:errcheck // only read
	now, err := file.Stat()
	if err != nil {
		return fault.New(fault.Internal, "read checkpoint %s: %w", name, err)
	}
	as := stamp{now.Size(), now.ModTime()} // it may have been replaced since the look
	content := &steady{file: file, as: as, left: as.size}
	if err := m.Store.Put(ctx, m.Bucket, m.Prefix+name, content, as.size); content.changed {
		return nil // the next look sends it
	} else if err != nil {
		return fault.New(fault.KindOf(err), "mirror checkpoint %s: %w", name, err)
	}
	if m.Sent != nil {
		if err := m.Sent(ctx, name); err != nil {
			return fault.New(fault.KindOf(err), "mirror %s: %w", name, err)
		}
	}
	m.sent[name] = as
	return nil
}

// has reports whether the store has the file as it is now.
func (m *Mirror) has(name string, info fs.FileInfo) bool {
	known, sent := m.sent[name]
	return sent && known == stamp{info.Size(), info.ModTime()}
}
