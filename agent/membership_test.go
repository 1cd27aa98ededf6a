package agent

import (
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/internal/fault"
)

// joined makes the folder of an agent that has joined.
func joined(t *testing.T, id string) Config {
	t.Helper()
	c := Config{ID: id, Data: t.TempDir()}
	ca, err := pki.NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := ca.Issue(key.Public(), pki.Request{Identity: pki.Node{Role: pki.Agent, ID: id}, Validity: pki.NodeValidity}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := member.Credentials(certificate, key, ca.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(c.path(tlsFolder), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := credentials.Save(c.path(tlsFolder)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.path(notesFile), []byte(`{"id": "`+id+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAnAgentNeedsATokenOnlyOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := joined(t, "n1")
		if m, err := enter(t.Context(), c); err != nil || m.notes.ID != "n1" {
			t.Fatalf("%+v, %v", m.notes, err)
		}
		other := c
		other.ID = "n2"
		if _, err := enter(t.Context(), other); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `belongs to node "n1"`) {
			t.Errorf("another id: %v", err)
		}
		time.Sleep(pki.NodeValidity + time.Hour)
		if _, err := enter(t.Context(), c); !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "join again") {
			t.Errorf("after its certificate has ended: %v", err)
		}
		c.Join, c.Token = "10.0.0.1:7420", "clary_j_rubbish"
		if _, err := enter(t.Context(), c); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "token") {
			t.Errorf("with a token it does not try to join: %v", err)
		}
	})
}

func TestAnAgentThatNeverJoinedSaysHowTo(t *testing.T) {
	_, err := enter(t.Context(), Config{ID: "n1", Data: t.TempDir()})
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "--join") || !strings.Contains(err.Error(), "clary token create") {
		t.Error(err)
	}
}
