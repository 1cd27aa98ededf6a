package kv

import (
	"bufio"
	"bytes"
	"io"
	"iter"
	"strconv"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/clary-ml/clary/internal/fault"
)

// Snapshot is the state after some batch. It never changes. It must be closed: pages
// that it holds cannot be used again, so the file grows while it is open. It may be
// read from several goroutines at once.
type Snapshot struct {
	db   *DB
	file *file
	tx   *bbolt.Tx
	once sync.Once
}

// Snapshot returns the state after the last finished batch.
func (db *DB) Snapshot() (*Snapshot, error) {
	f, err := db.acquire()
	if err != nil {
		return nil, err
	}
	tx, err := f.bolt.Begin(false)
	if err != nil {
		_ = db.release(f)
		return nil, fault.New(fault.Internal, "read %s: %w", db.path, err)
	}
	return &Snapshot{db: db, file: f, tx: tx}, nil
}

// View calls fn with a snapshot and closes it afterwards.
func (db *DB) View(fn func(*Snapshot) error) error {
	s, err := db.Snapshot()
	if err != nil {
		return err
	}
	defer s.Close()
	return fn(s)
}

// Close gives the snapshot's pages back. A second Close does nothing.
func (s *Snapshot) Close() error {
	var err error
	s.once.Do(func() {
		if err = s.tx.Rollback(); err == nil {
			err = s.db.release(s.file)
		}
	})
	return err
}

// Dump writes every entry as a line of bucket, key and value, tab-separated, the last
// two quoted. Two databases with the same content have the same dump, however they
// came by it; empty buckets leave no line.
func (s *Snapshot) Dump(w io.Writer) error {
	out := bufio.NewWriter(w)
	var line []byte
	err := s.tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error {
			line = append(append(line[:0], name...), '\t')
			line = append(strconv.AppendQuote(line, string(k)), '\t')
			line = append(strconv.AppendQuote(line, string(v)), '\n')
			_, err := out.Write(line)
			return err
		})
	})
	if err != nil {
		return fault.New(fault.Internal, "dump %s: %w", s.db.path, err)
	}
	return out.Flush()
}

func (s *Snapshot) get(bucket, key string) []byte {
	return baseGet(s.tx.Bucket([]byte(bucket)), key)
}

func (s *Snapshot) scan(bucket, prefix, from string) iter.Seq2[[]byte, []byte] {
	return baseScan(s.tx.Bucket([]byte(bucket)), prefix, from)
}

func baseGet(b *bbolt.Bucket, key string) []byte {
	if b == nil {
		return nil
	}
	return b.Get([]byte(key))
}

func baseScan(b *bbolt.Bucket, prefix, from string) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		if b == nil {
			return
		}
		p, c := []byte(prefix), b.Cursor()
		for k, v := c.Seek([]byte(from)); k != nil && bytes.HasPrefix(k, p); k, v = c.Next() {
			if !yield(k, v) {
				return
			}
		}
	}
}
