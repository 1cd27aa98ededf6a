package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"github.com/clary-ml/clary/internal/fault"
)

// Source returns the credentials to use for the next connection, so that a renewed
// certificate is taken up without a restart, and whom it trusts too.
type Source func() Credentials

// Expect says whether a peer with this identity is the one that is meant; its error
// says what was. See ExpectNode and ExpectAttempt.
type Expect func(Identity) error

// ExpectNode accepts the nodes of a role.
func ExpectNode(role string) Expect {
	return func(id Identity) error {
		if n, ok := id.(Node); ok && n.Role == role {
			return nil
		}
		return fault.New(fault.Denied, "the peer is %s; a node with the role %s is expected", id.URI(), role)
	}
}

// ExpectAttempt accepts the tasks of one attempt of one gang: a stale attempt cannot
// speak to a newer one.
func ExpectAttempt(of Task) Expect {
	return func(id Identity) error {
		if t, ok := id.(Task); ok && t.SameAttempt(of) {
			return nil
		}
		return fault.New(fault.Denied, "the peer is %s; a task of %s/%s, attempt %d, is expected",
			id.URI(), of.Job, of.Gang, of.Attempt)
	}
}

// ServerTLS is for a port that members and users share: a client may show a
// certificate of the cluster (see PeerIdentity) or none, but no other. Whom the source
// trusts is asked at every handshake, also where a session is resumed.
func ServerTLS(source Source, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protocols,
		ClientAuth: tls.RequestClientCert, // VerifyConnection checks it: the CAs change while the port is open
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return nil
			}
			return source().admit(state.PeerCertificates)
		},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return source().chain(), nil },
	}
}

// MutualTLS is for a port where every client must be an expected member.
func MutualTLS(source Source, expect Expect, protocols ...string) *tls.Config {
	c := ServerTLS(source, protocols...)
	c.ClientAuth = tls.RequireAnyClientCert
	admit := c.VerifyConnection
	c.VerifyConnection = func(state tls.ConnectionState) error {
		id, err := identityOf(state.PeerCertificates)
		if err == nil {
			err = admit(state)
		}
		if err != nil {
			return err
		}
		return expect(id)
	}
	return c
}

// ClientTLS is for a member that calls another: both show certificates of CAs that the
// other trusts, and the server must be an expected one. Its address does not matter.
func ClientTLS(source Source, expect Expect, protocols ...string) *tls.Config {
	c := identityTLS(func(chain []*x509.Certificate) error {
		mine := source()
		trusted := mine.CAs()
		if err := verify(chain, trusted, PinOf(trusted[0])); err != nil {
			return err
		}
		id, err := identityOf(chain)
		if err == nil {
			err = mine.Trust.refuses(id, chain[0])
		}
		if err != nil {
			return err
		}
		return expect(id)
	})
	c.NextProtos = protocols
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return source().chain(), nil }
	return c
}

// PinnedTLS is for a client that knows nothing of the cluster but its CA's pin: users,
// and machines that want to join. The server must be a coordinator and show its CA.
func PinnedTLS(pin string, protocols ...string) *tls.Config {
	return PinnedAs(pin, ExpectNode(Coordinator), protocols...)
}

// PinnedAs is PinnedTLS for a server that is another than a coordinator.
func PinnedAs(pin string, expect Expect, protocols ...string) *tls.Config {
	c := identityTLS(func(chain []*x509.Certificate) error {
		var trusted []*x509.Certificate
		for _, cert := range chain[1:] {
			if cert.IsCA && PinOf(cert) == pin && len(trusted) == 0 && selfSigned(cert) {
				trusted = append(trusted, cert)
			}
		}
		if err := verify(chain, trusted, pin); err != nil {
			return err
		}
		id, err := identityOf(chain)
		if err != nil {
			return err
		}
		return expect(id)
	})
	c.NextProtos = protocols
	return c
}

