package journal_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/clary-ml/clary/storage/journal"
)

const benchBytes = 64 << 20

// plain keeps bytes as they come in two files: what a journal is measured against.
type plain struct {
	path string
	file *os.File
	size int64
}

func (p *plain) Write(block []byte) (int, error) {
	if p.file == nil || p.size >= benchBytes/2 {
		_ = p.file.Close()
		_ = os.Rename(p.path, p.path+".1")
		var err error
		if p.file, err = os.Create(p.path); err != nil {
			return 0, err
		}
		p.size = 0
	}
	n, err := p.file.Write(block)
	p.size += int64(n)
	return n, err
}

// BenchmarkFlood writes blocks of 64 KiB, as they come from a full pipe.
func BenchmarkFlood(b *testing.B) {
	for _, length := range []int{2, 17, 100, 1000, 100_000} {
		block := bytes.Repeat(append(bytes.Repeat([]byte("x"), length-1), '\n'), 1+(64<<10)/length)[:64<<10]
		b.Run(fmt.Sprintf("line=%d/journal", length), func(b *testing.B) {
			w := journal.Open(filepath.Join(b.TempDir(), "log"), journal.Options{Bytes: benchBytes})
			defer w.Close()
			out := w.Stream("stdout")
			b.SetBytes(int64(len(block)))
			for b.Loop() {
				_, _ = out.Write(block)
			}
		})
		b.Run(fmt.Sprintf("line=%d/plain", length), func(b *testing.B) {
			p := &plain{path: filepath.Join(b.TempDir(), "log")}
			b.SetBytes(int64(len(block)))
			for b.Loop() {
				if _, err := p.Write(block); err != nil {
					b.Fatal(err)
				}
			}
			_ = p.file.Close()
		})
	}
}

// BenchmarkRead reads a journal of 32 MiB.
func BenchmarkRead(b *testing.B) {
	path := filepath.Join(b.TempDir(), "log")
	w := journal.Open(path, journal.Options{Bytes: 1 << 30})
	for i := range 250_000 {
		fmt.Fprintf(w.Stream("stdout"), "line %d of a log that a program wrote, with some text in it to look for\n", i)
	}
	w.Close()
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		query journal.Query
	}{
		{"all", journal.Query{}},
		{"match", journal.Query{Match: regexp.MustCompile("line 1234 ")}},
		{"tail=50", journal.Query{Tail: 50}},
		{"tail=50/match", journal.Query{Tail: 50, Match: regexp.MustCompile("77 of")}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(info.Size())
			for b.Loop() {
				if err := journal.Read(b.Context(), path, c.query, nil, func([]journal.Entry) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
