// Package environment makes Python environments for tasks, each once on a node: a venv
// with the packages of a requirements.txt, under a name that follows from all that it
// depends on.
//
// Packages run code of their own while they are installed, so that is done as a user
// without rights, who owns nothing else.
package environment

import (
	"bytes"
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
	"syscall"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

const (
	completeFile = ".clary-complete" // written last
	buildTime    = 30 * time.Minute
	toldBytes    = 2 << 10 // of what pip said, in an error
)

// Config is where environments are and what they are made from.
type Config struct {
	Root       string // folder of all environments
	Index      string // URL of a package index instead of the public one; "" leaves it to pip's own configuration
	Wheelhouse string // folder of wheels: the only source of packages, if it is named
	Keep       int    // most environments that stay while nobody uses them
	UID        int    // whom packages are installed as; 0 is the agent itself
	Log        *slog.Logger
}

// Cache has a node's environments.
type Cache struct {
	config   Config
	building singleflight.Group

	mu   sync.Mutex
	used map[string]int // by digest, how many tasks have it
}

// Open makes the folder, and deletes what an earlier agent did not finish.
func Open(config Config) (*Cache, error) {
	if err := os.MkdirAll(config.Root, 0o755); err != nil {
		return nil, fault.New(fault.Internal, "open Python environments: %w", err)
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	c := &Cache{config: config, used: map[string]int{}}
	items, err := os.ReadDir(config.Root)
	if err != nil {
		return nil, fault.New(fault.Internal, "open Python environments: %w", err)
	}
	for _, item := range items {
		if !c.complete(item.Name()) {
			if err := os.RemoveAll(filepath.Join(config.Root, item.Name())); err != nil {
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
	return filepath.Join(c.config.Root, digest, "bin"), release, nil
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
		probe := exec.CommandContext(ctx, path, "-I", "-c", "import sys; print(sys.version, sys.executable, sys.base_prefix)")
		probe.Dir = "/"
		probe.SysProcAttr = c.credential()
		said, failed := probe.Output()
		if failed == nil {
			return path, string(said), nil
		}
		err = failed
	}
	return "", "", fault.New(fault.Invalid, "python: this node has no %q that a task can run: %w", cluster.Clip(name), err)
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
			err = errors.Join(err, os.RemoveAll(folder))
			return
		}
		c.config.Log.Info("Python environment made", "digest", digest, "took", time.Since(began).Round(time.Millisecond))
	}()
	home := filepath.Join(folder, ".home")
	if err := errors.Join(os.RemoveAll(folder), os.MkdirAll(home, 0o755), os.WriteFile(filepath.Join(folder, "requirements.txt"), []byte(requirements), 0o644)); err != nil {
		return fault.New(fault.Internal, "make a Python environment: %w", err)
	}
	if err := c.give(folder, c.config.UID); err != nil {
		return err
	}
	if err := c.run(ctx, home, interpreter, "-I", "-m", "venv", folder); errors.Is(err, fs.ErrPermission) {
		return fault.New(fault.Invalid, "python: user %d, who installs packages, cannot reach %s: give each folder above it to others to enter (chmod o+x)", c.config.UID, folder)
	} else if err != nil {
		return fault.New(fault.Invalid, "python: %s cannot make an environment (Debian has that in python3-venv): %w", interpreter, err)
	}
	if strings.TrimSpace(requirements) != "" {
		if err := c.run(ctx, home, filepath.Join(folder, "bin", "python"), c.pip(filepath.Join(folder, "requirements.txt"))...); err != nil {
			return fault.New(fault.Invalid, "python: the requirements cannot be installed: %w", err)
		}
	}
	if err := errors.Join(os.RemoveAll(home), c.give(folder, os.Geteuid())); err != nil {
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

// run runs a program as the user who installs, in a session of its own, and ends all of it
// with ctx.
func (c *Cache) run(ctx context.Context, home, program string, arguments ...string) error {
	command := exec.CommandContext(ctx, program, arguments...)
	command.Dir = home
	command.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + home, "TMPDIR=" + home, "LANG=C.UTF-8"}
	for _, name := range []string{"PIP_INDEX_URL", "PIP_CERT", "PIP_EXTRA_INDEX_URL", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "https_proxy", "NO_PROXY"} {
		if value, ok := os.LookupEnv(name); ok {
			command.Env = append(command.Env, name+"="+value)
		}
	}
	command.SysProcAttr = c.credential()
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = 5 * time.Second
	said := &tail{}
	command.Stdout, command.Stderr = said, said
	if err := command.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(bytes.ToValidUTF8(said.text, nil))))
	}
	return nil
}

// credential is who installs, in a session that ends with the agent.
func (c *Cache) credential() *syscall.SysProcAttr {
	process := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if c.config.UID != 0 {
		process.Credential = &syscall.Credential{Uid: uint32(c.config.UID), Gid: uint32(c.config.UID)}
	}
	return process
}

// give makes a user the owner of all in a folder; links are not followed.
func (c *Cache) give(folder string, uid int) error {
	if c.config.UID == 0 {
		return nil
	}
	err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
	if err != nil {
		return fault.New(fault.Internal, "make a Python environment: %w", err)
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
		if err = errors.Join(err, os.RemoveAll(filepath.Join(c.config.Root, old.digest))); err != nil {
			c.config.Log.Warn("delete a Python environment", "digest", old.digest, "error", err)
		}
	}
}

// tail keeps the last of what is written to it.
type tail struct{ text []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if over := len(t.text) - toldBytes; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(p), nil
}
