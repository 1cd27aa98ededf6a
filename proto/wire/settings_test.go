package wire_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// What is set goes through the wire as people write it, and comes back exactly.
func TestSettingsGoThroughTheWireUnchanged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		settings := cluster.DefaultSettings()
		settings.Revision = rapid.Uint64().Draw(t, "revision")
		for _, setting := range cluster.AllSettings() {
			if rapid.Bool().Draw(t, setting.Path) {
				setting.Put(&settings, rapid.Int64Range(setting.Least, setting.Most).Draw(t, "number"), rapid.StringMatching(`[a-z:/ ."]{1,20}`).Draw(t, "text"))
			}
		}
		there := wire.SettingsToProto(settings)
		if err := wire.CheckSettings(there); err != nil {
			t.Fatal(err)
		}
		if back := wire.SettingsFromProto(there); back != settings {
			t.Fatalf("%+v became %+v", settings, back)
		}
	})
}

func TestWhatANewerVersionHasSetIsToldAndNotGuessed(t *testing.T) {
	for path, value := range map[string]string{"retention.moods": "1d", "retention.audit": "full moon"} {
		err := wire.CheckSettings(&claryv1.ClusterSettings{Set: []*claryv1.Setting{{Path: path, Value: value}}})
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "settings."+path+": ") {
			t.Errorf("%s=%s: %v", path, value, err)
		}
	}
}
