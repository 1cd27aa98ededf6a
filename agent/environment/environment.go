// Package environment makes Python environments for tasks, each once on a node: a venv
// with the packages of a requirements.txt, under a name that follows from all that it
// depends on.
//
// Packages run code of their own while they are installed, code that anybody may have
// written. So that is done like a task: with a view of the machine in which only the new
// environment can be written, by a user who owns nothing else, within limits, and with
// nothing left of it at its end.
package environment

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/tree"
)

const (
	completeFile = ".clary-complete" // written last, beside what packages could write
	venvFolder   = "env"             // theirs
	buildTime    = 30 * time.Minute
	toldBytes    = 2 << 10 // of what pip said, in an error
)

// Config is where environments are and what they are made from.
type Config struct {
	Root       string // folder of all environments
	Index      string // URL of a package index instead of the public one; "" leaves it to pip's own configuration
	Wheelhouse string // folder of wheels: the only source of packages, if it is named
	Keep       int    // most environments that stay while nobody uses them
	// Contain runs programs that are not trusted, on a machine that can; nil runs them as
	// UID and sees to nothing else.
	Contain *Contain
	UID     int // whom packages are installed as without Contain; 0 is the agent itself
	Log     *slog.Logger
}

// Cache has a node's environments.
type Cache struct {
	config   Config
	run      runner
	building singleflight.Group

	mu     sync.Mutex
	used   map[string]int    // by digest, how many tasks have it
	probed map[string]string // what interpreters said of themselves, by file and its time
}

// Open makes the folder, and deletes what an earlier agent did not finish.
func Open(config Config) (*Cache, error) {
	if err := os.MkdirAll(config.Root, 0o755); err != nil {
		return nil, fault.New(fault.Internal, "open Python environments: %w", err)
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	c := &Cache{config: config, run: plain{uid: config.UID}, used: map[string]int{}, probed: map[string]string{}}
	if config.Contain != nil {
		c.run = config.Contain.runner()
	}
	items, err := os.ReadDir(config.Root)
	if err != nil {
		return nil, fault.New(fault.Internal, "open Python environments: %w", err)
	}
	for _, item := range items {
		if !c.complete(item.Name()) {
			if err := tree.RemoveAll(filepath.Join(config.Root, item.Name())); err != nil {
				return nil, fault.New(fault.Internal, "delete an unfinished Python environment: %w", err)
			}
		}
	}
	return c, nil
}

// Root is below which all environments are.
func (c *Cache) Root() string { return c.config.Root }

func (c *Cache) complete(digest string) bool {
	_, err := os.Stat(filepath.Join(c.config.Root, digest, completeFile))
	return err == nil
}

// Ensure returns the folder of an environment's programs, and makes it first if it must.
// Whoever asks for the same at the same time waits for one build. The error of a build
// that failed holds the last that pip said; the next who asks tries again.
func (c *Cache) Ensure(ctx context.Context, python cluster.Python) (bin string, release func(), err error) {
	interpreter, digest, err := c.identify(ctx, python)
	if err != nil {
		return "", nil, err
	}
	c.hold(digest, 1)
	release = sync.OnceFunc(func() { c.hold(digest, -1); c.evict() })
	result := c.building.DoChan(digest, func() (any, error) {
		if c.complete(digest) {
			return nil, c.touch(digest)
		}
		// The build is not the first asker's alone: it goes on if that one is stopped.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), buildTime)
		defer cancel()
		return nil, c.build(ctx, interpreter, digest, python.Requirements)
	})
	select {
	case <-ctx.Done():
		err = ctx.Err()
	case r := <-result:
		err = r.Err
	}
	if err != nil {
		release()
		return "", nil, err
	}
	return filepath.Join(c.config.Root, digest, venvFolder, "bin"), release, nil
}

// interpreter finds the first of that name which who installs may run, and asks for its
// version: root's PATH may name a Python of its own, which is no task's.
func (c *Cache) interpreter(ctx context.Context, name string) (program, version string, err error) {
	candidates := []string{name}
	if !strings.Contains(name, "/") {
		candidates = nil
		for _, folder := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/bin") {
			candidates = append(candidates, filepath.Join(folder, name))
		}
	}
	err = errors.New("install it, or name another interpreter")
	for _, candidate := range candidates {
		path, missing := exec.LookPath(candidate)
		if missing != nil {
			continue
		}
		said, failed := c.probe(ctx, path)
		if failed == nil {
			return path, said, nil
		}
		err = failed
	}
	return "", "", fault.New(fault.Invalid, "python: this node has no %q that a task can run: %w", cluster.Clip(name), err)
}

// probe asks an interpreter what it is, once.
func (c *Cache) probe(ctx context.Context, path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	key := fmt.Sprint(path, " ", info.Size(), " ", info.ModTime().UnixNano())
	c.mu.Lock()
	said, known := c.probed[key]
	c.mu.Unlock()
	if known {
		return said, nil
	}
	said, err = c.run.run(ctx, order{program: path, arguments: []string{"-I", "-c", "import sys; print(sys.version, sys.executable, sys.base_prefix)"}})
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.probed[key] = said
	return said, nil
}

// identify names the environment after all that makes it.
func (c *Cache) identify(ctx context.Context, python cluster.Python) (interpreter, digest string, err error) {
	interpreter, version, err := c.interpreter(ctx, cmp.Or(python.Interpreter, "python3"))
	if err != nil {
		return "", "", err
	}
	sum := sha256.New()
	for _, part := range []string{string(version), python.Requirements, c.config.Index, c.config.Wheelhouse} {
		fmt.Fprintf(sum, "%d %s\n", len(part), part)
	}
	return interpreter, hex.EncodeToString(sum.Sum(nil))[:24], nil
}

