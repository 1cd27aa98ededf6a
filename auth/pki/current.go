package pki

import (
	"sync/atomic"

	"github.com/clary-ml/clary/internal/fault"
)

// Current holds a member's credentials, which are renewed while they are in use.
type Current struct{ held atomic.Pointer[Credentials] }

// NewCurrent begins with these credentials.
func NewCurrent(c Credentials) *Current {
	current := &Current{}
	current.Set(c)
	return current
}

// Get is a Source: it returns what was set last.
func (c *Current) Get() Credentials { return *c.held.Load() }

// Set makes all connections from now on use other credentials.
func (c *Current) Set(renewed Credentials) { c.held.Store(&renewed) }

// With returns the credentials with another certificate. It must be for the same key,
// from the same CA, and speak for the same member.
func (c Credentials) With(certPEM []byte) (Credentials, error) {
	cert, err := ParseCertificate(certPEM)
	if err != nil {
		return Credentials{}, fault.New(fault.Invalid, "renewed certificate: %w", err)
	}
	if !c.Key.PublicKey.Equal(cert.PublicKey) {
		return Credentials{}, fault.New(fault.Invalid, "the renewed certificate is for another key")
	}
	if err := cert.CheckSignatureFrom(c.CA); err != nil {
		return Credentials{}, fault.New(fault.Invalid, "the renewed certificate was not signed by the CA %s: %w", PinOf(c.CA), err)
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
	c.Cert = cert
	return c, nil
}