// Successor is the pin of the CA that a server's certificate comes from, if that is a newer one than the pinned and
// the pinned vouches for it; "" if it is the pinned. The connection must have been accepted with PinnedAs.
func Successor(state tls.ConnectionState, pin string) string {
	chain := state.PeerCertificates
	if len(chain) < 2 || !chain[1].IsCA || PinOf(chain[1]) == pin || chain[0].CheckSignatureFrom(chain[1]) != nil {
		return "" // the last: any CA may be shown beside a good certificate
	}
	for _, cert := range chain[2:] {
		if PinOf(cert) == pin && selfSigned(cert) && chain[1].NotBefore.After(cert.NotBefore) {
			return PinOf(chain[1])
		}
	}
	return ""
}

// identityTLS checks a server by CA and identity in the place of its name. The standard
// check is switched off because it insists on a name; VerifyConnection stands in for
// it, on resumed connections too.
func identityTLS(check func(chain []*x509.Certificate) error) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return fault.New(fault.Denied, "the server shows no certificate")
			}
			return check(state.PeerCertificates)
		},
	}
}

// verify checks that a CA which the caller trusts signed the chain's first certificate, or one that such a CA vouches for.
func verify(chain, trusted []*x509.Certificate, pin string) error {
	if len(trusted) == 0 {
		return otherCA(chain, pin)
	}
	err := signed(chain, trusted, x509.ExtKeyUsageServerAuth)
	if err == nil {
		return nil
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return fault.New(fault.Denied, "the server's certificate holds from %s to %s, and here it is %s: renew it, or set the clock that is wrong",
			chain[0].NotBefore.Format(time.RFC3339), chain[0].NotAfter.Format(time.RFC3339), time.Now().UTC().Format(time.RFC3339))
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return otherCA(chain, pin)
	}
	return fault.New(fault.Denied, "the server's certificate is not valid: %w", err)
}

// signed is the standard check of a chain, whose anchors are the CAs that are trusted and those that the chain itself
// shows to be certified by one of them: see Authority.Link.
func signed(chain, trusted []*x509.Certificate, use x509.ExtKeyUsage) error {
	now := time.Now()
	roots := x509.NewCertPool()
	for _, ca := range trusted {
		roots.AddCert(ca)
	}
	for _, cert := range chain[1:] {
		if !cert.IsCA || now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
			continue
		}
		if slices.ContainsFunc(trusted, func(ca *x509.Certificate) bool { return cert.CheckSignatureFrom(ca) == nil }) {
			roots.AddCert(cert)
		}
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{use}})
	return err
}

func otherCA(chain []*x509.Certificate, pin string) error {
	theirs := "unknown: it does not show it"
	for _, cert := range chain[1:] {
		if cert.IsCA {
			theirs = PinOf(cert)
			break
		}
	}
	return fault.New(fault.Denied,
		"the server's certificate comes from another CA (pin %s, this context expects %s): if the cluster was made anew, or changed its CA while nobody here asked it, run clary login again (a machine joins with a new token); if not, something stands between",
		theirs, pin)
}

// PeerIdentity returns who a server's client is, or false if it showed no certificate.
// The connection must have been accepted with ServerTLS or MutualTLS.
func PeerIdentity(state tls.ConnectionState) (Identity, bool, error) {
	if len(state.PeerCertificates) == 0 {
		return nil, false, nil
	}
	id, err := identityOf(state.PeerCertificates)
	return id, err == nil, err
}

func identityOf(chain []*x509.Certificate) (Identity, error) {
	if len(chain) == 0 {
		return nil, fault.New(fault.Denied, "the peer shows no certificate")
	}
	return IdentityOf(chain[0])
}

// IdentityOf returns whom a certificate speaks for. It does not say that the
// certificate is genuine.
func IdentityOf(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 {
		return nil, fault.New(fault.Denied, "the peer's certificate %q has %d identities; exactly one is needed",
			cert.Subject.CommonName, len(cert.URIs))
	}
	id, err := ParseIdentity(cert.URIs[0].String())
	if err != nil {
		return nil, fault.New(fault.Denied, "the peer's certificate: %w", err)
	}
	return id, nil
}
