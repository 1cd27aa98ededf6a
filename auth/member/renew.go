package member

import (
	"context"
	"log/slog"
	"time"

	"github.com/clary-ml/clary/auth/pki"
)

// Renewal keeps a member's certificate from running out. The key stays: whoever crashes
// between the files of a folder still has a set that belongs together.
type Renewal struct {
	Current *pki.Current
	Dir     string // where the credentials are saved
	// Certify has a key certified, as far as it can be done now.
	Certify func(ctx context.Context, csr []byte) (certificate []byte, err error)
	Renewed func() // told after each renewal; may be nil
	Log     *slog.Logger
}

const (
	// lookAgain bounds how long a renewal is slept over: the clock of a machine that was
	// suspended, or set, jumps.
	lookAgain = time.Hour
	// retryRenewal is the wait after a renewal that was refused or got no answer.
	retryRenewal = time.Minute
)

// Run renews the certificate each time a third of it is left, until ctx ends.
func (r Renewal) Run(ctx context.Context) error {
	wait := r.due()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(wait, lookAgain)):
		}
		if wait = r.due(); wait > 0 {
			continue
		}
		if err := r.once(ctx); err != nil {
			r.Log.Warn("the certificate is not renewed yet", "ends", r.Current.Get().Cert.NotAfter, "error", err)
			wait = r.retry()
			continue
		}
		wait = r.due()
		r.Log.Info("certificate renewed", "until", r.Current.Get().Cert.NotAfter)
		if r.Renewed != nil {
			r.Renewed()
		}
	}
}

// due is the time left until the certificate is to be renewed.
func (r Renewal) due() time.Duration { return time.Until(pki.RenewAt(r.Current.Get().Cert)) }

// retry is short enough for many tries before the certificate ends.
func (r Renewal) retry() time.Duration {
	left := time.Until(r.Current.Get().Cert.NotAfter)
	return max(min(retryRenewal, left/10), time.Second)
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
	renewed, err := old.With(certificate)
	if err != nil {
		return err
	}
	if err := renewed.Save(r.Dir); err != nil {
		return err
	}
	r.Current.Set(renewed)
	return nil
}
