package reconciler

import "container/heap"

// timers say when to look at a job again even if nothing happens. The zero value has
// none. A heap of alarms may hold some that were changed since: they count for nothing.
type timers struct {
	at    map[string]int64
	queue alarms
}

type alarm struct {
	at  int64
	job string
}

// set replaces the job's time; 0 is none.
func (t *timers) set(job string, at int64) {
	switch {
	case t.at[job] == at:
		return
	case at == 0:
		delete(t.at, job)
		return
	case t.at == nil:
		t.at = map[string]int64{}
	}
	t.at[job] = at
	heap.Push(&t.queue, alarm{at, job})
}

// next is the earliest time.
func (t *timers) next() (at int64, any bool) {
	for len(t.queue) > 0 {
		first := t.queue[0]
		if t.at[first.job] == first.at {
			return first.at, true
		}
		heap.Pop(&t.queue)
	}
	return 0, false
}

// due takes out the jobs whose time has come.
func (t *timers) due(now int64) []string {
	var jobs []string
	for {
		at, any := t.next()
		if !any || at > now {
			return jobs
		}
		first := heap.Pop(&t.queue).(alarm)
		delete(t.at, first.job)
		jobs = append(jobs, first.job)
	}
}

// alarms is a heap, the earliest first.
type alarms []alarm

func (a alarms) Len() int           { return len(a) }
func (a alarms) Less(i, j int) bool { return a[i].at < a[j].at }
func (a alarms) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *alarms) Push(x any)        { *a = append(*a, x.(alarm)) }
func (a *alarms) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}
