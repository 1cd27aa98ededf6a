package staging

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/internal/fault"
)

// isClosed reports whether nobody has a file open to write: the kernel grants a read lease
// only then (fcntl(2), F_SETLEASE). It says no where a file system has no leases.
func isClosed(file *os.File) bool {
	conn, err := file.SyscallConn()
	if err != nil {
		return false
	}
	granted := false
	err = conn.Control(func(fd uintptr) {
		if _, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_RDLCK); err == nil {
			granted = true
			_, _ = unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_UNLCK) // who opens it now does not wait
		}
	})
	return err == nil && granted
}

// steady reads a file as it was when it had a stamp, and fails before its last byte if it
// has changed: so a store that keeps all or nothing never keeps a mixture.
type steady struct {
	file *os.File
	as   stamp
	left int64

	changed bool // so that it was not read whole
}

func (s *steady) Read(p []byte) (int, error) {
	n, err := s.file.Read(p)
	if s.left -= int64(n); s.left > 0 && err == nil {
		return n, nil
	}
	info, failed := s.file.Stat()
	if failed != nil {
		return 0, failed
	}
	if (stamp{info.Size(), info.ModTime()}) != s.as {
		s.changed = true
		return 0, fault.New(fault.Conflict, "%s changes while it is read", s.file.Name())
	}
	return n, err
}
