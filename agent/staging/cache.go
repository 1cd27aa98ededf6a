package staging

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/clary-ml/clary/internal/fault"
)

// Cache keeps fetched objects on the node, up to a limit, least recently used out
// first. An entry is one file whose name tells what it is, how long and with which
// checksum, so the folder itself is the index and a crash cannot make them differ:
//
//	HEX(sha256(bucket, key, etag, form))-SIZE-CRC32C
//
// The form is nothing, or "gunzip" for what was decompressed on the way.
type Cache struct {
	dir   string
	limit int64

	// Spoilt, if it is not nil, is told of each object whose file has changed on the disk: it is fetched again.
	Spoilt func(uri, file string)

	mu      sync.Mutex
	entries map[string]*entry // by hash of (bucket, key, etag, form)
	total   int64
	flights map[string]chan struct{} // held while one task fetches; others wait
	inputs  map[uint32]*held         // by digest of their address
	hits    int64
	misses  int64
}

type entry struct {
	hash string
	size int64
	crc  uint32
	used time.Time
	pins int      // being verified and linked just now
	of   []uint32 // digests of inputs that it is part of
}

func (e *entry) file() string { return fmt.Sprintf("%s-%d-%08x", e.hash, e.size, e.crc) }

// Stats is what a cache has done and holds.
type Stats struct{ Hits, Misses, Bytes, Files int64 }

// OpenCache opens the cache in the folder and clears away unfinished fetches.
func OpenCache(dir string, limit int64) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.New(fault.Internal, "open cache: %w", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fault.New(fault.Internal, "open cache: %w", err)
	}
	c := &Cache{dir: dir, limit: limit, entries: map[string]*entry{}, flights: map[string]chan struct{}{}, inputs: map[uint32]*held{}}
	var noted []string
	for _, file := range files {
		if isNote(file.Name()) {
			noted = append(noted, file.Name())
			continue
		}
		e, ok := parseEntry(file.Name())
		info, err := file.Info()
		if !ok || err != nil || info.Size() != e.size || c.entries[e.hash] != nil {
			if err := os.Remove(filepath.Join(dir, file.Name())); err != nil {
				return nil, fault.New(fault.Internal, "clear cache: %w", err)
			}
			continue
		}
		e.used = info.ModTime()
		c.entries[e.hash] = &e
		c.total += e.size
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range noted {
		c.recall(name)
	}
	c.evict(0)
	return c, nil
}

func parseEntry(name string) (entry, bool) {
	parts := strings.Split(name, "-")
	if len(parts) != 3 || len(parts[0]) != 64 || len(parts[2]) != 8 {
		return entry{}, false
	}
	size, errSize := strconv.ParseInt(parts[1], 10, 64)
	crc, errCRC := strconv.ParseUint(parts[2], 16, 32)
	e := entry{hash: parts[0], size: size, crc: uint32(crc)}
	return e, errSize == nil && errCRC == nil && size >= 0 && e.file() == name
}

// Stats returns the figures so far.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{Hits: c.hits, Misses: c.misses, Bytes: c.total, Files: int64(len(c.entries))}
}

// Identity is a name for the content of an object, in hexadecimal: another for each object
// and each time it is overwritten.
func Identity(bucket string, object Object) string { return identity(bucket, object, "") }

func identity(bucket string, object Object, form string) string {
	sum := sha256.Sum256([]byte(bucket + "\x00" + object.Key + "\x00" + object.ETag + form))
	return hex.EncodeToString(sum[:])
}

// formOf is the hash under which an object is in the cache as it is, or decompressed.
func formOf(bucket string, object Object, gunzip bool) string {
	if gunzip {
		return identity(bucket, object, "\x00gunzip")
	}
	return Identity(bucket, object)
}

// Place makes path a read-only file with the object's content. Tasks that want the
// same object at the same time cause one fetch. What is in the cache is checked
// against its checksum first, and fetched again if it has changed on disk.
func (c *Cache) Place(ctx context.Context, store Reader, bucket string, object Object, path string) error {
	_, err := c.place(ctx, store, bucket, object, false, path)
	return err
}

