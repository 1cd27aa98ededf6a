package registry_test

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/registry"
	"github.com/clary-ml/clary/internal/fault"
)

// known is a state with one model.
type known struct {
	model    cluster.Model
	versions map[int64]cluster.ModelVersion
	read     *int // counts the versions that were walked over, if it is set
}

func (k known) Model(name string) (cluster.Model, bool) { return k.model, name == k.model.Name }

func (k known) ModelVersion(id string) (cluster.ModelVersion, bool) {
	for _, v := range k.versions {
		if v.ID() == id {
			return v, true
		}
	}
	return cluster.ModelVersion{}, false
}

func (k known) VersionsOf(model string, from int64) iter.Seq[cluster.ModelVersion] {
	return func(yield func(cluster.ModelVersion) bool) {
		for _, n := range slices.Sorted(maps.Keys(k.versions)) {
			if model != k.model.Name || n < from {
				continue
			}
			if k.read != nil {
				*k.read++
			}
			if !yield(k.versions[n]) {
				return
			}
		}
	}
}

func numbered(n int64, change func(*cluster.ModelVersion)) cluster.ModelVersion {
	v := cluster.ModelVersion{
		Model: "net", Number: n, Owner: "ann", Approval: cluster.Approval{State: cluster.ApprovalPending},
		Artifact: cluster.Output{Name: "m", URI: "s3://clary/models/net/k/m", SHA256: strings.Repeat("a", 64), Size: 1},
	}
	if change != nil {
		change(&v)
	}
	return v
}

func TestTheNextVersionHasTheNextNumberAndAFullModelTakesNone(t *testing.T) {
	s := known{model: cluster.Model{Name: "net", Owner: "bob", Next: 7, Count: 2, Deleted: 4, Revision: 9}}
	changes, version, err := registry.Add(s, numbered(0, nil), 5)
	if err != nil || version.Ref() != "net@7" || version.Created != 5 || len(changes) != 2 {
		t.Fatalf("%+v, %v", version, err)
	}
	if m := changes[0].Model; changes[0].Expect != 9 || m.Next != 8 || m.Count != 3 || m.Owner != "bob" {
		t.Errorf("the model becomes %+v, expecting %d", m, changes[0].Expect)
	}
	changes, _, err = registry.Add(s, numbered(0, func(v *cluster.ModelVersion) {
		v.Model, v.Artifact.URI = "fresh", "s3://clary/models/fresh/k/m"
	}), 5)
	if err != nil || changes[0].Expect != 0 || changes[0].Model.Owner != "ann" || changes[1].Version.Number != 1 {
		t.Errorf("the first of its model: %+v, %v", changes, err)
	}
	for name, c := range map[string]struct {
		state  known
		change func(*cluster.ModelVersion)
		kind   fault.Kind
		want   string
	}{
		"a full model":     {known{model: cluster.Model{Name: "net", Next: cluster.MaxModelVersions + 1, Count: cluster.MaxModelVersions}}, nil, fault.Exhausted, "delete some"},
		"no number left":   {known{model: cluster.Model{Name: "net", Next: cluster.MaxModelNumber + 1}}, nil, fault.Exhausted, "another name"},
		"another's object": {known{model: cluster.Model{Name: "net", Next: 2, Count: 1}, versions: map[int64]cluster.ModelVersion{1: numbered(1, nil)}}, nil, fault.Conflict, "folder of version net@1"},
		"another's folder": {known{model: cluster.Model{Name: "net", Next: 2, Count: 1}, versions: map[int64]cluster.ModelVersion{1: numbered(1, nil)}}, func(v *cluster.ModelVersion) {
			v.Artifact.Name, v.Artifact.URI = "other", "s3://clary/models/net/k/other"
		}, fault.Conflict, "folder of version net@1"},
		"nothing in it":     {s, func(v *cluster.ModelVersion) { v.Artifact.Size = 0 }, fault.Invalid, "nothing in it"},
		"a job's own place": {s, func(v *cluster.ModelVersion) { v.Artifact.URI = "s3://clary/jobs/x/m" }, fault.Invalid, "folder of its own"},
	} {
		if _, _, err := registry.Add(c.state, numbered(0, c.change), 5); !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %s with %q", name, err, c.kind, c.want)
		}
	}
}

