package rpc_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

func TestSettingsAreChangedAllOrNothingByAdminsAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		settings := func(who string) claryv1.SettingsClient { return claryv1.NewSettingsClient(w.as(who)) }
		edit := func(who string, request *claryv1.EditSettingsRequest, pairs ...string) (*claryv1.EditSettingsResponse, error) {
			for i := 0; i < len(pairs); i += 2 {
				request.Put = append(request.Put, &claryv1.Setting{Path: pairs[i], Value: pairs[i+1]})
			}
			answer, err := settings(who).Edit(w.Context(), request)
			return answer, wire.FromStatus(err)
		}
		for _, who := range []string{cluster.RoleViewer, cluster.RoleUser} {
			if _, err := edit(who, &claryv1.EditSettingsRequest{}, "retention.audit", "10d"); !fault.Is(err, fault.Denied) {
				t.Errorf("a %s changes settings: %v", who, err)
			}
		}
		before := w.revision()
		for name, c := range map[string]struct {
			request *claryv1.EditSettingsRequest
			pairs   []string
			want    string
		}{
			"out of range":     {&claryv1.EditSettingsRequest{}, []string{"backup.keep", "3", "retention.audit", "1h"}, "settings.retention.audit: 1h is out of range: from 1d"},
			"unknown":          {&claryv1.EditSettingsRequest{}, []string{"backup.keep", "3", "mood", "good"}, "settings.mood: there is no such setting"},
			"no number":        {&claryv1.EditSettingsRequest{}, []string{"backup.keep", "many"}, `settings.backup.keep: "many" is not a whole number`},
			"twice":            {&claryv1.EditSettingsRequest{}, []string{"backup.keep", "3", "backup.keep", "4"}, "settings.backup.keep: is there twice"},
			"does not fit":     {&claryv1.EditSettingsRequest{}, []string{"backup.every", "1h"}, "settings.backup.to: is empty"},
			"no key":           {&claryv1.EditSettingsRequest{}, []string{"backup.every", "1h", "backup.to", "s3://b/c", "backup.recipients", "me"}, "settings.backup.recipients"},
			"for nobody":       {&claryv1.EditSettingsRequest{}, []string{"backup.every", "1h", "backup.to", "s3://b/c"}, "settings.backup.recipients: is empty"},
			"another revision": {&claryv1.EditSettingsRequest{Expect: new(uint64(99))}, []string{"backup.keep", "3"}, "expect: the settings are at revision 0, not 99"},
		} {
			if _, err := edit(cluster.RoleAdmin, c.request, c.pairs...); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		answer, err := edit(cluster.RoleAdmin, &claryv1.EditSettingsRequest{DryRun: true}, "backup.keep", "3")
		if err != nil || len(answer.GetChanges()) != 1 || answer.GetChanges()[0].GetBefore() != "14" {
			t.Errorf("a dry run: %v, %v", answer, err)
		}
		if after := w.revision(); after != before {
			t.Fatalf("what was refused has changed something: revision %d became %d", before, after)
		}

		answer, err = edit(cluster.RoleAdmin, &claryv1.EditSettingsRequest{Expect: new(uint64(0))}, "backup.keep", "3", "retention.audit", "10d") // nobody had set anything
		if err != nil || len(answer.GetChanges()) != 2 || answer.GetRevision() != before+1 {
			t.Fatalf("%v, %v", answer, err)
		}
		if _, err := edit(cluster.RoleAdmin, &claryv1.EditSettingsRequest{Expect: new(uint64(0)), Replace: true}, "backup.keep", "4"); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), fmt.Sprintf("are at revision %d, not 0", answer.GetRevision())) {
			t.Errorf("who read before anything was set overwrites what was since: %v", err)
		}
		if _, err := edit(cluster.RoleAdmin, &claryv1.EditSettingsRequest{Expect: new(answer.GetRevision()), Replace: true}, "backup.keep", "5"); err != nil {
			t.Fatal(err)
		}
		view, err := settings(cluster.RoleViewer).Get(w.Context(), &claryv1.GetSettingsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		shown := map[string]string{}
		for _, s := range view.GetSettings() {
			shown[s.GetPath()] = s.GetValue()
		}
		if shown["backup.keep"] != "5" || shown["retention.audit"] != "90d" || view.GetRevision() != before+2 {
			t.Errorf("shown: %v at revision %d", shown, view.GetRevision())
		}
	})
}
