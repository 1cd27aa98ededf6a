package auth_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

var (
	now = time.Unix(1_800_000_000, 0)
	pin = "sha256:" + strings.Repeat("ab", 32)
)

func TestRolesFormALadder(t *testing.T) {
	granted := map[string]int{}
	for _, a := range auth.Actions() {
		viewer, user, admin := auth.Allow(cluster.RoleViewer, a), auth.Allow(cluster.RoleUser, a), auth.Allow(cluster.RoleAdmin, a)
		if viewer && !user || user && !admin || !admin {
			t.Errorf("%q: viewer %v, user %v, admin %v", a, viewer, user, admin)
		}
		for _, role := range []string{cluster.RoleViewer, cluster.RoleInvoker, cluster.RoleUser, cluster.RoleAdmin} {
			err := auth.Authorize(role, a)
			if (err == nil) != auth.Allow(role, a) || err != nil && (!fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "it takes the role")) {
				t.Errorf("Authorize(%s, %q) = %v", role, a, err)
			}
			if err == nil {
				granted[role]++
			}
		}
		for _, role := range []string{"", "root", cluster.RoleAgent, cluster.RoleCoordinator} {
			if auth.Allow(role, a) {
				t.Errorf("the role %q may %q", role, a)
			}
		}
	}
	if granted[cluster.RoleViewer] != 2 || granted[cluster.RoleInvoker] != 2 || granted[cluster.RoleUser] != 7 || granted[cluster.RoleAdmin] != len(auth.Actions()) {
		t.Errorf("granted %v", granted)
	}
	if !auth.Allow(cluster.RoleInvoker, auth.Invoke) || auth.Allow(cluster.RoleViewer, auth.Invoke) {
		t.Error("an invoker invokes, and a viewer does not")
	}
	if auth.Allow(cluster.RoleAdmin, "fly") || auth.Authorize(cluster.RoleAdmin, "fly") == nil {
		t.Error("an admin may do what is no action")
	}
}

