package shim

import (
	"io"
	"os"
	"sync/atomic"
)

// rotor keeps the newest bytes of a stream in two files, each at most limit long:
// path, and path.1 with what came before. It never fails its writer: a task must
// not stop because its log cannot be kept.
type rotor struct {
	path    string
	limit   int64
	file    *os.File
	size    int64
	dropped atomic.Int64 // read by the shim while a stuck pipe may still be copied
}

func openRotor(path string, limit int64) *rotor {
	r := &rotor{path: path, limit: max(limit, 4096)}
	r.open(os.O_APPEND)
	return r
}

func (r *rotor) open(mode int) {
	r.size = 0
	file, err := os.OpenFile(r.path, os.O_WRONLY|os.O_CREATE|mode, 0o640)
	if err != nil {
		r.file = nil
		return
	}
	r.file = file
	if info, err := file.Stat(); err == nil {
		r.size = info.Size()
	}
}

// Write keeps p and returns its length, whatever happens.
func (r *rotor) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		if r.size >= r.limit {
			r.rotate()
		}
		if r.file == nil {
			r.open(os.O_APPEND)
		}
		if r.file == nil {
			r.dropped.Add(int64(len(p)))
			break
		}
		n, err := r.file.Write(p[:min(int64(len(p)), r.limit-r.size)])
		r.size += int64(n)
		p = p[n:]
		if err != nil {
			r.dropped.Add(int64(len(p)))
			break
		}
	}
	return total, nil
}

func (r *rotor) rotate() {
	r.close()
	_ = os.Rename(r.path, r.path+".1")
	r.open(os.O_TRUNC)
}

func (r *rotor) close() {
	if r.file != nil {
		_ = r.file.Close()
		r.file = nil
	}
}

// copyLog drains a pipe until its last writer is gone.
func copyLog(to *rotor, from *os.File) {
	_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 64<<10))
	to.close()
}
