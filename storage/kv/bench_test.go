package kv_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/clary-ml/clary/storage/kv"
)

// BenchmarkCommands runs batches of 64 commands over 10,000 records of 500 bytes; a
// command reads three, ranges over ten and writes three. One op is one command.
func BenchmarkCommands(b *testing.B) {
	db := open(b)
	value := strings.Repeat("v", 500)
	key := func(i int) string { return fmt.Sprintf("job-%05d/task-%d", i/10%1000, i%10) }
	err := db.Update(func(tx *kv.Tx) error {
		for i := range 10000 {
			if err := words.Put(tx, key(i), value); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; {
		err := db.Batch(func(batch *kv.Batch) error {
			for range min(64, b.N-done) {
				i := done * 7919
				done++
				err := batch.Do(func(tx *kv.Tx) error {
					for j := range 3 {
						if _, _, err := words.Get(tx, key(i+j)); err != nil {
							return err
						}
						if err := words.Put(tx, key(i+j), value); err != nil {
							return err
						}
					}
					for _, err := range words.Range(tx, key(i)[:10]) {
						if err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
