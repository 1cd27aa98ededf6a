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

// cursor is how far the search for folders without an owner has come: it goes round and round, some folders a round.
type cursor struct{ jobs, models, uploads string }

const (
	perLook    = 200              // folders that are looked at in a round
	uploadsDue = 10 * time.Minute // between looks at uploads: each may have all jobs read
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
	doomed := SweepFolders(found, keep, now.UnixNano())
	if !do {
		return doomed, nil
	}
	r.at = next
	return r.clear(ctx, store, doomed, keep)
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
		if again.Extent, err = store.Extent(ctx, uri); err != nil {
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
	names, err := r.folders(ctx, store, "jobs/", &at.jobs)
	if err != nil {
		return nil, err
	}
	models, err := r.folders(ctx, store, "models/", &at.models)
	if err != nil {
		return nil, err
	}
	for _, model := range models {
		all := "" // a model's versions are looked at together
		versions, err := r.folders(ctx, store, model, &all)
		if err != nil {
			return nil, err
		}
		names = append(names, versions...)
	}
	snapshot, err := r.Ledger.Read(ctx, true)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(prefix string) bool { return owned(snapshot, prefix) })
	_ = snapshot.Close() // it was read whole
	return r.measure(ctx, store, GoneObjects, names)
}

// uploads are the next folders of what commands have sent along. All that may name one is read only if some are old enough.
func (r *reign) uploads(ctx context.Context, store Store, keep cluster.Retention, now time.Time, at *cursor) ([]Folder, error) {
	names, err := r.folders(ctx, store, "uploads/", &at.uploads)
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

// folders are the prefixes of the next folders right below one; the cursor moves on, and begins anew behind the last.
func (r *reign) folders(ctx context.Context, store Store, below string, after *string) ([]string, error) {
	names, err := store.Folders(ctx, object.URI{Bucket: cluster.SystemBucket, Key: below}, *after, perLook)
	if fault.Is(err, fault.NotFound) {
		return nil, nil // no bucket yet
	}
	if err != nil {
		return nil, err
	}
	if *after = ""; len(names) == perLook {
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
		extent, err := store.Extent(ctx, object.URI{Bucket: cluster.SystemBucket, Key: prefix})
		if err != nil {
			return nil, err
		}
		found = append(found, Folder{Kind: kind, Prefix: prefix, Extent: extent})
	}
	return found, nil
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
