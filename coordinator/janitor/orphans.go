package janitor

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
	"github.com/clary-ml/clary/workload/tuning"
)

// Folder is a folder of the cluster's own in the object store, as it was found.
type Folder struct {
	Kind   Kind   // GoneObjects or GoneUpload
	Prefix string // in the system's bucket: jobs/NAME/
	object.Extent
	Named bool // something that is there names it
}

// SweepFolders says which folders go: those that nothing names, and into which nothing was written for as long as such are kept.
func SweepFolders(folders []Folder, keep cluster.Retention, now int64) []Gone {
	var gone []Gone
	for _, f := range folders {
		kept, setting, who := keep.Orphans, "retention.orphans", "nothing names them"
		if f.Kind == GoneUpload {
			kept, setting, who = keep.Uploads, "retention.uploads", "no job at hand, endpoint or version names it"
		}
		age := time.Duration(now - f.Newest.UnixNano())
		if f.Named || kept == 0 || f.Newest.IsZero() || age <= kept {
			continue
		}
		uri := object.URI{Bucket: cluster.SystemBucket, Key: f.Prefix}
		why := fmt.Sprintf("%s, and it was last used %s ago; such are kept for %s (%s)", who, spoken(age), spoken(kept), setting)
		gone = append(gone, Gone{Kind: f.Kind, ID: uri.String(), Why: why, Objects: f.Objects, Bytes: f.Bytes})
	}
	return gone
}

// cursor is how far the search for folders without an owner has come: it goes round and round, some folders a round. model is the last
// one whose versions were all looked at, version the last one of the next model.
type cursor struct{ jobs, model, version, uploads string }

const (
	perLook    = 200              // folders that are looked at in a round
	uploadsDue = 10 * time.Minute // between looks at uploads: each may have all jobs read
	partsDue   = time.Hour        // between looks at uploads that were not completed
)

var digest = regexp.MustCompile(`^[0-9a-f]{64}$`)

// sweepFolders removes folders that nothing names, once nothing in them is younger than they are kept.
func (r *reign) sweepFolders(ctx context.Context, keep cluster.Retention, now time.Time, do bool) ([]Gone, error) {
	store, err := r.Store()
	if err != nil {
		return nil, err
	}
	next := r.at
	var found []Folder
	if keep.Orphans > 0 {
		if found, err = r.orphans(ctx, store, &next); err != nil {
			return nil, err
		}
	}
	if keep.Uploads > 0 && (!do || now.Sub(r.uploaded) >= uploadsDue) {
		r.uploaded = now
		uploads, err := r.uploads(ctx, store, keep, now, &next)
		if err != nil {
			return nil, err
		}
		found = append(found, uploads...)
	}
	parts, err := r.sweepParts(ctx, store, keep.Orphans, now, do)
	if err != nil {
		return parts, err
	}
	doomed := SweepFolders(found, keep, now.UnixNano())
	if !do {
		return append(doomed, parts...), nil
	}
	r.at = next
	gone, err := r.clear(ctx, store, doomed, keep)
	return append(gone, parts...), err
}

// clear deletes folders. Each is looked at again right before: a job of that name may have come, an upload been used again.
func (r *reign) clear(ctx context.Context, store Store, doomed []Gone, keep cluster.Retention) ([]Gone, error) {
	var gone []Gone
	for _, g := range doomed {
		uri, err := object.ParseURI(g.ID)
		if err != nil {
			return gone, err
		}
		again := Folder{Kind: g.Kind, Prefix: uri.Key}
		if g.Kind == GoneObjects {
			snapshot, err := r.Ledger.Read(ctx, false)
			if err != nil {
				return gone, err
			}
			again.Named = owned(snapshot, uri.Key)
			_ = snapshot.Close() // it was read whole
		}
		if again.Extent, err = extentOf(ctx, store, uri); err != nil {
			return gone, err
		}
		if len(SweepFolders([]Folder{again}, keep, time.Now().UnixNano())) == 0 {
			continue
		}
		freed, err := store.DeletePrefix(ctx, uri)
		if err != nil {
			return gone, err
		}
		g.Objects, g.Bytes = freed.Objects, freed.Bytes
		r.removed(g)
		gone = append(gone, g)
	}
	return gone, nil
}

// orphans are the next folders of jobs and versions that nobody knows.
func (r *reign) orphans(ctx context.Context, store Store, at *cursor) ([]Folder, error) {
	names, err := r.folders(ctx, store, "jobs/", &at.jobs, perLook)
	if err != nil {
		return nil, err
	}
	versions, err := r.versions(ctx, store, at)
	if err != nil {
		return nil, err
	}
	names = append(names, versions...)
	snapshot, err := r.Ledger.Read(ctx, true)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(prefix string) bool { return owned(snapshot, prefix) })
	_ = snapshot.Close() // it was read whole
	return r.measure(ctx, store, GoneObjects, names)
}

// versions are the next folders of versions, of one model after the other.
func (r *reign) versions(ctx context.Context, store Store, at *cursor) ([]string, error) {
	last := at.model
	models, err := r.folders(ctx, store, "models/", &last, perLook)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, model := range models {
		some, err := r.folders(ctx, store, model, &at.version, perLook-len(found))
		if err != nil {
			return nil, err
		}
		if found = append(found, some...); at.version != "" {
			return found, nil // the next round goes on in this model
		}
		at.model = strings.TrimSuffix(strings.TrimPrefix(model, "models/"), "/")
		if len(found) == perLook {
			return found, nil
		}
	}
	at.model = last
	return found, nil
}

