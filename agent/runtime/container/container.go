// Package container runs tasks as containers of an engine that speaks Docker's API:
// dockerd or Podman.
//
// A task's container carries its ID as a label and has a name that follows from it, and a
// file in the task's folder says that it was started and whether it was told to stop. So
// an agent, and an engine, may be killed at any time: what ran, what runs and how it ended
// is read again from both. What neither knows is said to be unknown.
package container

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	moby "github.com/moby/moby/client"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/internal/fault"
)

// Labels of containers.
const (
	labelTask  = "clary.task"  // its ID
	labelAgent = "clary.agent" // whose it is, where several agents share an engine
)

// noteFile is the driver's own in a task's folder.
const noteFile = "container.json"

// Config is what the driver needs.
type Config struct {
	Root    string            // a task's file is in Root/FolderName(ID)
	Socket  string            // unix:///run/docker.sock, or another address of an engine
	Mirrors map[string]string // registry by host name to the one to ask first, as "docker.io" to "mirror.local:5000"
	// Archive finds an image's file in the object store: what changes with its content, and
	// a way to read it. Nil if there is no store.
	Archive func(ctx context.Context, uri string) (etag string, open func(context.Context) (io.ReadCloser, error), err error)
	// Credentials are those for registries; nil has none.
	Credentials authn.Keychain
	// ImageBytes bounds the images that the driver itself has brought and nobody uses; the
	// least recently used go first. 0 keeps all.
	ImageBytes int64
	// Simulated says that devices do not exist, and are only named.
	Simulated bool
	Host      string // address on which tasks in the machine's network may listen
	Log       *slog.Logger
}

// Driver implements runtime.Driver, Meter, Execer, Dialer and Occupant.
type Driver struct {
	config Config
	engine *moby.Client
	agent  string // value of labelAgent

	ctx       context.Context
	cancel    context.CancelFunc
	images    images
	bringing  flights // of images
	turns     flights // of tasks whose container is made or removed
	temporary string  // folder of images' files

	filter     sync.Mutex
	filterFile string // Podman's, once it is made

	mu       sync.Mutex
	tasks    map[string]*handle
	starting map[string]bool // by ID: those that are not among tasks yet
	running  sync.WaitGroup
}

// handle follows one task's container.
type handle struct {
	id, dir string
	name    string // the container's
	started time.Time
	note    note
	before  bool // an earlier agent started it
	gauge   gauge
	stops   chan time.Duration // with how much grace; the last one counts
	done    chan struct{}      // closed when exit is set, or abandoned
	exit    runtime.Exit
	err     error
}

// note is what the driver writes down of a task. It is there before the container is
// started, the cause before it is told to end, and the exit once that is known.
type note struct {
	Container  string        `json:"container"` // its name
	Created    time.Time     `json:"created"`
	Boot       string        `json:"boot,omitempty"` // of the machine, in which it was made
	MaxRuntime time.Duration `json:"max_runtime,omitempty"`
	Grace      time.Duration `json:"grace,omitempty"`
	Cause      runtime.Cause `json:"cause,omitempty"`
	Exit       *runtime.Exit `json:"exit,omitempty"`
}

// Open connects to an engine, which need not be there: it is asked when it is needed.
func Open(config Config) (*Driver, error) {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	root, err := filepath.Abs(config.Root)
	if err != nil {
		return nil, fault.New(fault.Internal, "open task folders: %w", err)
	}
	temporary := filepath.Join(filepath.Dir(root), "image-files")
	// An earlier agent may have died over some.
	if err := errors.Join(os.RemoveAll(temporary), os.MkdirAll(temporary, 0o700), os.MkdirAll(root, 0o700)); err != nil {
		return nil, fault.New(fault.Internal, "open task folders: %w", err)
	}
	engine, err := moby.New(moby.WithHost(config.Socket))
	if err != nil {
		return nil, fault.New(fault.Invalid, "container engine %q: takes an address like unix:///run/docker.sock: %w", config.Socket, err)
	}
	config.Root = root
	sum := sha256.Sum256([]byte(root))
	d := &Driver{config: config, engine: engine, agent: hex.EncodeToString(sum[:6]), temporary: temporary, tasks: map[string]*handle{}, starting: map[string]bool{}}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.images.open(filepath.Join(filepath.Dir(root), "images.json"))
	return d, nil
}

