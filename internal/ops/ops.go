// Package ops is the one listener of a process for those who operate it: metrics in Prometheus' form,
// whether it lives, whether it is ready and if not why, and profiles for admins.
//
// On loopback it speaks plain HTTP and shows metrics to whoever asks; anywhere else it speaks TLS with
// the process's own certificate and asks for a token of the cluster, if there is one. Profiles always take an admin's token.
package ops

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/internal/fault"
)

// Off is the address of a listener that is not wanted.
const Off = "none"

const (
	readyEvery = time.Second     // how old an answer may be that was given to somebody else
	readyTime  = 5 * time.Second // how long the checks of one question may take together
	idleTime   = 2 * time.Minute // how long a connection may be kept on which nobody asks
	endTime    = 5 * time.Second // how long the end waits for answers that are under way
)

// Check is one thing that a process needs to do its part.
type Check struct {
	Name string
	// Look says why not, with the remedy; nil is that all is well.
	Look func(context.Context) error
}

// Server is the listener.
type Server struct {
	Listener net.Listener // nil: there is none, and Run only waits
	TLS      *tls.Config  // shown where Listener is not on loopback; nil refuses to serve there
	// Anyone says that this process has no cluster whose tokens it could ask for: wherever the listener is it speaks plain HTTP,
	// and shows metrics to whoever asks.
	Anyone  bool
	Metrics prometheus.Gatherer
	Checks  []Check
	// Allow refuses a bearer token that may not look, or not as an admin may; nil refuses all.
	Allow func(ctx context.Context, token string, admin bool) error
	// Level is that of the process's log, which admins change while it runs; nil: it is fixed.
	Level *slog.LevelVar
	Log   *slog.Logger

	mu   sync.Mutex // held while it is looked: whoever asks meanwhile gets the same answer
	last look
}

// look is what all checks said at a time.
type look struct {
	at       time.Time
	ready    bool
	findings []Finding
}

// Listen takes an address: none for "" and Off. optional is for an address that nobody has named: if
// it is taken there is no listener, and a line in the log says so.
func Listen(address string, optional bool, log *slog.Logger) (net.Listener, error) {
	if address == "" || address == Off {
		return nil, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil && optional {
		log.Warn("no metrics and no health of this process can be asked for: name another address, or none", "flag", "--metrics-listen", "error", err)
		return nil, nil
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "--metrics-listen: %w: name a free one, or %s", err, Off)
	}
	return listener, nil
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	if s.Listener == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	listener := s.Listener
	if !s.open() {
		if s.TLS == nil {
			return errors.Join(fault.New(fault.Invalid, "--metrics-listen: %s is not on loopback, and this process has no certificate to show there", listener.Addr()), listener.Close())
		}
		config := s.TLS.Clone()
		config.NextProtos = []string{"http/1.1"}
		listener = tls.NewListener(listener, config)
	}
	server := &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: idleTime, ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx }, // so that a profile of a minute ends with the process
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		if server.Shutdown(limit) != nil { // it waits for answers under way: they read what is closed next
			_ = server.Close()
		}
	})
	err := server.Serve(listener)
	if !stop() {
		<-ended
		return ctx.Err()
	}
	return err
}

// open reports whether whoever reaches the listener may look: on this machine everybody may.
func (s *Server) open() bool {
	if s.Anyone {
		return true
	}
	tcp, ok := s.Listener.Addr().(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// Handler answers what the listener is asked.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	metrics := promhttp.HandlerFor(s.Metrics, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4})
	mux.Handle("GET /metrics", s.guarded(s.open(), false, metrics))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.ready)
	for path, handle := range map[string]http.HandlerFunc{
		"/debug/pprof/": pprof.Index, "/debug/pprof/profile": pprof.Profile, "/debug/pprof/symbol": pprof.Symbol,
		"/debug/pprof/trace": pprof.Trace,
	} {
		mux.Handle("GET "+path, s.guarded(false, true, handle))
	}
	mux.Handle("/debug/log-level", s.guarded(false, true, http.HandlerFunc(s.level)))
	return mux
}

