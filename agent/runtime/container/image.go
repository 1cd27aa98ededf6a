package container

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	moby "github.com/moby/moby/client"

	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/internal/fault"
)

// archivePrefix is the repository of images that came out of the object store, each under
// a tag that follows from its address and content.
const archivePrefix = "clary.local/archive:"

// image returns what to call the image by, after bringing it if the engine has it not. It
// is not deleted before release.
func (d *Driver) image(ctx context.Context, name string) (id string, release func(), err error) {
	if strings.HasPrefix(name, "s3://") {
		id, err = d.archived(ctx, name)
	} else {
		id, err = d.registered(ctx, name)
	}
	if err != nil {
		return "", nil, err
	}
	return id, d.images.use(id), nil
}

// registered is an image of a registry. One with a digest is exactly that: the engine
// compares.
func (d *Driver) registered(ctx context.Context, name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", fault.New(fault.Invalid, "image %q: %w", name, err)
	}
	named = reference.TagNameOnly(named)
	candidates := d.mirrored(named)
	for _, candidate := range candidates {
		if known, err := d.engine.ImageInspect(ctx, candidate); err == nil {
			return known.ID, nil
		} else if errdefs.IsInvalidArgument(err) {
			return "", fault.New(fault.Invalid, "image %q: %w", name, err)
		} else if !errdefs.IsNotFound(err) {
			return "", fault.New(fault.Unready, "look for image %s: %w", name, err)
		}
	}
	var failed []error
	for _, candidate := range candidates {
		if err := d.pull(ctx, candidate); err != nil {
			failed = append(failed, err)
			continue
		}
		known, err := d.engine.ImageInspect(ctx, candidate)
		if err != nil {
			return "", fault.New(fault.Unready, "look for image %s: %w", name, err)
		}
		d.brought(ctx, known.ID, known.Size)
		return known.ID, nil
	}
	return "", fault.New(fault.Invalid, "image %s: it is not on this node and cannot be pulled: %w", name, errors.Join(failed...))
}

// mirrored are the names to ask for, that of a mirror first.
func (d *Driver) mirrored(named reference.Named) []string {
	names := []string{named.String()}
	if mirror := d.config.Mirrors[reference.Domain(named)]; mirror != "" {
		names = []string{mirror + strings.TrimPrefix(named.String(), reference.Domain(named)), named.String()}
	}
	return names
}

func (d *Driver) pull(ctx context.Context, name string) error {
	answer, err := d.engine.ImagePull(ctx, name, moby.ImagePullOptions{})
	if err != nil {
		return err
	}
	return errors.Join(answer.Wait(ctx), answer.Close())
}

// archived is an image out of the object store.
func (d *Driver) archived(ctx context.Context, uri string) (string, error) {
	if d.config.Archive == nil {
		return "", fault.New(fault.Unready, "image %s: this node knows no object store", uri)
	}
	etag, open, err := d.config.Archive(ctx, uri)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(uri + "\x00" + etag))
	tag := archivePrefix + hex.EncodeToString(sum[:16])
	if known, err := d.engine.ImageInspect(ctx, tag); err == nil {
		return known.ID, nil
	} else if !errdefs.IsNotFound(err) {
		return "", fault.New(fault.Unready, "look for image %s: %w", uri, err)
	}
	body, err := open(ctx)
	if err != nil {
		return "", err
	}
	defer body.Close() //nolint:errcheck // only read
	loadable, err := openArchive(body, tag)
	if err != nil {
		return "", fault.New(fault.Invalid, "image %s: %w", uri, err)
	}
	defer loadable.Close() //nolint:errcheck // a temporary file
	answer, err := d.engine.ImageLoad(ctx, loadable, moby.ImageLoadWithQuiet(true))
	if err != nil {
		return "", fault.New(fault.Invalid, "image %s: the engine cannot load it: %w", uri, err)
	}
	said, err := io.ReadAll(io.LimitReader(answer, 64<<10))
	if err = errors.Join(err, answer.Close()); err != nil {
		return "", fault.New(fault.Unready, "load image %s: %w", uri, err)
	}
	known, err := d.engine.ImageInspect(ctx, tag)
	if err != nil {
		return "", fault.New(fault.Invalid, "image %s: the engine cannot load it: %s", uri, strings.TrimSpace(string(said)))
	}
	d.brought(ctx, known.ID, known.Size)
	return known.ID, nil
}

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
	i := &d.images
	i.mu.Lock()
	defer i.mu.Unlock()
	i.known[id] = broughtImage{size, time.Now()}
	total := int64(0)
	var order []string
	for id, image := range i.known {
		total += image.Size
		order = append(order, id)
	}
	slices.SortFunc(order, func(a, b string) int { return i.known[a].Used.Compare(i.known[b].Used) })
	for _, old := range order {
		if d.config.ImageBytes <= 0 || total <= d.config.ImageBytes || old == id || i.inUse[old] > 0 {
			continue
		}
		_, err := d.engine.ImageRemove(ctx, old, moby.ImageRemoveOptions{PruneChildren: true, Force: false})
		if errdefs.IsConflict(err) {
			err = d.untagAndRemove(ctx, old)
		}
		if err != nil && !errdefs.IsNotFound(err) {
			continue // a container has it
		}
		d.config.Log.Info("an image is deleted to make room", "image", old, "size", i.known[old].Size)
		total -= i.known[old].Size
		delete(i.known, old)
	}
	if err := i.write(); err != nil {
		d.config.Log.Warn("remember images", "error", err)
	}
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
