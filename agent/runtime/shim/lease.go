package shim

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Now reads the clock that leases are written in: nanoseconds since boot, suspended
// time included. All processes of a machine share it and nobody can set it back.
func Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// SetLease lets an exclusive task run until the instant (of Now).
func SetLease(dir string, until time.Duration) error {
	return replace(dir, LeaseFile, []byte(strconv.FormatInt(int64(until), 10)), false)
}

// leaseLeft is how much time the lease still gives; a file that is missing or
// cannot be read gives none.
func leaseLeft(dir string) time.Duration {
	text, err := os.ReadFile(filepath.Join(dir, LeaseFile))
	if err != nil {
		return 0
	}
	until, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0
	}
	return max(time.Duration(until)-Now(), 0)
}
