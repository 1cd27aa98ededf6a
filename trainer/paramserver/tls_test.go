package paramserver_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/trainer/paramserver"
)

// authority signs certificates for tasks, as the cluster does.
type authority struct {
	t    testing.TB
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, key: key}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

// folder issues a certificate for a URI and writes it as a task finds it.
func (a *authority) folder(uri string) string {
	a.t.Helper()
	dir := a.t.TempDir()
	a.certify(dir, uri)
	return dir
}

// certify is what the node does at first, and when it renews.
func (a *authority) certify(dir, uri string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	u, err := url.Parse(uri)
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		URIs: []*url.URL{u}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.into(dir, der, private)
}

// into writes a certificate and its key as a node does: each file takes the place of the one before.
func (a *authority) into(dir string, der, private []byte) {
	a.t.Helper()
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: private},
		"ca.pem": {Type: "CERTIFICATE", Bytes: a.cert.Raw},
	} {
		next := filepath.Join(dir, name+".next")
		if err := errors.Join(os.WriteFile(next, pem.EncodeToMemory(block), 0o600), os.Rename(next, filepath.Join(dir, name))); err != nil {
			a.t.Fatal(err)
		}
	}
}

func (a *authority) identity(uri string) *paramserver.Identity {
	a.t.Helper()
	id, err := paramserver.LoadIdentity(a.folder(uri))
	if err != nil {
		a.t.Fatal(err)
	}
	return id
}

// Only a worker of the same job, gang and attempt, with a certificate of the cluster,
// gets to a server; and a worker talks only to the server it means.
func TestOnlyTheSameAttemptMayTalk(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	o := paramserver.ServerOptions{
		Workers: 1, Parameters: 50_000, Optimizer: optimizers["adam"], Digest: "d",
		Identity: a.identity("clary://task/digits/main/2/server/0"), Grace: time.Minute,
	}
	g := serve(t, 1, o)
	for _, row := range []struct {
		name, want string
		id         *paramserver.Identity
	}{
		{"an earlier attempt", "", a.identity("clary://task/digits/main/1/worker/0")},
		{"another job", "", a.identity("clary://task/letters/main/2/worker/0")},
		{"another gang", "", a.identity("clary://task/digits/side/2/worker/0")},
		{"another cluster", "", other.identity("clary://task/digits/main/2/worker/0")},
		{"another worker", "this is worker 0", a.identity("clary://task/digits/main/2/worker/1")},
		{"a server", "this is worker 0", a.identity("clary://task/digits/main/2/server/0")},
		{"nobody", "", nil},
	} {
		c := g.client(0)
		c.Identity, c.JoinWithin = row.id, 50*time.Millisecond
		client, err := paramserver.Dial(t.Context(), c)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", row.name, err)
			if client != nil {
				client.Close()
			}
		}
	}
	c := g.client(0)
	c.Identity = a.identity("clary://task/digits/main/2/worker/0")
	begin := fresh(50_000, o.Optimizer)
	if _, err := train(t.Context(), c, begin, 4); err != nil {
		t.Fatal(err)
	}
	if err := g.group.Wait(); err != nil {
		t.Error(err)
	}
}

// What the node puts into the folder while the task runs is shown and trusted from the next connection on.
func TestARenewedCertificateIsTakenUpWithoutANewStart(t *testing.T) {
	old, young := newAuthority(t), newAuthority(t)
	const server, worker = "clary://task/digits/main/2/server/0", "clary://task/digits/main/2/worker/0"
	folders := map[string]string{server: old.folder(server), worker: old.folder(worker)}
	identities := map[string]*paramserver.Identity{}
	for uri, folder := range folders {
		id, err := paramserver.LoadIdentity(folder)
		if err != nil {
			t.Fatal(err)
		}
		identities[uri] = id
	}
	g := serve(t, 1, paramserver.ServerOptions{
		Workers: 1, Parameters: 100, Optimizer: optimizers["adam"], Digest: "d", Identity: identities[server], Grace: time.Minute,
	})
	dials := func() error {
		c := g.client(0)
		c.Identity, c.JoinWithin = identities[worker], 50*time.Millisecond
		client, err := paramserver.Dial(t.Context(), c)
		if err == nil {
			client.Close()
		}
		return err
	}
	if err := dials(); err != nil {
		t.Fatal(err)
	}
	young.certify(folders[server], server)
	if err := dials(); err == nil {
		t.Error("whoever still shows the old certificate was let in")
	}
	young.certify(folders[worker], worker)
	if err := dials(); err != nil {
		t.Errorf("both have new certificates: %v", err)
	}
	// A file that is not whole changes nothing.
	if err := os.WriteFile(filepath.Join(folders[worker], "cert.pem"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := g.client(0)
	c.Identity = identities[worker]
	if _, err := train(t.Context(), c, fresh(100, g.options.Optimizer), 4); err != nil {
		t.Errorf("with a damaged file: %v", err)
	}
	if err := g.group.Wait(); err != nil {
		t.Error(err)
	}
}

// A server that is another one than its address promises is not trusted with a gradient.
func TestWrongServerIsRefused(t *testing.T) {
	a := newAuthority(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = paramserver.Serve(t.Context(), l, paramserver.ServerOptions{
		Index: 1, Servers: 2, Workers: 1, Parameters: 10, Optimizer: optimizers["sgd"],
		Identity: a.identity("clary://task/digits/main/2/server/0"),
	})
	if err == nil || !strings.Contains(err.Error(), "this is parameter server 1") {
		t.Errorf("serve as another: %v", err)
	}
}

// Without certificates nothing listens but on a loopback address.
func TestNoCertificateNoNetwork(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Skip(err)
	}
	err = paramserver.Serve(t.Context(), l, paramserver.ServerOptions{Servers: 1, Workers: 1, Parameters: 10, Optimizer: optimizers["sgd"]})
	if err == nil || !strings.Contains(err.Error(), "CLARY_TLS_DIR") {
		t.Errorf("%v", err)
	}
}

func TestCertificatesThatAreNotOfATask(t *testing.T) {
	a := newAuthority(t)
	for _, uri := range []string{
		"clary://node/agent/7", "https://task/a/b/1/worker/0", "clary://task/a/b/1/worker", "clary://task/a/b/1/worker/x",
		"clary://task/a/b/1/worker/-1", "clary://task/a//1/worker/0", "clary://task/a/b/1/worker/0/1",
	} {
		if _, err := paramserver.LoadIdentity(a.folder(uri)); err == nil {
			t.Errorf("%s was taken for a task", uri)
		}
	}
}
