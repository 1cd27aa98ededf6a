// Package ledger is what an agent has promised to run and how far each task came,
// in a file of its own that survives kill -9 of the agent.
package ledger

import (
	"encoding/json"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/kv"
)

// Assignment is a task with all that is needed to run it.
type Assignment struct {
	Task        cluster.Task
	Program     cluster.Program
	Hosts       map[string][]string // by role: host:port of each index's first port, or the host alone
	MaxRuntime  time.Duration       // 0 is no limit
	RestoreFrom string              // s3:// prefix of earlier attempts' checkpoints, or ""
	Elastic     bool                // its role may have had other numbers of tasks in earlier attempts
	Queue       string              // of its job
	Hold        bool                // it may get ready, and starts when this is false
	Stop        bool                // it is to end
	StopReason  string
}

// Entry is one promise.
type Entry struct {
	Assignment Assignment
	Status     cluster.TaskStatus
	Archived   bool // all that it wrote is in the object store, and no longer here
}

// Ledger is the open file.
type Ledger struct{ db *kv.DB }

var tasks = kv.Bucket[Entry]{Name: "tasks", Codec: kv.Codec[Entry]{
	Encode: func(e Entry) ([]byte, error) { return json.Marshal(e) },
	Decode: func(text []byte) (e Entry, err error) { return e, json.Unmarshal(text, &e) },
}}

// users are the numbers given to queues, by the queue's name.
var users = kv.Bucket[uint32]{Name: "users", Codec: kv.Codec[uint32]{
	Encode: func(uid uint32) ([]byte, error) { return json.Marshal(uid) },
	Decode: func(text []byte) (uid uint32, err error) { return uid, json.Unmarshal(text, &uid) },
}}

// User returns the number of a queue's user, from first to last: a free one at its first
// use, the same ever after. Unready says that none is left.
func (l *Ledger) User(queue string, first, last uint32) (uid uint32, err error) {
	err = l.db.Update(func(tx *kv.Tx) error {
		known, ok, err := users.Get(tx, queue)
		if err != nil {
			return err
		}
		if ok && known >= first && known <= last {
			uid = known
			return nil
		}
		taken := map[uint32]bool{}
		for entry, err := range users.Range(tx, "") {
			if err != nil {
				return err
			}
			taken[entry.Value] = true
		}
		for uid = first; taken[uid]; uid++ {
			if uid == last {
				return fault.New(fault.Unready, "all user numbers from %d to %d belong to queues: give the agent a larger range with --task-uids", first, last)
			}
		}
		return users.Put(tx, queue, uid)
	})
	return uid, err
}

// Open opens the file, and makes it if there is none.
func Open(path string) (*Ledger, error) {
	db, err := kv.Open(path, kv.Options{})
	if err != nil {
		return nil, fault.New(fault.Internal, "open the agent's ledger: %w", err)
	}
	return &Ledger{db: db}, nil
}

// Close closes the file.
func (l *Ledger) Close() error { return l.db.Close() }

// Put writes entries, all or none; they are on disk when it returns.
func (l *Ledger) Put(entries ...Entry) error {
	err := l.db.Update(func(tx *kv.Tx) error {
		for _, entry := range entries {
			if err := tasks.Put(tx, entry.Assignment.Task.ID, entry); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fault.New(fault.Internal, "write the agent's ledger: %w", err)
	}
	return nil
}

// Delete forgets tasks. Unknown ones are no error.
func (l *Ledger) Delete(ids ...string) error {
	err := l.db.Update(func(tx *kv.Tx) error {
		for _, id := range ids {
			tasks.Delete(tx, id)
		}
		return nil
	})
	if err != nil {
		return fault.New(fault.Internal, "write the agent's ledger: %w", err)
	}
	return nil
}

// All returns every entry in the order of task IDs.
func (l *Ledger) All() ([]Entry, error) {
	var all []Entry
	err := l.db.View(func(s *kv.Snapshot) error {
		for entry, err := range tasks.Range(s, "") {
			if err != nil {
				return err
			}
			all = append(all, entry.Value)
		}
		return nil
	})
	if err != nil {
		return nil, fault.New(fault.Internal, "read the agent's ledger: %w", err)
	}
	return all, nil
}
