package state

import (
	"fmt"
	"iter"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/storage/kv"
)

// reader is what a Snapshot and a Tx can both be asked. Stored bytes that cannot be
// decoded are a broken invariant, so reading them panics.
type reader struct {
	from    kv.Reader
	buckets *buckets
}

func get[V any](r reader, bucket kv.Bucket[V], key string) (V, bool) {
	v, ok, err := bucket.Get(r.from, key)
	if err != nil {
		panic(fmt.Sprintf("state: stored bytes cannot be read: %v", err))
	}
	return v, ok
}

func all[V any](r reader, bucket kv.Bucket[V], prefix, from string) iter.Seq[V] {
	return func(yield func(V) bool) {
		for entry, err := range bucket.RangeFrom(r.from, prefix, from) {
			if err != nil {
				panic(fmt.Sprintf("state: stored bytes cannot be read: %v", err))
			}
			if !yield(entry.Value) {
				return
			}
		}
	}
}

// Format is which commands and nouns may be in the log: see command.Format.
func (r reader) Format() int {
	format, _ := get(r, r.buckets.format, formatKey)
	return int(format)
}

// Job returns the named job.
func (r reader) Job(name string) (cluster.Job, bool) { return get(r, r.buckets.jobs, name) }

// Gang returns a gang by its ID, "job/gang".
func (r reader) Gang(id string) (cluster.Gang, bool) { return get(r, r.buckets.gangs, id) }

// Task returns a task by its ID, "job/gang/role-index.attempt".
func (r reader) Task(id string) (cluster.Task, bool) { return get(r, r.buckets.tasks, id) }

// Node returns a node by its ID.
func (r reader) Node(id string) (cluster.Node, bool) { return get(r, r.buckets.nodes, id) }

// Queue returns the named queue.
func (r reader) Queue(name string) (cluster.Queue, bool) { return get(r, r.buckets.queues, name) }

// Token returns a token by its ID.
func (r reader) Token(id string) (cluster.Token, bool) { return get(r, r.buckets.tokens, id) }

// Publication returns the published outputs of a job.
func (r reader) Publication(job string) (cluster.Publication, bool) {
	return get(r, r.buckets.publications, job)
}

// Used returns what the unended tasks of a node hold of it together.
func (r reader) Used(node string) cluster.Resources {
	used, _ := get(r, r.buckets.used, node)
	return used
}

// Jobs walks the jobs in the order of their names, those up to and with the name after
// left out. Its cost is that of the jobs it shows.
func (r reader) Jobs(after string) iter.Seq[cluster.Job] {
	from := after
	if after != "" {
		from += "\x00" // the next possible key
	}
	return all(r, r.buckets.jobs, "", from)
}

// Archived returns what stays of an archived job.
func (r reader) Archived(name string) (cluster.Archived, bool) {
	return get(r, r.buckets.archived, name)
}

// ArchivedJobs walks what stays of archived jobs in the order of their names, those up to and with the name after left out.
func (r reader) ArchivedJobs(after string) iter.Seq[cluster.Archived] {
	from := after
	if after != "" {
		from += "\x00" // the next possible key
	}
	return all(r, r.buckets.archived, "", from)
}

// ChildrenOf walks the jobs that a job made, by an index, in the order of their names.
func (r reader) ChildrenOf(parent string) iter.Seq[cluster.Job] {
	prefix := parent + "/"
	return indexed(r, r.buckets.children, prefix, func(key string) (cluster.Job, bool) { return r.Job(key[len(prefix):]) })
}

// indexed walks the nouns that an index names.
func indexed[V any](r reader, index kv.Bucket[struct{}], prefix string, read func(key string) (V, bool)) iter.Seq[V] {
	return func(yield func(V) bool) {
		for entry, err := range index.Range(r.from, prefix) {
			if err != nil {
				panic(fmt.Sprintf("state: stored bytes cannot be read: %v", err))
			}
			noun, ok := read(entry.Key)
			if !ok {
				panic(fmt.Sprintf("state: the index names %q, which does not exist", entry.Key))
			}
			if !yield(noun) {
				return
			}
		}
	}
}

// Sweep returns what changes of a tuning job.
func (r reader) Sweep(job string) (cluster.Sweep, bool) { return get(r, r.buckets.sweeps, job) }

// Endpoint returns what changes of an endpoint, by its job.
func (r reader) Endpoint(job string) (cluster.Endpoint, bool) {
	return get(r, r.buckets.endpoints, job)
}