// uploads are the next folders of what commands have sent along. All that may name one is read only if some are old enough.
func (r *reign) uploads(ctx context.Context, store Store, keep cluster.Retention, now time.Time, at *cursor) ([]Folder, error) {
	names, err := r.folders(ctx, store, "uploads/", &at.uploads, perLook)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(prefix string) bool { return !digest.MatchString(digestOf(prefix)) }) // it is somebody's own
	found, err := r.measure(ctx, store, GoneUpload, names)
	if err != nil || len(SweepFolders(found, keep, now.UnixNano())) == 0 {
		return nil, err
	}
	snapshot, err := r.Ledger.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	named := digestsNamed(snapshot)
	for i := range found {
		found[i].Named = named[digestOf(found[i].Prefix)]
	}
	return found, nil
}

// digestOf is the digest in the prefix of an upload.
func digestOf(prefix string) string {
	return strings.TrimSuffix(strings.TrimPrefix(prefix, "uploads/"), "/")
}

// folders are the prefixes of the next folders right below one, at most so many; the cursor moves on, and begins anew behind the last.
func (r *reign) folders(ctx context.Context, store Store, below string, after *string, most int) ([]string, error) {
	names, err := store.Folders(ctx, object.URI{Bucket: cluster.SystemBucket, Key: below}, *after, most)
	if fault.Is(err, fault.NotFound) {
		return nil, nil // no bucket yet
	}
	if err != nil {
		return nil, err
	}
	if *after = ""; len(names) == most {
		*after = names[len(names)-1]
	}
	prefixes := make([]string, len(names))
	for i, name := range names {
		prefixes[i] = below + name + "/"
	}
	return prefixes, nil
}

// measure looks how much there is in folders, and how old it is.
func (r *reign) measure(ctx context.Context, store Store, kind Kind, prefixes []string) ([]Folder, error) {
	var found []Folder
	for _, prefix := range prefixes {
		extent, err := extentOf(ctx, store, object.URI{Bucket: cluster.SystemBucket, Key: prefix})
		if err != nil {
			return nil, err
		}
		found = append(found, Folder{Kind: kind, Prefix: prefix, Extent: extent})
	}
	return found, nil
}

// extentOf is how much there is in a folder and when something came into it last, be it a part of what is on its way.
func extentOf(ctx context.Context, store Store, folder object.URI) (object.Extent, error) {
	extent, err := store.Extent(ctx, folder)
	if err != nil || extent.Objects == 0 {
		return extent, err
	}
	coming, err := store.Unfinished(ctx, folder)
	for _, upload := range coming {
		if upload.Newest.After(extent.Newest) {
			extent.Newest = upload.Newest
		}
	}
	return extent, err
}

// sweepParts gives up uploads to the cluster's own folders that were begun and that nobody goes on with.
func (r *reign) sweepParts(ctx context.Context, store Store, keep time.Duration, now time.Time, do bool) ([]Gone, error) {
	if keep == 0 || do && now.Sub(r.parted) < partsDue {
		return nil, nil
	}
	all, err := store.Unfinished(ctx, object.URI{Bucket: cluster.SystemBucket})
	if fault.Is(err, fault.NotFound) {
		return nil, nil // no bucket yet
	}
	if err != nil {
		return nil, err
	}
	var gone []Gone
	for _, upload := range all {
		age := now.Sub(upload.Newest)
		if age <= keep {
			continue
		}
		why := fmt.Sprintf("its upload was not completed, and nothing came for %s; such parts are kept for %s (retention.orphans)", spoken(age), spoken(keep))
		g := Gone{Kind: GoneParts, ID: upload.URI.String(), Why: why, Objects: upload.Objects, Bytes: upload.Bytes}
		if do {
			if err := store.GiveUp(ctx, upload); err != nil {
				return gone, err
			}
			r.removed(g)
		}
		gone = append(gone, g)
	}
	if do {
		r.parted = now
	}
	return gone, nil
}

// owned reports whether a job, a trial or a version names a folder.
func owned(snapshot *state.Snapshot, prefix string) bool {
	parts := strings.Split(prefix, "/")
	if parts[0] != "models" {
		return ownedJob(snapshot, parts[1])
	}
	for version := range snapshot.VersionsOf(parts[1], 0) {
		if strings.HasSuffix(version.Folder(), "/"+prefix) || strings.HasSuffix(version.Artifact.URI, "/"+strings.TrimSuffix(prefix, "/")) {
			return true
		}
	}
	return false
}

func ownedJob(snapshot *state.Snapshot, name string) bool {
	if _, there := snapshot.Job(name); there {
		return true
	}
	if _, archived := snapshot.Archived(name); archived {
		return true
	}
	sweep, number, ok := tuning.TrialNamed(name)
	if !ok {
		return false
	}
	if row, archived := snapshot.Archived(sweep); archived && row.Kind == cluster.KindTuning {
		return true // its record names them
	}
	trial, there := snapshot.Trial(cluster.TrialID(sweep, number))
	return there && slices.Contains(tuning.JobsOf(trial), name)
}
