package kv

import (
	"errors"
	"iter"
	"slices"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/clary-ml/clary/internal/fault"
)

// ErrBroken is in the chain of every error that says the file could not be written, as opposed to a command that was refused.
// Nothing of the batch is in the file then. After it the database must not be used on, unless the disk was full (ENOSPC is in
// the chain, too): then the same batch may be tried again.
var ErrBroken = errors.New("the database file cannot be written")

// Batch is one write transaction made of commands.
type Batch struct {
	db     *DB
	bolt   *bbolt.Tx
	tables map[string]*table
	broken error
}

// table is one bucket as a batch sees it: what the file and the earlier commands of
// the batch hold, and over it what the running command wrote.
type table struct {
	base   *bbolt.Bucket // nil until the first flush into a bucket that is new
	writes map[string][]byte
	keys   []string // of writes, each once
	sorted bool
}

// Batch calls fn and writes what its commands did, all in one transaction. If fn
// answers with an error or panics, or the file cannot be written, nothing of the batch
// stays.
func (db *DB) Batch(fn func(*Batch) error) error {
	db.writer.Lock()
	defer db.writer.Unlock()
	f, err := db.acquire()
	if err != nil {
		return err
	}
	defer db.release(f)
	tx, err := f.bolt.Begin(true)
	if err != nil {
		return db.brokenBy(err)
	}
	defer tx.Rollback() // after a commit there is nothing to roll back
	b := &Batch{db: db, bolt: tx, tables: map[string]*table{}}
	if err := fn(b); err != nil {
		return err
	}
	if b.broken != nil {
		return b.broken
	}
	if err := tx.Commit(); err != nil {
		return db.brokenBy(err)
	}
	return nil
}

// Update runs a batch of one command.
func (db *DB) Update(fn func(*Tx) error) error {
	return db.Batch(func(b *Batch) error { return b.Do(fn) })
}

func (db *DB) brokenBy(err error) error {
	return fault.New(fault.Internal, "write %s: %w: %w", db.path, ErrBroken, err)
}

// Do runs one command. If fn answers with an error, what it wrote is dropped and the
// batch goes on without it; Do returns that error as it is. An error that wraps
// ErrBroken means that the whole batch is lost.
func (b *Batch) Do(fn func(*Tx) error) error {
	if b.broken != nil {
		return b.broken
	}
	tx := &Tx{batch: b}
	defer b.drop(tx) // also if fn panics
	if err := fn(tx); err != nil {
		return err
	}
	return b.flush(tx)
}

// flush moves a command's writes into the transaction, in order of bucket and key.
func (b *Batch) flush(tx *Tx) error {
	slices.Sort(tx.touched)
	for _, name := range tx.touched {
		t := b.tables[name]
		if err := t.flush(b.bolt, name); err != nil {
			b.broken = b.db.brokenBy(err)
			return b.broken
		}
	}
	return nil
}

// drop forgets what a command wrote.
func (b *Batch) drop(tx *Tx) {
	for _, name := range tx.touched {
		t := b.tables[name]
		clear(t.writes)
		t.keys, t.sorted = t.keys[:0], true
	}
	tx.batch = nil
}

func (t *table) flush(tx *bbolt.Tx, name string) error {
	t.sort()
	for _, key := range t.keys {
		value := t.writes[key]
		if value == nil && t.base == nil {
			continue
		}
		if t.base == nil {
			base, err := tx.CreateBucketIfNotExists([]byte(name))
			if err != nil {
				return err
			}
			t.base = base
		}
		var err error
		if value == nil {
			err = t.base.Delete([]byte(key))
		} else {
			err = t.base.Put([]byte(key), value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *table) sort() {
	if !t.sorted {
		slices.Sort(t.keys)
		t.sorted = true
	}
}

// Tx is one command's view of a batch: it reads its own writes over those of the
// commands before it. It is for one goroutine, and for the length of its command:
// using it afterwards panics.
type Tx struct {
	batch   *Batch
	touched []string // the buckets written to, each once
}

func (tx *Tx) table(bucket string) *table {
	t := tx.batch.tables[bucket]
	if t == nil {
		t = &table{base: tx.batch.bolt.Bucket([]byte(bucket)), sorted: true}
		tx.batch.tables[bucket] = t
	}
	return t
}

func (tx *Tx) set(bucket, key string, value []byte) {
	t := tx.table(bucket)
	if len(t.keys) == 0 {
		tx.touched = append(tx.touched, bucket)
		if t.writes == nil {
			t.writes = map[string][]byte{}
		}
	}
	if _, again := t.writes[key]; !again {
		t.sorted = t.sorted && (len(t.keys) == 0 || t.keys[len(t.keys)-1] < key)
		t.keys = append(t.keys, key)
	}
	t.writes[key] = value
}

func (tx *Tx) get(bucket, key string) []byte {
	t := tx.table(bucket)
	if value, written := t.writes[key]; written {
		return value
	}
	return baseGet(t.base, key)
}

// write is one entry of an overlay; a nil value is a deletion.
type write struct {
	key   string
	value []byte
}

// scan merges the command's own writes with the base. The writes are copied first, and
// the base does not change during a command, so the walk is a snapshot.
func (tx *Tx) scan(bucket, prefix, from string) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		t := tx.table(bucket)
		own := t.ownUnder(prefix, from)
		for k, v := range baseScan(t.base, prefix, from) {
			for len(own) > 0 && own[0].key < string(k) {
				w := own[0]
				own = own[1:]
				if w.value != nil && !yield([]byte(w.key), w.value) {
					return
				}
			}
			if len(own) > 0 && own[0].key == string(k) {
				v, own = own[0].value, own[1:]
			}
			if v != nil && !yield(k, v) {
				return
			}
		}
		for _, w := range own {
			if w.value != nil && !yield([]byte(w.key), w.value) {
				return
			}
		}
	}
}

// ownUnder returns the command's writes under a prefix that are not before from, sorted by key.
func (t *table) ownUnder(prefix, from string) []write {
	if len(t.keys) == 0 {
		return nil
	}
	t.sort()
	first, _ := slices.BinarySearch(t.keys, from)
	var own []write
	for _, key := range t.keys[first:] {
		if !strings.HasPrefix(key, prefix) {
			break
		}
		own = append(own, write{key, t.writes[key]})
	}
	return own
}
