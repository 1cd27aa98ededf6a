// Package embedded runs Clary's own object store: the versitygw S3 gateway over one
// folder, in a child process, since the gateway changes its working directory and
// keeps global state.
//
// Supervise starts the child and keeps it running; Run is what the child does. The
// store is as safe as that one disk: see DESIGN.md.
package embedded

import (
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/gofiber/fiber/v3"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
	"github.com/versity/versitygw/s3api"
	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/internal/fault"
)

// The variables by which the child gets its secrets, so that no process list shows them.
const (
	envRootSecret = "CLARY_OBJECT_ROOT_SECRET"
	envDataKey    = "CLARY_OBJECT_DATA_KEY" // base64
)

// healthPath answers 200 without a signature. No bucket may have this name.
const healthPath = "/clary-health"

// maxCopy is the largest object that one copy request takes, as in S3: 5 GiB.
const maxCopy = 5 << 30

// Config says what to serve and where.
type Config struct {
	Dir        string // the folder; a sub-folder is a bucket
	Address    string // host:port
	CertFile   string // certificate and CA, PEM
	KeyFile    string
	RootSecret string // of RootAccess; from the keyring
	DataKey    []byte // what other secrets derive from; from the keyring
	// Holders is the file of tokens whose keys are good (WriteHolders); "" takes all that
	// derive from the data key.
	Holders string
	// Reserve is the file of how much of its disk the store leaves free (WriteReserve); "" takes all.
	Reserve string
	// Counts is where the process tells what it has counted; nil: nowhere.
	Counts io.Writer
}

// Validate reports every mistake in the configuration.
func (c Config) Validate() error {
	var problems []error
	for _, f := range [...]struct{ name, value string }{
		{"dir", c.Dir}, {"address", c.Address}, {"cert", c.CertFile}, {"key", c.KeyFile}, {envRootSecret, c.RootSecret},
	} {
		if f.value == "" {
			problems = append(problems, fault.New(fault.Invalid, "%s is not set", f.name))
		}
	}
	if len(c.DataKey) != 32 {
		problems = append(problems, fault.New(fault.Invalid, "%s has %d bytes; it must have 32", envDataKey, len(c.DataKey)))
	}
	if len(problems) > 0 {
		return fault.New(fault.Invalid, "object store: %w", errors.Join(problems...))
	}
	return nil
}

func (c Config) args() []string {
	return []string{"--dir", c.Dir, "--address", c.Address, "--cert", c.CertFile, "--key", c.KeyFile, "--holders", c.Holders, "--reserve", c.Reserve}
}

func (c Config) env() []string {
	return []string{envRootSecret + "=" + c.RootSecret, envDataKey + "=" + base64.StdEncoding.EncodeToString(c.DataKey)}
}

// Main is the command clary objectstore: it reads the arguments and variables that
// Supervise gave, and runs until ctx ends. SIGHUP makes it read its certificate again.
func Main(ctx context.Context, args []string, getenv func(string) string) error {
	var c Config
	flags := flag.NewFlagSet("objectstore", flag.ContinueOnError)
	flags.StringVar(&c.Dir, "dir", "", "folder of the objects")
	flags.StringVar(&c.Address, "address", "", "host:port to listen at")
	flags.StringVar(&c.CertFile, "cert", "", "certificate file")
	flags.StringVar(&c.KeyFile, "key", "", "key file")
	flags.StringVar(&c.Holders, "holders", "", "file of the tokens whose keys are good")
	flags.StringVar(&c.Reserve, "reserve", "", "file of how many bytes of the disk are left free")
	if err := flags.Parse(args); err != nil {
		return fault.New(fault.Invalid, "objectstore: %w", err)
	}
	c.RootSecret = getenv(envRootSecret)
	var err error
	if c.DataKey, err = base64.StdEncoding.DecodeString(getenv(envDataKey)); err != nil {
		return fault.New(fault.Invalid, "objectstore: %s: %w", envDataKey, err)
	}
	if text := getenv(envCounts); text != "" {
		descriptor, err := strconv.Atoi(text)
		if err != nil {
			return fault.New(fault.Invalid, "objectstore: %s: %w", envCounts, err)
		}
		c.Counts = os.NewFile(uintptr(descriptor), "counts")
	}
	return Run(ctx, c)
}

