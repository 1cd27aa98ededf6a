package share_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/share"
)

func TestAnEditIsOrderedSoThatEachStepFindsItsParents(t *testing.T) {
	now := []cluster.Queue{
		{Name: "default", Weight: 1, Revision: 1},
		{Name: "old", Weight: 1, Revision: 2},
		{Name: "below", Parent: "old", Weight: 1, Revision: 3},
		{Name: "same", Weight: 1, Revision: 4},
	}
	for _, c := range []struct {
		name string
		edit share.Edit
		want string
	}{
		{"put", share.Edit{Put: []cluster.Queue{{Name: "z", Parent: "y", Weight: 1}, {Name: "y", Weight: 1}}}, "+y +z"},
		{"unchanged", share.Edit{Put: []cluster.Queue{{Name: "same", Weight: 1}}}, ""},
		{"changed", share.Edit{Put: []cluster.Queue{{Name: "same", Weight: 2, Revision: 4}}}, "~same"},
		{"stale", share.Edit{Put: []cluster.Queue{{Name: "same", Weight: 2, Revision: 3}}}, `queue "same" is at revision 4, not 3`},
		{"replaced", share.Edit{Put: []cluster.Queue{{Name: "same", Weight: 1}}, Replace: true}, "-below -old"},
		{"all gone but the default", share.Edit{Replace: true}, "-same -below -old"},
		{"deleted", share.Edit{Delete: []string{"below"}}, "-below"},
		{"deleted under others", share.Edit{Delete: []string{"old"}}, `"old" does not exist`},
		{"the default", share.Edit{Delete: []string{"default"}}, "cannot be deleted"},
		{"unknown", share.Edit{Delete: []string{"nowhere"}}, "there is no queue"},
		{"made twice", share.Edit{Create: true, Put: []cluster.Queue{{Name: "same", Weight: 1}}}, "exists already"},
		{"put twice", share.Edit{Put: []cluster.Queue{{Name: "x", Weight: 1}, {Name: "x", Weight: 1}}}, "there twice"},
		{"put and deleted", share.Edit{Put: []cluster.Queue{{Name: "same", Weight: 1}}, Delete: []string{"same"}}, "put and deleted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			changes, err := c.edit.Of(now)
			var got []string
			for _, change := range changes {
				switch {
				case change.Before.Name == "":
					got = append(got, "+"+change.After.Name)
				case change.After.Name == "":
					got = append(got, "-"+change.Before.Name)
				default:
					got = append(got, "~"+change.After.Name)
				}
			}
			if said := strings.Join(got, " ") + errText(err); said != c.want && (err == nil || !strings.Contains(said, c.want)) {
				t.Errorf("%q, want %q", said, c.want)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return fmt.Sprint(err)
}
