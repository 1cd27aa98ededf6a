package janitor_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/janitor"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
)

// Whatever there is: what is named stays, what was used lately stays, where nothing is to go nothing does, and all else goes; once it is
// gone nothing more is.
func TestOnlyFoldersThatNothingNamesAndNobodyUsedLatelyGo(t *testing.T) {
	gone, named := map[janitor.Kind]int{}, 0
	rapid.Check(t, func(t *rapid.T) {
		days := func(label string) time.Duration {
			return time.Duration(rapid.IntRange(0, 20).Draw(t, label)) * 24 * time.Hour
		}
		keep := cluster.Retention{Orphans: days("orphans"), Uploads: days("uploads")}
		var folders []janitor.Folder
		for i := range rapid.IntRange(0, 12).Draw(t, "folders") {
			f := janitor.Folder{Kind: janitor.GoneObjects, Prefix: fmt.Sprintf("jobs/j%d/", i), Named: rapid.Bool().Draw(t, "named")}
			if rapid.Bool().Draw(t, "upload") {
				f.Kind, f.Prefix = janitor.GoneUpload, fmt.Sprintf("uploads/%d/", i)
			}
			if rapid.IntRange(0, 5).Draw(t, "empty") > 0 {
				f.Extent = object.Extent{Objects: 1, Bytes: int64(i), Newest: time.Unix(0, now-int64(days("age"))-1)}
			}
			folders = append(folders, f)
		}
		doomed := map[string]janitor.Gone{}
		for _, g := range janitor.SweepFolders(folders, keep, now) {
			doomed[g.ID] = g
			gone[g.Kind]++
		}
		for _, f := range folders {
			kept := map[janitor.Kind]time.Duration{janitor.GoneObjects: keep.Orphans, janitor.GoneUpload: keep.Uploads}[f.Kind]
			over := kept > 0 && f.Objects > 0 && time.Duration(now-f.Newest.UnixNano()) > kept
			g, goes := doomed["s3://clary/"+f.Prefix]
			if goes != (over && !f.Named) || goes && (g.Kind != f.Kind || g.Bytes != f.Bytes || g.Why == "") {
				t.Fatalf("%+v, kept for %s: goes: %t, %+v", f, kept, goes, g)
			}
			if over && f.Named {
				named++
			}
		}
		folders = slices.DeleteFunc(folders, func(f janitor.Folder) bool { _, goes := doomed["s3://clary/"+f.Prefix]; return goes })
		if again := janitor.SweepFolders(folders, keep, now); len(again) > 0 {
			t.Fatalf("after all of that is gone %v goes", again)
		}
	})
	if len(gone) != 2 || named == 0 {
		t.Errorf("%v went and %d named ones stayed: not all was tried", gone, named)
	}
}

var errAway = fault.New(fault.Unready, "the store is away")

// upload puts what a command sends along.
func (h *house) upload(digit, name string) (uri string) {
	uri = "s3://clary/uploads/" + strings.Repeat(digit, 64) + "/" + name
	h.store.Write(uri, "code", time.Now())
	return uri
}

func (h *house) uploads() string {
	var left []string
	for _, uri := range h.store.Below("s3://clary/uploads/") {
		rest := strings.TrimPrefix(uri, "s3://clary/uploads/")
		left = append(left, rest[:1]+rest[strings.Index(rest, "/"):])
	}
	return strings.Join(left, " ")
}

func TestUploadsThatNothingAtHandNamesGoOnceTheyAreOld(t *testing.T) {
	inHouse(t, func(h *house) {
		h.set(func(s *cluster.Settings) { s.Retention.Uploads, s.Retention.Jobs = 30*24*time.Hour, 60*24*time.Hour })
		code := h.upload("a", "source.tar.gz")
		escaped := h.upload("b", "data/rows.csv")
		made := h.upload("c", "source.tar.gz")
		h.upload("d", "source.tar.gz") // of a job that never came
		h.upload("e", "source.tar.gz") // likewise, and used again
		h.store.Write("s3://clary/uploads/mine/notes.txt", "text", time.Now())
		h.job("ended", func(j *cluster.Job) { j.Spec = []byte(`{"script":{"source":"` + code + `"}}`) }, true)
		h.job("goes-on", func(j *cluster.Job) {
			j.Spec = []byte(`{"inputs":{"train":"` + strings.ReplaceAll(escaped, "/", `\/`) + `"}}`)
		}, false)
		model := cluster.Model{Name: "m", Owner: "ada", Next: 2, Count: 1}
		version := cluster.ModelVersion{
			Model: "m", Number: 1, Owner: "ada", Created: 1, Approval: cluster.Approval{State: cluster.ApprovalPending},
			Artifact: cluster.Output{Name: "model.tar.gz", URI: "s3://clary/models/m/key/model.tar.gz", SHA256: sha, Size: 5},
			Lineage:  cluster.Lineage{Job: "gone", Submitted: 1, Output: "model", Code: cluster.Code{What: made, Digest: sha}},
		}
		h.must(command.Change{Model: &model}, command.Change{Version: &version})
		const all = "a/source.tar.gz b/data/rows.csv c/source.tar.gz d/source.tar.gz e/source.tar.gz m/notes.txt"
		time.Sleep(29 * 24 * time.Hour)
		if got := h.uploads(); got != all {
			h.Fatalf("after 29 days there are %s", got)
		}
		h.store.Write("s3://clary/uploads/"+strings.Repeat("e", 64)+"/used,", "now", time.Now())
		time.Sleep(2 * 24 * time.Hour)
		if got := h.uploads(); got != "a/source.tar.gz b/data/rows.csv c/source.tar.gz e/source.tar.gz e/used, m/notes.txt" {
			h.Errorf("after 31 days there are %s", got)
		}
		time.Sleep(40 * 24 * time.Hour) // the job that ended is archived
		if got := h.uploads(); got != "b/data/rows.csv c/source.tar.gz m/notes.txt" {
			h.Errorf("after 71 days there are %s", got)
		}
		if counts := h.janitor.Counts(); counts.Removed[janitor.GoneUpload] != 3 || counts.Removed[janitor.GoneRecord] != 1 || counts.Bytes != 3*4+3 {
			h.Errorf("it counts %+v", counts)
		}
	})
}

