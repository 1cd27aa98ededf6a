package rpc_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/request"
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

func TestEverybodyRenewsHisOwnToken(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, role := range []string{cluster.RoleViewer, cluster.RoleInvoker, cluster.RoleUser, cluster.RoleAdmin} {
			secret := w.user("one-"+role, role)
			answer, err := claryv1.NewKeysClient(w.as(secret)).RotateToken(w.Context(), &claryv1.RotateTokenRequest{Overlap: int64(time.Hour)})
			if err != nil {
				t.Errorf("%s: %v", role, err)
				continue
			}
			for _, either := range []string{secret, answer.GetSecret()} {
				if who, err := claryv1.NewAdminClient(w.as(either)).WhoAmI(w.Context(), &claryv1.WhoAmIRequest{}); err != nil || who.GetRole() != role || who.GetName() != "one-"+role {
					t.Errorf("%s: %v, %v", role, who, err)
				}
			}
			if by := answer.GetToken().GetBy(); by != "one-"+role {
				t.Errorf("%s: it was made by %q", role, by)
			}
		}
	})
}

// Whoever shows a token that ends soon is told when, in every answer.
func TestATokenThatEndsSoonIsSaidTo(t *testing.T) {
	const day = 24 * time.Hour
	inWorld(t, func(w *world) {
		for _, c := range []struct {
			lasts, left time.Duration
			soon        bool
		}{{0, 0, false}, {365 * day, 15 * day, false}, {365 * day, 13 * day, true}, {8 * day, 3 * day, false}, {8 * day, day, true}, {2 * time.Hour, time.Hour, false}} {
			given, secret, err := auth.NewUserToken("ann", cluster.RoleInvoker, c.lasts, time.Now().Add(c.left-c.lasts))
			if err != nil {
				t.Fatal(err)
			}
			w.propose(command.Record{Changes: []command.Change{{Token: &given}}})
			var header metadata.MD
			if _, err := claryv1.NewAdminClient(w.as(secret)).WhoAmI(w.Context(), &claryv1.WhoAmIRequest{}, grpc.Header(&header)); err != nil {
				t.Fatal(err)
			}
			got := header.Get(request.TokenEnds)
			if want := time.Unix(0, given.Expires).UTC().Format(time.RFC3339); c.soon != (len(got) == 1 && got[0] == want) || !c.soon && len(got) > 0 {
				t.Errorf("of a token for %s that has %s left is said %q", c.lasts, c.left, got)
			}
		}
	})
}
