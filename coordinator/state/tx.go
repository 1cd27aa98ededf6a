package state

import (
	"fmt"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/storage/kv"
)

// Writer runs the commands of one batch, one after the other.
type Writer struct {
	batch   *kv.Batch
	buckets *buckets
	at      position
	changes []Change
}

// SetIndex says that every entry of the raft log up to index is in this batch or an
// earlier one.
func (w *Writer) SetIndex(index uint64) { w.at.index = max(w.at.index, index) }

// Do runs one command and returns the revision after it. An error of fn, or a write that
// is not possible, refuses the command: nothing of it stays, and the error is returned
// as it is. A command that wrote nothing takes no revision of its own.
func (w *Writer) Do(fn func(*Tx) error) (uint64, error) {
	tx := &Tx{revision: w.at.revision + 1}
	err := w.batch.Do(func(over *kv.Tx) error {
		tx.kv, tx.reader = over, reader{over, w.buckets}
		if err := fn(tx); err != nil {
			return err
		}
		return tx.finish()
	})
	if err != nil {
		return 0, err
	}
	if len(tx.changes) > 0 {
		w.at.revision = tx.revision
		w.changes = append(w.changes, tx.changes...)
	}
	return w.at.revision, nil
}

// Tx is one command's view of the state: it reads its own writes over those of the
// commands before it. A write that cannot be done (text that is not UTF-8, a value that
// is too large) refuses the command when it ends.
type Tx struct {
	reader
	kv       *kv.Tx
	revision uint64
	changes  []Change
	now      int64
	used     map[string]cluster.Resources   // nodes whose usage this command changed
	queued   map[string]*cluster.QueueUsage // queues whose usage this command changed
	capacity *cluster.Amount                // of the nodes that are ready, if this command changed it
	err      error
}

// Clock says at which instant the command is applied: the leader's, the same on every replica.
func (tx *Tx) Clock(now int64) { tx.now = now }

// Revision is what the command's nouns get.
func (tx *Tx) Revision() uint64 { return tx.revision }

// HasJob reports whether there is such a job, without reading it.
func (tx *Tx) HasJob(name string) bool { return tx.buckets.jobs.Has(tx.kv, name) }

// HasSweep reports whether there is such a sweep, without reading it.
func (tx *Tx) HasSweep(job string) bool { return tx.buckets.sweeps.Has(tx.kv, job) }

// HasQueue reports whether there is such a queue, without reading it.
func (tx *Tx) HasQueue(name string) bool { return tx.buckets.queues.Has(tx.kv, name) }

// HasTask reports whether there is such a task, without reading it.
func (tx *Tx) HasTask(id string) bool { return tx.buckets.tasks.Has(tx.kv, id) }

// PutJob writes a job, new or not, at the command's revision.
func (tx *Tx) PutJob(job cluster.Job) {
	job.Revision = tx.revision
	put(tx, tx.buckets.jobs, KindJob, job.Name, job)
	tx.line(job)
	if job.Parent != "" {
		tx.mark(tx.buckets.children, job.Parent+"/"+job.Name, true)
	}
	for _, pin := range job.Models {
		tx.use(pin.ID(), UseJob, job.Name, !job.State.Ended())
	}
}

// mark puts a key into an index, or takes it out.
func (tx *Tx) mark(index kv.Bucket[struct{}], key string, in bool) {
	switch was := index.Has(tx.kv, key); {
	case in && !was:
		if err := index.Put(tx.kv, key, struct{}{}); err != nil && tx.err == nil {
			tx.err = err
		}
	case was && !in:
		index.Delete(tx.kv, key)
	}
}

// PutSweep writes what changes of a tuning job.
func (tx *Tx) PutSweep(sweep cluster.Sweep) {
	sweep.Revision = tx.revision
	put(tx, tx.buckets.sweeps, KindSweep, sweep.Job, sweep)
}

// PutTrial writes a trial.
func (tx *Tx) PutTrial(trial cluster.Trial) {
	trial.Revision = tx.revision
	put(tx, tx.buckets.trials, KindTrial, trial.ID(), trial)
	tx.mark(tx.buckets.live, trial.ID(), !trial.State.Ended())
}

// DeleteSweep deletes what changes of a tuning job. It leaves its trials to the caller.
func (tx *Tx) DeleteSweep(job string) { remove(tx, tx.buckets.sweeps, KindSweep, job) }

// DeleteTrial deletes a trial.
func (tx *Tx) DeleteTrial(id string) {
	remove(tx, tx.buckets.trials, KindTrial, id)
	tx.mark(tx.buckets.live, id, false)
}

