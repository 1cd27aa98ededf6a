package member_test

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/internal/fault"
)

const validity = 90 * time.Minute

var node = pki.Node{Role: pki.Agent, ID: "n1"}

func authority(t *testing.T) *pki.Authority {
	t.Helper()
	ca, err := pki.NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// certified makes a member's first credentials.
func certified(t *testing.T, ca *pki.Authority) *pki.Current {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(key.Public(), pki.Request{Identity: node, Validity: validity}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c, err := member.Credentials(cert, key, ca.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	return pki.NewCurrent(c)
}

func TestACertificateIsRenewedForAsLongAsTheMemberRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := authority(t), t.TempDir()
		current := certified(t, ca)
		key := current.Get().Key
		asked, renewed := 0, 0
		renewal := member.Renewal{
			Current: current, Save: func(now pki.Credentials) error { return now.Save(dir) }, Log: slog.New(slog.DiscardHandler), Renewed: func() { renewed++ },
			Certify: func(_ context.Context, csr []byte) ([]byte, error) {
				if asked++; asked%4 != 0 { // most are asked when no coordinator can answer
					return nil, fault.New(fault.Unready, "electing")
				}
				return ca.IssueCSR(csr, pki.Request{Identity: node, Validity: validity}, time.Now())
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- renewal.Run(ctx) }()
		for range 20 * int(validity/time.Minute) {
			time.Sleep(time.Minute) // of the bubble
			synctest.Wait()
			now := current.Get()
			if left := time.Until(now.Cert.NotAfter); left < validity/4 {
				t.Fatalf("%s are left and nothing was renewed", left)
			}
			if !now.Key.Equal(key) {
				t.Fatal("the key was changed")
			}
		}
		if renewed < 20 || renewed > 40 {
			t.Errorf("renewed %d times in 20 lives of a certificate", renewed)
		}
		saved, err := pki.LoadCredentials(dir)
		if err != nil || !saved.Cert.Equal(current.Get().Cert) {
			t.Errorf("on disk is not what is shown: %v", err)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// A coordinator that is behind signs with the CA that the member knows to be replaced.
func TestACertificateThatIsNoBetterIsNotAskedForAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, young := authority(t), authority(t)
		current := certified(t, old)
		if err := current.Update(func(now pki.Credentials) (pki.Credentials, error) {
			now.Trust.CAs = []*x509.Certificate{young.Certificate(), old.Certificate()}
			return now, nil
		}); err != nil {
			t.Fatal(err)
		}
		var asked atomic.Int64
		var signs atomic.Pointer[pki.Authority]
		signs.Store(old)
		renewal := member.Renewal{
			Current: current, Save: func(pki.Credentials) error { return nil }, Log: slog.New(slog.DiscardHandler),
			Certify: func(_ context.Context, csr []byte) ([]byte, error) {
				if asked.Add(1) > 1000 {
					return nil, fault.New(fault.Unready, "asked too often")
				}
				return signs.Load().IssueCSR(csr, pki.Request{Identity: node, Validity: validity}, time.Now())
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- renewal.Run(ctx) }()
		time.Sleep(10 * time.Minute) // of the bubble
		synctest.Wait()
		if n := asked.Load(); n < 5 || n > 20 {
			t.Errorf("in ten minutes it was asked %d times", n)
		}
		if asked.Load() < 10 {
			t.Errorf("a coordinator that is a moment behind is asked again late: %d times in ten minutes", asked.Load())
		}
		signs.Store(young)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if current.Get().Outdated() {
			t.Error("the new CA's certificate is not taken up")
		}
		cancel()
		<-ended
	})
}

func TestACertificateForSomebodyElseIsNotTakenUp(t *testing.T) {
	other := pki.Node{Role: pki.Coordinator, ID: "n1"}
	cases := map[string]func(ca *pki.Authority, csr []byte) ([]byte, error){
		"another identity": func(ca *pki.Authority, csr []byte) ([]byte, error) {
			return ca.IssueCSR(csr, pki.Request{Identity: other, Validity: validity}, time.Now())
		},
		"another key": func(ca *pki.Authority, _ []byte) ([]byte, error) {
			key, _ := pki.NewKey()
			return ca.Issue(key.Public(), pki.Request{Identity: node, Validity: validity}, time.Now())
		},
		"another CA": func(_ *pki.Authority, csr []byte) ([]byte, error) {
			liar, _ := pki.NewAuthority("test", time.Now())
			return liar.IssueCSR(csr, pki.Request{Identity: node, Validity: validity}, time.Now())
		},
		"no certificate": func(*pki.Authority, []byte) ([]byte, error) { return []byte("hello"), nil },
	}
	for name, answer := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := authority(t)
				current := certified(t, ca)
				first := current.Get().Cert
				asked := 0
				renewal := member.Renewal{
					Current: current, Save: func(pki.Credentials) error { return nil }, Log: slog.New(slog.DiscardHandler),
					Certify: func(_ context.Context, csr []byte) ([]byte, error) { asked++; return answer(ca, csr) },
				}
				ctx, cancel := context.WithTimeout(t.Context(), validity)
				defer cancel()
				if err := renewal.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				if asked < 5 || !current.Get().Cert.Equal(first) {
					t.Errorf("asked %d times; taken up: %v", asked, !current.Get().Cert.Equal(first))
				}
			})
		})
	}
}
