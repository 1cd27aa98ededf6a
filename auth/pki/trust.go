package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// Trust is whom a member believes: what the cluster has agreed on and told it. The zero value is the CA of its own
// certificate, and everybody.
type Trust struct {
	// CAs are those whose certificates are good, the one that signs now first.
	CAs []*x509.Certificate
	// Links are CAs as those before them certify them. Never the other way round: who has dropped a CA would believe it
	// for as long as the link lasts.
	Links   []*x509.Certificate
	Revoked []cluster.Revocation
}

// NewTrust reads CAs and links as they go over the wire, in DER.
func NewTrust(cas, links [][]byte, revoked []cluster.Revocation) (Trust, error) {
	t := Trust{Revoked: revoked}
	for _, list := range []struct {
		ders [][]byte
		to   *[]*x509.Certificate
	}{{cas, &t.CAs}, {links, &t.Links}} {
		for _, der := range list.ders {
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				return Trust{}, fault.New(fault.Invalid, "trust: %w", err)
			}
			if !cert.IsCA {
				return Trust{}, fault.New(fault.Invalid, "trust: the certificate of %q is no CA's", cert.Subject.CommonName)
			}
			*list.to = append(*list.to, cert)
		}
	}
	return t, nil
}

// refuses says why the holder of a genuine certificate is not believed any more.
func (t Trust) refuses(id Identity, cert *x509.Certificate) error {
	node, ok := id.(Node)
	if !ok {
		return nil // a task's is worth what its attempt is
	}
	for _, revoked := range t.Revoked {
		if revoked.Role == node.Role && revoked.ID == node.ID && revoked.Refuses(PinOf(cert)) {
			return Revoked(revoked)
		}
	}
	return nil
}

// Revoked is what a node is told that is not believed any more.
func Revoked(r cluster.Revocation) error {
	return fault.New(fault.Denied, "%s %s was revoked by %s: %s: it can only join anew, with an empty data folder and a new token", r.Role, r.ID, r.By, r.Reason)
}

// Admits says why the other end of a connection that stands would not be let in now: it was revoked since. One that
// showed no certificate is let in. What CAs vouch for is Credentials.Vouches.
func (t Trust) Admits(state tls.ConnectionState) error {
	if len(t.Revoked) == 0 || len(state.PeerCertificates) == 0 {
		return nil
	}
	id, err := identityOf(state.PeerCertificates)
	if err != nil {
		return err
	}
	return t.refuses(id, state.PeerCertificates[0])
}

// Vouches says why the other end of a connection that stands would get none now: no CA that is trusted vouches for what it
// showed. One that showed no certificate needs nobody.
func (c Credentials) Vouches(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return nil
	}
	if err := signed(state.PeerCertificates, c.CAs(), x509.ExtKeyUsageAny); err != nil {
		return fault.New(fault.Denied, "its certificate is good no more: %w", err)
	}
	return nil
}

// DropTime is how long what is under way may go on over connections that were made under a CA which is dropped: they are
// not used for anything new.
const DropTime = 5 * time.Second

// Drops reports whether of the CAs that were trusted one is not any more.
func Drops(were, are []*x509.Certificate) bool {
	return slices.ContainsFunc(were, func(ca *x509.Certificate) bool { return !slices.ContainsFunc(are, ca.Equal) })
}

// admit checks a client's certificate.
func (c Credentials) admit(chain []*x509.Certificate) error {
	if err := signed(chain, c.CAs(), x509.ExtKeyUsageClientAuth); err != nil {
		return fault.New(fault.Denied, "the client's certificate is not valid: %w", err)
	}
	id, err := identityOf(chain)
	if err != nil {
		return err
	}
	return c.Trust.refuses(id, chain[0])
}

func loadRevoked(path string) ([]cluster.Revocation, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var revoked []cluster.Revocation
	if err == nil {
		err = json.Unmarshal(text, &revoked)
	}
	return revoked, err
}