// PutEndpoint writes what changes of an endpoint. Its fleets use the versions that they serve.
func (tx *Tx) PutEndpoint(endpoint cluster.Endpoint) {
	endpoint.Revision = tx.revision
	old, _ := tx.Endpoint(endpoint.Job)
	tx.useFleets(old, false)
	tx.useFleets(endpoint, true)
	put(tx, tx.buckets.endpoints, KindEndpoint, endpoint.Job, endpoint)
}

// DeleteEndpoint deletes what changes of an endpoint, if there is such.
func (tx *Tx) DeleteEndpoint(job string) {
	old, ok := tx.Endpoint(job)
	if !ok {
		return
	}
	tx.useFleets(old, false)
	remove(tx, tx.buckets.endpoints, KindEndpoint, job)
}

func (tx *Tx) useFleets(endpoint cluster.Endpoint, in bool) {
	for _, fleet := range endpoint.Fleets {
		for _, pin := range fleet.Models {
			tx.use(pin.ID(), UseEndpoint, endpoint.Job+"/"+fleet.ID(), in)
		}
	}
	if len(endpoint.Fleets) == 0 {
		return // it has ended: nothing rolls back
	}
	for _, pin := range endpoint.PreviousModels {
		tx.use(pin.ID(), UseEndpoint, endpoint.Job+"/previous", in)
	}
}

// PutGang writes a gang.
func (tx *Tx) PutGang(gang cluster.Gang) {
	gang.Revision = tx.revision
	put(tx, tx.buckets.gangs, KindGang, gang.ID(), gang)
}

// PutNode writes a node.
func (tx *Tx) PutNode(node cluster.Node) {
	node.Revision = tx.revision
	old, existed := tx.Node(node.ID)
	tx.offer(old, existed, node, true)
	put(tx, tx.buckets.nodes, KindNode, node.ID, node)
}

// PutQueue writes a queue.
func (tx *Tx) PutQueue(queue cluster.Queue) {
	queue.Revision = tx.revision
	if old, existed := tx.Queue(queue.Name); existed {
		tx.mark(tx.buckets.below, old.Parent+"/"+old.Name, false)
	}
	tx.mark(tx.buckets.below, queue.Parent+"/"+queue.Name, true)
	put(tx, tx.buckets.queues, KindQueue, queue.Name, queue)
}

// PutToken writes a token.
func (tx *Tx) PutToken(token cluster.Token) {
	token.Revision = tx.revision
	put(tx, tx.buckets.tokens, KindToken, token.ID, token)
}

// PutSecret writes a secret.
func (tx *Tx) PutSecret(secret cluster.Secret) {
	secret.Revision = tx.revision
	put(tx, tx.buckets.secrets, KindSecret, secret.ID(), secret)
}

// DeleteSecret deletes a secret.
func (tx *Tx) DeleteSecret(id string) { remove(tx, tx.buckets.secrets, KindSecret, id) }

// PutTrust writes what is agreed on of keys.
func (tx *Tx) PutTrust(trust cluster.Trust) {
	trust.Revision = tx.revision
	put(tx, tx.buckets.trust, KindTrust, positionKey, trust)
}

// PutDeed writes a deed.
func (tx *Tx) PutDeed(deed cluster.Deed) {
	deed.Revision = tx.revision
	if _, existed := tx.Deed(deed.ID); !existed {
		tx.countDeeds(tx.DeedCount() + 1)
	}
	put(tx, tx.buckets.deeds, KindDeed, deed.ID, deed)
}

// DeleteDeed deletes a deed that there is.
func (tx *Tx) DeleteDeed(id string) {
	tx.countDeeds(tx.DeedCount() - 1)
	remove(tx, tx.buckets.deeds, KindDeed, id)
}

func (tx *Tx) countDeeds(n int64) {
	if err := tx.buckets.deedCount.Put(tx.kv, positionKey, n); err != nil && tx.err == nil {
		tx.err = err
	}
}

// PutArchived writes what stays of an archived job.
func (tx *Tx) PutArchived(row cluster.Archived) {
	row.Revision = tx.revision
	put(tx, tx.buckets.archived, KindArchived, row.Name, row)
}

// DeleteArchived deletes what stays of an archived job.
func (tx *Tx) DeleteArchived(name string) { remove(tx, tx.buckets.archived, KindArchived, name) }

// PutSettings writes the cluster's settings.
func (tx *Tx) PutSettings(settings cluster.Settings) {
	settings.Revision = tx.revision
	put(tx, tx.buckets.settings, KindSettings, cluster.SettingsID, settings)
}

// PutPublication writes a publication.
func (tx *Tx) PutPublication(publication cluster.Publication) {
	publication.Revision = tx.revision
	put(tx, tx.buckets.publications, KindPublication, publication.Job, publication)
}