// Endpoints walks what changes of all endpoints, in the order of their names.
func (r reader) Endpoints() iter.Seq[cluster.Endpoint] { return all(r, r.buckets.endpoints, "", "") }

// Trial returns a trial by its ID, "sweep/000000012".
func (r reader) Trial(id string) (cluster.Trial, bool) { return get(r, r.buckets.trials, id) }

// TrialsOf walks the trials of a sweep from a number on.
func (r reader) TrialsOf(sweep string, from int64) iter.Seq[cluster.Trial] {
	return all(r, r.buckets.trials, sweep+"/", cluster.TrialID(sweep, from))
}

// LiveTrialsOf walks the trials of a sweep that have not ended, by an index.
func (r reader) LiveTrialsOf(sweep string) iter.Seq[cluster.Trial] {
	return indexed(r, r.buckets.live, sweep+"/", r.Trial)
}

// Gangs walks all gangs in the order of their IDs.
func (r reader) Gangs() iter.Seq[cluster.Gang] { return all(r, r.buckets.gangs, "", "") }

// GangsOf walks the gangs of a job.
func (r reader) GangsOf(job string) iter.Seq[cluster.Gang] {
	return all(r, r.buckets.gangs, job+"/", "")
}

// Tasks walks all tasks in the order of their IDs.
func (r reader) Tasks() iter.Seq[cluster.Task] { return all(r, r.buckets.tasks, "", "") }

// TasksOf walks the tasks of a job: of all its gangs, and of the attempts that are kept.
func (r reader) TasksOf(job string) iter.Seq[cluster.Task] {
	return all(r, r.buckets.tasks, job+"/", "")
}

// TasksOfGang walks the tasks of a gang, given by its ID, of all attempts that are kept.
func (r reader) TasksOfGang(gang string) iter.Seq[cluster.Task] {
	return all(r, r.buckets.tasks, gang+"/", "")
}

// TasksOn walks the tasks that a node has and that have not ended, by an index.
func (r reader) TasksOn(node string) iter.Seq[cluster.Task] {
	prefix := node + "/"
	return indexed(r, r.buckets.placed, prefix, func(key string) (cluster.Task, bool) { return r.Task(key[len(prefix):]) })
}

// Nodes walks all nodes in the order of their IDs.
func (r reader) Nodes() iter.Seq[cluster.Node] { return all(r, r.buckets.nodes, "", "") }

// Queues walks all queues in the order of their names.
func (r reader) Queues() iter.Seq[cluster.Queue] { return all(r, r.buckets.queues, "", "") }

// Secret returns a secret by its ID, "queue/name".
func (r reader) Secret(id string) (cluster.Secret, bool) { return get(r, r.buckets.secrets, id) }

// SecretsOf walks a queue's secrets in the order of their names; of all queues if it is "".
func (r reader) SecretsOf(queue string) iter.Seq[cluster.Secret] {
	if queue != "" {
		queue += "/"
	}
	return all(r, r.buckets.secrets, queue, "")
}

// Trust is what is agreed on of keys; the zero value if nothing was ever changed.
func (r reader) Trust() cluster.Trust {
	trust, _ := get(r, r.buckets.trust, positionKey)
	return trust
}

// Deed returns a deed by its ID.
func (r reader) Deed(id string) (cluster.Deed, bool) { return get(r, r.buckets.deeds, id) }

// DeedCount is how many deeds there are. They are counted with every change; a snapshot of before that has them
// walked once.
func (r reader) DeedCount() int64 {
	if n, known := get(r, r.buckets.deedCount, positionKey); known {
		return n
	}
	n := int64(0)
	for range r.Deeds("") {
		n++
	}
	return n
}

// Deeds walks all deeds from an ID on, in the order of time.
func (r reader) Deeds(from string) iter.Seq[cluster.Deed] { return all(r, r.buckets.deeds, "", from) }

// Settings returns the cluster's settings: the defaults, at revision 0, if nobody has set any.
func (r reader) Settings() cluster.Settings {
	settings, ok := get(r, r.buckets.settings, cluster.SettingsID)
	if !ok {
		return cluster.DefaultSettings()
	}
	return settings
}

// Tokens walks all tokens in the order of their IDs.
func (r reader) Tokens() iter.Seq[cluster.Token] { return all(r, r.buckets.tokens, "", "") }
