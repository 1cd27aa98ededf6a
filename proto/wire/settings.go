package wire

import (
	"strconv"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// SettingsToProto converts settings: those that are not their defaults.
func SettingsToProto(s cluster.Settings) *claryv1.ClusterSettings {
	out := &claryv1.ClusterSettings{Revision: s.Revision}
	for _, setting := range cluster.AllSettings() {
		if !setting.IsDefault(s) {
			out.Set = append(out.Set, &claryv1.Setting{Path: setting.Path, Value: setting.Text(s)})
		}
	}
	return out
}

// SettingsFromProto converts settings. What is there and cannot be read is left at its default; CheckSettings tells.
func SettingsFromProto(s *claryv1.ClusterSettings) cluster.Settings {
	out := cluster.DefaultSettings()
	out.Revision = s.GetRevision()
	for _, set := range s.GetSet() {
		_ = PutSetting(&out, set.GetPath(), set.GetValue())
	}
	return out
}

// CheckSettings says what SettingsFromProto could not read: a newer version has written it.
func CheckSettings(s *claryv1.ClusterSettings) error {
	var scratch cluster.Settings
	for _, set := range s.GetSet() {
		if err := PutSetting(&scratch, set.GetPath(), set.GetValue()); err != nil {
			return err
		}
	}
	return nil
}

// PutSetting sets one by its path to a value as people write it; an empty one is its default. The range is not checked.
func PutSetting(of *cluster.Settings, path, value string) error {
	setting, ok := cluster.FindSetting(path)
	switch {
	case !ok:
		return fault.New(fault.Invalid, "settings.%s: there is no such setting: %s", cluster.Clip(path), known(path))
	case value == "":
		setting.Reset(of)
		return nil
	case setting.Unit == cluster.UnitText:
		setting.Put(of, 0, value)
		return nil
	}
	number, err := settingNumber(setting.Unit, value)
	if err != nil {
		return fault.New(fault.Invalid, "settings.%s: %w", path, err)
	}
	setting.Put(of, number, "")
	return nil
}

func settingNumber(unit cluster.Unit, text string) (int64, error) {
	switch unit {
	case cluster.UnitBytes:
		size, err := quantity.ParseBytes(text)
		return int64(size), err
	case cluster.UnitDuration:
		if text == "0" {
			return 0, nil
		}
		d, err := quantity.ParseDuration(text)
		return int64(d), err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, fault.New(fault.Invalid, "%q is not a whole number", cluster.Clip(text))
	}
	return n, nil
}

// known names the settings beside one that is not, or their groups.
func known(path string) string {
	group, _, _ := strings.Cut(path, ".")
	var beside, groups []string
	for _, setting := range cluster.AllSettings() {
		head, _, _ := strings.Cut(setting.Path, ".")
		if len(groups) == 0 || groups[len(groups)-1] != head+".…" {
			groups = append(groups, head+".…")
		}
		if head == group {
			beside = append(beside, setting.Path)
		}
	}
	if len(beside) == 0 {
		beside = groups
	}
	return "there are " + strings.Join(beside, ", ") + "; see clary settings show"
}

// SettingsView shows every setting with what it is set to.
func SettingsView(of cluster.Settings) *claryv1.GetSettingsResponse {
	view, open := &claryv1.GetSettingsResponse{Revision: of.Revision}, cluster.DefaultSettings()
	for _, setting := range cluster.AllSettings() {
		view.Settings = append(view.Settings, &claryv1.SettingView{
			Path: setting.Path, Value: setting.Text(of), Default: setting.Text(open), Unit: string(setting.Unit), Means: setting.Means, Range: setting.Range(),
		})
	}
	return view
}

// SettingChanges are what differs.
func SettingChanges(before, after cluster.Settings) []*claryv1.SettingChange {
	var changes []*claryv1.SettingChange
	for _, setting := range cluster.AllSettings() {
		if old, now := setting.Text(before), setting.Text(after); old != now {
			changes = append(changes, &claryv1.SettingChange{Path: setting.Path, Before: old, After: now})
		}
	}
	return changes
}

// maxSettingsPut is how many settings one edit may name; there are fewer.
const maxSettingsPut = 1000

// EditSettings are the settings after an edit; every mistake in it is told at once.
func EditSettings(before cluster.Settings, request *claryv1.EditSettingsRequest) (cluster.Settings, error) {
	if n := len(request.GetPut()); n > maxSettingsPut {
		return before, fault.New(fault.Invalid, "put: %d settings: at most %d", n, maxSettingsPut)
	}
	var p cluster.Problems
	after, named := before, map[string]bool{}
	if request.GetReplace() {
		after = cluster.DefaultSettings()
		after.Revision = before.Revision
	}
	for _, put := range request.GetPut() {
		if named[put.GetPath()] {
			p.Add("settings."+cluster.Clip(put.GetPath()), "is there twice")
		}
		named[put.GetPath()] = true
		if err := PutSetting(&after, put.GetPath(), put.GetValue()); err != nil {
			p.Add("", "%v", err)
		}
	}
	if len(p) == 0 {
		p = after.Validate()
	}
	if err := p.Err(); err != nil {
		return before, fault.New(fault.Invalid, "%w", err)
	}
	return after, nil
}
