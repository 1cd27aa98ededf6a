package container

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
	moby "github.com/moby/moby/client"

	"github.com/clary-ml/clary/internal/fault"
)

// archivePrefix is the repository of images that came out of the object store, each under
// a tag that follows from its address and content.
const archivePrefix = "clary.local/archive:"

// Fetch brings an image, so that a start of it is short. Unready says that it may be tried
// again.
func (d *Driver) Fetch(ctx context.Context, image string) error {
	_, release, err := d.image(ctx, image)
	if err == nil {
		release()
	}
	return err
}

// image returns what to call the image by, after bringing it if the engine has it not. It
// is not deleted before release. A gang's tasks on one node bring it once.
func (d *Driver) image(ctx context.Context, name string) (id string, release func(), err error) {
	leave, err := d.bringing.enter(ctx, name)
	if err != nil {
		return "", nil, err
	}
	defer leave()
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
	kind := fault.Invalid
	for _, candidate := range candidates {
		if err := d.pull(ctx, candidate); err != nil {
			failed = append(failed, err)
			if !refused(err) {
				kind = fault.Unready
			}
			continue
		}
		known, err := d.engine.ImageInspect(ctx, candidate)
		if err != nil {
			return "", fault.New(fault.Unready, "look for image %s: %w", name, err)
		}
		d.brought(ctx, known.ID, known.Size)
		return known.ID, nil
	}
	return "", fault.New(kind, "image %s: it is not on this node and cannot be pulled: %w", name, errors.Join(failed...))
}

// refusals are what a registry says of an image that it will not give. Podman passes on only
// the words.
var refusals = []string{"manifest unknown", "name unknown", "not found", "unauthorized", "denied", "no basic auth credentials", "no matching manifest", "invalid reference"}

// refused reports whether asking a registry again would be no use.
func refused(err error) bool {
	if errdefs.IsNotFound(err) || errdefs.IsUnauthorized(err) || errdefs.IsPermissionDenied(err) || errdefs.IsInvalidArgument(err) {
		return true
	}
	said := strings.ToLower(err.Error())
	return slices.ContainsFunc(refusals, func(word string) bool { return strings.Contains(said, word) })
}

// mirrored are the names to ask for, that of a mirror first.
func (d *Driver) mirrored(named reference.Named) []string {
	names := []string{named.String()}
	if mirror := d.config.Mirrors[reference.Domain(named)]; mirror != "" {
		names = []string{mirror + strings.TrimPrefix(named.String(), reference.Domain(named)), named.String()}
	}
	return names
}

func (d *Driver) pull(ctx context.Context, image string) error {
	credentials, err := d.credentials(ctx, image)
	if err != nil {
		return err
	}
	answer, err := d.engine.ImagePull(ctx, image, moby.ImagePullOptions{RegistryAuth: credentials})
	if err != nil {
		return err
	}
	return errors.Join(answer.Wait(ctx), answer.Close())
}

// credentials are those for an image's registry as the engine takes them, "" if there are none.
func (d *Driver) credentials(ctx context.Context, image string) (string, error) {
	if d.config.Credentials == nil {
		return "", nil
	}
	parsed, err := name.ParseReference(image)
	if err != nil {
		return "", err
	}
	known, err := authn.Resolve(ctx, d.config.Credentials, parsed.Context())
	if err != nil || known == authn.Anonymous {
		return "", err
	}
	said, err := authn.Authorization(ctx, known)
	if err != nil {
		return "", err
	}
	return authconfig.Encode(registry.AuthConfig{
		Username: said.Username, Password: said.Password, IdentityToken: said.IdentityToken, RegistryToken: said.RegistryToken,
		ServerAddress: parsed.Context().RegistryStr(),
	})
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
	watched := &source{from: body}
	loadable, err := openArchive(watched, d.temporary, tag)
	switch {
	case watched.err != nil:
		return "", fault.New(fault.Unready, "read image %s: %w", uri, watched.err)
	case err != nil:
		return "", fault.New(fault.Invalid, "image %s: %w", uri, err)
	}
	defer loadable.Close() //nolint:errcheck // temporary files
	answer, err := d.engine.ImageLoad(ctx, loadable, moby.ImageLoadWithQuiet(true))
	if err != nil {
		return "", fault.New(d.kindOf(ctx, err), "image %s: the engine cannot load it: %w", uri, err)
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

// source remembers that it could not be read: that is not the fault of what was read.
type source struct {
	from io.Reader
	err  error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// flights lets one at a time do what has a name; the others then find it done.
type flights struct {
	mu    sync.Mutex
	under map[string]chan struct{}
}

// enter waits for its turn; leave must be called.
func (f *flights) enter(ctx context.Context, name string) (leave func(), err error) {
	for {
		f.mu.Lock()
		before, busy := f.under[name]
		if !busy {
			done := make(chan struct{})
			if f.under == nil {
				f.under = map[string]chan struct{}{}
			}
			f.under[name] = done
			f.mu.Unlock()
			return func() {
				f.mu.Lock()
				delete(f.under, name)
				f.mu.Unlock()
				close(done)
			}, nil
		}
		f.mu.Unlock()
		select {
		case <-before:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
