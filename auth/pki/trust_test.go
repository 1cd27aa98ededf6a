package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
)

// succession is an old CA and the one that follows it, for which it vouches.
func succession(t *testing.T) (old, young *pki.Authority, both pki.Trust) {
	t.Helper()
	now := time.Now()
	old, err := pki.NewAuthority("old", now.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	young = authority(t)
	a, err := old.Link(young.Certificate(), now)
	if err != nil {
		t.Fatal(err)
	}
	return old, young, pki.Trust{CAs: append(both.CAs, young.Certificate(), old.Certificate()), Links: append(both.Links, a)}
}

// saved writes credentials to a folder and reads them back.
func saved(t *testing.T, c pki.Credentials) pki.Credentials {
	t.Helper()
	dir := t.TempDir()
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	got, err := pki.LoadCredentials(dir)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestWhoKnowsTheOldCAGoesOnAsLongAsItVouchesForTheNewOne(t *testing.T) {
	old, young, both := succession(t)
	now := time.Now()
	alone := func(ca *pki.Authority, id pki.Identity) pki.Credentials { return credentials(t, ca, id, now) }
	within := func(ca *pki.Authority, id pki.Identity) pki.Credentials {
		c := alone(ca, id)
		c.Trust = both
		return saved(t, c) // what vouches is still there after a start
	}
	coordinator := pki.ExpectNode(pki.Coordinator)
	for _, servers := range []*pki.Authority{old, young} {
		server := within(servers, leader)
		for _, pinned := range []*pki.Authority{old, young} {
			ahead := servers == old && pinned == young // nobody vouches for the old one
			if _, err, _ := shake(pki.PinnedTLS(pinned.Pin()), pki.ServerTLS(server.Static())); (err == nil) == ahead {
				t.Errorf("a user with the pin of one CA at a server of another, which it knows first: %v: %v", ahead, err)
			}
			for name, client := range map[string]pki.Credentials{"one": alone(pinned, worker), "both": within(pinned, worker)} {
				_, err, serverErr := shake(pki.ClientTLS(client.Static(), coordinator), pki.ServerTLS(server.Static()))
				if good := err == nil && serverErr == nil; good != (name == "both" || !ahead) {
					t.Errorf("a member that trusts %s: %v, %v", name, err, serverErr)
				}
			}
		}
	}
	// Once the old CA is dropped, it opens nothing.
	after := alone(young, leader)
	after.Trust = pki.Trust{CAs: both.CAs[:1]}
	if _, err, _ := shake(pki.PinnedTLS(old.Pin()), pki.ServerTLS(after.Static())); err == nil || !strings.Contains(err.Error(), "another CA") {
		t.Errorf("the old pin after the drop: %v", err)
	}
	for name, late := range map[string]pki.Credentials{"alone": alone(old, worker), "with links": within(old, worker)} {
		if _, _, err := shake(pki.ClientTLS(late.Static(), coordinator), pki.ServerTLS(after.Static())); err == nil {
			t.Errorf("a member of the old CA, %s, was let in after the drop", name)
		}
	}
}

func TestAStrangersLinkVouchesForNobody(t *testing.T) {
	old, young, _ := succession(t)
	liar := authority(t)
	forged, err := liar.Link(young.Certificate(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	server := credentials(t, young, leader, time.Now())
	server.Trust = pki.Trust{CAs: append(server.Trust.CAs[:0:0], young.Certificate(), liar.Certificate(), old.Certificate()), Links: append(server.Trust.Links, forged)}
	if _, err, _ := shake(pki.PinnedTLS(old.Pin()), pki.ServerTLS(server.Static())); err == nil {
		t.Error("a CA was believed because another than the pinned vouches for it")
	}
}

func TestTheSuccessorIsTheNewerCAOnceItSigns(t *testing.T) {
	old, young, both := succession(t)
	for _, c := range []struct {
		signs, pinned *pki.Authority
		want          string
	}{{old, old, ""}, {young, old, young.Pin()}, {young, young, ""}} {
		server := credentials(t, c.signs, leader, time.Now())
		server.Trust = both
		pinned, got := pki.PinnedTLS(c.pinned.Pin()), ""
		verify := pinned.VerifyConnection
		pinned.VerifyConnection = func(state tls.ConnectionState) error {
			got = pki.Successor(state, c.pinned.Pin())
			return verify(state)
		}
		if _, err, _ := shake(pinned, pki.ServerTLS(server.Static())); err != nil || got != c.want {
			t.Errorf("the successor is %q, want %q: %v", got, c.want, err)
		}
	}
}

func TestACAThatIsShownBesideAGoodCertificateIsNoSuccessor(t *testing.T) {
	old, _, _ := succession(t)
	liar := authority(t)
	server := credentials(t, old, leader, time.Now())
	chain := []*x509.Certificate{server.Cert, liar.Certificate(), old.Certificate()}
	if got := pki.Successor(tls.ConnectionState{PeerCertificates: chain}, old.Pin()); got != "" {
		t.Errorf("%s was taken for the successor of the CA that has signed", got)
	}
}

// Between one file and the next a process may be killed, while the CA that its certificate comes from is dropped.
func TestAFolderIsReadThoughItsCAIsTrustedNoMoreAndThatStaysSo(t *testing.T) {
	old, young := authority(t), authority(t)
	c, dir := credentials(t, old, worker, time.Now()), t.TempDir()
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, pki.CAFile), young.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"killed between two files", "saved again"} {
		got, err := pki.LoadCredentials(dir)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if cas := got.CAs(); len(cas) != 1 || !cas[0].Equal(young.Certificate()) || !got.CA.Equal(old.Certificate()) || !got.Outdated() {
			t.Errorf("%s: %d CAs are trusted, and the dropped one may be among them", when, len(cas))
		}
		if err := got.Save(dir); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhoIsRevokedNoMoreIsNotSoAfterTheNextStart(t *testing.T) {
	c, dir := credentials(t, authority(t), leader, time.Now()), t.TempDir()
	for _, revoked := range [][]cluster.Revocation{{{Role: pki.Agent, ID: worker.ID}}, nil} {
		c.Trust.Revoked = revoked
		if err := c.Save(dir); err != nil {
			t.Fatal(err)
		}
		got, err := pki.LoadCredentials(dir)
		if err != nil || len(got.Trust.Revoked) != len(revoked) {
			t.Errorf("%d are revoked, want %d: %v", len(got.Trust.Revoked), len(revoked), err)
		}
	}
}

func TestWhoIsRevokedIsRefusedByBothEndsUnlessItsKeyIsNew(t *testing.T) {
	ca := authority(t)
	now := time.Now()
	server, client, again := credentials(t, ca, leader, now), credentials(t, ca, worker, now), credentials(t, ca, worker, now)
	revoke := func(role, id, admitted string) pki.Trust {
		return pki.Trust{Revoked: []cluster.Revocation{{Role: role, ID: id, Reason: "stolen", By: "ada", Admitted: admitted}}}
	}
	coordinator := pki.ExpectNode(pki.Coordinator)
	knows := server
	knows.Trust = revoke(pki.Agent, worker.ID, pki.PinOf(again.Cert))
	knows = saved(t, knows) // it is still known after a start
	state, _, err := shake(pki.ClientTLS(client.Static(), coordinator), pki.ServerTLS(server.Static()))
	if err != nil {
		t.Fatal(err)
	}
	if err := knows.Trust.Admits(state); err == nil || !strings.Contains(err.Error(), "was revoked by ada: stolen") {
		t.Errorf("of a connection that stands is said: %v", err)
	}
	if _, _, err := shake(pki.ClientTLS(client.Static(), coordinator), pki.ServerTLS(knows.Static())); err == nil {
		t.Error("a revoked client was let in")
	}
	if _, _, err := shake(pki.ClientTLS(again.Static(), coordinator), pki.ServerTLS(knows.Static())); err != nil {
		t.Errorf("who joined anew is refused: %v", err)
	}
	knows = client
	knows.Trust = revoke(pki.Coordinator, leader.ID, "")
	if _, err, _ := shake(pki.ClientTLS(knows.Static(), coordinator), pki.ServerTLS(server.Static())); err == nil || !strings.Contains(err.Error(), "was revoked") {
		t.Errorf("a revoked server was spoken to: %v", err)
	}
}

func TestASessionIsNotResumedByWhoWasRevokedSince(t *testing.T) {
	ca := authority(t)
	now := time.Now()
	current := credentials(t, ca, leader, now)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", pki.ServerTLS(func() pki.Credentials { return current }))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client := pki.ClientTLS(credentials(t, ca, worker, now).Static(), pki.ExpectNode(pki.Coordinator))
	client.ClientSessionCache, client.ServerName = tls.NewLRUClientSessionCache(4), "c1"
	call := func() (resumed bool, err error) {
		accepted := make(chan error, 1)
		go func() {
			conn, err := listener.Accept()
			if err == nil {
				if _, err = conn.Write([]byte{1}); err == nil {
					resumed = conn.(*tls.Conn).ConnectionState().DidResume
				}
				_ = conn.Close()
			}
			accepted <- err
		}()
		conn, err := tls.Dial("tcp", listener.Addr().String(), client)
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
			_ = conn.Close()
		}
		err = errors.Join(err, <-accepted)
		return resumed, err
	}
	if _, err := call(); err != nil {
		t.Fatal(err)
	}
	if resumed, err := call(); err != nil || !resumed {
		t.Fatalf("resumed: %v, %v", resumed, err)
	}
	current.Trust.Revoked = []cluster.Revocation{{Role: pki.Agent, ID: worker.ID}}
	if _, err := call(); err == nil {
		t.Error("a session was resumed by who was revoked")
	}
}
