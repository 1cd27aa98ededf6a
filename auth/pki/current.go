package pki

import (
	"sync"
	"sync/atomic"

	"github.com/clary-ml/clary/internal/fault"
)

// Current holds a member's credentials, which are renewed while they are in use.
type Current struct {
	held atomic.Pointer[Credentials]

	mu      sync.Mutex    // of those who change them
	changed chan struct{} // closed and replaced when they do
}

// NewCurrent begins with these credentials.
func NewCurrent(c Credentials) *Current {
	current := &Current{changed: make(chan struct{})}
	current.held.Store(&c)
	return current
}

// Get is a Source: it returns what was set last.
func (c *Current) Get() Credentials { return *c.held.Load() }

// Update makes all connections from now on use what change makes of the credentials, unless it fails. One change waits
// for another, so that none is lost.
func (c *Current) Update(change func(Credentials) (Credentials, error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	renewed, err := change(c.Get())
	if err != nil {
		return err
	}
	c.held.Store(&renewed)
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

// Changed returns a channel that is closed at the next change.
func (c *Current) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// With returns the credentials with another certificate. It must be for the same key,
// from a CA that is trusted, and speak for the same member.
func (c Credentials) With(certPEM []byte) (Credentials, error) {
	cert, err := ParseCertificate(certPEM)
	if err != nil {
		return Credentials{}, fault.New(fault.Invalid, "renewed certificate: %w", err)
	}
	if !c.Key.PublicKey.Equal(cert.PublicKey) {
		return Credentials{}, fault.New(fault.Invalid, "the renewed certificate is for another key")
	}
	ca, err := issuer(cert, c.CAs())
	if err != nil {
		return Credentials{}, fault.New(fault.Invalid, "renewed certificate: %w", err)
	}
	was, err := IdentityOf(c.Cert)
	if err != nil {
		return Credentials{}, err
	}
	is, err := IdentityOf(cert)
	if err != nil {
		return Credentials{}, err
	}
	if was != is {
		return Credentials{}, fault.New(fault.Invalid, "the renewed certificate speaks for %s, not for %s", is.URI(), was.URI())
	}
	c.Cert, c.CA = cert, ca
	return c, nil
}
