package kv_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/kv"
)

var text = kv.Codec[string]{
	Encode: func(v string) ([]byte, error) { return []byte(v), nil },
	Decode: func(b []byte) (string, error) { return string(b), nil },
}

var number = kv.Codec[uint64]{
	Encode: func(v uint64) ([]byte, error) { return binary.BigEndian.AppendUint64(nil, v), nil },
	Decode: func(b []byte) (uint64, error) {
		if len(b) != 8 {
			return 0, fmt.Errorf("a number has 8 bytes, not %d", len(b))
		}
		return binary.BigEndian.Uint64(b), nil
	},
}

var (
	words  = kv.Bucket[string]{Name: "words", Codec: text}
	counts = kv.Bucket[uint64]{Name: "counts", Codec: number}
)

func open(t testing.TB) *kv.DB {
	t.Helper()
	db, err := kv.Open(filepath.Join(t.TempDir(), "state.db"), kv.Options{NoSync: true, InitialMmap: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func put(t testing.TB, db *kv.DB, key, value string) {
	t.Helper()
	if err := db.Update(func(tx *kv.Tx) error { return words.Put(tx, key, value) }); err != nil {
		t.Fatal(err)
	}
}

func list(t testing.TB, r kv.Reader, prefix string) string {
	t.Helper()
	var out []string
	for e, err := range words.Range(r, prefix) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e.Key+"="+e.Value)
	}
	return strings.Join(out, " ")
}

func dump(t testing.TB, db *kv.DB) string {
	t.Helper()
	var out bytes.Buffer
	if err := db.View(func(s *kv.Snapshot) error { return s.Dump(&out) }); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestARefusedCommandLeavesNoTraceInItsBatch(t *testing.T) {
	db := open(t)
	refusal := errors.New("no")
	err := db.Batch(func(b *kv.Batch) error {
		if err := b.Do(func(tx *kv.Tx) error { return words.Put(tx, "a", "1") }); err != nil {
			t.Error(err)
		}
		got := b.Do(func(tx *kv.Tx) error {
			words.Delete(tx, "a")
			return errors.Join(words.Put(tx, "b", "2"), counts.Put(tx, "n", 1), refusal)
		})
		if !errors.Is(got, refusal) {
			t.Errorf("a refusal came back as %v", got)
		}
		return b.Do(func(tx *kv.Tx) error {
			if got := list(t, tx, ""); got != "a=1" {
				t.Errorf("the next command sees %q, want a=1", got)
			}
			return words.Put(tx, "c", "3")
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := dump(t, db), "words\t\"a\"\t\"1\"\nwords\t\"c\"\t\"3\"\n"; got != want {
		t.Errorf("dump:\n%swant:\n%s", got, want)
	}
}

func TestAPanickingCommandLeavesNoTraceAndNoLock(t *testing.T) {
	db := open(t)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = db.Update(func(tx *kv.Tx) error {
			_ = words.Put(tx, "a", "1")
			panic("a defect")
		})
	}()
	put(t, db, "b", "2")
	if got, want := dump(t, db), "words\t\"b\"\t\"2\"\n"; got != want {
		t.Errorf("dump %q, want %q", got, want)
	}
}

func TestAFailedBatchKeepsNothing(t *testing.T) {
	db := open(t)
	stop := errors.New("stop")
	err := db.Batch(func(b *kv.Batch) error {
		if err := b.Do(func(tx *kv.Tx) error { return words.Put(tx, "a", "1") }); err != nil {
			t.Error(err)
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Errorf("got %v, want %v", err, stop)
	}
	if got := dump(t, db); got != "" {
		t.Errorf("dump %q, want nothing", got)
	}
}

func TestRangeIsNotDisturbedByItsOwnBody(t *testing.T) {
	db := open(t)
	for _, k := range []string{"a", "c", "e"} {
		put(t, db, k, k)
	}
	err := db.Update(func(tx *kv.Tx) error {
		if err := words.Put(tx, "d", "d"); err != nil {
			return err
		}
		seen := ""
		for e, err := range words.Range(tx, "") {
			if err != nil {
				return err
			}
			seen += e.Key
			words.Delete(tx, "e")
			if err := words.Put(tx, e.Key+"x", "new"); err != nil {
				return err
			}
		}
		if seen != "acde" {
			t.Errorf("range saw %q, want acde", seen)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Count(dump(t, db), "new"), 4; got != want {
		t.Errorf("%d entries written while ranging, want %d", got, want)
	}
}

func TestAnEmptyValueIsAValue(t *testing.T) {
	db := open(t)
	put(t, db, "a", "")
	check := func(r kv.Reader, where string) {
		if v, ok, err := words.Get(r, "a"); v != "" || !ok || err != nil {
			t.Errorf("%s: Get = %q, %v, %v; want an empty value", where, v, ok, err)
		}
		if got := list(t, r, ""); got != "a=" {
			t.Errorf("%s: Range = %q, want a=", where, got)
		}
		if !words.Has(r, "a") || words.Has(r, "b") {
			t.Errorf("%s: Has is wrong", where)
		}
	}
	_ = db.View(func(s *kv.Snapshot) error { check(s, "snapshot"); return nil })
	_ = db.Update(func(tx *kv.Tx) error { check(tx, "base under a command"); return nil })
	_ = db.Update(func(tx *kv.Tx) error {
		if err := words.Put(tx, "a", ""); err != nil {
			return err
		}
		check(tx, "own write")
		return nil
	})
}

func TestRubbishIsRefusedWithItsPlace(t *testing.T) {
	db := open(t)
	bad := kv.Bucket[string]{Name: "bad", Codec: kv.Codec[string]{
		Encode: func(string) ([]byte, error) { return nil, errors.New("cannot") }, Decode: text.Decode,
	}}
	sameName := kv.Bucket[string]{Name: counts.Name, Codec: text}
	_ = db.Update(func(tx *kv.Tx) error { return sameName.Put(tx, "n", "rubbish") })
	tables := []struct {
		name string
		do   func(tx *kv.Tx) error
		kind fault.Kind
		text string
	}{
		{"empty key", func(tx *kv.Tx) error { return words.Put(tx, "", "v") }, fault.Invalid, "0 bytes"},
		{"long key", func(tx *kv.Tx) error { return words.Put(tx, strings.Repeat("k", 40000), "v") }, fault.Invalid, "40000 bytes"},
		{"encode", func(tx *kv.Tx) error { return bad.Put(tx, "k", "v") }, fault.Internal, `encode bad "k": cannot`},
		{"decode", func(tx *kv.Tx) error { _, _, err := counts.Get(tx, "n"); return err }, fault.Internal, `decode counts "n"`},
		{"decode in range", func(tx *kv.Tx) error {
			for _, err := range counts.Range(tx, "") {
				return err
			}
			return nil
		}, fault.Internal, `decode counts "n"`},
	}
	for _, c := range tables {
		err := db.Update(c.do)
		if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) || errors.Is(err, kv.ErrBroken) {
			t.Errorf("%s: got %v (%v), want %v with %q", c.name, err, fault.KindOf(err), c.kind, c.text)
		}
	}
}

func TestASnapshotOutlivesBatchesRestoreAndClose(t *testing.T) {
	db := open(t)
	put(t, db, "a", "1")
	var backup bytes.Buffer
	if err := db.View(func(s *kv.Snapshot) error { _, err := s.Backup(&backup); return err }); err != nil {
		t.Fatal(err)
	}
	put(t, db, "a", "2")
	old, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	put(t, db, "b", "3")
	if err := db.Restore(&backup); err != nil {
		t.Fatal(err)
	}
	put(t, db, "c", "4")
	_ = db.View(func(s *kv.Snapshot) error {
		if got := list(t, s, ""); got != "a=1 c=4" {
			t.Errorf("after restore: %q, want a=1 c=4", got)
		}
		return nil
	})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Snapshot(); !fault.Is(err, fault.Unready) {
		t.Errorf("a snapshot of a closed database: %v, want an Unready error", err)
	}
	if err := db.Update(func(*kv.Tx) error { return nil }); !fault.Is(err, fault.Unready) {
		t.Errorf("a batch on a closed database: %v, want an Unready error", err)
	}
	var late bytes.Buffer
	if _, err := old.Backup(&late); err != nil {
		t.Fatal(err)
	}
	if got := list(t, old, ""); got != "a=2" {
		t.Errorf("the old snapshot shows %q, want a=2", got)
	}
	if err := errors.Join(old.Close(), old.Close(), db.Close()); err != nil {
		t.Error(err)
	}
	fresh := open(t)
	if err := fresh.Restore(&late); err != nil {
		t.Fatal(err)
	}
	if got, want := dump(t, fresh), "words\t\"a\"\t\"2\"\n"; got != want {
		t.Errorf("the backup of the old snapshot holds %q, want %q", got, want)
	}
}

func TestADamagedBackupIsRefusedAndChangesNothing(t *testing.T) {
	db := open(t)
	for i := range 500 {
		put(t, db, fmt.Sprintf("key-%03d", i), strings.Repeat("v", 100))
	}
	var whole bytes.Buffer
	if err := db.View(func(s *kv.Snapshot) error { _, err := s.Backup(&whole); return err }); err != nil {
		t.Fatal(err)
	}
	before := dump(t, db)
	zeroed := bytes.Clone(whole.Bytes())
	clear(zeroed[2*os.Getpagesize():])
	flipped := bytes.Clone(whole.Bytes())
	flipped[len(flipped)/2] ^= 1
	for name, backup := range map[string][]byte{
		"empty":     nil,
		"cut short": whole.Bytes()[:whole.Len()/2],
		"text":      []byte(strings.Repeat("this is no backup\n", 3000)),
		"zeroed":    zeroed,
		"one bit":   flipped,
	} {
		if err := db.Restore(bytes.NewReader(backup)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v, want an Invalid error", name, err)
		}
	}
	if dump(t, db) != before {
		t.Error("a refused backup changed the database")
	}
	if err := db.Restore(&whole); err != nil || dump(t, db) != before {
		t.Errorf("the whole backup: %v", err)
	}
}

func TestWhatWasWrittenSurvivesReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	db, err := kv.Open(path, kv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, db, "a", "1")
	if _, err := kv.Open(path, kv.Options{}); !fault.Is(err, fault.Unready) || !strings.Contains(err.Error(), path) {
		t.Errorf("opened twice: %v, want an Unready error naming the file", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db, err = kv.Open(path, kv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if got, want := dump(t, db), "words\t\"a\"\t\"1\"\n"; got != want {
		t.Errorf("after reopening %q, want %q", got, want)
	}
}
