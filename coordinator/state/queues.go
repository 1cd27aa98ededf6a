package state

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/share"
	"github.com/clary-ml/clary/storage/kv"
)

// place is where a job that has not ended stands: its queue, and whether it waits in it.
type place struct {
	queue string
	waits bool
}

// line is how many jobs of a queue have not ended, and how many of these wait.
type line struct{ unended, waiting int64 }

func placeCodec() kv.Codec[place] {
	return kv.Codec[place]{
		Encode: func(p place) ([]byte, error) {
			return append([]byte{map[bool]byte{true: 'w', false: 'r'}[p.waits]}, p.queue...), nil
		},
		Decode: func(raw []byte) (place, error) {
			if len(raw) < 2 {
				return place{}, fmt.Errorf("%d bytes, want at least 2", len(raw))
			}
			return place{string(raw[1:]), raw[0] == 'w'}, nil
		},
	}
}

func lineCodec() kv.Codec[line] {
	return kv.Codec[line]{
		Encode: func(l line) ([]byte, error) {
			return binary.AppendVarint(binary.AppendVarint(nil, l.unended), l.waiting), nil
		},
		Decode: func(raw []byte) (line, error) {
			unended, n := binary.Varint(raw)
			if n <= 0 {
				return line{}, fmt.Errorf("%d bytes are no two numbers", len(raw))
			}
			waiting, m := binary.Varint(raw[n:])
			if m <= 0 {
				return line{}, fmt.Errorf("%d bytes are no two numbers", len(raw))
			}
			return line{unended, waiting}, nil
		},
	}
}

func countCodec() kv.Codec[int64] {
	return kv.Codec[int64]{
		Encode: func(n int64) ([]byte, error) { return binary.AppendVarint(nil, n), nil },
		Decode: func(raw []byte) (int64, error) {
			n, size := binary.Varint(raw)
			if size <= 0 {
				return 0, fmt.Errorf("%d bytes are no number", len(raw))
			}
			return n, nil
		},
	}
}

// QueueUsage returns what a queue itself holds, not what those below it hold.
func (r reader) QueueUsage(queue string) cluster.QueueUsage {
	usage, _ := get(r, r.buckets.usage, queue)
	usage.Queue = queue
	return usage
}

// QueueJobs returns how many jobs of a queue itself have not ended, and how many of these wait.
func (r reader) QueueJobs(queue string) (unended, waiting int64) {
	l, _ := get(r, r.buckets.lines, queue)
	return l.unended, l.waiting
}

// Unended walks the jobs that have not ended, by an index, in the order of their names.
func (r reader) Unended() iter.Seq[cluster.Job] {
	return func(yield func(cluster.Job) bool) {
		for entry, err := range r.buckets.line.Range(r.from, "") {
			if err != nil {
				panic(fmt.Sprintf("state: stored bytes cannot be read: %v", err))
			}
			if job, ok := r.Job(entry.Key); ok && !yield(job) {
				return
			}
		}
	}
}

// QueuesBelow walks the queues right below one, by an index, in the order of their names; those below
// the root for "".
func (r reader) QueuesBelow(parent string) iter.Seq[cluster.Queue] {
	prefix := parent + "/"
	return indexed(r, r.buckets.below, prefix, func(key string) (cluster.Queue, bool) { return r.Queue(key[len(prefix):]) })
}

// Holds reports whether tasks of a job are charged to a queue.
func (r reader) Holds(queue, job string) bool {
	n, _ := get(r, r.buckets.holds, queue+"/"+job)
	return n > 0
}

// Capacity is what there is to be divided: all that the nodes have that are ready, and of the others
// what is still in use.
func (r reader) Capacity() cluster.Amount {
	capacity, _ := get(r, r.buckets.capacity, positionKey)
	for node := range indexed(r, r.buckets.unready, "", r.Node) {
		capacity = capacity.Plus(r.Used(node.ID).Amount(node.Devices), 1)
	}
	return capacity
}

