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
	"sync"

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

	files *files
}

// LoadIdentity reads cert.pem, key.pem and ca.pem from a folder. They are read again when they have changed: the node
// renews them while the task runs.
func LoadIdentity(dir string) (*Identity, error) {
	f := &files{dir: dir}
	if err := f.load(f.stat()); err != nil {
		return nil, err
	}
	id, err := identityOf(f.shown.Leaf)
	if err != nil {
		return nil, err
	}
	id.files = f
	return &id, nil
}

// files are a task's certificate and whom it trusts, as its folder has them.
type files struct {
	dir string

	mu    sync.Mutex
	shown tls.Certificate
	roots *x509.CertPool
	read  [2]os.FileInfo // which files were read
}

// stat says which files are there: each content is a file of its own, put into the place of the one before.
func (f *files) stat() [2]os.FileInfo {
	var found [2]os.FileInfo
	for i, name := range [...]string{"cert.pem", "ca.pem"} {
		found[i], _ = os.Stat(filepath.Join(f.dir, name))
	}
	return found
}

// same reports whether files are those that were read.
func (f *files) same(found [2]os.FileInfo) bool {
	for i, info := range found {
		if info == nil || !os.SameFile(info, f.read[i]) || !info.ModTime().Equal(f.read[i].ModTime()) {
			return false
		}
	}
	return true
}

// now is what to show and whom to trust in a handshake. What cannot be read leaves what was.
func (f *files) now() (*tls.Certificate, *x509.CertPool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if found := f.stat(); !f.same(found) {
		_ = f.load(found) // the next handshake tries again
	}
	shown := f.shown
	return &shown, f.roots
}

func (f *files) load(found [2]os.FileInfo) error {
	shown, err := tls.LoadX509KeyPair(filepath.Join(f.dir, "cert.pem"), filepath.Join(f.dir, "key.pem"))
	if err != nil {
		return fault.New(fault.Invalid, "read the task's certificate: %w", err)
	}
	pem, err := os.ReadFile(filepath.Join(f.dir, "ca.pem"))
	if err != nil {
		return fault.New(fault.Invalid, "read the cluster's authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return fault.New(fault.Invalid, "%s has no certificate in it", filepath.Join(f.dir, "ca.pem"))
	}
	f.shown, f.roots, f.read = shown, roots, found
	return nil
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
	shown := func() (*tls.Certificate, error) {
		certificate, _ := id.files.now()
		return certificate, nil
	}
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shown() },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shown() },
		ClientAuth:           tls.RequireAnyClientCert,
		// Tasks have no host names: the chain and the task's name are checked below.
		InsecureSkipVerify:          true,
		DynamicRecordSizingDisabled: true,
		SessionTicketsDisabled:      true,
		VerifyConnection: func(state tls.ConnectionState) error {
			pool := x509.NewCertPool()
			for _, c := range state.PeerCertificates[1:] {
				pool.AddCert(c)
			}
			_, roots := id.files.now()
			_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: pool, KeyUsages: []x509.ExtKeyUsage{usage}})
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
