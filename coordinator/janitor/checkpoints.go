package janitor

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
)

// Left is what one attempt of a task has left of checkpoints, below ATTEMPT/ROLE-INDEX/ of its job's.
type Left struct {
	Attempt int32
	Role    string
	Index   int32
	// Beyond is set if something is there that the attempt before did not have. An attempt begins with what the one before
	// had, which its agent brings over file by file, the oldest first: with something new, it has all of that.
	Beyond bool
	object.Extent
}

// place is where a task stands in its job, whichever attempt it is of.
type place struct {
	role  string
	index int32
}

func (l Left) place() place { return place{l.Role, l.Index} }

// folder is where that is below the job's folder.
func (l Left) folder() string {
	return fmt.Sprintf("/checkpoints/%d/%s-%d/", l.Attempt, l.Role, l.Index)
}

// SweepCheckpoints says which checkpoints of a job go, the newest first: all but those of the last attempts in which each of
// its tasks left some, and of the last that came beyond what it began with. All that a role had in an attempt whose first
// task's stay does, too: tasks of an elastic role go on from all of it. Into what goes nothing came for an hour, so that
// whoever writes there is a task that was cut off, and has long been replaced.
func SweepCheckpoints(job string, left []Left, most, now int64) []Gone {
	left = slices.Clone(left)
	slices.SortFunc(left, func(a, b Left) int {
		return cmp.Or(-cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Role, b.Role), cmp.Compare(a.Index, b.Index))
	})
	type tally struct {
		attempts int64
		beyond   bool // one of these came beyond what it began with
	}
	type whole struct {
		role    string
		attempt int32
	}
	seen, first := map[place]tally{}, map[whole]bool{}
	var gone []Gone
	for _, l := range left { // of an attempt the first task comes first
		at := seen[l.place()]
		stays := at.attempts < most || l.Beyond && !at.beyond
		seen[l.place()] = tally{at.attempts + 1, at.beyond || l.Beyond}
		of := whole{l.Role, l.Attempt}
		first[of] = first[of] || stays && l.Index == 0
		if stays || first[of] || time.Duration(now-l.Newest.UnixNano()) <= settle {
			continue
		}
		gone = append(gone, Gone{
			Kind: GoneCheckpoints, ID: "s3://" + cluster.SystemBucket + "/jobs/" + job + l.folder(), Objects: l.Objects, Bytes: l.Bytes,
			Why: fmt.Sprintf("%s-%d left some in %d attempts after it, and those of the last %d are kept (retention.checkpoints)", l.Role, l.Index, at.attempts, most),
		})
	}
	return gone
}

// repeated is a job that has begun more than once.
type repeated struct {
	attempt int32
	ended   int64 // when it has, in nanoseconds
	// done is how many attempts' checkpoints were kept when an ended one was looked at: nothing new comes.
	done int64
}

// checkpointsDue is how long it is between looks at the checkpoints of all jobs that begin again: each lists some folders.
const checkpointsDue = 10 * time.Minute

// sweepCheckpoints removes checkpoints that no attempt goes on from any more, or only says which.
func (r *reign) sweepCheckpoints(ctx context.Context, most int64, now time.Time, do bool) (result Result, err error) {
	if most == 0 || do && r.looked == "" && now.Sub(r.pruned) < checkpointsDue {
		return result, nil
	}
	store, err := r.Store()
	if err != nil {
		return result, err
	}
	after, looks := r.looked, 0
	if !do {
		after = "" // what is shown begins with the first
	} else if after == "" {
		r.pruned = now
	}
	for _, job := range slices.Sorted(maps.Keys(r.repeated)) {
		of := r.repeated[job]
		if job <= after || int64(of.attempt) <= most || of.done == most {
			continue
		}
		if looks++; looks > perLook {
			return result, nil // the next round goes on behind the last one
		}
		found, err := r.prune(ctx, store, job, most, perRound-len(result.Gone), now, do)
		result.Gone, result.Kept = append(result.Gone, found.Gone...), append(result.Kept, found.Kept...)
		if result.More = found.More; result.More {
			if do && r.looked == "" {
				r.pruned = time.Time{}
			}
			return result, nil // and with this one
		}
		if do {
			r.looked = job // be it that it failed: it does not keep the others from it
		}
		if err != nil {
			return result, err
		}
		if over := time.Duration(now.UnixNano() - of.ended); do && of.ended != 0 && over > settle+checkpointsDue && len(found.Kept) == 0 {
			of.done = most
			r.repeated[job] = of
		}
	}
	if do {
		r.looked = ""
	}
	return result, nil
}