// Shares makes a tree of all queues with what they hold at an instant, for a state that the commands
// keep sound. Its cost is that of the queues, and of the nodes that are not ready.
func (r reader) Shares(now int64) *share.Tree {
	tree := share.New()
	tree.SetCapacity(r.Capacity())
	tree.Advance(now)
	if err := tree.Set(slices.Collect(r.Queues())); err != nil {
		panic(fmt.Sprintf("state: the stored queues make no tree: %v", err))
	}
	for usage := range all(r, r.buckets.usage, "", "") {
		if err := tree.SetUsage(usage.Queue, share.UsageOf(usage)); err != nil {
			panic(fmt.Sprintf("state: the stored usage belongs to no queue: %v", err))
		}
	}
	return tree
}

// QueueUsage returns what a queue itself holds, this command's own changes included.
func (tx *Tx) QueueUsage(queue string) cluster.QueueUsage {
	if usage := tx.queued[queue]; usage != nil {
		return *usage
	}
	return tx.reader.QueueUsage(queue)
}

// line notes where a job stands in its queue.
func (tx *Tx) line(job cluster.Job) {
	if job.State.Ended() || job.Queue == "" {
		tx.unline(job)
		return
	}
	now := place{job.Queue, job.State == cluster.JobQueued}
	old, stood := get(tx.reader, tx.buckets.line, job.Name)
	if stood && old == now {
		return
	}
	if stood {
		tx.count(old, job.Owner, -1)
	}
	tx.count(now, job.Owner, 1)
	tx.keep(tx.buckets.line.Put(tx.kv, job.Name, now))
}

func (tx *Tx) unline(job cluster.Job) {
	if old, stood := get(tx.reader, tx.buckets.line, job.Name); stood {
		tx.count(old, job.Owner, -1)
		tx.buckets.line.Delete(tx.kv, job.Name)
	}
}

func (tx *Tx) count(p place, owner string, by int64) {
	tx.countIn(tx.buckets.lines, p.queue, p, by)
	tx.countIn(tx.buckets.crowd, crowdAll, p, by)
	tx.countIn(tx.buckets.crowd, crowdOf+owner, p, by)
}

func (tx *Tx) countIn(bucket kv.Bucket[line], key string, p place, by int64) {
	l, _ := get(tx.reader, bucket, key)
	l.unended += by
	if p.waits {
		l.waiting += by
	}
	if l == (line{}) {
		bucket.Delete(tx.kv, key)
		return
	}
	tx.keep(bucket.Put(tx.kv, key, l))
}

// The rows of the crowd: of all owners together, and of each.
const (
	crowdAll = "all"
	crowdOf  = "of/"
)

// Crowd returns how many jobs of an owner have not ended, and how many of these wait; of all owners for "".
func (r reader) Crowd(owner string) (unended, waiting int64) {
	key := crowdAll
	if owner != "" {
		key = crowdOf + owner
	}
	l, _ := get(r, r.buckets.crowd, key)
	return l.unended, l.waiting
}

// recount makes the crowd anew of the jobs that have not ended: a version that knows no crowd may have written the backup, or the
// entries before it.
func (s *Store) recount() error {
	return s.db.Update(func(over *kv.Tx) error {
		tx := &Tx{kv: over, reader: reader{over, s.buckets}}
		crowd := map[string]line{}
		for entry, err := range s.buckets.crowd.Range(over, "") {
			if err != nil {
				return err
			}
			crowd[entry.Key] = line{}
		}
		for job := range tx.Unended() {
			for _, key := range []string{crowdAll, crowdOf + job.Owner} {
				l := crowd[key]
				if l.unended++; job.State == cluster.JobQueued {
					l.waiting++
				}
				crowd[key] = l
			}
		}
		for key, l := range crowd { // in any order: each has its own row
			if l == (line{}) {
				s.buckets.crowd.Delete(over, key)
				continue
			}
			tx.keep(s.buckets.crowd.Put(over, key, l))
		}
		return tx.err
	})
}

// keep remembers the first write that was not possible.
func (tx *Tx) keep(err error) {
	if err != nil && tx.err == nil {
		tx.err = err
	}
}

