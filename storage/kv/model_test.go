package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/storage/kv"
)

// model is what two buckets should hold: bucket name, then key, then value.
type model map[string]map[string]string

func (m model) clone() model {
	out := model{}
	for name, entries := range m {
		out[name] = maps.Clone(entries)
	}
	return out
}

func (m model) dump() string {
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(m)) {
		for _, k := range slices.Sorted(maps.Keys(m[name])) {
			fmt.Fprintf(&out, "%s\t%q\t%q\n", name, k, m[name][k])
		}
	}
	return out.String()
}

func (m model) under(bucket, prefix string) string {
	var out strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m[bucket])) {
		if strings.HasPrefix(k, prefix) {
			fmt.Fprintf(&out, "%q=%q ", k, m[bucket][k])
		}
	}
	return out.String()
}

func under(b kv.Bucket[string], r kv.Reader, prefix string) string {
	var out strings.Builder
	for e, err := range b.Range(r, prefix) {
		fmt.Fprintf(&out, "%q=%q ", e.Key, e.Value)
		if err != nil {
			return err.Error()
		}
	}
	return out.String()
}

var errRefused = errors.New("refused")

// tally counts what the property exercised, over all its runs.
type tally struct{ refused, done, overBase, failedBatches, restored int }

// command runs random steps in one overlay, compares every read with the model, and
// returns the model after it.
func command(t *rapid.T, tx *kv.Tx, before model, n *tally) (model, error) {
	now := before.clone()
	key := rapid.StringMatching(`[ab]{1,3}[\x00\xff]?`)
	for range rapid.IntRange(0, 8).Draw(t, "steps") {
		b := kv.Bucket[string]{Name: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "bucket"), Codec: text}
		k := key.Draw(t, "key")
		switch rapid.IntRange(0, 3).Draw(t, "step") {
		case 0:
			v := rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "value")
			if err := b.Put(tx, k, v); err != nil {
				t.Fatal(err)
			}
			if now[b.Name] == nil {
				now[b.Name] = map[string]string{}
			}
			now[b.Name][k] = v
		case 1:
			b.Delete(tx, k)
			delete(now[b.Name], k)
		case 2:
			got, ok, err := b.Get(tx, k)
			if want, has := now[b.Name][k]; got != want || ok != has || err != nil {
				t.Fatalf("Get(%s, %q) = %q, %v, %v; want %q, %v", b.Name, k, got, ok, err, want, has)
			}
		case 3:
			prefix := rapid.StringMatching(`[ab]{0,2}`).Draw(t, "prefix")
			got, want := under(b, tx, prefix), now.under(b.Name, prefix)
			if got != want {
				t.Fatalf("Range(%s, %q) = %s; want %s", b.Name, prefix, got, want)
			}
			if want != "" && want != before.under(b.Name, prefix) && before.under(b.Name, prefix) != "" {
				n.overBase++
			}
		}
	}
	if rapid.IntRange(0, 3).Draw(t, "refuse") == 3 {
		n.refused++
		return before, errRefused
	}
	n.done++
	return now, nil
}

// TestTheStoreIsAMap: whatever batches, refusals, restores and reopenings happen, the
// store reads as a sorted map to which the successful commands alone were applied.
func TestTheStoreIsAMap(t *testing.T) {
	var n tally
	dir := t.TempDir()
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		path := filepath.Join(dir, fmt.Sprint(run))
		options := kv.Options{NoSync: true, InitialMmap: 1 << 20}
		db, err := kv.Open(path, options)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { db.Close() }()
		want := model{}
		held, err := db.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		heldWant := want
		for range rapid.IntRange(1, 6).Draw(t, "batches") {
			after := want
			err := db.Batch(func(b *kv.Batch) error {
				for range rapid.IntRange(1, 5).Draw(t, "commands") {
					var refusal error
					err := b.Do(func(tx *kv.Tx) error {
						after, refusal = command(t, tx, after, &n)
						return refusal
					})
					if !errors.Is(err, refusal) {
						t.Fatal(err)
					}
				}
				if rapid.IntRange(0, 9).Draw(t, "fail") == 0 {
					n.failedBatches++
					return errRefused
				}
				return nil
			})
			if err == nil {
				want = after
			}
			checkSnapshot(t, held, heldWant)
			switch rapid.IntRange(0, 4).Draw(t, "then") {
			case 0: // take a new snapshot to hold
				held.Close()
				if held, err = db.Snapshot(); err != nil {
					t.Fatal(err)
				}
				heldWant = want
			case 1: // go back to what the held snapshot shows
				var backup bytes.Buffer
				if _, err := held.Backup(&backup); err != nil {
					t.Fatal(err)
				}
				if err := db.Restore(&backup); err != nil {
					t.Fatal(err)
				}
				want = heldWant
				n.restored++
			}
			current, err := db.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			checkSnapshot(t, current, want)
			current.Close()
		}
		held.Close()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if db, err = kv.Open(path, options); err != nil {
			t.Fatal(err)
		}
		current, err := db.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		checkSnapshot(t, current, want)
		current.Close()
	})
	t.Logf("exercised %+v", n)
	if n.refused == 0 || n.done == 0 || n.overBase == 0 || n.failedBatches == 0 || n.restored == 0 {
		t.Errorf("the property exercised too little: %+v", n)
	}
}

func checkSnapshot(t *rapid.T, s *kv.Snapshot, want model) {
	var got bytes.Buffer
	if err := s.Dump(&got); err != nil {
		t.Fatal(err)
	}
	if got.String() != want.dump() {
		t.Fatalf("the snapshot holds\n%swant\n%s", got.String(), want.dump())
	}
	for _, name := range []string{"x", "y"} {
		b := kv.Bucket[string]{Name: name, Codec: text}
		if got, want := under(b, s, "a"), want.under(name, "a"); got != want {
			t.Fatalf("Range(%s, a) = %s; want %s", name, got, want)
		}
	}
}
