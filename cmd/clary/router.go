package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/ops"
	"github.com/clary-ml/clary/internal/version"
	"github.com/clary-ml/clary/serving/annex"
	"github.com/clary-ml/clary/serving/ingress"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/serving/router"
	"github.com/clary-ml/clary/serving/traces"
)

// routerFlags are those of a router that stands alone.
type routerFlags struct {
	table, listen, metrics string
	certFile, keyFile      string
	logs                   memberFlags
	options                router.Options
}

// newRouterCommand is a router without a cluster.
func newRouterCommand() *cobra.Command {
	var f routerFlags
	command := &cobra.Command{
		Use:   "router",
		Short: "Run a router alone: endpoints from a table in a file",
		Long: "Run a router alone. It answers /endpoints/NAME/invocations from the replicas that a table in a JSON file names,\n" +
			"and reads the file again when it changes and on SIGHUP; a table with mistakes is told of, and the old one stays.\n" +
			"SIGTERM lets what is being answered end. Another router may listen on the same address meanwhile.",
		Example: "  clary router --table table.json --listen 0.0.0.0:8080\n" +
			"  clary router --table table.json --listen 0.0.0.0:8443 --tls-cert server.pem --tls-key server.key",
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error { return f.run(command.Context()) },
	}
	flags := command.Flags()
	flags.StringVar(&f.table, "table", "", "JSON file of endpoints (docs/router.md shows one)")
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8080", "host:port on which requests come")
	flags.StringVar(&f.metrics, "metrics-listen", "", "host:port of /metrics, /healthz and /readyz, in plain HTTP, or "+ops.Off+" (default: /metrics is where requests come)")
	flags.StringVar(&f.certFile, "tls-cert", "", "file of the certificate and those that vouch for it, PEM; it is read again when it changes")
	flags.StringVar(&f.keyFile, "tls-key", "", "file of its key, PEM")
	flags.StringVar(&f.options.Name, "id", hostName(), "name of this router in logs and reports")
	flags.DurationVar(&f.options.Drain, "drain", 30*time.Second, "how long what is being answered may take at the end")
	flags.IntVar(&f.options.MaxConnections, "max-connections", 0, "connections of clients (default: a third of the files that may be open)")
	flags.IntVar(&f.options.PerClient, "max-connections-per-client", 0, "connections of one IP address (default: no bound)")
	flags.StringVar(&f.logs.logLevel, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&f.logs.format, "log-format", "text", "text or json")
	_ = command.MarkFlagRequired("table")
	command.MarkFlagsRequiredTogether("tls-cert", "tls-key")
	return command
}

func (f *routerFlags) run(ctx context.Context) error {
	log, err := f.logs.logger()
	if err != nil {
		return err
	}
	f.options.Log, f.options.OpenMetrics = log, f.metrics == ""
	if f.certFile != "" {
		pair, err := ingress.LoadKeyPair(f.certFile, f.keyFile, log)
		if err != nil {
			return fault.New(fault.Invalid, "--tls-cert and --tls-key: %w", err)
		}
		f.options.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: pair.Get, DynamicRecordSizingDisabled: true, NextProtos: []string{"http/1.1"}}
	}
	traced, err := traces.FromEnv(ctx, os.Getenv, "clary-router")
	if err != nil {
		return err
	}
	beside := annex.New(annex.Options{Traces: traced, Log: log}) // without an object store
	beside.Install(&f.options)
	r, err := router.New(f.options)
	if err != nil {
		return err
	}
	beside.Attach(r)
	file := &tableFile{path: f.table}
	if _, err := file.load(r); err != nil {
		return err
	}
	listener, err := router.Listen(ctx, f.listen)
	if err != nil {
		return fault.New(fault.Invalid, "--listen: %w", err)
	}
	log.Info("router takes requests", "address", listener.Addr(), "tls", f.options.TLS != nil)
	var others sync.WaitGroup
	defer others.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	others.Go(func() { file.follow(ctx, r, log) })
	last, end := context.WithCancel(context.WithoutCancel(ctx)) // it outlasts the router
	defer end()
	others.Go(func() { _ = beside.Run(last) }) // it has no error
	operators, err := f.operators(r)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	others.Go(func() {
		if err := operators.Run(ctx); ctx.Err() == nil {
			log.Error("metrics and health cannot be asked for any more", "error", err)
		}
	})
	return r.Run(ctx, listener)
}

// tableFile is a table on disk, and what of it was read last.
type tableFile struct {
	path string
	size int64
	time time.Time
}

// load gives the router the file's table if it has changed.
func (t *tableFile) load(r *router.Router) (bool, error) {
	info, err := os.Stat(t.path)
	if err != nil {
		return false, fault.New(fault.Invalid, "--table: %w", err)
	}
	if info.Size() == t.size && info.ModTime().Equal(t.time) {
		return false, nil
	}
	t.size, t.time = info.Size(), info.ModTime()
	return true, t.read(r)
}

func (t *tableFile) read(r *router.Router) error {
	text, err := os.ReadFile(t.path)
	if err != nil {
		return fault.New(fault.Invalid, "--table: %w", err)
	}
	table, err := route.Parse(text)
	if err == nil {
		err = r.SetTable(table)
	}
	if err != nil {
		return fault.New(fault.Invalid, "--table %s: %w", t.path, err)
	}
	return nil
}

const lookEvery = time.Second

// follow reads the file when it changes, and on SIGHUP.
func (t *tableFile) follow(ctx context.Context, r *router.Router, log *slog.Logger) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		changed, err := false, error(nil)
		select {
		case <-ctx.Done():
			return
		case <-hup:
			changed, err = true, t.read(r)
		case <-ticker.C:
			changed, err = t.load(r)
		}
		switch {
		case err != nil:
			log.Error("the table was not taken, the old one stays", "error", err)
		case changed:
			log.Info("the table was taken", "table", t.path)
		}
	}
}

// operators is the listener for those who operate this router. It is asked by whoever reaches it: there is no cluster whose tokens
// it could know.
func (f *routerFlags) operators(r *router.Router) (*ops.Server, error) {
	listener, err := ops.Listen(f.metrics, false, f.options.Log)
	registry := prometheus.NewRegistry()
	registry.MustRegister(r.Collectors()...)
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "clary_build_info", Help: "1; the version is a label."}, []string{"version"})
	build.WithLabelValues(version.String()).Set(1)
	registry.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return &ops.Server{Listener: listener, Anyone: true, Metrics: registry, Log: f.options.Log}, err
}