// place is Place; what is gzip in the store may be decompressed in the cache. It reports
// whether the object was fetched for it.
func (c *Cache) place(ctx context.Context, store Reader, bucket string, object Object, gunzip bool, path string) (fetched bool, err error) {
	hash, size := formOf(bucket, object, gunzip), object.Size
	if gunzip {
		size = anySize
	}
	release, err := c.board(ctx, hash)
	if err != nil {
		return false, err
	}
	defer release()
	if e := c.pin(hash, size); e != nil {
		source := filepath.Join(c.dir, e.file())
		if crc, size, err := checksum(source); err == nil && crc == e.crc && size == e.size {
			err := share(source, path)
			c.unpin(e)
			return false, err
		}
		c.unpin(e)
		c.drop(e)
		if c.Spoilt != nil {
			c.Spoilt("s3://"+bucket+"/"+object.Key, source)
		}
	}
	got, err := receive(ctx, store, bucket, object, gunzip, c.dir)
	if err != nil {
		return false, err
	}
	e := &entry{hash: hash, size: got.size, crc: got.crc, used: time.Now(), pins: 1}
	if !c.admit(e) {
		// Too large, or all else is in use: the task gets the only copy.
		return true, errors.Join(move(got.temp, path), os.Chmod(path, 0o444))
	}
	defer c.unpin(e)
	source := filepath.Join(c.dir, e.file())
	if err := os.Rename(got.temp, source); err != nil {
		c.drop(e)
		return true, errors.Join(err, os.Remove(got.temp))
	}
	return true, share(source, path)
}

// anySize is the size of what is not known before it is decompressed.
const anySize = -1

// board waits for its turn at an object, or for the end of ctx.
func (c *Cache) board(ctx context.Context, hash string) (release func(), err error) {
	for {
		c.mu.Lock()
		flight, busy := c.flights[hash]
		if !busy {
			mine := make(chan struct{})
			c.flights[hash] = mine
			c.mu.Unlock()
			return func() {
				c.mu.Lock()
				delete(c.flights, hash)
				c.mu.Unlock()
				close(mine)
			}, nil
		}
		c.mu.Unlock()
		select {
		case <-flight:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (c *Cache) pin(hash string, size int64) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[hash]
	if e == nil || size != anySize && e.size != size {
		c.misses++
		return nil
	}
	c.hits++
	e.pins++
	e.used = time.Now()
	_ = os.Chtimes(filepath.Join(c.dir, e.file()), e.used, e.used)
	return e
}

func (c *Cache) unpin(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.pins--
}

// admit makes room for an entry and takes it in; false if there is no room.
func (c *Cache) admit(e *entry) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.entries[e.hash]; old != nil {
		c.remove(old)
	}
	if e.size > c.limit || !c.evict(e.size) {
		return false
	}
	c.entries[e.hash] = e
	c.total += e.size
	return true
}

func (c *Cache) drop(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[e.hash] == e {
		c.remove(e)
	}
}

func (c *Cache) remove(e *entry) {
	delete(c.entries, e.hash)
	c.total -= e.size
	_ = os.Remove(filepath.Join(c.dir, e.file()))
	for _, digest := range e.of {
		c.forget(digest)
	}
}

// evict removes the least recently used entries until size more bytes fit. What a
// task has linked is in use: removing it would free nothing.
func (c *Cache) evict(size int64) bool {
	if c.total+size <= c.limit {
		return true
	}
	var idle []*entry
	for _, e := range c.entries {
		if e.pins == 0 && !linked(filepath.Join(c.dir, e.file())) {
			idle = append(idle, e)
		}
	}
	slices.SortFunc(idle, func(a, b *entry) int {
		return cmp.Or(a.used.Compare(b.used), strings.Compare(a.hash, b.hash))
	})
	for _, e := range idle {
		c.remove(e)
		if c.total+size <= c.limit {
			return true
		}
	}
	return false
}

func linked(path string) bool {
	var info syscall.Stat_t
	return syscall.Stat(path, &info) == nil && info.Nlink > 1
}
