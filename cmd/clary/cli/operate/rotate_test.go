package operate

import (
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
)

func TestATokenSaysWhatItIsStillGoodFor(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	in := func(d time.Duration) int64 { return now.Add(d).UnixNano() }
	for want, token := range map[string]cluster.Token{
		"valid":                {Kind: cluster.TokenUser, Created: in(-time.Hour), Expires: in(90 * 24 * time.Hour)},
		"expires in 1 minutes": {Kind: cluster.TokenUser, Created: in(-24 * time.Hour), Expires: in(time.Minute)},
		"expired":              {Kind: cluster.TokenJoin, Expires: in(-time.Second)},
		"used":                 {Kind: cluster.TokenJoin, Expires: in(time.Minute), BoundKey: "sha256:ab"},
		"revoked":              {Kind: cluster.TokenJoin, BoundKey: "sha256:ab", Revoked: true},
	} {
		if got := tokenState(token, now); got != want {
			t.Errorf("%+v is %q, want %q", token, got, want)
		}
	}
}