func (c *Cache) build(ctx context.Context, interpreter, digest, requirements string) (err error) {
	folder := filepath.Join(c.config.Root, digest)
	began := time.Now()
	defer func() {
		if err != nil {
			err = errors.Join(err, tree.RemoveAll(folder))
			return
		}
		c.config.Log.Info("Python environment made", "digest", digest, "took", time.Since(began).Round(time.Millisecond))
	}()
	venv := filepath.Join(folder, venvFolder)
	home := filepath.Join(venv, ".home")
	if err := errors.Join(tree.RemoveAll(folder), os.MkdirAll(home, 0o755), os.WriteFile(filepath.Join(venv, "requirements.txt"), []byte(requirements), 0o644)); err != nil {
		return fault.New(fault.Internal, "make a Python environment: %w", err)
	}
	work, release, err := c.run.begin(ctx, venv)
	if err != nil {
		return err
	}
	defer release()
	work.environment = pipEnvironment(home)
	work.dir, work.show = home, c.config.Wheelhouse
	work.program, work.arguments = interpreter, []string{"-I", "-m", "venv", venv}
	if _, err := c.run.run(ctx, work); errors.Is(err, fs.ErrPermission) {
		return fault.New(fault.Invalid, "python: user %d, who installs packages, cannot reach %s: give each folder above it to others to enter (chmod o+x)", c.config.UID, folder)
	} else if err != nil {
		return fault.New(fault.Invalid, "python: %s cannot make an environment (Debian has that in python3-venv): %w", interpreter, err)
	}
	if strings.TrimSpace(requirements) != "" {
		work.program, work.arguments = filepath.Join(venv, "bin", "python"), c.pip(filepath.Join(venv, "requirements.txt"))
		if _, err := c.run.run(ctx, work); err != nil {
			return fault.New(fault.Invalid, "python: the requirements cannot be installed: %w", err)
		}
	}
	if err := errors.Join(tree.RemoveAll(home), give(ctx, venv, os.Geteuid())); err != nil {
		return fault.New(fault.Internal, "make a Python environment: %w", err)
	}
	return os.WriteFile(filepath.Join(folder, completeFile), nil, 0o644)
}

// pip is the command line that installs requirements.
func (c *Cache) pip(requirements string) []string {
	line := []string{"-I", "-m", "pip", "--disable-pip-version-check", "--no-input", "--no-cache-dir", "install", "--quiet"}
	if c.config.Wheelhouse != "" {
		line = append(line, "--no-index", "--find-links", c.config.Wheelhouse)
	}
	if c.config.Index != "" {
		line = append(line, "--index-url", c.config.Index)
	}
	return append(line, "--requirement", requirements)
}

// pipEnvironment is what an installation sees of the agent's own environment.
func pipEnvironment(home string) []string {
	environment := []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + home, "TMPDIR=" + home, "LANG=C.UTF-8"}
	for _, name := range []string{"PIP_INDEX_URL", "PIP_CERT", "PIP_EXTRA_INDEX_URL", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "https_proxy", "NO_PROXY"} {
		if value, ok := os.LookupEnv(name); ok {
			environment = append(environment, name+"="+value)
		}
	}
	return environment
}

// give makes a user the owner of a folder with all in it; links are not followed.
func give(ctx context.Context, folder string, uid int) error {
	if os.Geteuid() != 0 {
		return nil
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return fault.New(fault.Internal, "make a Python environment: %w", err)
	}
	defer root.Close() //nolint:errcheck // its files are changed one by one
	err = tree.Walk(ctx, root, func(name string, _ fs.FileInfo) error { return root.Lchown(name, uid, uid) })
	if err = errors.Join(err, os.Lchown(folder, uid, uid)); err != nil {
		return fault.New(fault.KindOf(err), "make a Python environment: %w", err)
	}
	return nil
}

func (c *Cache) hold(digest string, by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used[digest] += by; c.used[digest] == 0 {
		delete(c.used, digest)
	}
}

// touch makes an environment the newest.
func (c *Cache) touch(digest string) error {
	now := time.Now()
	return os.Chtimes(filepath.Join(c.config.Root, digest, completeFile), now, now)
}

// evict deletes the oldest of those that nobody uses, until no more than Keep are left.
func (c *Cache) evict() {
	if c.config.Keep <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	type idle struct {
		digest string
		used   time.Time
	}
	var all []idle
	items, _ := os.ReadDir(c.config.Root)
	for _, item := range items {
		info, err := os.Stat(filepath.Join(c.config.Root, item.Name(), completeFile))
		if err == nil && c.used[item.Name()] == 0 {
			all = append(all, idle{item.Name(), info.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b idle) int { return b.used.Compare(a.used) })
	for _, old := range all[min(len(all), c.config.Keep):] {
		// Unfinished first, so that a deletion that is cut short is not taken for whole.
		err := os.Remove(filepath.Join(c.config.Root, old.digest, completeFile))
		if err = errors.Join(err, tree.RemoveAll(filepath.Join(c.config.Root, old.digest))); err != nil {
			c.config.Log.Warn("delete a Python environment", "digest", old.digest, "error", err)
		}
	}
}
