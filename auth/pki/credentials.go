package pki

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"

	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/internal/fault"
)

// Credentials are what a member shows and whom it trusts.
type Credentials struct {
	Cert  *x509.Certificate
	Key   *ecdsa.PrivateKey
	CA    *x509.Certificate // that Cert comes from
	Trust Trust
}

// The files of a credentials folder.
const (
	CertFile = "cert.pem"
	KeyFile  = "key.pem"
	CAFile   = "ca.pem" // all CAs that are trusted

	revokedFile = "revoked.json" // may be missing
)

// ParseCredentials reads certificate, key and CAs, and checks that they belong together. All CAs are trusted. The
// certificate may be followed by its own CA, which is not trusted by that, and by those that vouch for it.
func ParseCredentials(certPEM, keyPEM, caPEM []byte) (Credentials, error) {
	shown, err := ParseCertificates(certPEM)
	if err != nil {
		return Credentials{}, fault.New(fault.Invalid, "certificate: %w", err)
	}
	c := Credentials{Cert: shown[0]}
	if c.Key, err = ParseKey(keyPEM); err != nil {
		return Credentials{}, fault.New(fault.Invalid, "key: %w", err)
	}
	cas, err := ParseCertificates(caPEM)
	if err != nil {
		return Credentials{}, fault.New(fault.Invalid, "CA certificate: %w", err)
	}
	if !c.Key.PublicKey.Equal(c.Cert.PublicKey) {
		return Credentials{}, fault.New(fault.Invalid, "the key does not belong to the certificate of %q", c.Cert.Subject.CommonName)
	}
	known := slices.Clone(cas)
	for _, cert := range shown[1:] {
		switch {
		case cert.IsCA && selfSigned(cert):
			known = append(known, cert)
		case cert.IsCA:
			c.Trust.Links = append(c.Trust.Links, cert)
		}
	}
	c.Trust.CAs = cas
	c.CA, err = issuer(c.Cert, known)
	return c, err
}

// issuer is the CA that a certificate comes from.
func issuer(cert *x509.Certificate, cas []*x509.Certificate) (*x509.Certificate, error) {
	var err error
	for _, ca := range cas {
		if err = cert.CheckSignatureFrom(ca); err == nil {
			return ca, nil
		}
	}
	return nil, fault.New(fault.Invalid, "the certificate of %q was not signed by the CA %s: %w", cert.Subject.CommonName, PinOf(cas[0]), err)
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
	if c.Trust.Revoked, err = loadRevoked(filepath.Join(dir, revokedFile)); err != nil {
		return Credentials{}, fault.New(fault.Invalid, "credentials in %s: %w", dir, err)
	}
	return c, nil
}

// Save writes cert.pem, key.pem (readable by the owner only), ca.pem and who was revoked into a folder
// that exists. A renewed certificate keeps its key, so that a crash between the files
// leaves a set that belongs together.
func (c Credentials) Save(dir string) error {
	key, err := KeyPEM(c.Key)
	if err != nil {
		return err
	}
	type file struct {
		name    string
		content []byte
		mode    os.FileMode
	}
	files := []file{{KeyFile, key, 0o600}, {CAFile, CertsPEM(c.CAs()...), 0o644}, {CertFile, c.CertPEM(), 0o644}}
	_, err = os.Stat(filepath.Join(dir, revokedFile))
	if len(c.Trust.Revoked) > 0 || err == nil { // what stands there from before would come back at the next start
		text, err := json.Marshal(c.Trust.Revoked)
		if err != nil {
			return fault.New(fault.Internal, "save credentials: %w", err)
		}
		files = append(files, file{revokedFile, text, 0o600})
	}
	for _, f := range files {
		if err := atomicfile.Write(filepath.Join(dir, f.name), f.content, f.mode); err != nil {
			return fault.New(fault.Internal, "save credentials: %w", err)
		}
	}
	return nil
}

// CertPEM returns the certificate and after it its CA, as servers send them, and what vouches for that CA.
func (c Credentials) CertPEM() []byte { return CertsPEM(c.shown()...) }

// shown is the certificate, its CA, and while a CA follows another the links that lead to it and the CAs they come from.
func (c Credentials) shown() []*x509.Certificate {
	chain := []*x509.Certificate{c.Cert, c.CA}
	var others []*x509.Certificate
	for _, link := range c.Trust.Links {
		if !slices.Equal(link.RawSubjectPublicKeyInfo, c.CA.RawSubjectPublicKeyInfo) {
			continue
		}
		for _, ca := range c.Trust.CAs {
			if !ca.Equal(c.CA) && link.CheckSignatureFrom(ca) == nil {
				chain, others = append(chain, link), append(others, ca)
			}
		}
	}
	return append(chain, others...)
}

// CAs are those that are trusted.
func (c Credentials) CAs() []*x509.Certificate {
	if len(c.Trust.CAs) == 0 {
		return []*x509.Certificate{c.CA}
	}
	return c.Trust.CAs
}

// Outdated reports whether the certificate comes from another CA than the one that signs now, which is the first.
func (c Credentials) Outdated() bool { return !c.CAs()[0].Equal(c.CA) }

// Static is the Source of credentials that are never renewed.
func (c Credentials) Static() Source { return func() Credentials { return c } }

func (c Credentials) chain() *tls.Certificate {
	shown := &tls.Certificate{PrivateKey: c.Key, Leaf: c.Cert}
	for _, cert := range c.shown() {
		shown.Certificate = append(shown.Certificate, cert.Raw)
	}
	return shown
}
