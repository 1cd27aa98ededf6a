package journal

import (
	"bytes"
	"os"
	"sync/atomic"
)

// older is added to a journal's path for the file with what came before.
const older = ".1"

// rotor keeps the newest entries in two files, each at most limit long: path, and path.1 with what
// came before. It never fails its writer.
type rotor struct {
	path    string
	limit   int64
	file    *os.File
	size    int64
	dropped atomic.Int64 // read while a writer is stuck
}

func (r *rotor) open(mode int) {
	r.size = 0
	file, err := os.OpenFile(r.path, os.O_RDWR|os.O_CREATE|mode, 0o640)
	if err != nil {
		r.file = nil
		return
	}
	r.file = file
	if info, err := file.Stat(); err == nil {
		r.size = info.Size()
	}
}

// resume opens what is there, cuts off an entry without an end, and returns the time of the last.
func (r *rotor) resume() int64 {
	r.open(os.O_APPEND)
	if r.file == nil {
		return 0
	}
	whole, last, ok := lastEntry(r.file, r.size)
	if whole < r.size && r.file.Truncate(whole) == nil {
		r.size = whole
	}
	if ok {
		return last
	}
	before, err := os.Open(r.path + older)
	if err != nil {
		return 0
	}
	defer before.Close() //nolint:errcheck // only read
	if info, err := before.Stat(); err == nil {
		_, last, _ = lastEntry(before, info.Size())
	}
	return last
}

// lastEntry returns the length of a file without an entry that has no end, and the time of the
// last entry in it.
func lastEntry(file *os.File, size int64) (whole, last int64, ok bool) {
	block := make([]byte, min(size, 2*maxEntry))
	if _, err := file.ReadAt(block, size-int64(len(block))); err != nil {
		return size, 0, false
	}
	end := bytes.LastIndexByte(block, '\n') + 1
	whole = size - int64(len(block)-end)
	var p parser
	for rest := block[:end]; len(rest) > 0; {
		rest = rest[:len(rest)-1]
		begin := bytes.LastIndexByte(rest, '\n') + 1
		if e, ok := p.parse(rest[begin:]); ok {
			return whole, e.Time, true
		}
		rest = rest[:begin]
	}
	return whole, 0, false
}

// write appends whole entries. Of those that the disk has no room for it leaves no part.
func (r *rotor) write(entries []byte) {
	if r.size > 0 && r.size+int64(len(entries)) > r.limit {
		r.rotate()
	}
	if r.file == nil {
		r.resume()
	}
	if r.file == nil {
		r.drop(entries)
		return
	}
	n, err := r.file.Write(entries)
	if err == nil {
		r.size += int64(n)
		return
	}
	written := bytes.LastIndexByte(entries[:n], '\n') + 1
	r.size += int64(written)
	if written < n && r.file.Truncate(r.size) != nil {
		r.close() // and look again what is there
	}
	r.drop(entries[written:])
}

// drop counts what the streams wrote that is not kept.
func (r *rotor) drop(entries []byte) {
	var p parser
	for line := range bytes.Lines(entries) {
		if e, ok := p.parse(bytes.TrimSuffix(line, []byte("\n"))); ok {
			r.dropped.Add(e.Size())
		}
	}
}

func (r *rotor) rotate() {
	r.close()
	_ = os.Rename(r.path, r.path+older)
	r.open(os.O_APPEND | os.O_TRUNC)
}

func (r *rotor) close() {
	if r.file != nil {
		_ = r.file.Close()
		r.file = nil
	}
}

// Remove deletes a journal. None is no error.
func Remove(path string) error {
	for _, file := range []string{path + older, path} {
		if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}
