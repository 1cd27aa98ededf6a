package janitor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
	"github.com/clary-ml/clary/workload/tuning"
)

// cursor is how far the search for objects without an owner has come: it goes round and round, some folders a round.
type cursor struct {
	jobs   string
	models string
}

const perLook = 200 // folders that are looked at in a round

// sweepOrphans removes folders of jobs and versions that nobody knows, once nothing in them is younger than they are kept.
func (r *reign) sweepOrphans(ctx context.Context, keep time.Duration, now time.Time, do bool) ([]Gone, error) {
	store, err := r.Store()
	if err != nil {
		return nil, err
	}
	at := r.orphans
	var gone []Gone
	for _, side := range []struct {
		below  string
		cursor *string
		look   func(folder string) ([]string, error)
	}{
		{"jobs/", &at.jobs, func(folder string) ([]string, error) { return []string{folder}, nil }},
		{"models/", &at.models, func(folder string) ([]string, error) { return r.folders(ctx, store, "models/"+folder+"/", "") }},
	} {
		names, err := r.folders(ctx, store, side.below, *side.cursor)
		if err != nil {
			return gone, err
		}
		for _, name := range names {
			inside, err := side.look(name)
			if err != nil {
				return gone, err
			}
			for _, folder := range inside {
				prefix := side.below + name + "/"
				if side.below == "models/" {
					prefix += folder + "/"
				}
				removed, err := r.orphan(ctx, store, prefix, keep, now, do)
				if err != nil {
					return gone, err
				}
				gone = append(gone, removed...)
			}
		}
		if *side.cursor = ""; len(names) == perLook {
			*side.cursor = names[len(names)-1]
		}
	}
	if do {
		r.orphans = at
	}
	return gone, nil
}

func (r *reign) folders(ctx context.Context, store Store, below, after string) ([]string, error) {
	names, err := store.Folders(ctx, object.URI{Bucket: cluster.SystemBucket, Key: below}, after, perLook)
	if fault.Is(err, fault.NotFound) {
		return nil, nil // no bucket yet
	}
	return names, err
}

// orphan removes a folder if nothing names it. That is asked again right before: a job of that name may have come.
func (r *reign) orphan(ctx context.Context, store Store, prefix string, keep time.Duration, now time.Time, do bool) ([]Gone, error) {
	owned, err := r.owned(ctx, prefix, true)
	if err != nil || owned {
		return nil, err
	}
	uri := object.URI{Bucket: cluster.SystemBucket, Key: prefix}
	newest, err := store.Newest(ctx, uri)
	if err != nil || newest.IsZero() || now.Sub(newest) <= keep {
		return nil, err
	}
	gone := Gone{GoneObjects, uri.String(), fmt.Sprintf("nothing names them, and nothing was written there for %s; such are kept for %s (retention.orphans)", spoken(now.Sub(newest)), spoken(keep))}
	if do {
		if owned, err = r.owned(ctx, prefix, false); err != nil || owned {
			return nil, err
		}
		if _, err := store.DeletePrefix(ctx, uri); err != nil {
			return nil, err
		}
		r.Log.Info("removed what is over", "kind", string(gone.Kind), "id", gone.ID, "why", gone.Why)
	}
	return []Gone{gone}, nil
}

// owned reports whether a job, a trial or a version names a folder.
func (r *reign) owned(ctx context.Context, prefix string, stale bool) (bool, error) {
	snapshot, err := r.Ledger.Read(ctx, stale)
	if err != nil {
		return true, err
	}
	defer snapshot.Close()
	parts := strings.Split(prefix, "/")
	if parts[0] == "models" {
		for version := range snapshot.VersionsOf(parts[1], 0) {
			if strings.HasSuffix(version.Folder(), "/"+prefix) || strings.HasSuffix(version.Artifact.URI, "/"+strings.TrimSuffix(prefix, "/")) {
				return true, nil
			}
		}
		return false, nil
	}
	return ownedJob(snapshot, parts[1]), nil
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
