package rpc

import (
	"container/heap"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// The orders in which trials are listed.
const (
	byNumber = "number"
	byValue  = "value"
	byOrder  = "order"
)

func (s *sweeps) Trials(ctx context.Context, request *claryv1.ListTrialsRequest) (*claryv1.ListTrialsResponse, error) {
	limit := int(request.GetLimit())
	if limit < 0 || limit > maxPage {
		return nil, fault.New(fault.Invalid, "limit: %d is out of range: from 0 (the default, %d) to %d", limit, defaultPage, maxPage)
	}
	if limit == 0 {
		limit = defaultPage
	}
	r, err := s.read(ctx, request.GetSweep(), request.GetStale())
	if err != nil {
		return nil, err
	}
	defer r.snapshot.Close()
	var trials []cluster.Trial
	var next string
	switch by := request.GetBy(); {
	case len(request.GetNumbers()) > 0:
		for _, number := range request.GetNumbers() {
			if trial, exists := r.snapshot.Trial(cluster.TrialID(r.job.Name, number)); exists && wanted(trial, request) {
				trials = append(trials, trial)
			}
		}
	case (by == "" || by == byNumber) && !request.GetReverse():
		trials, next, err = r.walk(request, limit)
	case by == "" || by == byNumber || by == byValue || by == byOrder:
		trials, next, err = r.rank(request, limit)
	default:
		err = fault.New(fault.Invalid, "by: %q: list trials by %s, %s or %s", cluster.Clip(by), byNumber, byValue, byOrder)
	}
	if err != nil {
		return nil, err
	}
	answer := &claryv1.ListTrialsResponse{Next: next}
	for _, trial := range trials {
		answer.Trials = append(answer.Trials, r.trial(trial))
	}
	return answer, nil
}

func wanted(trial cluster.Trial, request *claryv1.ListTrialsRequest) bool {
	return len(request.GetStates()) == 0 || slices.Contains(request.GetStates(), string(trial.State))
}

// walk lists by number.
func (r sweepRead) walk(request *claryv1.ListTrialsRequest, limit int) (trials []cluster.Trial, next string, err error) {
	from := int64(0)
	if after := request.GetAfter(); after != "" {
		if from, err = strconv.ParseInt(after, 10, 64); err != nil || from < 0 {
			return nil, "", fault.New(fault.Invalid, "after: %q is no next of a page by number", cluster.Clip(after))
		}
		from++
	}
	for trial := range r.snapshot.TrialsOf(r.job.Name, from) {
		if !wanted(trial, request) {
			continue
		}
		if len(trials) == limit {
			return trials, strconv.FormatInt(trials[limit-1].Number, 10), nil
		}
		trials = append(trials, trial)
	}
	return trials, "", nil
}

// place is where a trial stands in a list: by its key, then by its number.
type place struct {
	key    float64
	number int64
}

func (p place) before(o place) bool { return p.key < o.key || p.key == o.key && p.number < o.number }

// String is a page's next.
func (p place) String() string {
	return strconv.FormatFloat(p.key, 'g', -1, 64) + ":" + strconv.FormatInt(p.number, 10)
}

func parsePlace(text string) (place, error) {
	key, number, _ := strings.Cut(text, ":")
	k, err1 := strconv.ParseFloat(key, 64)
	n, err2 := strconv.ParseInt(number, 10, 64)
	if err1 != nil || err2 != nil {
		return place{}, fault.New(fault.Invalid, "after: %q is no next of a page in this order", cluster.Clip(text))
	}
	return place{k, n}, nil
}

// placed is a trial with its place.
type placed struct {
	place
	trial cluster.Trial
}

// worst is a heap of trials, the last of them on top.
type worst []placed

func (h worst) Len() int           { return len(h) }
func (h worst) Less(i, j int) bool { return h[j].before(h[i].place) }
func (h worst) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *worst) Push(x any)        { *h = append(*h, x.(placed)) }
func (h *worst) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// rank looks through all trials for the page's: the first of those that come after the page
// before.
func (r sweepRead) rank(request *claryv1.ListTrialsRequest, limit int) (trials []cluster.Trial, next string, err error) {
	var after place
	if request.GetAfter() != "" {
		if after, err = parsePlace(request.GetAfter()); err != nil {
			return nil, "", err
		}
	}
	var page worst
	more := false
	for trial := range r.snapshot.TrialsOf(r.job.Name, 0) {
		at, has := r.placeOf(trial, request)
		if !has || !wanted(trial, request) || request.GetAfter() != "" && !after.before(at) {
			continue
		}
		if len(page) == limit {
			more = true
			if !at.before(page[0].place) {
				continue
			}
			heap.Pop(&page)
		}
		heap.Push(&page, placed{at, trial})
	}
	slices.SortFunc(page, func(a, b placed) int {
		if a.before(b.place) {
			return -1
		}
		return 1
	})
	for _, p := range page {
		trials = append(trials, p.trial)
	}
	if more {
		next = page[len(page)-1].String()
	}
	return trials, next, nil
}

