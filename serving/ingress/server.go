package ingress

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/annex"
	"github.com/clary-ml/clary/serving/async"
	"github.com/clary-ml/clary/serving/gateway"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/serving/router"
	"github.com/clary-ml/clary/serving/traces"
	"github.com/clary-ml/clary/storage/object"
)

// drainTime is how long a router that stops goes on with what it is answering.
const drainTime = 10 * time.Second

// Off is the address of a router that is not wanted.
const Off = "none"

// Front is where a node's router takes requests, as its operator says.
type Front struct {
	Listen    string // host:port; "" or Off is no router
	URL       string // under which clients reach it; made of Listen if empty
	Cert, Key string // PEM files; the node's own certificate if empty
	Plaintext bool   // plain HTTP; on loopback only
}

// On reports whether there is to be a router.
func (f Front) On() bool { return f.Listen != "" && f.Listen != Off }

// Validate reports every mistake, each named by its flag: "--serve" and what comes after it.
func (f Front) Validate(p *cluster.Problems, flag string) {
	if !f.On() {
		return
	}
	host, port, err := net.SplitHostPort(f.Listen)
	if err != nil || port == "" {
		p.Add(flag+"-listen", "%q is not host:port: name one, or %s for no router", cluster.Clip(f.Listen), Off)
	}
	if ip := net.ParseIP(host); f.Plaintext && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		p.Add(flag+"-plaintext", "%q is not on loopback: tokens would go over the network for all to read", cluster.Clip(f.Listen))
	}
	if f.Plaintext && f.Cert != "" {
		p.Add(flag+"-cert", "stands beside %s-plaintext: remove one of the two", flag)
	}
	if (f.Cert == "") != (f.Key == "") {
		p.Add(flag+"-key", "a certificate and its key go together: name both files, or none for the node's own certificate")
	}
	if f.URL != "" {
		if u, err := url.Parse(f.URL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" {
			p.Add(flag+"-url", "%q is no URL like https://models.example.com", cluster.Clip(f.URL))
		}
	}
}

// ServerConfig is one router at its place.
type ServerConfig struct {
	Name   string // as reports have it: see gossip's names
	Host   string // of this machine, for others
	Front  Front
	Source pki.Source // the node's certificate: for replicas' nodes, and unless Front says otherwise for clients
	Dial   member.Network
	// Routes are where tables come from, Path the file of the last one.
	Routes Source
	Path   string
	// Store gives the object store as it is now: for captures and asynchronous requests.
	Store func(context.Context) (*object.Client, error)
	Log   *slog.Logger
}

// Server is a router that takes requests.
type Server struct {
	config   ServerConfig
	router   *router.Router
	annex    *annex.Annex
	listener net.Listener
	url      string
}

// Open takes the address and makes the router; Run runs it.
func Open(ctx context.Context, config ServerConfig) (*Server, error) {
	secured, err := config.tls()
	if err != nil {
		return nil, err
	}
	dialer := gateway.NewDialer(config.Dial, config.Source)
	traced, err := traces.FromEnv(ctx, os.Getenv, "clary-router")
	if err != nil {
		return nil, err
	}
	beside := annex.Options{Traces: traced, Log: config.Log}
	if config.Store != nil {
		beside.Store = store(config.Store)
	}
	s := &Server{config: config, annex: annex.New(beside)}
	options := router.Options{Name: config.Name, TLS: secured, Dial: dialer.Dial, Log: config.Log, Drain: drainTime}
	s.annex.Install(&options)
	if s.router, err = router.New(options); err != nil {
		return nil, err
	}
	s.annex.Attach(s.router)
	if s.listener, err = listen(ctx, config.Front.Listen); err != nil {
		return nil, fault.New(fault.Invalid, "the router's address: %w: name another, or %s for no router", err, Off)
	}
	s.url = config.url(s.listener.Addr())
	return s, nil
}

// listen takes an address that nobody has: a router would share it with another, and that may be one of
// another cluster.
func listen(ctx context.Context, address string) (net.Listener, error) {
	alone, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if err := alone.Close(); err != nil {
		return nil, err
	}
	return router.Listen(ctx, alone.Addr().String())
}

// tls is what clients are answered with; nil is plain HTTP.
func (c ServerConfig) tls() (*tls.Config, error) {
	if c.Front.Plaintext {
		return nil, nil //nolint:nilnil // no TLS is an answer
	}
	config := pki.ServerTLS(c.Source, "http/1.1")
	config.ClientAuth, config.ClientCAs = tls.NoClientCert, nil // users show tokens
	config.MinVersion, config.DynamicRecordSizingDisabled = tls.VersionTLS12, true
	if c.Front.Cert == "" {
		return config, nil
	}
	pair, err := LoadKeyPair(c.Front.Cert, c.Front.Key, c.Log)
	if err != nil {
		return nil, err
	}
	config.GetCertificate = pair.Get
	return config, nil
}

func (c ServerConfig) url(at net.Addr) string {
	if c.Front.URL != "" {
		return c.Front.URL
	}
	host, _, _ := net.SplitHostPort(c.Front.Listen)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = c.Host
	}
	_, port, _ := net.SplitHostPort(at.String())
	scheme := "https"
	if c.Front.Plaintext {
		scheme = "http"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// Collectors are what the router measures.
func (s *Server) Collectors() []prometheus.Collector { return s.router.Collectors() }

// Work answers asynchronous requests of a table's endpoints until ctx ends. One router of a cluster does.
func (s *Server) Work(ctx context.Context, table func() route.Table) error {
	return s.annex.Worker(async.Options{}).Run(ctx, func() []async.Endpoint { return annex.AsyncEndpoints(table()) })
}

// Backlog is how many asynchronous requests wait for an endpoint, where this router works on them.
func (s *Server) Backlog(endpoint string) (requests int, known bool) {
	return s.annex.Backlog(endpoint)
}

// URL is where clients reach the router.
func (s *Server) URL() string { return s.url }

// Close lets go of the address of a router that was never run.
func (s *Server) Close() error { return s.listener.Close() }

// Run takes requests until ctx ends, and then for a while goes on with those that it has.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	beside, end := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error {
		defer end()
		return s.router.Run(ctx, s.listener)
	})
	group.Go(func() error { return s.annex.Run(beside) })
	group.Go(func() error {
		return Run(ctx, Config{Router: s.router, Source: s.config.Routes, Path: s.config.Path, Log: s.config.Log})
	})
	s.config.Log.Info("requests for endpoints are taken here", "url", s.url)
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return ctx.Err()
}