// podmanEngine is what Engine calls Podman.
const podmanEngine = "podman"

// Engine says what the engine is: "docker" or "podman"; an error if none answers.
func (d *Driver) Engine(ctx context.Context) (string, error) {
	version, err := d.engine.ServerVersion(ctx, moby.ServerVersionOptions{})
	if err != nil {
		return "", fault.New(fault.Unready, "the container engine at %s does not answer: %w", d.config.Socket, err)
	}
	for _, component := range version.Components {
		if strings.Contains(component.Name, "Podman") {
			return podmanEngine, nil
		}
	}
	return "docker", nil
}

// Close lets go of the tasks, which run on, and waits for the driver's goroutines.
func (d *Driver) Close() error {
	d.cancel()
	d.running.Wait()
	return d.engine.Close()
}

func (d *Driver) find(id string) (*handle, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h, ok := d.tasks[id]
	if !ok {
		return nil, fault.New(fault.NotFound, "task %s is not on this node", id)
	}
	return h, nil
}

// knows reports whether a task is there, or about to be.
func (d *Driver) knows(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.starting[id] || d.tasks[id] != nil
}

// claim says that a task is about to be there, until the release.
func (d *Driver) claim(id string) (release func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.starting[id] {
		return nil, fault.New(fault.Conflict, "task %s is being started", id)
	}
	d.starting[id] = true
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.starting, id)
	}, nil
}

// containerName is the only one that a task's container may have: an engine refuses a
// second.
func (d *Driver) containerName(folder string) string {
	return "clary-" + d.agent + "-" + strings.ReplaceAll(folder, "~", "_")
}

// Wait returns how the task ended.
func (d *Driver) Wait(ctx context.Context, id string) (runtime.Exit, error) {
	h, err := d.find(id)
	if err != nil {
		return runtime.Exit{}, err
	}
	select {
	case <-h.done:
		return h.exit, h.err
	case <-ctx.Done():
		return runtime.Exit{}, context.Cause(ctx)
	}
}

// Stop writes the wish down and tells whoever follows the container.
func (d *Driver) Stop(_ context.Context, id string, grace time.Duration) error {
	h, err := d.find(id)
	if err != nil || h.ended() {
		return err
	}
	select {
	case <-h.stops: // one that was not seen yet
	default:
	}
	select {
	case h.stops <- grace:
	case <-h.done:
	}
	return nil
}

// Remove deletes an ended task's container and the driver's file of it.
func (d *Driver) Remove(ctx context.Context, id string) error {
	folder, err := runtime.FolderName(id)
	if err != nil {
		return err
	}
	if h, err := d.find(id); err == nil && !h.ended() {
		return fault.New(fault.Conflict, "task %s still runs: stop it first", id)
	}
	if err := d.discard(ctx, d.containerName(folder)); err != nil {
		return fault.New(fault.Unready, "remove the container of task %s: %w", id, err)
	}
	if err := os.Remove(filepath.Join(d.config.Root, folder, noteFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.Internal, "forget task %s: %w", id, err)
	}
	d.mu.Lock()
	delete(d.tasks, id)
	d.mu.Unlock()
	return nil
}

func (h *handle) ended() bool {
	select {
	case <-h.done:
		return true
	default:
		return false
	}
}

func readNote(dir string, n *note) error {
	text, err := os.ReadFile(filepath.Join(dir, noteFile))
	if err != nil {
		return err
	}
	return json.Unmarshal(text, n)
}

func writeNote(dir string, n note) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, noteFile), text, 0o600)
}