// placeOf is where a trial stands; has is false if it has no place in this order.
func (r sweepRead) placeOf(trial cluster.Trial, request *claryv1.ListTrialsRequest) (at place, has bool) {
	at = place{number: trial.Number}
	switch request.GetBy() {
	case byValue:
		at.key, has = r.show.Merit(trial)
	case byOrder:
		at.key, has = float64(trial.Order), trial.Order > 0
	default:
		at.key, has = float64(trial.Number), true
	}
	if request.GetReverse() {
		at.key = -at.key
	}
	return at, has
}

// watchPause is the least time between two messages of a watch.
const watchPause = 250 * time.Millisecond

// Watch sends the summary now and after changes, with the trials that have ended since.
func (s *sweeps) Watch(request *claryv1.WatchSweepRequest, stream grpc.ServerStreamingServer[claryv1.SweepView]) error {
	ctx, name := stream.Context(), request.GetName()
	events := s.replica.Events().Subscribe(ofSweep(name))
	defer events.Close()
	r, err := s.read(ctx, name, false) // not older than the caller's own submission
	if err != nil {
		return err
	}
	r.snapshot.Close()
	told, ended := request.GetAfter(), map[string]bool{}
	all := told > 0 // what has ended since then is found by looking at all
	for {
		if r, err = s.read(ctx, name, true); err != nil {
			return err
		}
		view := r.view()
		for _, trial := range r.endedSince(told, all, ended) {
			view.Changed = append(view.Changed, r.trial(trial))
		}
		told, all = max(told, r.sweep.Order), false
		clear(ended)
		r.snapshot.Close()
		if err := stream.Send(view); err != nil || r.job.State.Ended() {
			return err
		}
		if all, err = gather(ctx, events, ended); err != nil {
			return err
		}
	}
}

// ofSweep selects the events of a sweep, its trials, and their jobs.
func ofSweep(name string) func(state.Change) bool {
	return func(change state.Change) bool {
		switch change.Kind {
		case state.KindSweep:
			return change.ID == name
		case state.KindJob, state.KindTask:
			return change.ID == name || strings.HasPrefix(change.ID, name+"-t")
		case state.KindTrial:
			return strings.HasPrefix(change.ID, name+"/")
		}
		return false
	}
}

// gather waits for news, and then a moment for more: it notes which trials have changed, or
// says that it cannot know.
func gather(ctx context.Context, events *state.Subscription, changed map[string]bool) (lost bool, err error) {
	var pause <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-pause:
			return lost, nil
		case batch, open := <-events.C:
			if !open {
				return false, fault.New(fault.Unready, "this coordinator is stopping: watch at another")
			}
			lost = lost || batch.Lost
			for _, change := range batch.Changes {
				if change.Kind == state.KindTrial {
					changed[change.ID] = true
				}
			}
			if pause == nil {
				timer := time.NewTimer(watchPause)
				defer timer.Stop()
				pause = timer.C
			}
		}
	}
}

// endedSince are the trials that have ended after an order, of those that changed, or of all.
func (r sweepRead) endedSince(order uint64, all bool, changed map[string]bool) []cluster.Trial {
	var trials []cluster.Trial
	if all {
		for trial := range r.snapshot.TrialsOf(r.job.Name, 0) {
			if trial.Order > order {
				trials = append(trials, trial)
			}
		}
	} else {
		for id := range changed {
			if trial, exists := r.snapshot.Trial(id); exists && trial.Order > order {
				trials = append(trials, trial)
			}
		}
	}
	slices.SortFunc(trials, func(a, b cluster.Trial) int {
		if a.Order < b.Order {
			return -1
		}
		return 1
	})
	return trials
}