// PutTask writes a task, and keeps its node's usage: a new task takes its allocation, an
// ending one gives it back.
func (tx *Tx) PutTask(task cluster.Task) {
	task.Revision = tx.revision
	old, existed := tx.Task(task.ID)
	held := existed && !old.Status.State.Ended()
	holds := !task.Status.State.Ended()
	switch {
	case holds && !held:
		tx.take(task)
		tx.charge(task, 1)
	case held && !holds:
		tx.free(old)
		tx.charge(old, -1)
	}
	put(tx, tx.buckets.tasks, KindTask, task.ID, task)
	tx.where(task)
}

// where says of the newest change, a task's, whom it concerns.
func (tx *Tx) where(task cluster.Task) {
	change := &tx.changes[len(tx.changes)-1]
	change.Node, change.Ended = task.Allocation.Node, task.Status.State.Ended()
}

// PutFormat says which commands and nouns may be in the log from now on.
func (tx *Tx) PutFormat(format int) {
	put(tx, tx.buckets.format, KindFormat, formatKey, int64(format))
}

// DeleteJob deletes a job. It leaves its gangs, tasks and publication to the caller.
func (tx *Tx) DeleteJob(name string) {
	job, ok := tx.Job(name)
	if ok && job.Parent != "" {
		tx.mark(tx.buckets.children, job.Parent+"/"+name, false)
	}
	for _, pin := range job.Models {
		tx.use(pin.ID(), UseJob, name, false)
	}
	if ok {
		tx.unline(job)
	}
	remove(tx, tx.buckets.jobs, KindJob, name)
}

// DeleteGang deletes a gang. It leaves its tasks to the caller.
func (tx *Tx) DeleteGang(id string) { remove(tx, tx.buckets.gangs, KindGang, id) }

// DeleteNode deletes a node.
func (tx *Tx) DeleteNode(id string) {
	old, existed := tx.Node(id)
	tx.offer(old, existed, cluster.Node{}, false)
	remove(tx, tx.buckets.nodes, KindNode, id)
	tx.buckets.used.Delete(tx.kv, id)
}

// DeleteQueue deletes a queue.
func (tx *Tx) DeleteQueue(name string) {
	if old, existed := tx.Queue(name); existed {
		tx.mark(tx.buckets.below, old.Parent+"/"+name, false)
	}
	remove(tx, tx.buckets.queues, KindQueue, name)
	tx.buckets.usage.Delete(tx.kv, name)
	tx.buckets.lines.Delete(tx.kv, name)
	delete(tx.queued, name)
}

// DeleteToken deletes a token.
func (tx *Tx) DeleteToken(id string) { remove(tx, tx.buckets.tokens, KindToken, id) }

// DeletePublication deletes a job's publication, if there is one.
func (tx *Tx) DeletePublication(job string) {
	if _, ok := tx.Publication(job); ok {
		remove(tx, tx.buckets.publications, KindPublication, job)
	}
}

// DeleteTask deletes a task that has ended. Deleting one that has not is a defect of
// the caller, and panics.
func (tx *Tx) DeleteTask(id string) {
	task, ok := tx.Task(id)
	if ok && !task.Status.State.Ended() {
		panic(fmt.Sprintf("state: task %s is %s and cannot be deleted", id, task.Status.State))
	}
	remove(tx, tx.buckets.tasks, KindTask, id)
	tx.where(task)
}

func put[V any](tx *Tx, bucket kv.Bucket[V], kind Kind, id string, v V) {
	if err := bucket.Put(tx.kv, id, v); err != nil && tx.err == nil {
		tx.err = err
	}
	tx.changes = append(tx.changes, Change{Kind: kind, ID: id, Revision: tx.revision})
}

func remove[V any](tx *Tx, bucket kv.Bucket[V], kind Kind, id string) {
	bucket.Delete(tx.kv, id)
	tx.changes = append(tx.changes, Change{Kind: kind, ID: id, Revision: tx.revision, Deleted: true})
}

// finish writes the usage that the command changed, once for each node and queue.
func (tx *Tx) finish() error {
	for node, used := range tx.used { // in any order: each node has its own row
		if err := tx.buckets.used.Put(tx.kv, node, used); err != nil {
			return err
		}
	}
	for queue, usage := range tx.queued { // likewise
		usage.Revision = tx.revision
		if err := tx.buckets.usage.Put(tx.kv, queue, *usage); err != nil {
			return err
		}
	}
	if tx.capacity != nil {
		if err := tx.buckets.capacity.Put(tx.kv, positionKey, *tx.capacity); err != nil {
			return err
		}
	}
	return tx.err
}
