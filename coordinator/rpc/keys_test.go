package rpc_test

import (
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

func TestWhoRenewsHisTokenGetsNoMoreThanHeWasGiven(t *testing.T) {
	inWorld(t, func(w *world) {
		given, secret, err := auth.NewUserToken("ann", cluster.RoleUser, 24*time.Hour, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		w.propose(command.Record{Changes: []command.Change{{Token: &given}}})
		rotate := func(who string, request *claryv1.RotateTokenRequest) (*claryv1.RotateTokenResponse, error) {
			answer, err := claryv1.NewKeysClient(w.as(who)).RotateToken(w.Context(), request)
			return answer, wire.FromStatus(err)
		}
		if _, err := rotate(secret, &claryv1.RotateTokenRequest{Ttl: int64(25 * time.Hour)}); !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "ttl: 25h") {
			t.Errorf("a day's token makes one for longer: %v", err)
		}
		if _, err := rotate(cluster.RoleUser, &claryv1.RotateTokenRequest{Id: given.ID}); !fault.Is(err, fault.Denied) {
			t.Errorf("a user renews another's: %v", err)
		}
		time.Sleep(time.Hour)
		answer, err := rotate(secret, &claryv1.RotateTokenRequest{Overlap: int64(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		token := answer.GetToken()
		if lasts := time.Duration(token.GetExpires() - token.GetCreated()); lasts != 24*time.Hour || token.GetName() != "ann" || token.GetRole() != cluster.RoleUser || len(token.GetHash()) > 0 {
			t.Errorf("the new one: %v", token)
		}
		if left := time.Until(time.Unix(0, answer.GetOld().GetExpires())); left != time.Hour {
			t.Errorf("the old one goes on for %s", left)
		}
		if _, err := rotate(cluster.RoleAdmin, &claryv1.RotateTokenRequest{Id: token.GetId(), Ttl: int64(48 * time.Hour)}); err != nil {
			t.Errorf("an admin gives more: %v", err)
		}
		if _, err := rotate(answer.GetSecret(), &claryv1.RotateTokenRequest{}); !fault.Is(err, fault.Denied) {
			t.Errorf("what was replaced without an overlap is still good: %v", err)
		}
	})
}

func TestEverybodyRenewsHisOwnTokenWhateverItsRole(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, role := range []string{cluster.RoleViewer, cluster.RoleInvoker, cluster.RoleUser, cluster.RoleAdmin} {
			given, secret, err := auth.NewUserToken("ann", role, 24*time.Hour, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			w.propose(command.Record{Changes: []command.Change{{Token: &given}}})
			answer, err := claryv1.NewKeysClient(w.as(secret)).RotateToken(w.Context(), &claryv1.RotateTokenRequest{})
			if err != nil || answer.GetToken().GetRole() != role {
				t.Errorf("a token of the role %s becomes one of %q: %v", role, answer.GetToken().GetRole(), err)
			}
		}
	})
}
