package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/internal/fault"
)

func authority(t testing.TB) *pki.Authority {
	t.Helper()
	a, err := pki.NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func credentials(t testing.TB, a *pki.Authority, id pki.Identity, now time.Time, hosts ...string) pki.Credentials {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.IssueCSR(csr, pki.Request{Identity: id, Hosts: hosts, Validity: pki.NodeValidity}, now)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := pki.KeyPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := pki.ParseCredentials(cert, keyPEM, a.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// shake runs a handshake and one byte each way, so that a client hears of a server
// that refuses its certificate.
func shake(client, server *tls.Config) (state tls.ConnectionState, clientErr, serverErr error) {
	c, s := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer s.Close()
		conn := tls.Server(s, server)
		if serverErr = conn.Handshake(); serverErr == nil {
			state = conn.ConnectionState()
			_, serverErr = conn.Write([]byte{1})
		}
	}()
	conn := tls.Client(c, client)
	if clientErr = conn.Handshake(); clientErr == nil {
		_, clientErr = conn.Read(make([]byte, 1))
	}
	c.Close()
	<-done
	return state, clientErr, serverErr
}

var (
	leader = pki.Node{Role: pki.Coordinator, ID: "c1"}
	worker = pki.Node{Role: pki.Agent, ID: "a1"}
	task   = pki.Task{Job: "digits", Gang: "main", Attempt: 2, Role: "worker", Index: 1}
)

func TestMembersKnowEachOtherByIdentityWhateverTheAddress(t *testing.T) {
	ca := authority(t)
	now := time.Now()
	server := credentials(t, ca, leader, now)
	client := credentials(t, ca, worker, now)
	state, clientErr, serverErr := shake(
		pki.ClientTLS(client.Static(), pki.ExpectNode(pki.Coordinator), "h2"), pki.ServerTLS(server.Static(), "h2"))
	if clientErr != nil || serverErr != nil {
		t.Fatal(clientErr, serverErr)
	}
	if id, ok, err := pki.PeerIdentity(state); id != worker || !ok || err != nil {
		t.Errorf("the server sees %v, %v, %v; want %v", id, ok, err, worker)
	}
	if state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != "h2" {
		t.Errorf("version %x, protocol %q; want TLS 1.3 and h2", state.Version, state.NegotiatedProtocol)
	}
	state, clientErr, serverErr = shake(pki.PinnedTLS(ca.Pin()), pki.ServerTLS(server.Static()))
	if clientErr != nil || serverErr != nil {
		t.Fatal(clientErr, serverErr)
	}
	if id, ok, err := pki.PeerIdentity(state); id != nil || ok || err != nil {
		t.Errorf("a user without a certificate is %v, %v, %v; want nobody", id, ok, err)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	ca, other := authority(t), authority(t)
	now := time.Now()
	member := func(id pki.Identity) pki.Source { return credentials(t, ca, id, now).Static() }
	stranger := func(id pki.Identity) pki.Source { return credentials(t, other, id, now).Static() }
	old := credentials(t, ca, leader, now.Add(-2*pki.NodeValidity)).Static()
	noID := credentials(t, ca, nil, now, "localhost").Static()
	stale := task
	stale.Attempt = 1
	coordinator := pki.ExpectNode(pki.Coordinator)
	tls12 := pki.PinnedTLS(ca.Pin())
	tls12.MinVersion, tls12.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	// A server that shows the right CA's certificate but was signed by another.
	liar := stranger(leader)()
	liar.CA = ca.Certificate()

	cases := []struct {
		name           string
		client, server *tls.Config
		want           string // in the error of the side that refuses
	}{
		{"server of another CA", pki.ClientTLS(member(worker), coordinator), pki.ServerTLS(stranger(leader)), other.Pin() + ", this context expects " + ca.Pin()},
		{"another pin", pki.PinnedTLS(other.Pin()), pki.ServerTLS(member(leader)), ca.Pin() + ", this context expects " + other.Pin()},
		{"right CA shown, wrong signature", pki.PinnedTLS(ca.Pin()), pki.ServerTLS(liar.Static()), "another CA"},
		{"an agent posing as coordinator", pki.PinnedTLS(ca.Pin()), pki.ServerTLS(member(worker)), "clary://node/agent/a1"},
		{"a task posing as coordinator", pki.ClientTLS(member(worker), coordinator), pki.ServerTLS(member(task)), "clary://task/digits"},
		{"expired server", pki.ClientTLS(member(worker), coordinator), pki.ServerTLS(old), "set the clock"},
		{"client of another CA", pki.ClientTLS(stranger(worker), coordinator), pki.ServerTLS(member(leader)), "another CA"},
		{"client of another CA that trusts all", blind(stranger(worker)), pki.ServerTLS(member(leader)), "unknown authority"},
		{"stale attempt", pki.ClientTLS(member(stale), pki.ExpectAttempt(stale)), pki.MutualTLS(member(task), pki.ExpectAttempt(task)), "attempt 1, is expected"},
		{"stale attempt that trusts all", blind(member(stale)), pki.MutualTLS(member(task), pki.ExpectAttempt(task)), "attempt 2, is expected"},
		{"no certificate on a mutual port", blind(nil), pki.MutualTLS(member(task), pki.ExpectAttempt(task)), "didn't provide a certificate"},
		{"certificate without identity as client", blind(noID), pki.ServerTLS(member(leader)), "incompatible key usage"},
		{"certificate without identity as server", pki.PinnedTLS(ca.Pin()), pki.ServerTLS(noID), "0 identities"},
		{"TLS 1.2", tls12, pki.ServerTLS(member(leader)), "protocol version"},
	}
	for _, c := range cases {
		_, clientErr, serverErr := shake(c.client, c.server)
		if clientErr == nil {
			t.Errorf("%s: accepted", c.name)
			continue
		}
		if text := clientErr.Error() + "\n" + errText(serverErr); !strings.Contains(text, c.want) {
			t.Errorf("%s: %s\nwant it to contain %q", c.name, text, c.want)
		}
	}
}

// blind is a client that accepts any server.
func blind(source pki.Source) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}
	if source != nil {
		c.GetClientCertificate = pki.ClientTLS(source, nil).GetClientCertificate
	}
	return c
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestARenewedCertificateIsUsedAtOnce(t *testing.T) {
	ca := authority(t)
	now := time.Now()
	current := credentials(t, ca, leader, now.Add(-2*pki.NodeValidity))
	server := pki.ServerTLS(func() pki.Credentials { return current })
	if _, err, _ := shake(pki.PinnedTLS(ca.Pin()), server); err == nil {
		t.Error("an expired certificate was accepted")
	}
	current = credentials(t, ca, leader, now)
	if _, err, _ := shake(pki.PinnedTLS(ca.Pin()), server); err != nil {
		t.Error(err)
	}
	if at := pki.RenewAt(current.Cert); at.Sub(now) < 19*24*time.Hour || at.Sub(now) > 21*24*time.Hour {
		t.Errorf("renewed after %v, want about 20 of 30 days", at.Sub(now))
	}
}

func TestOutsideClientsCheckHostsTheUsualWay(t *testing.T) {
	ca := authority(t)
	server := credentials(t, ca, nil, time.Now(), "store.example", "127.0.0.1")
	roots, pool := server.Static(), x509.NewCertPool()
	pool.AddCert(ca.Certificate())
	usual := func(name string) *tls.Config {
		return &tls.Config{RootCAs: pool, ServerName: name, MinVersion: tls.VersionTLS13}
	}
	for name, good := range map[string]bool{"store.example": true, "127.0.0.1": true, "127.0.0.2": false, "other.example": false} {
		if _, err, _ := shake(usual(name), pki.ServerTLS(roots)); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnAgentIsKnownFromOutsideByTheNameOfAllAgentsAlone(t *testing.T) {
	ca := authority(t)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Certificate())
	for _, row := range []struct {
		who   pki.Identity
		hosts []string
		good  bool
	}{{worker, nil, true}, {leader, []string{"10.0.0.1"}, false}, {task, nil, false}, {nil, []string{"store.example"}, false}} {
		server := credentials(t, ca, row.who, time.Now(), row.hosts...)
		_, err, _ := shake(&tls.Config{RootCAs: pool, ServerName: pki.AgentName, MinVersion: tls.VersionTLS13}, pki.ServerTLS(server.Static()))
		if (err == nil) != row.good {
			t.Errorf("%v as %s: %v", row.who, pki.AgentName, err)
		}
	}
	if got := credentials(t, ca, worker, time.Now()).Cert; len(got.DNSNames) != 1 || len(got.IPAddresses) != 0 {
		t.Errorf("an agent is certified for %q and %v", got.DNSNames, got.IPAddresses)
	}
}

func TestCredentialsSurviveAFolder(t *testing.T) {
	ca := authority(t)
	c := credentials(t, ca, task, time.Now())
	dir := t.TempDir()
	if _, err := pki.LoadCredentials(dir); !fault.Is(err, fault.NotFound) {
		t.Errorf("an empty folder: %v, want NotFound", err)
	}
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	got, err := pki.LoadCredentials(dir)
	if err != nil || !got.Cert.Equal(c.Cert) || !got.CA.Equal(c.CA) || !got.Key.Equal(c.Key) {
		t.Errorf("loaded something else, %v", err)
	}
	if info, _ := os.Stat(dir + "/" + pki.KeyFile); info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v", info.Mode())
	}
	if err := credentials(t, ca, task, time.Now()).Save(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	keyPEM, _ := ca.KeyPEM()
	if err := os.WriteFile(dir+"/"+pki.KeyFile, keyPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.LoadCredentials(dir); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "does not belong") {
		t.Errorf("a foreign key: %v", err)
	}
}

func TestAnAuthoritySurvivesPEMAndKeepsItsPin(t *testing.T) {
	a := authority(t)
	keyPEM, err := a.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	b, err := pki.ParseAuthority(a.CertPEM(), keyPEM)
	if err != nil || b.Pin() != a.Pin() {
		t.Fatalf("pin %v, %v", b, err)
	}
	if print, _ := pki.Fingerprint(a.Certificate().PublicKey); print != a.Pin() {
		t.Errorf("fingerprint %s, pin %s: want the same spelling", print, a.Pin())
	}
	if _, err := pki.ParseAuthority(authority(t).CertPEM(), keyPEM); !fault.Is(err, fault.Invalid) {
		t.Errorf("a foreign certificate: %v", err)
	}
}

func TestIssueRefusesRubbish(t *testing.T) {
	ca := authority(t)
	key, _ := pki.NewKey()
	for name, r := range map[string]pki.Request{
		"nobody":        {Validity: time.Hour},
		"no validity":   {Identity: leader},
		"odd role":      {Identity: pki.Node{Role: "king", ID: "x"}, Validity: time.Hour},
		"slash":         {Identity: pki.Node{Role: pki.Agent, ID: "a/b"}, Validity: time.Hour},
		"attempt 0":     {Identity: pki.Task{Job: "j", Gang: "g", Role: "r"}, Validity: time.Hour},
		"empty gang":    {Identity: pki.Task{Job: "j", Attempt: 1, Role: "r"}, Validity: time.Hour},
		"negative time": {Identity: leader, Validity: -time.Hour},
	} {
		if _, err := ca.Issue(key.Public(), r, time.Now()); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want Invalid", name, err)
		}
	}
	csr, _ := pki.NewCSR(key)
	csr[len(csr)/2] ^= 1
	if _, err := ca.IssueCSR(csr, pki.Request{Identity: leader, Validity: time.Hour}, time.Now()); !fault.Is(err, fault.Invalid) {
		t.Errorf("a changed CSR: %v, want Invalid", err)
	}
}

func TestEveryIdentityIsReadBackFromItsURI(t *testing.T) {
	name := rapid.StringMatching(`[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}`)
	nodes, tasks := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		var id pki.Identity
		if rapid.Bool().Draw(t, "task") {
			tasks++
			id = pki.Task{
				Job: name.Draw(t, "job"), Gang: name.Draw(t, "gang"), Attempt: rapid.IntRange(1, 1e6).Draw(t, "attempt"),
				Role: name.Draw(t, "role"), Index: rapid.IntRange(0, 1e6).Draw(t, "index"),
			}
		} else {
			nodes++
			id = pki.Node{Role: rapid.SampledFrom([]string{pki.Agent, pki.Coordinator}).Draw(t, "role"), ID: name.Draw(t, "id")}
		}
		if got, err := pki.ParseIdentity(id.URI()); got != id || err != nil {
			t.Fatalf("%s is read as %v, %v", id.URI(), got, err)
		}
	})
	if nodes == 0 || tasks == 0 {
		t.Errorf("exercised %d nodes and %d tasks", nodes, tasks)
	}
}

func FuzzParseIdentity(f *testing.F) {
	f.Add("clary://node/agent/a1")
	f.Add("clary://task/digits/main/1/worker/0")
	f.Add("clary://task/digits/main/+1/worker/00")
	f.Add("clary://node/agent/..")
	f.Fuzz(func(t *testing.T, uri string) {
		if id, err := pki.ParseIdentity(uri); err == nil && id.URI() != uri {
			t.Errorf("%q is accepted but spelled %q", uri, id.URI())
		}
	})
}
