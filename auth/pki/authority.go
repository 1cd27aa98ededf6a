// Package pki is the cluster's certificate authority and everything that checks its
// certificates: who a peer is, and whether a server belongs to the cluster that a
// client means.
//
// An identity is a URI in the certificate (see Identity). Names and addresses in a
// certificate are there for outside clients only: members find each other by identity,
// so a node may change its address. All connections are TLS 1.3.
//
// Keys are ECDSA P-256, the one kind that OpenSSL, Python's ssl, browsers and Go all
// accept. A CA is named by its pin: the SHA-256 of its public key.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"net"
	"net/url"
	"time"

	"github.com/clary-ml/clary/internal/fault"
)

// How long certificates last, if the cluster's settings say no other. The holder renews when a third is left (see RenewAt).
const (
	AuthorityValidity = 10 * 365 * 24 * time.Hour
	NodeValidity      = 30 * 24 * time.Hour
)

// backdate makes a certificate valid for members whose clocks are a little behind.
const backdate = 5 * time.Minute

// Authority signs certificates.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes a CA with a key of its own.
func NewAuthority(name string, now time.Time) (*Authority, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name, Organization: []string{"Clary"}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(AuthorityValidity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLen:            1, // room for its successor: see Link
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fault.New(fault.Internal, "make the CA certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.New(fault.Internal, "make the CA certificate: %w", err)
	}
	return &Authority{cert, key}, nil
}

// ParseAuthority reads what CertPEM and KeyPEM wrote.
func ParseAuthority(certPEM, keyPEM []byte) (*Authority, error) {
	cert, err := ParseCertificate(certPEM)
	if err != nil {
		return nil, fault.New(fault.Invalid, "CA certificate: %w", err)
	}
	key, err := ParseKey(keyPEM)
	if err != nil {
		return nil, fault.New(fault.Invalid, "CA key: %w", err)
	}
	if !cert.IsCA || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fault.New(fault.Invalid, "the CA certificate %q does not belong to the CA key", cert.Subject.CommonName)
	}
	return &Authority{cert, key}, nil
}

// Certificate returns the CA's certificate, which is not to be changed.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// CertPEM returns the CA's certificate.
func (a *Authority) CertPEM() []byte { return encode("CERTIFICATE", a.cert.Raw) }

// KeyPEM returns the CA's private key.
func (a *Authority) KeyPEM() ([]byte, error) { return KeyPEM(a.key) }

// Pin returns the CA's name: sha256: and 64 hexadecimal digits.
func (a *Authority) Pin() string { return PinOf(a.cert) }

// PinOf returns the pin of a certificate: the SHA-256 of its public key.
func PinOf(cert *x509.Certificate) string { return digest(cert.RawSubjectPublicKeyInfo) }

// Fingerprint names a public key the way PinOf names a certificate's.
func Fingerprint(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fault.New(fault.Invalid, "public key: %w", err)
	}
	return digest(der), nil
}

func digest(der []byte) string {
	sum := sha256.Sum256(der)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Link certifies another CA with this one's key: whoever trusts this CA alone can see that it vouches for the other.
// Where a CA follows another, servers show it beside their certificate, so that clients who know the old one go on.
func (a *Authority) Link(other *x509.Certificate, now time.Time) (*x509.Certificate, error) {
	end := a.cert.NotAfter
	if other.NotAfter.Before(end) {
		end = other.NotAfter
	}
	template := &x509.Certificate{
		Subject: other.Subject, SubjectKeyId: other.SubjectKeyId, NotBefore: now.Add(-backdate), NotAfter: end,
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, other.PublicKey, a.key)
	if err != nil {
		return nil, fault.New(fault.Internal, "certify the CA %s: %w", PinOf(other), err)
	}
	link, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.New(fault.Internal, "certify the CA %s: %w", PinOf(other), err)
	}
	return link, nil
}

// AgentName is the name that every agent's certificate is for, and no other's. Agents have no host names of their own, since a
// cluster does not vouch for an address that a machine says is its own: with another's it could pass for a coordinator or
// the object store. So whoever asks an agent from outside, for metrics, expects this name, and knows that it is some agent.
const AgentName = "agent.clary.internal"

// Request is what a certificate shall say.
type Request struct {
	// Identity may be nil for a server that only outside clients speak to, such as the
	// object store: its certificate then opens nothing inside the cluster.
	Identity Identity
	// Hosts are the names and IP addresses under which outside clients reach the server.
	Hosts []string
	// Validity is how long it lasts; it is cut at the end of the CA's own.
	Validity time.Duration
}

// Issue signs a certificate for a public key, as PEM.
func (a *Authority) Issue(key crypto.PublicKey, r Request, now time.Time) ([]byte, error) {
	template, err := a.template(r, now)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key, a.key)
	if err != nil {
		return nil, fault.New(fault.Invalid, "sign a certificate: %w", err)
	}
	return encode("CERTIFICATE", der), nil
}

