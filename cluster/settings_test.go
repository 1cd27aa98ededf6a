package cluster_test

import (
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
)

func TestTheDefaultSettingsHaveNoMistakeAndEachSaysWhatItMeans(t *testing.T) {
	settings := cluster.DefaultSettings()
	if problems := settings.Validate(); len(problems) > 0 {
		t.Error(problems)
	}
	seen, groups, last := map[string]bool{}, map[string]bool{}, ""
	for _, setting := range cluster.AllSettings() {
		group, _, _ := strings.Cut(setting.Path, ".")
		if group != last && groups[group] {
			t.Errorf("%s: the others of %s stand elsewhere, and a file of all settings would name it twice", setting.Path, group)
		}
		groups[group], last = true, group
		if setting.Means == "" || seen[setting.Path] || strings.Count(setting.Path, ".") != 1 {
			t.Errorf("%+v", setting)
		}
		seen[setting.Path] = true
		if !setting.IsDefault(settings) || setting.IsDefault(cluster.Settings{}) && setting.Default != 0 {
			t.Errorf("%s: default %d", setting.Path, setting.Default)
		}
		if _, found := cluster.FindSetting(setting.Path); !found {
			t.Errorf("%s is not found", setting.Path)
		}
	}
}

// Every number at both ends of its range is taken, and the next one beyond is refused by name.
func TestASettingOutOfItsRangeIsRefusedByName(t *testing.T) {
	for _, setting := range cluster.AllSettings() {
		check := func(value int64, text string) string {
			settings := cluster.DefaultSettings()
			settings.Backup.To, settings.Backup.Recipients = "s3://there", "age1x"
			setting.Put(&settings, value, text)
			return settings.Validate().Error()
		}
		if setting.Unit == cluster.UnitText {
			if told := check(0, "s3://"+strings.Repeat("x", 2000)); !strings.HasPrefix(told, "settings."+setting.Path+": ") {
				t.Errorf("%s too long: %q", setting.Path, told)
			}
			continue
		}
		for value, taken := range map[int64]bool{setting.Least: true, setting.Most: true, setting.Least - 1: setting.Zero != "" && setting.Least == 1, setting.Most + 1: false, 0: setting.Zero != "" || setting.Least <= 0} {
			if told := check(value, ""); (told == "") != taken || !taken && !strings.HasPrefix(told, "settings."+setting.Path+": "+setting.Format(value)) {
				t.Errorf("%s=%d: taken should be %t: %q", setting.Path, value, taken, told)
			}
		}
	}
}

func TestANumberIsWrittenInItsUnitExactly(t *testing.T) {
	for _, c := range []struct {
		unit  cluster.Unit
		value int64
		want  string
	}{
		{cluster.UnitDuration, int64(90 * 24 * time.Hour), "90d"},
		{cluster.UnitDuration, int64(36 * time.Hour), "36h"},
		{cluster.UnitDuration, int64(90 * time.Minute), "1h30m"},
		{cluster.UnitDuration, int64(10 * time.Minute), "10m"},
		{cluster.UnitDuration, int64(time.Hour + time.Second), "1h0m1s"},
		{cluster.UnitDuration, 0, "0"},
		{cluster.UnitBytes, 64 << 20, "64MiB"},
		{cluster.UnitBytes, 1000, "1000"},
		{cluster.UnitCount, 1_000_000, "1000000"},
	} {
		if got := (cluster.Setting{Unit: c.unit}).Format(c.value); got != c.want {
			t.Errorf("%d %s is %q, not %q", c.value, c.unit, got, c.want)
		}
	}
}

func TestABackupThatIsMadeNeedsAPlaceAndSomebodyWhoCanReadIt(t *testing.T) {
	for backup, field := range map[cluster.Backup]string{
		{}: "",
		{Every: time.Hour, To: "s3://b/p", Recipients: "age1x"}: "",
		{To: "s3://b"}:                                        "",
		{Every: time.Hour, Recipients: "age1x"}:               "to",
		{Every: time.Hour, To: "s3://b/p"}:                    "recipients",
		{Every: time.Hour, To: "s3://b/p", Recipients: ", ,"}: "recipients",
		{To: "/var/backups"}:                                  "to",
		{To: "s3://"}:                                         "to",
		{To: "s3:///x"}:                                       "to",
	} {
		problems := backup.Validate()
		if got := len(problems) > 0; got != (field != "") || got && problems[0].Field != field {
			t.Errorf("%+v: %v", backup, problems)
		}
	}
}

// A file of settings has each group once, and is written in the order of the table.
func TestTheSettingsOfAGroupStandTogether(t *testing.T) {
	last, seen := "", map[string]bool{}
	for _, setting := range cluster.AllSettings() {
		group, _, _ := strings.Cut(setting.Path, ".")
		if group != last && seen[group] {
			t.Errorf("%s stands apart from the others of %s", setting.Path, group)
		}
		last, seen[group] = group, true
	}
}
