package embedded

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/sparing"
)

// How the child is restarted: at once, then after twice as long each time; a child that
// lived for steady starts the count anew.
const (
	firstBackoff = 200 * time.Millisecond
	lastBackoff  = 30 * time.Second
	steady       = time.Minute
	stopGrace    = 10 * time.Second
	healthEvery  = 50 * time.Millisecond
)

// Supervisor starts the store's process and keeps it running.
type Supervisor struct {
	Config Config
	CAs    func() []*x509.Certificate // that the store's certificate may come from
	Log    *slog.Logger
	// Executable and Args are what is started; the configuration's flags follow. The
	// zero values mean this very binary, and "objectstore".
	Executable string
	Args       []string
	// Ready, if set, is called each time that the store answers after a start.
	Ready func()
	// Reload, if set, makes the store read its certificate files again.
	Reload <-chan struct{}
	// Tally, if set, has what the store counts.
	Tally *Tally
}

// Run keeps the store running until ctx ends. The child dies with this process too,
// however it ends. Run fails only if the child cannot be started at all.
func (s Supervisor) Run(ctx context.Context) error {
	if err := s.Config.Validate(); err != nil {
		return err
	}
	if s.Executable == "" {
		self, err := os.Executable()
		if err != nil {
			return fault.New(fault.Internal, "object store: %w", err)
		}
		s.Executable, s.Args = self, []string{"objectstore"}
	}
	backoff := firstBackoff
	for {
		started := time.Now()
		err := s.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if fault.Is(err, fault.Invalid) {
			return err
		}
		if time.Since(started) > steady {
			backoff = firstBackoff
		}
		s.Log.Error("the object store ended and is started again", "error", err, "in", backoff)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, lastBackoff)
	}
}

// once runs one child from its start to its end.
func (s Supervisor) once(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, s.Executable, append(append([]string{}, s.Args...), s.Config.args()...)...)
	cmd.Env = append(os.Environ(), s.Config.env()...)
	words := &words{log: sparing.New(s.Log)}
	cmd.Stdout, cmd.Stderr = words, words
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}

	watched := make(chan struct{})
	defer func() { cancel(); <-watched }()
	follow, err := s.listen(cmd)
	if err != nil {
		close(watched)
		return err
	}
	var following sync.WaitGroup
	defer following.Wait()
	// The kernel sends the death signal when the thread that forked ends, not the
	// process, so this goroutine keeps its thread for as long as the child lives.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = cmd.Start()
	started := err == nil
	following.Go(func() { follow(started) })
	if err != nil {
		close(watched)
		return fault.New(fault.Invalid, "object store: start %s: %w", s.Executable, err)
	}
	go func() {
		defer close(watched)
		s.watch(ctx, cmd.Process)
	}()
	if err := cmd.Wait(); err != nil {
		return fault.New(fault.Internal, "object store: %w", err)
	}
	return fault.New(fault.Internal, "object store: it ended by itself")
}

// firstExtra is the descriptor of a child's first file beside its standard ones.
const firstExtra = 3

// listen has the child tell what it counts. What is returned is called once it has started, or has not, and follows it to
// its end.
func (s Supervisor) listen(cmd *exec.Cmd) (follow func(started bool), err error) {
	if s.Tally == nil {
		return func(bool) {}, nil
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fault.New(fault.Internal, "object store: %w", err)
	}
	cmd.ExtraFiles = []*os.File{write}
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", envCounts, firstExtra))
	return func(started bool) {
		_ = write.Close() // the child has its own
		if started {
			s.Tally.follow(read)
		}
		_ = read.Close() // nothing is left in it
	}, nil
}

// watch reports when the child answers, then passes reloads on to it.
func (s Supervisor) watch(ctx context.Context, child *os.Process) {
	if err := WaitHealthy(ctx, s.Config.Address, s.CAs()...); err != nil {
		return
	}
	s.Log.Info("the object store answers", "address", s.Config.Address, "pid", child.Pid)
	if s.Ready != nil {
		s.Ready()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case _, open := <-s.Reload:
			if !open {
				<-ctx.Done()
				return
			}
			if err := child.Signal(syscall.SIGHUP); err != nil {
				s.Log.Error("the object store cannot be told of its new certificate", "error", err)
			}
		}
	}
}

// WaitHealthy returns when the store at address answers with a certificate of one of the CAs,
// or when ctx ends.
func WaitHealthy(ctx context.Context, address string, cas ...*x509.Certificate) error {
	roots := x509.NewCertPool()
	for _, ca := range cas {
		roots.AddCert(ca)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fault.New(fault.Invalid, "object store: address %q: %w", address, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	// The certificate names the host that clients use, which need not be this one: the
	// chain is checked, the name is not.
	transport := &http.Transport{TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots})
			return err
		},
	}}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: 2 * time.Second}
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+net.JoinHostPort(host, port)+healthPath, nil)
		if err != nil {
			return fault.New(fault.Invalid, "object store: address %q: %w", address, err)
		}
		if answer, err := client.Do(request); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Unready, "object store at %s does not answer: %w", address, ctx.Err())
		case <-tick.C:
		}
	}
}
