package keyring

import "sync/atomic"

// Current holds the secrets in force, which are replaced while they are in use.
type Current struct{ held atomic.Pointer[Keyring] }

// NewCurrent begins with these secrets.
func NewCurrent(k *Keyring) *Current {
	c := &Current{}
	c.Set(k)
	return c
}

// Get returns what was set last. It is not to be changed.
func (c *Current) Get() *Keyring { return c.held.Load() }

// Set puts other secrets into force.
func (c *Current) Set(k *Keyring) { c.held.Store(k) }

// Seal is Keyring.Seal with the secrets in force.
func (c *Current) Seal(value []byte, context string) ([]byte, error) {
	return c.Get().Seal(value, context)
}

// Open is Keyring.Open with the secrets in force.
func (c *Current) Open(sealed []byte, context string) ([]byte, error) {
	return c.Get().Open(sealed, context)
}