// charge adds a task's claim to its queue, or takes it away. What was held until now goes into the
// queue's history before.
func (tx *Tx) charge(task cluster.Task, sign int64) {
	claim := task.Claim
	if claim.Queue == "" {
		return
	}
	usage := tx.queued[claim.Queue]
	if usage == nil {
		stored := tx.reader.QueueUsage(claim.Queue)
		history := share.History{Mean: stored.Mean, At: stored.At}.Later(stored.Used, tx.now, tx.halfLife(claim.Queue))
		stored.Mean, stored.At = history.Mean, history.At
		usage = &stored
		if tx.queued == nil {
			tx.queued = map[string]*cluster.QueueUsage{}
		}
		tx.queued[claim.Queue] = usage
	}
	key := claim.Queue + "/" + task.Job
	before, _ := get(tx.reader, tx.buckets.holds, key)
	after := before + sign
	jobs := int32(0)
	if before == 0 || after == 0 {
		jobs = int32(sign)
	}
	if after < 0 {
		panic(fmt.Sprintf("state: job %s has less than nothing of queue %s after %s ended", task.Job, claim.Queue, task.ID))
	}
	if after == 0 {
		tx.buckets.holds.Delete(tx.kv, key)
	} else {
		tx.keep(tx.buckets.holds.Put(tx.kv, key, after))
	}
	usage.Used = usage.Used.Plus(claim.Amount, sign)
	if claim.Firm {
		usage.Firm = usage.Firm.Plus(claim.Amount, sign)
	}
	usage.Running += jobs
	at, known := slices.BinarySearchFunc(usage.Owners, claim.Owner, func(o cluster.OwnerUsage, name string) int { return cmp.Compare(o.Owner, name) })
	if !known {
		usage.Owners = slices.Insert(usage.Owners, at, cluster.OwnerUsage{Owner: claim.Owner})
	}
	owner := &usage.Owners[at]
	owner.Used = owner.Used.Plus(claim.Amount, sign)
	owner.Running += jobs
	if owner.Running == 0 && owner.Used.IsZero() {
		usage.Owners = slices.Delete(usage.Owners, at, at+1)
	}
	if usage.Used.MilliCPU < 0 || usage.Used.Memory < 0 || usage.Used.MilliGPU < 0 {
		panic(fmt.Sprintf("state: queue %s has less than nothing in use after %s ended", claim.Queue, task.ID))
	}
}

// halfLife is that of the queue below the root that a queue is under.
func (tx *Tx) halfLife(name string) time.Duration {
	queue, _ := tx.Queue(name)
	for queue.Parent != "" {
		queue, _ = tx.Queue(queue.Parent)
	}
	return queue.HalfLife
}

// offer notes what a node adds to what can be divided, in place of what it added before.
func (tx *Tx) offer(old cluster.Node, existed bool, now cluster.Node, exists bool) {
	if tx.capacity == nil {
		stored, _ := get(tx.reader, tx.buckets.capacity, positionKey)
		tx.capacity = &stored
	}
	if existed && old.State == cluster.NodeReady {
		*tx.capacity = tx.capacity.Plus(old.Amount(), -1)
	}
	if exists && now.State == cluster.NodeReady {
		*tx.capacity = tx.capacity.Plus(now.Amount(), 1)
	}
	id := cmp.Or(now.ID, old.ID)
	tx.mark(tx.buckets.unready, id, exists && now.State != cluster.NodeReady)
}

// hasBelow reports whether a queue has others below it.
func (r reader) hasBelow(queue string) bool {
	for range r.QueuesBelow(queue) {
		return true
	}
	return false
}

// Leaves are the names of queues that take jobs: those without others below them. At most so many.
func (r reader) Leaves(most int) []string {
	var names []string
	for queue := range r.Queues() {
		if len(names) == most {
			break
		}
		if !r.hasBelow(queue.Name) {
			names = append(names, queue.Name)
		}
	}
	return names
}

// TakesJobs reports whether there is such a queue and none is below it.
func (r reader) TakesJobs(queue string) bool {
	_, exists := r.Queue(queue)
	return exists && !r.hasBelow(queue)
}