// prune removes those of one job, so many folders at most.
func (r *reign) prune(ctx context.Context, store Store, job string, most int64, room int, now time.Time, do bool) (result Result, err error) {
	left, err := leftOf(ctx, store, job, most)
	if err != nil {
		return result, err
	}
	doomed := SweepCheckpoints(job, left, most, now.UnixNano())
	if len(doomed) == 0 {
		return result, nil
	}
	snapshot, err := r.Ledger.Read(ctx, false)
	if err != nil {
		return result, err
	}
	_, there := snapshot.Job(job)
	needed := references(snapshot).paths[job]
	_ = snapshot.Close() // it was read whole
	if !there {
		return result, nil // it was deleted just now, with all that it left
	}
	for _, g := range doomed {
		uri, err := object.ParseURI(g.ID)
		if err != nil {
			return result, err
		}
		if who := needed.by(strings.TrimPrefix(uri.Key, "jobs/"+job)); who != "" {
			if g.Why = who; len(result.Kept) < perRound { // as many are told
				result.Kept = append(result.Kept, g)
			}
			continue
		}
		if result.More = len(result.Gone) == room; result.More {
			return result, nil
		}
		if do {
			freed, err := store.DeletePrefix(ctx, uri)
			if err != nil {
				return result, err
			}
			g.Objects, g.Bytes = freed.Objects, freed.Bytes
			r.removed(g)
		}
		result.Gone = append(result.Gone, g)
	}
	return result, nil
}

// mostAttempts is how many attempts of a job are looked at in one look.
const mostAttempts = 1 << 20

// leftOf lists what the attempts of a job have left of checkpoints; nothing if there are no more attempts than are kept.
func leftOf(ctx context.Context, store Store, job string, most int64) ([]Left, error) {
	below := object.URI{Bucket: cluster.SystemBucket, Key: "jobs/" + job + "/checkpoints/"}
	names, err := store.Folders(ctx, below, "", mostAttempts)
	if fault.Is(err, fault.NotFound) {
		return nil, nil // no bucket yet
	}
	if err != nil {
		return nil, err
	}
	var attempts []int32
	for _, name := range names {
		if n, ok := number(name); ok {
			attempts = append(attempts, n)
		}
	}
	if int64(len(attempts)) <= most {
		return nil, nil
	}
	slices.Sort(attempts)
	slices.Reverse(attempts)
	l := listing{later: map[place]task{}}
	for _, attempt := range attempts {
		folder := object.URI{Bucket: below.Bucket, Key: below.Key + strconv.Itoa(int(attempt)) + "/"}
		objects, err := store.List(ctx, folder)
		if err != nil {
			return nil, err
		}
		l.take(attempt, folder.Key, objects)
	}
	for _, t := range l.later {
		l.left[t.at].Beyond = true // before it there was nothing
	}
	return l.left, nil
}

// listing gathers what attempts have left, from the newest on. It holds the files of two attempts at a time.
type listing struct {
	left  []Left
	later map[place]task // what each task left in the attempt after the one that comes
}

// task is what one left in one attempt.
type task struct {
	at    int // in the listing
	files []file
}

// file is one with its content.
type file struct{ name, etag string }

// take adds the next attempt, and says of those after it whether they came beyond it.
func (l *listing) take(attempt int32, folder string, objects []object.Info) {
	here, roles := map[place]task{}, map[string]map[file]bool{}
	for _, o := range objects {
		who, name, _ := strings.Cut(strings.TrimPrefix(o.URI.Key, folder), "/")
		role, index, ok := cutLast(who)
		if !ok || name == "" {
			continue // it is somebody's own
		}
		at := place{role, index}
		t, known := here[at]
		if !known {
			t.at, l.left = len(l.left), append(l.left, Left{Attempt: attempt, Role: role, Index: index})
		}
		l.left[t.at].Extent = l.left[t.at].Add(o.Size, o.Modified)
		f := file{name, o.ETag}
		t.files = append(t.files, f)
		here[at] = t
		if roles[role] == nil {
			roles[role] = map[file]bool{}
		}
		roles[role][f] = true
	}
	for at, t := range here {
		if after, is := l.later[at]; is {
			l.left[after.at].Beyond = slices.ContainsFunc(after.files, func(f file) bool { return !roles[at.role][f] })
		}
		l.later[at] = t
	}
}

// cutLast divides ROLE-INDEX.
func cutLast(task string) (role string, index int32, ok bool) {
	at := strings.LastIndexByte(task, '-')
	if at < 1 {
		return "", 0, false
	}
	index, ok = number(task[at+1:])
	return task[:at], index, ok
}

// number reads one as an agent writes it.
func number(text string) (int32, bool) {
	n, err := strconv.ParseInt(text, 10, 32)
	return int32(n), err == nil && n >= 0 && strconv.FormatInt(n, 10) == text
}
