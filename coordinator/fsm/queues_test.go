package fsm_test

import (
	"fmt"
	"slices"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
)

// checkQueues: what a queue is charged is the sum over the unended tasks that were placed for it, jobs are
// counted where they stand, jobs are in queues without others below, and the queues make a tree.
func checkQueues(t *rapid.T, s *state.Snapshot) {
	used := map[string]cluster.Amount{}
	owners, jobs := map[string]cluster.Amount{}, map[string]bool{}
	running := map[string]int32{}
	for task := range s.Tasks() {
		if task.Status.State.Ended() {
			continue
		}
		c := task.Claim
		used[c.Queue] = used[c.Queue].Plus(c.Amount, 1)
		owners[c.Queue+"/"+c.Owner] = owners[c.Queue+"/"+c.Owner].Plus(c.Amount, 1)
		if job := c.Queue + "/" + task.Job; !jobs[job] {
			jobs[job] = true
			running[c.Queue]++
		}
	}
	unended, waiting := map[string]int64{}, map[string]int64{}
	for job := range s.Jobs("") {
		if !job.State.Ended() {
			unended[job.Queue]++
			if !s.TakesJobs(job.Queue) {
				t.Fatalf("job %s is in queue %s, which takes none", job.Name, job.Queue)
			}
		}
		if job.State == cluster.JobQueued {
			waiting[job.Queue]++
		}
	}
	for queue := range s.Queues() {
		usage := s.QueueUsage(queue.Name)
		if fmt.Sprint(usage.Used) != fmt.Sprint(used[queue.Name]) || usage.Running != running[queue.Name] {
			t.Fatalf("queue %s is charged %+v, its tasks hold %+v in %d jobs", queue.Name, usage, used[queue.Name], running[queue.Name])
		}
		for _, o := range usage.Owners {
			if fmt.Sprint(o.Used) != fmt.Sprint(owners[queue.Name+"/"+o.Owner]) {
				t.Fatalf("%s is charged %+v in queue %s, and holds %+v", o.Owner, o.Used, queue.Name, owners[queue.Name+"/"+o.Owner])
			}
		}
		if n, w := s.QueueJobs(queue.Name); n != unended[queue.Name] || w != waiting[queue.Name] {
			t.Fatalf("queue %s counts %d jobs and %d that wait, there are %d and %d", queue.Name, n, w, unended[queue.Name], waiting[queue.Name])
		}
		delete(used, queue.Name)
	}
	if len(used) > 0 {
		t.Fatalf("queues that are not there are charged: %+v", used)
	}
	capacity := cluster.Amount{}
	for node := range s.Nodes() {
		if node.State == cluster.NodeReady {
			capacity = capacity.Plus(node.Amount(), 1)
		} else {
			capacity = capacity.Plus(s.Used(node.ID).Amount(node.Devices), 1)
		}
	}
	if got := s.Capacity(); fmt.Sprint(got) != fmt.Sprint(capacity) {
		t.Fatalf("the capacity is said to be %+v, the nodes have %+v", got, capacity)
	}
	if tree := s.Shares(1 << 40); len(tree.Queues()) != len(slices.Collect(s.Queues())) {
		t.Fatal("the tree lacks queues")
	}
}
