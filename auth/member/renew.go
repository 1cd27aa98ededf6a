package member

import (
	"context"
	"log/slog"
	"time"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/internal/fault"
)

// Renewal keeps a member's certificate, or a task's, from running out. The key stays: whoever crashes
// between the files of a folder still has a set that belongs together.
type Renewal struct {
	Current *pki.Current
	Save    func(pki.Credentials) error // before they are shown
	// Certify has a key certified, as far as it can be done now.
	Certify func(ctx context.Context, csr []byte) (certificate []byte, err error)
	Renewed func() // told after each renewal; may be nil
	Log     *slog.Logger
}

const (
	// lookAgain bounds how long a renewal is slept over: the clock of a machine that was
	// suspended, or set, jumps.
	lookAgain = time.Hour
	// retryRenewal is the longest wait after a renewal that was refused or got no answer.
	retryRenewal = time.Minute
)

// Run renews the certificate each time a third of it is left, and at once when another CA signs than it comes from,
// until ctx ends.
func (r Renewal) Run(ctx context.Context) error {
	for failures := 0; ; {
		changed, wait := r.Current.Changed(), r.due()
		if failures > 0 {
			wait = r.retry(failures)
		}
		if wait > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			case <-time.After(min(wait, lookAgain)):
			}
		}
		if r.due() > 0 {
			failures = 0
			continue
		}
		err := r.once(ctx)
		if err == nil && r.due() <= 0 {
			err = errStillDue
		}
		if err != nil {
			failures++
			r.Log.Warn("the certificate is not renewed yet", "ends", r.Current.Get().Cert.NotAfter, "error", err)
			continue
		}
		failures = 0
		r.Log.Info("certificate renewed", "until", r.Current.Get().Cert.NotAfter, "ca", pki.PinOf(r.Current.Get().CA))
		if r.Renewed != nil {
			r.Renewed()
		}
	}
}

// errStillDue is a renewal that brought nothing: asked for again at once it would bring the same, again and again.
var errStillDue = fault.New(fault.Unready, "the certificate that was given is to be renewed already: it comes from a CA that does not sign any more, or the clock here is wrong")

// due is the time left until the certificate is to be renewed.
func (r Renewal) due() time.Duration {
	now := r.Current.Get()
	if now.Outdated() {
		return 0
	}
	return time.Until(pki.RenewAt(now.Cert))
}

// retry is the wait after so many failures: a second at first, since a coordinator may be a moment behind, and never so
// long that there are not many tries before the certificate ends.
func (r Renewal) retry(failures int) time.Duration {
	left := time.Until(r.Current.Get().Cert.NotAfter)
	return max(min(retryRenewal, left/10, time.Second<<min(failures-1, 6)), time.Second)
}

// once renews the certificate: on disk first, so that what is shown lasts.
func (r Renewal) once(ctx context.Context) error {
	old := r.Current.Get()
	csr, err := pki.NewCSR(old.Key)
	if err != nil {
		return err
	}
	certificate, err := r.Certify(ctx, csr)
	if err != nil {
		return err
	}
	return r.Current.Update(func(now pki.Credentials) (pki.Credentials, error) {
		renewed, err := now.With(certificate)
		if err != nil {
			return now, err
		}
		return renewed, r.Save(renewed)
	})
}
