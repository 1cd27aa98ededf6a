package container

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	moby "github.com/moby/moby/client"

	"github.com/clary-ml/clary/internal/atomicfile"
)

// images remembers which images the driver brought, and when they were last used.
type images struct {
	mu    sync.Mutex
	path  string
	known map[string]broughtImage // by ID
	inUse map[string]int          // being started
}

type broughtImage struct {
	Size int64     `json:"size"`
	Used time.Time `json:"used"`
}

// open reads what an earlier agent brought. A file that cannot be read only means that
// those images stay.
func (i *images) open(path string) {
	i.path, i.known, i.inUse = path, map[string]broughtImage{}, map[string]int{}
	if text, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(text, &i.known)
	}
}

func (i *images) write() error {
	text, err := json.Marshal(i.known)
	if err != nil {
		return err
	}
	return atomicfile.Write(i.path, text, 0o600)
}

// use keeps an image until the release.
func (i *images) use(id string) (release func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.inUse[id]++
	if known, ok := i.known[id]; ok {
		known.Used = time.Now()
		i.known[id] = known
		_ = i.write() // it is only the order in which they go
	}
	return sync.OnceFunc(func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.inUse[id]--; i.inUse[id] == 0 {
			delete(i.inUse, id)
		}
	})
}

// brought remembers an image, and deletes the least recently used of those that the driver
// brought while they are more than the bound. The engine refuses to delete one that a
// container has.
func (d *Driver) brought(ctx context.Context, id string, size int64) {
	for _, old := range d.images.tooMany(id, size, d.config.ImageBytes) {
		_, err := d.engine.ImageRemove(ctx, old, moby.ImageRemoveOptions{PruneChildren: true, Force: false})
		if errdefs.IsConflict(err) {
			err = d.untagAndRemove(ctx, old)
		}
		if err != nil && !errdefs.IsNotFound(err) {
			continue // a container has it
		}
		freed, over := d.images.forget(old, d.config.ImageBytes)
		d.config.Log.Info("an image is deleted to make room", "image", old, "size", freed)
		if !over {
			break
		}
	}
	if err := d.images.save(); err != nil {
		d.config.Log.Warn("remember images", "error", err)
	}
}

// tooMany adds an image and, if all are more than the bound, returns the others that nobody
// starts, least recently used first.
func (i *images) tooMany(id string, size, bound int64) []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.known[id] = broughtImage{size, time.Now()}
	if bound <= 0 || i.total() <= bound {
		return nil
	}
	order := slices.DeleteFunc(slices.Collect(maps.Keys(i.known)), func(old string) bool { return old == id || i.inUse[old] > 0 })
	slices.SortFunc(order, func(a, b string) int { return i.known[a].Used.Compare(i.known[b].Used) })
	return order
}

// forget takes a deleted image away, and says whether what is left is still too much.
func (i *images) forget(id string, bound int64) (freed int64, over bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	freed = i.known[id].Size
	delete(i.known, id)
	return freed, i.total() > bound
}

func (i *images) total() int64 {
	total := int64(0)
	for _, image := range i.known {
		total += image.Size
	}
	return total
}

func (i *images) save() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.write()
}

// untagAndRemove deletes an image that has several names: the engine refuses that by ID.
func (d *Driver) untagAndRemove(ctx context.Context, id string) error {
	known, err := d.engine.ImageInspect(ctx, id)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range slices.Concat(known.RepoTags, known.RepoDigests) {
		_, err := d.engine.ImageRemove(ctx, name, moby.ImageRemoveOptions{PruneChildren: true})
		if !errdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
