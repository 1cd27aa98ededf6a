package doctor_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cmd/clary/doctor"
)

func TestAPortThatSomebodyHasByUDPAloneIsNotFree(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // so that its number is free for TCP too, in a moment
	if err != nil {
		t.Fatal(err)
	}
	packets, err := net.ListenPacket("udp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	port := doctor.Port{Number: packets.LocalAddr().(*net.UDPAddr).Port, UDP: true}
	m := doctor.System(nil, nil)
	if state := m.Port(t.Context(), port); state != doctor.Silent {
		t.Errorf("it is %s", state)
	}
	if port.UDP = false; m.Port(t.Context(), port) != doctor.Free {
		t.Error("by TCP it is not free")
	}
	if err := packets.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWhatAMemberHasLostIsMissed(t *testing.T) {
	folder := t.TempDir()
	m := doctor.System([]string{folder}, nil)
	if _, err := m.Certs(folder); err != nil || m.Keyring(folder) != nil {
		t.Errorf("an empty folder: %v, %v", err, m.Keyring(folder))
	}
	for _, name := range []string{"raft", "member.json"} { // as a coordinator has them
		if err := os.Mkdir(filepath.Join(folder, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Certs(folder); err == nil || !strings.Contains(err.Error(), "cert.pem") {
		t.Errorf("a member without a certificate: %v", err)
	}
	if err := m.Keyring(folder); err == nil || !strings.Contains(err.Error(), "keyring.json") {
		t.Errorf("a coordinator without a keyring: %v", err)
	}
}

func TestACertificateOnDiskIsOfAMemberByItsName(t *testing.T) {
	ca, err := pki.NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(key.Public(), pki.Request{Identity: pki.Node{Role: pki.Agent, ID: "n1"}, Validity: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := pki.KeyPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := pki.ParseCredentials(cert, keyPEM, ca.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, "tls"), 0o700); err != nil {
		t.Fatal(err)
	}
	m := doctor.System([]string{folder}, nil)
	if found, err := m.Certs(folder); err != nil || len(found) != 0 {
		t.Errorf("of a folder without a certificate it says %v, %v", found, err)
	}
	if err := c.Save(filepath.Join(folder, "tls")); err != nil {
		t.Fatal(err)
	}
	found, err := m.Certs(folder)
	if err != nil || len(found) != 1 || found[0].Of != "agent/n1" || !strings.HasSuffix(found[0].File, "tls/cert.pem") {
		t.Errorf("%+v, %v", found, err)
	}
}
