// Package kv keeps typed values in named buckets of one bbolt file.
//
// A Bucket pairs a name with a Codec, so the package knows nothing of what it stores.
// Reads go through a Snapshot, which never changes. Writes come in batches: one bbolt
// transaction for many commands, each of them an overlay that reaches the file only if
// the command succeeded, so that a refusal leaves no trace. See DESIGN.md.
package kv

import (
	"iter"

	"go.etcd.io/bbolt"

	"github.com/clary-ml/clary/internal/fault"
)

// Codec turns values into bytes and back.
type Codec[V any] struct {
	// Encode returns bytes that nobody else writes to afterwards: they are kept, not copied.
	Encode func(V) ([]byte, error)
	// Decode must not keep or change the bytes: they belong to the file's memory map.
	Decode func([]byte) (V, error)
}

// Bucket names a sorted map from string keys to values of one type. It holds no
// state: declare it once and use it with any transaction. It comes into being at
// the first Put; before, it reads as empty.
type Bucket[V any] struct {
	Name  string
	Codec Codec[V]
}

// Entry is one key and its value.
type Entry[V any] struct {
	Key   string
	Value V
}

// Reader is what Bucket.Get and Bucket.Range read from: a *Snapshot or a *Tx.
type Reader interface {
	get(bucket, key string) []byte
	scan(bucket, prefix, from string) iter.Seq2[[]byte, []byte]
}

// Get returns the value at key and whether there is one. The error says that the
// stored bytes cannot be decoded.
func (b Bucket[V]) Get(r Reader, key string) (V, bool, error) {
	raw := r.get(b.Name, key)
	if raw == nil {
		var none V
		return none, false, nil
	}
	v, err := b.decode(key, raw)
	return v, err == nil, err
}

// Has reports whether there is a value at key, without decoding it.
func (b Bucket[V]) Has(r Reader, key string) bool { return r.get(b.Name, key) != nil }

// Range walks the entries whose key starts with prefix, in byte order of their keys.
// It shows the state as it is at the first step: what the loop's body puts or deletes
// does not disturb it. The loop ends after an entry that cannot be decoded.
func (b Bucket[V]) Range(r Reader, prefix string) iter.Seq2[Entry[V], error] {
	return b.RangeFrom(r, prefix, prefix)
}

// RangeFrom is Range without the keys before from, which it does not walk over.
func (b Bucket[V]) RangeFrom(r Reader, prefix, from string) iter.Seq2[Entry[V], error] {
	return func(yield func(Entry[V], error) bool) {
		for k, raw := range r.scan(b.Name, prefix, max(prefix, from)) {
			key := string(k)
			v, err := b.decode(key, raw)
			if !yield(Entry[V]{key, v}, err) || err != nil {
				return
			}
		}
	}
}

// Put writes a value, new or not.
func (b Bucket[V]) Put(tx *Tx, key string, v V) error {
	if key == "" || len(key) > bbolt.MaxKeySize {
		return fault.New(fault.Invalid, "put into %s: the key has %d bytes; it must have 1 to %d",
			b.Name, len(key), bbolt.MaxKeySize)
	}
	raw, err := b.Codec.Encode(v)
	if err != nil {
		return fault.New(fault.Internal, "encode %s %q: %w", b.Name, key, err)
	}
	if len(raw) > maxValue {
		return fault.New(fault.Invalid, "put into %s: the value at %q has %d bytes; the limit is %d",
			b.Name, key, len(raw), maxValue)
	}
	if raw == nil {
		raw = []byte{}
	}
	tx.set(b.Name, key, raw)
	return nil
}

// Delete removes the value at key, if there is one.
func (b Bucket[V]) Delete(tx *Tx, key string) { tx.set(b.Name, key, nil) }

func (b Bucket[V]) decode(key string, raw []byte) (V, error) {
	v, err := b.Codec.Decode(raw)
	if err != nil {
		return v, fault.New(fault.Internal, "decode %s %q: %w", b.Name, key, err)
	}
	return v, nil
}

// maxValue keeps one value within what a raft entry can reasonably carry.
const maxValue = 64 << 20
