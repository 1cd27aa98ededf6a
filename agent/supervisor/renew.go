package supervisor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/internal/fault"
)

// retryTrust is the wait before a task's folder is written again that could not be.
const retryTrust = 10 * time.Second

// hasCertificate reports whether the task's gang talks under certificates of the cluster.
func (t *task) hasCertificate() bool {
	return t.s.config.Certify != nil && needsCertificate(t.assignment())
}

// loadCertificate reads what the task shows, from its folder. Without it there is nothing to keep.
func (t *task) loadCertificate() *pki.Current {
	if t.s.config.Trust == nil || !t.hasCertificate() {
		return nil
	}
	now, err := pki.LoadCredentials(t.tlsDir())
	if err != nil {
		t.s.config.Log.Warn("a task's certificate is not renewed: its folder cannot be read", "task", t.id(), "error", err)
		return nil
	}
	current := pki.NewCurrent(now)
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.certified = current
	return current
}

// keepCertified renews the task's certificate while it runs, and has it trust whom the node trusts, until it is
// stopped. The task finds both in the files that it had from the start.
func (t *task) keepCertified(ctx context.Context) (stop func()) {
	current := t.loadCertificate()
	if current == nil {
		return func() {}
	}
	log := t.s.config.Log.With("task", t.id())
	renewal := member.Renewal{
		Current: current, Log: log, Save: t.saveCertificate,
		Certify: func(ctx context.Context, csr []byte) ([]byte, error) {
			certificate, _, err := t.s.config.Certify(ctx, t.id(), csr)
			return certificate, err
		},
	}
	ctx, cancel := context.WithCancel(ctx)
	var working sync.WaitGroup
	working.Go(func() { _ = renewal.Run(ctx) }) // it ends with ctx alone
	working.Go(func() {
		for {
			changed := t.s.config.Trust.Changed()
			var again <-chan time.Time
			if err := t.adoptTrust(current); err != nil {
				log.Warn("a task does not know yet whom the cluster trusts now", "error", err)
				again = time.After(retryTrust)
			}
			select {
			case <-ctx.Done():
				return
			case <-changed:
			case <-again:
			}
		}
	})
	return func() { cancel(); working.Wait() }
}

// adoptTrust has the task trust whom the node trusts. Who was revoked is no matter of tasks, which talk to tasks.
func (t *task) adoptTrust(current *pki.Current) error {
	node := t.s.config.Trust.Get()
	if !behind(current.Get(), node) {
		return nil
	}
	return current.Update(func(now pki.Credentials) (pki.Credentials, error) {
		now.Trust = pki.Trust{CAs: node.CAs(), Links: node.Trust.Links}
		return now, t.saveCertificate(now)
	})
}

// behind reports whether a task trusts others than its node does, or shows a certificate of another CA than signs now.
func behind(task, node pki.Credentials) bool {
	return !slices.EqualFunc(task.CAs(), node.CAs(), (*x509.Certificate).Equal) || !slices.EqualFunc(task.Trust.Links, node.Trust.Links, (*x509.Certificate).Equal)
}

// Outdated counts the tasks whose certificates, or whom they trust, are not what the node itself goes by: a CA that is
// dropped then would part them from their gangs.
func (s *Supervisor) Outdated() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.config.Trust == nil {
		return 0
	}
	node, count := s.config.Trust.Get(), 0
	for _, t := range s.tasks {
		if t.certified == nil || t.entry.Status.State.Ended() {
			continue
		}
		if now := t.certified.Get(); behind(now, node) || now.Outdated() {
			count++
		}
	}
	return count
}

// saveCertificate puts what a task shows and whom it trusts into its folder, where the key stays as it is. A task that
// reads at the same time finds each file whole, and any mixture of them is good: the key is the same, and whoever is
// trusted is so before and after a certificate of it is shown.
func (t *task) saveCertificate(now pki.Credentials) error {
	err := replace(filepath.Join(t.tlsDir(), pki.CAFile), pki.CertsPEM(now.CAs()...))
	if err == nil {
		err = replace(filepath.Join(t.tlsDir(), pki.CertFile), now.CertPEM())
	}
	if err != nil {
		return fault.New(fault.Internal, "write the task's certificate: %w", err)
	}
	return nil
}

// replace puts another file into the place of one, for the same owner's eyes.
func replace(path string, text []byte) error {
	was, err := os.Lstat(path)
	if err != nil {
		return err
	}
	owner, ok := was.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("whose %s is cannot be told", path)
	}
	next := path + ".next"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(next, os.O_CREATE|os.O_EXCL|os.O_WRONLY, was.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	err = errors.Join(err, file.Chown(int(owner.Uid), int(owner.Gid)), file.Sync(), file.Close())
	if err != nil {
		return errors.Join(err, os.Remove(next))
	}
	return os.Rename(next, path)
}