func TestADryRunSaysHowMuchWouldBeFreed(t *testing.T) {
	inHouse(t, func(h *house) {
		h.set(func(s *cluster.Settings) { s.Retention.Outputs, s.Retention.Uploads = 10*day, 24*time.Hour })
		h.store.Break(errAway)
		h.job("old", nil, true)
		h.upload("a", "source.tar.gz")
		time.Sleep(50 * time.Hour)
		result, err := h.janitor.Sweep(h.Context(), false)
		if err != nil || !slices.Equal(ids(result.Gone), []string{"job old", "upload s3://clary/uploads/" + strings.Repeat("a", 64) + "/"}) ||
			result.Gone[0].Bytes != int64(len("weights")) || result.Gone[0].Objects != 1 || result.Gone[1].Bytes != 4 {
			h.Errorf("%+v, %v", result, err)
		}
		h.store.Break(nil)
		done, err := h.janitor.Sweep(h.Context(), true)
		if err != nil || len(done.Gone) == 0 || done.Gone[0].Bytes != result.Gone[0].Bytes {
			h.Errorf("what was freed: %+v, %v", done, err)
		}
	})
}

func TestVersionsOfAModelThatHasManyAreAllLookedAt(t *testing.T) {
	inHouse(t, func(h *house) {
		h.set(func(s *cluster.Settings) { s.Retention.Orphans = 3 * day })
		const each, young, models = 450, 250, 3 // more than a round looks at, and so are those that stay
		for m := range models {
			for v := range each {
				at := time.Now()
				if v < young {
					at = at.Add(20 * day)
				}
				h.store.Write(fmt.Sprintf("s3://clary/models/m%d/v%04d/model.tar.gz", m, v), "weights", at)
			}
		}
		time.Sleep(3*day + time.Hour) // a round a minute
		left := h.store.Below("s3://clary/models/")
		if len(left) != models*young || slices.ContainsFunc(left, func(uri string) bool { return uri >= fmt.Sprintf("%s/v%04d", uri[:len("s3://clary/models/m0")], young) }) {
			h.Errorf("%d are left, want those that are young, %d", len(left), models*young)
		}
	})
}

func TestAFolderIntoWhichSomethingIsOnItsWayStaysAndWhatNobodyGoesOnWithIsGivenUp(t *testing.T) {
	inHouse(t, func(h *house) {
		h.set(func(s *cluster.Settings) { s.Retention.Orphans = 3 * day })
		h.job("here", nil, false)
		at := func(key string) object.URI { return object.URI{Bucket: cluster.SystemBucket, Key: key} }
		h.store.Write("s3://clary/jobs/gone/attempts/1/a", "text", time.Now())
		h.store.Begin(at("jobs/gone/attempts/1/large"), 100, time.Now().Add(2*day)) // its last part comes then
		h.store.Begin(at("jobs/here/checkpoints/1/large"), 50, time.Now())
		h.store.Begin(at("jobs/here/checkpoints/2/large"), 70, time.Now().Add(20*day))
		coming := func() (keys []string) {
			all, _ := h.store.Unfinished(h.Context(), at(""))
			for _, upload := range all {
				keys = append(keys, upload.URI.Key)
			}
			return keys
		}
		time.Sleep(4 * day)
		if got := h.store.Below("s3://clary/jobs/gone/"); len(got) != 1 {
			h.Errorf("while something is on its way into it, it has %v", got)
		}
		time.Sleep(3 * day)
		if got := h.store.Below("s3://clary/jobs/gone/"); len(got) != 0 {
			h.Errorf("long after there is %v", got)
		}
		if got := coming(); !slices.Equal(got, []string{"jobs/here/checkpoints/2/large"}) {
			h.Errorf("unfinished are %v", got)
		}
		if counts := h.janitor.Counts(); counts.Removed[janitor.GoneParts] != 2 || counts.Removed[janitor.GoneObjects] != 1 || counts.Bytes != 154 {
			h.Errorf("it counts %+v", counts)
		}
	})
}