// guarded asks for a token first, unless it is open.
func (s *Server) guarded(open, admin bool, next http.Handler) http.Handler {
	if open {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch err := s.admits(r, admin); {
		case err == nil:
			next.ServeHTTP(w, r)
		case errors.Is(err, errNoToken):
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, err.Error(), http.StatusUnauthorized)
		case fault.Is(err, fault.Unready):
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		default:
			http.Error(w, err.Error(), http.StatusForbidden)
		}
	})
}

var errNoToken = errors.New("a token of the cluster is needed: Authorization: Bearer TOKEN")

// admits says why a request may not look, or not as an admin may.
func (s *Server) admits(r *http.Request, admin bool) error {
	token, given := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !given || s.Allow == nil {
		return errNoToken
	}
	return s.Allow(r.Context(), token, admin)
}

// Finding is how one check came out.
type Finding struct {
	Check  string `json:"check"`
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
}

// look makes all checks, in their order, but not more often than it is worth: who may ask is not known, and a check may
// cost the whole cluster a round of messages.
func (s *Server) look(ctx context.Context) look {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.last.at.IsZero() && time.Since(s.last.at) < readyEvery {
		return s.last
	}
	limited, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	now := look{ready: true}
	for _, check := range s.Checks {
		finding := Finding{Check: check.Name, Ready: true}
		if err := check.Look(limited); err != nil {
			finding.Ready, finding.Reason, now.ready = false, err.Error(), false
		}
		now.findings = append(now.findings, finding)
	}
	if ctx.Err() == nil { // else it is not the checks that failed, and nobody reads the answer
		now.at = time.Now()
		s.last = now
	}
	return now
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	now := s.look(r.Context())
	findings := slices.Clone(now.findings)
	if !s.open() && s.admits(r, false) != nil {
		for i := range findings {
			findings[i].Reason = "" // folders and addresses are not for strangers
		}
	}
	w.Header().Set("Content-Type", "application/json")
	if !now.ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(struct {
		Ready  bool      `json:"ready"`
		Checks []Finding `json:"checks"`
	}{now.ready, findings})
}

// level shows the log's level, and changes it with PUT ?level=debug.
func (s *Server) level(w http.ResponseWriter, r *http.Request) {
	if s.Level == nil {
		http.Error(w, "the level of this process's log is fixed", http.StatusNotFound)
		return
	}
	if r.Method == http.MethodPut {
		var level slog.Level
		if err := level.UnmarshalText([]byte(r.FormValue("level"))); err != nil {
			http.Error(w, fmt.Sprintf("level: %q is unknown: debug, info, warn or error", r.FormValue("level")), http.StatusBadRequest)
			return
		}
		s.Level.Set(level)
		s.Log.Info("the log's level was changed", "level", level)
	}
	fmt.Fprintln(w, strings.ToLower(s.Level.Level().String()))
}

// SameDisk reports whether two folders are of one file system.
func SameDisk(a, b string) bool {
	var one, other unix.Stat_t
	return unix.Stat(a, &one) == nil && unix.Stat(b, &other) == nil && one.Dev == other.Dev
}

// LeastFree is what a disk of so many bytes must have free at least: 2 GiB, or a twentieth of a small one.
func LeastFree(total int64) int64 { return min(2<<30, total/20) }

// Disk says that a folder's disk is nearly full.
func Disk(folder string) Check {
	return Check{Name: "disk", Look: func(context.Context) error {
		free, total, err := Room(folder)
		if err != nil {
			return err
		}
		if free < LeastFree(total) {
			return fault.New(fault.Exhausted, "the disk of %s has %d MiB free of %d: free some, or move the folder to a larger one", folder, free>>20, total>>20)
		}
		return nil
	}}
}

// Room is what the disk that a folder is on has, in bytes: free for who is not root, and in all.
func Room(folder string) (free, total int64, err error) {
	var told unix.Statfs_t
	if err := unix.Statfs(folder, &told); err != nil {
		return 0, 0, fault.New(fault.Internal, "look at the disk of %s: %w", folder, err)
	}
	return int64(told.Bavail) * told.Bsize, int64(told.Blocks) * told.Bsize, nil
}