// IssueCSR signs a certificate for the key that signed a request (see NewCSR). What
// the CSR asks for itself is ignored: r says who the holder is.
func (a *Authority) IssueCSR(csrPEM []byte, r Request, now time.Time) ([]byte, error) {
	csr, err := ParseCSR(csrPEM)
	if err != nil {
		return nil, err
	}
	return a.Issue(csr.PublicKey, r, now)
}

func (a *Authority) template(r Request, now time.Time) (*x509.Certificate, error) {
	end := now.Add(r.Validity)
	if end.After(a.cert.NotAfter) {
		end = a.cert.NotAfter
	}
	if r.Validity <= 0 || !end.After(now) {
		return nil, fault.New(fault.Invalid, "validity %v: it must be positive, and the CA's own ends at %s",
			r.Validity, a.cert.NotAfter.Format(time.RFC3339))
	}
	t := &x509.Certificate{
		NotBefore:             now.Add(-backdate),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, host := range r.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if host != "" {
			t.DNSNames = append(t.DNSNames, host)
		}
	}
	if r.Identity == nil {
		if len(t.IPAddresses)+len(t.DNSNames) == 0 {
			return nil, fault.New(fault.Invalid, "a certificate needs an identity or a host")
		}
		t.Subject.CommonName = r.Hosts[0]
		return t, nil
	}
	uri, err := uriOf(r.Identity)
	if err != nil {
		return nil, err
	}
	t.URIs = []*url.URL{uri}
	if node, ok := r.Identity.(Node); ok && node.Role == Agent {
		t.DNSNames = append(t.DNSNames, AgentName)
	}
	t.Subject.CommonName = commonName(r.Identity)
	t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	return t, nil
}

// commonName is for people who read a certificate; X.509 allows it 64 characters.
func commonName(id Identity) string {
	name := id.URI()[len(scheme+"://"):]
	return name[:min(len(name), 64)]
}

// RenewAt returns when a certificate is to be renewed: when a third of the time is left for which it was made.
func RenewAt(cert *x509.Certificate) time.Time {
	life := cert.NotAfter.Sub(cert.NotBefore)
	if life > backdate {
		life -= backdate
	}
	return cert.NotAfter.Add(-life / 3)
}

// NewKey makes a private key.
func NewKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fault.New(fault.Internal, "make a key: %w", err)
	}
	return key, nil
}

// KeyPEM encodes a private key as PKCS #8.
func KeyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fault.New(fault.Internal, "encode a key: %w", err)
	}
	return encode("PRIVATE KEY", der), nil
}

// ParseKey reads what KeyPEM wrote.
func ParseKey(keyPEM []byte) (*ecdsa.PrivateKey, error) {
	der, err := decode("PRIVATE KEY", keyPEM)
	if err != nil {
		return nil, err
	}
	any, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%w", err)
	}
	key, ok := any.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fault.New(fault.Invalid, "it is a %T; an ECDSA P-256 key is needed", any)
	}
	return key, nil
}

// NewCSR makes a certificate request, which proves that its sender has the key.
func NewCSR(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fault.New(fault.Internal, "make a certificate request: %w", err)
	}
	return encode("CERTIFICATE REQUEST", der), nil
}

// ParseCSR reads a certificate request and checks its proof.
func ParseCSR(csrPEM []byte) (*x509.CertificateRequest, error) {
	der, err := decode("CERTIFICATE REQUEST", csrPEM)
	if err != nil {
		return nil, fault.New(fault.Invalid, "certificate request: %w", err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "certificate request: %w", err)
	}
	return csr, nil
}

// ParseCertificate reads the first certificate of a PEM text.
func ParseCertificate(certPEM []byte) (*x509.Certificate, error) {
	der, err := decode("CERTIFICATE", certPEM)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%w", err)
	}
	return cert, nil
}

// ParseCertificates reads all certificates of a PEM text, of which there must be one.
func ParseCertificates(certPEM []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := certPEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fault.New(fault.Invalid, "%w", err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fault.New(fault.Invalid, "no PEM block %q in it", "CERTIFICATE")
	}
	return certs, nil
}

// CertsPEM encodes certificates, one after the other.
func CertsPEM(certs ...*x509.Certificate) []byte {
	var text []byte
	for _, cert := range certs {
		text = append(text, encode("CERTIFICATE", cert.Raw)...)
	}
	return text
}

// selfSigned reports whether a CA's certificate is its own and not one that another CA gave it.
func selfSigned(cert *x509.Certificate) bool { return cert.CheckSignatureFrom(cert) == nil }

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func decode(kind string, text []byte) ([]byte, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, fault.New(fault.Invalid, "no PEM block %q in it", kind)
	}
	return block.Bytes, nil
}