func TestWhatWasMadeOfTheSameIsFound(t *testing.T) {
	of := func(job string, submitted int64, output, request string) func(*cluster.ModelVersion) {
		return func(v *cluster.ModelVersion) {
			v.Lineage = cluster.Lineage{Job: job, Submitted: submitted, Output: output}
			v.RequestID = request
		}
	}
	gone := numbered(2, of("gone", 1, "model", "r2"))
	gone.Deleting = true
	s := known{model: cluster.Model{Name: "net", Next: 4}, versions: map[int64]cluster.ModelVersion{
		1: numbered(1, of("one", 1, "model", "r1")), 2: gone, 3: numbered(3, of("", 0, "", "r3")),
	}}
	for name, c := range map[string]struct {
		like func(*cluster.ModelVersion)
		want int64
	}{
		"the same job's output":        {of("one", 1, "model", "r9"), 1},
		"another output":               {of("one", 1, "plan", "r9"), 0},
		"a later job of that name":     {of("one", 2, "model", "r9"), 0},
		"the same request":             {of("", 0, "", "r3"), 3},
		"no request":                   {of("", 0, "", ""), 0},
		"one that is being deleted":    {of("gone", 1, "model", "r2"), 0},
		"another's request":            {func(v *cluster.ModelVersion) { v.Owner, v.RequestID = "eve", "r3" }, 0},
		"the same job in other models": {func(v *cluster.ModelVersion) { of("one", 1, "model", "")(v); v.Model = "other" }, 0},
	} {
		got, found := registry.Existing(s, numbered(0, c.like))
		if found != (c.want != 0) || got.Number != c.want {
			t.Errorf("%s: %d, want %d", name, got.Number, c.want)
		}
	}
}

func TestWhatWasMadeOfTheSameIsNotAddedAgainAndLookedForOnce(t *testing.T) {
	read := 0
	s := known{model: cluster.Model{Name: "net", Next: 101, Count: cluster.MaxModelVersions}, versions: map[int64]cluster.ModelVersion{}, read: &read}
	for n := range int64(100) {
		s.versions[n+1] = numbered(n+1, func(v *cluster.ModelVersion) { v.RequestID = fmt.Sprint("r", n+1) })
	}
	changes, version, err := registry.Add(s, numbered(0, func(v *cluster.ModelVersion) { v.RequestID = "r100" }), 5)
	if err != nil || len(changes) != 0 || version.Number != 100 || read != 100 {
		t.Errorf("%d changes, %s, %v; %d versions of 100 were read", len(changes), version.Ref(), err, read)
	}
}

func TestTheNewestVersionsAreFoundWithoutReadingTheOthers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		read := 0
		s := known{model: cluster.Model{Name: "net", Next: rapid.Int64Range(1, 700).Draw(t, "next")}, versions: map[int64]cluster.ModelVersion{}, read: &read}
		gone := rapid.Int64Range(0, 700).Draw(t, "gone from")
		for n := int64(1); n < s.model.Next; n++ {
			if n < gone || n > gone+500 {
				s.versions[n] = numbered(n, nil)
			}
		}
		below := rapid.Int64Range(0, s.model.Next).Draw(t, "below")
		var want, got []int64
		for n := below - 1; n > 0; n-- {
			if _, there := s.versions[n]; there {
				want = append(want, n)
			}
		}
		for version := range registry.Newest(s, "net", below) {
			got = append(got, version.Number)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("below %d: %v, want %v", below, got, want)
		}
	})
	read := 0
	s := known{model: cluster.Model{Name: "net", Next: 5001}, versions: map[int64]cluster.ModelVersion{}, read: &read}
	for n := int64(1); n <= 5000; n++ {
		s.versions[n] = numbered(n, nil)
	}
	next, stop := iter.Pull(registry.Newest(s, "net", 4001))
	defer stop()
	for n := int64(4000); n > 3900; n-- {
		if version, _ := next(); version.Number != n {
			t.Fatalf("%s, want number %d", version.Ref(), n)
		}
	}
	if read > 400 {
		t.Errorf("for 100 of 5000 versions %d were read", read)
	}
}

func TestAReferenceMeansOneVersionOrSaysWhyNot(t *testing.T) {
	gone := numbered(2, nil)
	gone.Deleting = true
	s := known{
		model:    cluster.Model{Name: "net", Next: 5, Aliases: map[string]int64{"champion": 4}},
		versions: map[int64]cluster.ModelVersion{2: gone, 4: numbered(4, nil)},
	}
	for ref, want := range map[string]string{
		"net@4": "", "model://net:champion": "", "net@1": "was deleted", "net@2": "is being deleted", "net@5": "has no version 5",
		"net:best": `no alias "best"`, "other@1": `no model "other"`, "net": "names no version", "net@x": "not the number",
	} {
		got, err := registry.Resolve(s, ref)
		if want == "" && (err != nil || got.Number != 4) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %d, %v; want %q", ref, got.Number, err, want)
		}
	}
	pins, err := registry.Pin(s, []string{"model://net:champion", "model://net@4"})
	if err != nil || len(pins) != 2 || pins[0].Ref != "model://net:champion" || pins[0].Number != 4 || pins[1].URI != "s3://clary/models/net/k/m" {
		t.Errorf("%+v, %v", pins, err)
	}
}