// Run serves until ctx ends. It changes the working directory and takes SIGHUP, so it
// is for a process of its own, once.
func Run(ended context.Context, c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	for _, path := range []*string{&c.Dir, &c.CertFile, &c.KeyFile, &c.Holders, &c.Reserve} {
		if *path == "" {
			continue
		}
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return fault.New(fault.Internal, "object store: %w", err)
		}
	}
	store, err := openDir(c.Dir)
	if err != nil {
		return err
	}
	defer store.Shutdown()
	entrance, err := newEntrance(c)
	if err != nil {
		return err
	}
	counting := &counter{counts: Counts{Requests: map[string]map[string]int64{}}, news: true} // the first line says that it counts
	reserve := newReserve(c.Reserve, c.Dir)
	group, ctx := errgroup.WithContext(ended)
	group.Go(func() error { return entrance.Run(ctx) })
	group.Go(func() error { reserve.Run(ctx); return nil })
	group.Go(func() error { reload(ctx, entrance); return nil })
	if c.Counts != nil {
		group.Go(func() error { counting.tell(c.Counts, ctx.Done()); return nil })
	}
	root := auth.Account{Access: RootAccess, Secret: c.RootSecret, Role: auth.RoleAdmin}
	group.Go(func() error {
		err := embedgw.RunVersityGW(ctx, store, &embedgw.Config{
			RootUserAccess:    RootAccess,
			RootUserSecret:    c.RootSecret,
			Ports:             []string{entrance.socket},
			SocketPerm:        "0600",
			MaxConnections:    2 * maxRequests, // more than the entrance lets in
			MaxRequests:       maxRequests,
			MultipartMaxParts: 10000,
			KeepAlive:         false, // see DESIGN.md: kept connections lose their place
			Quiet:             true,
			DisableACLs:       true,
			HealthPath:        healthPath,
			IAMService:        iam{auth.NewIAMServiceSingle(root), c.DataKey, newHolders(c.Holders)},
			S3Options: []s3api.Option{
				s3api.WithOnListen(func() { close(entrance.listening) }), s3api.WithMiddleware("/", entrance.capture),
				s3api.WithMiddleware("/", counting.count), s3api.WithMiddleware("/", reserve.hold), s3api.WithMiddleware("/", refuse),
			},
		})
		if err == nil {
			err = errors.New("it ended by itself")
		}
		return err
	})
	if err := group.Wait(); err != nil && ended.Err() == nil {
		return fault.New(fault.Internal, "object store at %s: %w", c.Address, err)
	}
	return nil
}

// openDir opens a folder of buckets. Metadata goes into extended attributes where the
// file system has them, else into files of a folder beside; what a folder began with it
// keeps.
func openDir(dir string) (*posix.Posix, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.New(fault.Internal, "object store: %w", err)
	}
	var storer meta.MetadataStorer = meta.XattrMeta{}
	options := posix.PosixOpts{NewDirPerm: 0o700, NewFilePerm: 0o600, ValidateBucketNames: true, Concurrency: 256, CopyObjectThreshold: maxCopy}
	side := dir + ".metadata"
	_, err := os.Stat(side)
	if err == nil || (meta.XattrMeta{}).Test(dir) != nil {
		if err := os.MkdirAll(side, 0o700); err != nil {
			return nil, fault.New(fault.Internal, "object store: %w", err)
		}
		sidecar, err := meta.NewSideCar(side)
		if err != nil {
			return nil, fault.New(fault.Internal, "object store: %w", err)
		}
		// The gateway refuses a metadata folder whose path begins like the root's, so
		// the option that it would check is left out: the storer alone decides.
		storer = sidecar
	}
	store, err := posix.New(dir, storer, options)
	if err != nil {
		return nil, fault.New(fault.Internal, "object store: open %s: %w", dir, err)
	}
	return store, nil
}

// refuse answers what guard refuses, in S3's form.
func refuse(ctx fiber.Ctx) error {
	why := guard(request{
		method:        ctx.Method(),
		authorization: ctx.Get("Authorization"),
		credential:    ctx.Query("X-Amz-Credential"),
		contentType:   ctx.Get("Content-Type"),
		query:         func(name string) bool { return ctx.Request().URI().QueryArgs().Has(name) },
	})
	if why == "" {
		return ctx.Next()
	}
	return answer(ctx, fiber.StatusForbidden, "AccessDenied", why)
}

// answer refuses a request in S3's form.
func answer(ctx fiber.Ctx, status int, code, why string) error {
	ctx.Set("Content-Type", "application/xml")
	return ctx.Status(status).SendString(
		`<?xml version="1.0" encoding="UTF-8"?>` + "\n<Error><Code>" + code + "</Code><Message>" + why + "</Message></Error>")
}

// reload has the certificate read again at each SIGHUP, until ctx ends.
func reload(ctx context.Context, e *entrance) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	defer signal.Stop(signals)
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
		}
		if err := e.load(); err != nil {
			e.log.Error("the certificate that was renewed cannot be used", "error", err)
		}
	}
}
