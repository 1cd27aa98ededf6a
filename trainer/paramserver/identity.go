package paramserver

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
)

// The roles of a training gang.
const (
	roleWorker = "worker"
	roleServer = "server"
)

// Identity is a task's certificate: who it is, and how it proves that. Peers must have a
// certificate of the same authority, for the same job, gang and attempt: a task of an
// attempt that was given up cannot talk to the one that took its place.
type Identity struct {
	Job, Gang, Attempt string
	Role               string
	Index              int

	certificate tls.Certificate
	roots       *x509.CertPool
}

// LoadIdentity reads cert.pem, key.pem and ca.pem from a folder.
func LoadIdentity(dir string) (*Identity, error) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil, fault.New(fault.Invalid, "read the task's certificate: %w", err)
	}
	pem, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, fault.New(fault.Invalid, "read the cluster's authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fault.New(fault.Invalid, "%s has no certificate in it", filepath.Join(dir, "ca.pem"))
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return nil, fault.New(fault.Invalid, "read the task's certificate: %w", err)
	}
	id, err := identityOf(leaf)
	if err != nil {
		return nil, err
	}
	id.certificate, id.roots = cert, roots
	return &id, nil
}

// identityOf reads clary://task/<job>/<gang>/<attempt>/<role>/<index>, which must be the
// only URI of the certificate.
func identityOf(leaf *x509.Certificate) (Identity, error) {
	if len(leaf.URIs) != 1 {
		return Identity{}, fault.New(fault.Denied, "the certificate has %d URIs: it must have one, of a task", len(leaf.URIs))
	}
	u := leaf.URIs[0]
	parts := strings.Split(strings.TrimPrefix(u.EscapedPath(), "/"), "/")
	if u.Scheme != "clary" || u.Host != "task" || len(parts) != 5 {
		return Identity{}, fault.New(fault.Denied, "the certificate is for %s: it must be for clary://task/JOB/GANG/ATTEMPT/ROLE/INDEX", u)
	}
	for i := range parts {
		part, err := url.PathUnescape(parts[i])
		if err != nil || part == "" {
			return Identity{}, fault.New(fault.Denied, "the certificate is for %s: a part is empty or not readable", u)
		}
		parts[i] = part
	}
	index, err := strconv.Atoi(parts[4])
	if err != nil || index < 0 {
		return Identity{}, fault.New(fault.Denied, "the certificate is for %s: its index is not a number", u)
	}
	return Identity{Job: parts[0], Gang: parts[1], Attempt: parts[2], Role: parts[3], Index: index}, nil
}

// expect fails unless a verified peer is the one that it should be.
func (id *Identity) expect(state tls.ConnectionState, role string, index int) error {
	peer, err := identityOf(state.PeerCertificates[0])
	if err != nil {
		return err
	}
	want := Identity{Job: id.Job, Gang: id.Gang, Attempt: id.Attempt, Role: role, Index: index}
	if index < 0 {
		want.Index = peer.Index
	}
	if peer.Job != want.Job || peer.Gang != want.Gang || peer.Attempt != want.Attempt || peer.Role != want.Role || peer.Index != want.Index {
		return fault.New(fault.Denied, "the peer is %s: expected %s", peer, want)
	}
	return nil
}

// String returns job/gang/role-index.attempt.
func (id Identity) String() string {
	return fmt.Sprintf("%s/%s/%s-%d.%s", id.Job, id.Gang, id.Role, id.Index, id.Attempt)
}

func (id *Identity) config(role string, index int, usage x509.ExtKeyUsage) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{id.certificate},
		ClientAuth:   tls.RequireAnyClientCert,
		// Tasks have no host names: the chain and the task's name are checked below.
		InsecureSkipVerify:          true,
		DynamicRecordSizingDisabled: true,
		SessionTicketsDisabled:      true,
		VerifyConnection: func(state tls.ConnectionState) error {
			pool := x509.NewCertPool()
			for _, c := range state.PeerCertificates[1:] {
				pool.AddCert(c)
			}
			_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: id.roots, Intermediates: pool, KeyUsages: []x509.ExtKeyUsage{usage}})
			if err != nil {
				return fault.New(fault.Denied, "the peer's certificate: %w", err)
			}
			return id.expect(state, role, index)
		},
	}
}

// listen wraps a listener in TLS. Without an identity it must be a loopback one.
func (id *Identity) listen(l net.Listener, index int) (net.Listener, error) {
	if id == nil {
		return l, loopbackOnly(l.Addr().String())
	}
	if id.Role != roleServer || id.Index != index {
		return nil, fault.New(fault.Denied, "the certificate is for %s: this is parameter server %d", id, index)
	}
	return tls.NewListener(l, id.config(roleWorker, -1, x509.ExtKeyUsageClientAuth)), nil
}

// client wraps a connection to a server.
func (id *Identity) client(conn net.Conn, address string, server int) (net.Conn, error) {
	if id == nil {
		return conn, loopbackOnly(conn.RemoteAddr().String())
	}
	c := id.config(roleServer, server, x509.ExtKeyUsageServerAuth)
	c.ServerName = address
	return tls.Client(conn, c), nil
}

// checkPeer checks that the worker which a hello names is the one of the certificate.
func (id *Identity) checkPeer(conn net.Conn, role string, index int) error {
	secured, ok := conn.(*tls.Conn)
	if id == nil || !ok {
		return nil
	}
	return id.expect(secured.ConnectionState(), role, index)
}

func loopbackOnly(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fault.New(fault.Invalid, "address %s: %w", address, err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fault.New(fault.Denied, "%s is not a loopback address: parameter servers need CLARY_TLS_DIR, a certificate from the cluster, to talk over a network", address)
	}
	return nil
}
