package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"

	"github.com/clary-ml/clary/internal/fault"
)

// Source returns the credentials to use for the next connection, so that a renewed
// certificate is taken up without a restart. Its CA does not change.
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
// certificate of the cluster (see PeerIdentity) or none, but no other.
func ServerTLS(source Source, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     protocols,
		ClientAuth:     tls.VerifyClientCertIfGiven,
		ClientCAs:      source().pool(),
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return source().chain(), nil },
	}
}

// MutualTLS is for a port where every client must be an expected member.
func MutualTLS(source Source, expect Expect, protocols ...string) *tls.Config {
	c := ServerTLS(source, protocols...)
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.VerifyConnection = func(state tls.ConnectionState) error {
		id, err := identityOf(state.PeerCertificates)
		if err != nil {
			return err
		}
		return expect(id)
	}
	return c
}

// ClientTLS is for a member that calls another: both show certificates of the same CA,
// and the server must be an expected one. Its address does not matter.
func ClientTLS(source Source, expect Expect, protocols ...string) *tls.Config {
	ca := source().CA
	c := identityTLS(expect, func([]*x509.Certificate) *x509.Certificate { return ca }, PinOf(ca))
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
	find := func(chain []*x509.Certificate) *x509.Certificate {
		for _, cert := range chain[1:] {
			if cert.IsCA && PinOf(cert) == pin {
				return cert
			}
		}
		return nil
	}
	c := identityTLS(expect, find, pin)
	c.NextProtos = protocols
	return c
}

// identityTLS checks a server by CA and identity in the place of its name. The standard
// check is switched off because it insists on a name; VerifyConnection stands in for
// it, on resumed connections too.
func identityTLS(expect Expect, find func([]*x509.Certificate) *x509.Certificate, pin string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			chain := state.PeerCertificates
			if len(chain) == 0 {
				return fault.New(fault.Denied, "the server shows no certificate")
			}
			if err := verify(chain, find(chain), pin); err != nil {
				return err
			}
			id, err := identityOf(chain)
			if err != nil {
				return err
			}
			return expect(id)
		},
	}
}

// verify checks that ca, which the caller trusts, signed the chain's first certificate.
func verify(chain []*x509.Certificate, ca *x509.Certificate, pin string) error {
	if ca == nil {
		return otherCA(chain, pin)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
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

func otherCA(chain []*x509.Certificate, pin string) error {
	theirs := "unknown: it does not show it"
	if last := chain[len(chain)-1]; last.IsCA {
		theirs = PinOf(last)
	}
	return fault.New(fault.Denied,
		"the server's certificate comes from another CA (pin %s, this context expects %s): if the cluster was made anew, run clary login again; if not, something stands between",
		theirs, pin)
}

// PeerIdentity returns who a server's client is, or false if it showed no certificate.
// The connection must have been accepted with ServerTLS or MutualTLS.
func PeerIdentity(state tls.ConnectionState) (Identity, bool, error) {
	if len(state.VerifiedChains) == 0 {
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