func userToken(t *testing.T) (cluster.Token, string) {
	t.Helper()
	stored, text, err := auth.NewUserToken("ada", cluster.RoleUser, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	return stored, text
}

func parse(t *testing.T, text string) auth.Presented {
	t.Helper()
	p, err := auth.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestATokenIsAcceptedUntilSomethingIsWrongWithIt(t *testing.T) {
	stored, text := userToken(t)
	_, otherText := userToken(t)
	joinStored, joinText, err := auth.NewJoinToken(cluster.RoleAgent, pin, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	revoked, forever := stored, stored
	revoked.Revoked = true
	forever.Expires = 0
	for _, c := range []struct {
		name   string
		stored cluster.Token
		text   string
		at     time.Time
		want   error
	}{
		{"good", stored, text, now, nil},
		{"good, with white space", stored, " " + text + "\n", now, nil},
		{"good to the last moment", stored, text, now.Add(time.Hour - 1), nil},
		{"expired", stored, text, now.Add(time.Hour), auth.ErrExpired},
		{"never expires", forever, text, now.Add(1e6 * time.Hour), nil},
		{"revoked", revoked, text, now, auth.ErrRevoked},
		{"not found", cluster.Token{}, text, now, auth.ErrUnknown},
		{"another's secret", stored, otherText, now, auth.ErrUnknown},
		{"right id, wrong secret", stored, text[:len(text)-1] + string(text[len(text)-1]^1), now, auth.ErrUnknown},
		{"a join token as a user's", stored, joinText, now, auth.ErrUnknown},
		{"a join token", joinStored, joinText, now, nil},
	} {
		p, err := auth.ParseToken(c.text)
		if err != nil {
			if c.want == nil || !fault.Is(err, fault.Invalid) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		err = auth.Check(c.stored, p, c.at)
		if !errors.Is(err, c.want) || c.want != nil && !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestAJoinTokenServesOneMachineAsOftenAsItTries(t *testing.T) {
	stored, text, err := auth.NewJoinToken(cluster.RoleAgent, pin, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	p := parse(t, text)
	if p.Pin != pin {
		t.Errorf("the token carries pin %q, want %q", p.Pin, pin)
	}
	bound, err := auth.CheckJoin(stored, p, "sha256:one", now)
	if err != nil || bound.BoundKey != "sha256:one" || stored.BoundKey != "" {
		t.Fatalf("first use: %+v, %v", bound, err)
	}
	if again, err := auth.CheckJoin(bound, p, "sha256:one", now); err != nil || again.BoundKey != "sha256:one" {
		t.Errorf("a retry: %v", err)
	}
	if _, err := auth.CheckJoin(bound, p, "sha256:two", now); !errors.Is(err, auth.ErrReused) || !fault.Is(err, fault.Denied) {
		t.Errorf("another machine: %v, want ErrReused", err)
	}
	if _, err := auth.CheckJoin(bound, p, "sha256:one", now.Add(time.Hour)); !errors.Is(err, auth.ErrExpired) {
		t.Errorf("a late retry: %v, want ErrExpired", err)
	}
	if _, err := auth.CheckJoin(bound, p, "", now); !fault.Is(err, fault.Invalid) {
		t.Errorf("no key: %v, want Invalid", err)
	}
	user, userText := userToken(t)
	if _, err := auth.CheckJoin(user, parse(t, userText), "sha256:one", now); !fault.Is(err, fault.Denied) {
		t.Errorf("a user's token: %v, want Denied", err)
	}
}

func TestSecretsAreNeitherStoredNorPrinted(t *testing.T) {
	stored, text := userToken(t)
	secret := text[strings.LastIndex(text, "_")+1:]
	if len(secret) != 64 || bytes.Contains(stored.Hash, []byte(secret)) {
		t.Errorf("the secret has %d characters", len(secret))
	}
	p := parse(t, text)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if strings.Contains(fmt.Sprintf(verb, p), secret) || strings.Contains(fmt.Sprintf(verb, stored), secret) {
			t.Errorf("%s prints the secret", verb)
		}
	}
	if err := auth.Check(cluster.Token{}, p, now); strings.Contains(err.Error(), secret) {
		t.Error("an error repeats the secret")
	}
	_, second := userToken(t)
	if second == text {
		t.Error("two tokens are the same")
	}
}

func TestTokensAreNotMadeFromRubbish(t *testing.T) {
	for name, make := range map[string]func() error{
		"role":     func() error { _, _, err := auth.NewUserToken("ada", "king", 0, now); return err },
		"name":     func() error { _, _, err := auth.NewUserToken("Ada L", cluster.RoleUser, 0, now); return err },
		"validity": func() error { _, _, err := auth.NewUserToken("ada", cluster.RoleUser, -1, now); return err },
		"join as a user": func() error {
			_, _, err := auth.NewJoinToken(cluster.RoleUser, pin, time.Hour, now)
			return err
		},
		"pin": func() error {
			_, _, err := auth.NewJoinToken(cluster.RoleAgent, "sha256:ab", time.Hour, now)
			return err
		},
		"join forever": func() error { _, _, err := auth.NewJoinToken(cluster.RoleAgent, pin, 0, now); return err },
	} {
		if err := make(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want Invalid", name, err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	_, user, _ := auth.NewUserToken("ada", cluster.RoleUser, 0, now)
	_, join, _ := auth.NewJoinToken(cluster.RoleAgent, pin, time.Hour, now)
	for _, text := range []string{user, join, "", "clary_u", "clary_u__", join + "_", user[:30]} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := auth.ParseToken(text)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if (p.Kind == cluster.TokenJoin) != (p.Pin != "") || len(p.ID) != 16 || !strings.Contains(text, p.ID) {
			t.Errorf("%q is read as %+v", text, p)
		}
	})
}
