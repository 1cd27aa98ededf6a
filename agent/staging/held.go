package staging

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clary-ml/clary/cluster"
)

// held is an input that is whole in the cache: all objects that a task was given of it.
type held struct {
	sum  [sha256.Size]byte // of the note
	used time.Time
}

// A note lists the objects of an input that a task was given, by hash, a line each. It is in the cache's folder under the
// digest of the input's address, and tells the next agent what this one knew; what it says is compared with the entries.
const notePrefix = "input-"

func noteName(digest uint32) string { return fmt.Sprintf("%s%08x", notePrefix, digest) }

func isNote(name string) bool {
	_, ok := parseNote(name)
	return ok
}

func parseNote(name string) (digest uint32, ok bool) {
	n, err := strconv.ParseUint(strings.TrimPrefix(name, notePrefix), 16, 32)
	return uint32(n), err == nil && noteName(uint32(n)) == name
}

// Inputs are the digests (cluster.InputDigest) of inputs that are whole in the cache, as far as tasks were given them from
// it: the cluster.MaxCached that were used last, ascending. Of a sharded input, that is a task's share.
func (c *Cache) Inputs() []uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	digests := make([]uint32, 0, len(c.inputs))
	for digest := range c.inputs {
		digests = append(digests, digest)
	}
	slices.Sort(digests)
	return digests
}

// note remembers that a task was given the objects of an input. If it cannot write that down, only the next agent does
// not know it.
func (c *Cache) note(uri string, items []Item, gunzip bool) {
	digest, hashes := cluster.InputDigest(uri), make([]string, len(items))
	for i, item := range items {
		hashes[i] = formOf(item.Bucket, item.Object, gunzip)
	}
	text := []byte(strings.Join(hashes, "\n"))
	now, path := held{sha256.Sum256(text), time.Now()}, filepath.Join(c.dir, noteName(digest))
	c.mu.Lock()
	known := c.inputs[digest]
	c.mu.Unlock()
	if known == nil || known.sum != now.sum {
		_ = os.WriteFile(path, text, 0o600) // one that is cut short is a hint that is wrong
	} else {
		_ = os.Chtimes(path, now.used, now.used)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold(digest, now, hashes)
}

// hold takes an input in, if all its objects are entries, for the one that was used least recently where there are too many.
func (c *Cache) hold(digest uint32, now held, hashes []string) {
	if slices.ContainsFunc(hashes, func(hash string) bool { return c.entries[hash] == nil }) || len(hashes) == 0 {
		c.forget(digest)
		return
	}
	c.inputs[digest] = &now
	for _, hash := range hashes {
		e := c.entries[hash]
		e.of = slices.DeleteFunc(e.of, func(other uint32) bool { return c.inputs[other] == nil || other == digest })
		e.of = append(e.of, digest)
	}
	if len(c.inputs) <= cluster.MaxCached {
		return
	}
	oldest := digest
	for other, h := range c.inputs {
		if cmp.Or(h.used.Compare(c.inputs[oldest].used), cmp.Compare(other, oldest)) < 0 {
			oldest = other
		}
	}
	c.forget(oldest)
}

func (c *Cache) forget(digest uint32) {
	delete(c.inputs, digest)
	_ = os.Remove(filepath.Join(c.dir, noteName(digest)))
}

// recall takes in what an earlier agent has noted.
func (c *Cache) recall(name string) {
	path := filepath.Join(c.dir, name)
	digest, _ := parseNote(name)
	text, err := os.ReadFile(path)
	info, errInfo := os.Stat(path)
	if err != nil || errInfo != nil {
		c.forget(digest)
		return
	}
	c.hold(digest, held{sha256.Sum256(text), info.ModTime()}, strings.Split(string(text), "\n"))
}
