package ingress_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/serving/ingress"
	"github.com/clary-ml/clary/serving/route"
)

func TestTheFlagsOfARouterNameTheirMistakes(t *testing.T) {
	for field, front := range map[string]ingress.Front{
		"--serve-listen":    {Listen: "7426"},
		"--serve-plaintext": {Listen: "0.0.0.0:7426", Plaintext: true},
		"--serve-cert":      {Listen: "127.0.0.1:7426", Plaintext: true, Cert: "a", Key: "b"},
		"--serve-key":       {Listen: ":7426", Cert: "a"},
		"--serve-url":       {Listen: ":7426", URL: "models.example.com"},
		"":                  {Listen: ingress.Off, Cert: "a"},
	} {
		var p cluster.Problems
		front.Validate(&p, "--serve")
		if found := slices.ContainsFunc(p, func(p cluster.Problem) bool { return p.Field == field }); found != (field != "") {
			t.Errorf("%+v: %v, want a word about %q", front, p, field)
		}
	}
	var p cluster.Problems
	for _, good := range []ingress.Front{{}, {Listen: "127.0.0.1:0", Plaintext: true}, {Listen: ":7426", Cert: "a", Key: "b", URL: "https://models.example.com"}} {
		if good.Validate(&p, "--serve"); len(p) > 0 {
			t.Errorf("%+v: %v", good, p)
		}
	}
}

// source is a node's certificate.
func source(t *testing.T) (pki.Source, *pki.Authority) {
	t.Helper()
	ca, err := pki.NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := ca.Issue(key.Public(), pki.Request{Identity: pki.Node{Role: pki.Coordinator, ID: "c1"}, Hosts: []string{"127.0.0.1"}, Validity: pki.NodeValidity}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := member.Credentials(certificate, key, ca.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	return credentials.Static(), ca
}

// open runs a router on a port of its own until the test ends.
func open(t *testing.T, front ingress.Front, from pki.Source, change ...func(*ingress.ServerConfig)) *ingress.Server {
	t.Helper()
	config := ingress.ServerConfig{
		Name: "coordinator/c1", Host: "127.0.0.1", Front: front, Source: from, Dial: member.TCP{}, Path: filepath.Join(t.TempDir(), "routes.json"),
		Routes: &coordinators{tables: make(chan route.Table)}, Log: slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&config)
	}
	s, err := ingress.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	return s
}

func ping(t *testing.T, url string, trusted *x509.CertPool) (shown *x509.Certificate, err error) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}, DisableKeepAlives: true}
	answer, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get(url + "/ping")
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Errorf("/ping is answered %s", answer.Status)
	}
	if answer.TLS == nil {
		return nil, nil
	}
	return answer.TLS.PeerCertificates[0], nil
}

func TestClientsAreShownTheNodesCertificateUnlessThereIsAnother(t *testing.T) {
	from, ca := source(t)
	s := open(t, ingress.Front{Listen: "127.0.0.1:0"}, from)
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(ca.CertPEM())
	if shown, err := ping(t, s.URL(), trusted); err != nil || len(shown.URIs) != 1 {
		t.Errorf("%v, %v", shown, err)
	}
	plain := open(t, ingress.Front{Listen: "127.0.0.1:0", Plaintext: true}, from)
	if shown, err := ping(t, plain.URL(), nil); err != nil || shown != nil || !strings.HasPrefix(plain.URL(), "http://127.0.0.1:") {
		t.Errorf("%s: %v, %v", plain.URL(), shown, err)
	}
}

// write makes a certificate with a serial number and puts it in two files.
func write(t *testing.T, serial int64, cert, key string) *x509.Certificate {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "models"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: text}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestACertificateInFilesIsTakenUpWhenItChangesAndNotWhileItIsHalfWritten(t *testing.T) {
	cert, key := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	trusted := x509.NewCertPool()
	trusted.AddCert(write(t, 1, cert, key))
	from, _ := source(t)
	s := open(t, ingress.Front{Listen: "127.0.0.1:0", Cert: cert, Key: key}, from)
	serial := func() int64 {
		shown, err := ping(t, s.URL(), trusted)
		if err != nil {
			t.Fatal(err)
		}
		return shown.SerialNumber.Int64()
	}
	if got := serial(); got != 1 {
		t.Fatalf("certificate %d is shown", got)
	}
	second := write(t, 2, cert, filepath.Join(t.TempDir(), "key.pem")) // whose key is not there yet
	trusted.AddCert(second)
	for deadline := time.Now().Add(2500 * time.Millisecond); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if got := serial(); got != 1 {
			t.Fatalf("certificate %d is shown with another's key", got)
		}
	}
	trusted.AddCert(write(t, 3, cert, key))
	for deadline := time.Now().Add(20 * time.Second); serial() != 3; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a changed certificate is not shown")
		}
	}
}

func TestAnAddressThatSomebodyHasIsNotShared(t *testing.T) {
	from, _ := source(t)
	first := open(t, ingress.Front{Listen: "127.0.0.1:0", Plaintext: true}, from)
	at := strings.TrimPrefix(first.URL(), "http://")
	if _, err := ingress.Open(t.Context(), ingress.ServerConfig{
		Front: ingress.Front{Listen: at, Plaintext: true}, Source: from, Dial: member.TCP{}, Log: slog.New(slog.DiscardHandler),
	}); err == nil || !strings.Contains(err.Error(), "for no router") {
		t.Errorf("a second router at %s: %v", at, err)
	}
}

func TestFilesThatAreNoCertificateEndTheStart(t *testing.T) {
	from, _ := source(t)
	if _, err := ingress.Open(t.Context(), ingress.ServerConfig{
		Front: ingress.Front{Listen: "127.0.0.1:0", Cert: "/nowhere/a", Key: "/nowhere/b"}, Source: from, Dial: member.TCP{}, Log: slog.New(slog.DiscardHandler),
	}); err == nil || !strings.Contains(err.Error(), "/nowhere/a") {
		t.Errorf("%v", err)
	}
}
