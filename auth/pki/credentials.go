package pki

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"

	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/internal/fault"
)

// Credentials are what a member shows and whom it trusts.
type Credentials struct {
	Cert *x509.Certificate
	Key  *ecdsa.PrivateKey
	CA   *x509.Certificate
}

// The files of a credentials folder.
const (
	CertFile = "cert.pem"
	KeyFile  = "key.pem"
	CAFile   = "ca.pem"
)

// ParseCredentials reads certificate, key and CA, and checks that they belong together.
func ParseCredentials(certPEM, keyPEM, caPEM []byte) (Credentials, error) {
	var c Credentials
	var err error
	if c.Cert, err = ParseCertificate(certPEM); err != nil {
		return Credentials{}, fault.New(fault.Invalid, "certificate: %w", err)
	}
	if c.Key, err = ParseKey(keyPEM); err != nil {
		return Credentials{}, fault.New(fault.Invalid, "key: %w", err)
	}
	if c.CA, err = ParseCertificate(caPEM); err != nil {
		return Credentials{}, fault.New(fault.Invalid, "CA certificate: %w", err)
	}
	if !c.Key.PublicKey.Equal(c.Cert.PublicKey) {
		return Credentials{}, fault.New(fault.Invalid, "the key does not belong to the certificate of %q", c.Cert.Subject.CommonName)
	}
	if err := c.Cert.CheckSignatureFrom(c.CA); err != nil {
		return Credentials{}, fault.New(fault.Invalid, "the certificate of %q was not signed by the CA %s: %w",
			c.Cert.Subject.CommonName, PinOf(c.CA), err)
	}
	return c, nil
}

// LoadCredentials reads the folder that Save wrote.
func LoadCredentials(dir string) (Credentials, error) {
	var texts [3][]byte
	for i, name := range [...]string{CertFile, KeyFile, CAFile} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if os.IsNotExist(err) {
			return Credentials{}, fault.New(fault.NotFound, "credentials: %w", err)
		}
		if err != nil {
			return Credentials{}, fault.New(fault.Internal, "credentials: %w", err)
		}
		texts[i] = text
	}
	c, err := ParseCredentials(texts[0], texts[1], texts[2])
	if err != nil {
		return Credentials{}, fault.New(fault.Invalid, "credentials in %s: %w", dir, err)
	}
	return c, nil
}

// Save writes cert.pem, key.pem (readable by the owner only) and ca.pem into a folder
// that exists. A renewed certificate keeps its key, so that a crash between the files
// leaves a set that belongs together.
func (c Credentials) Save(dir string) error {
	key, err := KeyPEM(c.Key)
	if err != nil {
		return err
	}
	for _, f := range [...]struct {
		name    string
		content []byte
		mode    os.FileMode
	}{
		{KeyFile, key, 0o600},
		{CAFile, encode("CERTIFICATE", c.CA.Raw), 0o644},
		{CertFile, c.CertPEM(), 0o644},
	} {
		if err := atomicfile.Write(filepath.Join(dir, f.name), f.content, f.mode); err != nil {
			return fault.New(fault.Internal, "save credentials: %w", err)
		}
	}
	return nil
}

// CertPEM returns the certificate and after it its CA, as servers send them.
func (c Credentials) CertPEM() []byte {
	return append(encode("CERTIFICATE", c.Cert.Raw), encode("CERTIFICATE", c.CA.Raw)...)
}

// Static is the Source of credentials that are never renewed.
func (c Credentials) Static() Source { return func() Credentials { return c } }

func (c Credentials) chain() *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{c.Cert.Raw, c.CA.Raw}, PrivateKey: c.Key, Leaf: c.Cert}
}

func (c Credentials) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.CA)
	return pool
}
