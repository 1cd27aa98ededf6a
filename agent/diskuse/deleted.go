package diskuse

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// deleted counts files without a name that the task's processes have open, or mapped. What
// cannot be read belongs to a process that has just ended.
func (c *counter) deleted(ctx context.Context) error {
	for _, pid := range c.question.PIDs {
		if err := ctx.Err(); err != nil {
			return err
		}
		folder := fmt.Sprintf("/proc/%d/fd", pid)
		open, err := os.Open(folder)
		if err != nil {
			continue
		}
		names, _ := open.Readdirnames(-1)
		_ = open.Close()
		for _, name := range names {
			if err := c.nameless(folder + "/" + name); err != nil {
				return err
			}
		}
		if err := c.mapped(pid); err != nil {
			return err
		}
	}
	return nil
}

// mapped looks at the files that a process has in its memory.
func (c *counter) mapped(pid int) error {
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil //nolint:nilerr // it has ended
	}
	defer maps.Close() //nolint:errcheck // only read
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		// A file's name could hold this too: then one more file is looked at.
		if line := lines.Text(); strings.HasSuffix(line, " (deleted)") {
			where, _, _ := strings.Cut(line, " ")
			if err := c.nameless(fmt.Sprintf("/proc/%d/map_files/%s", pid, where)); err != nil {
				return err
			}
		}
	}
	return nil
}

// nameless counts a file that has no name any more and is on a disk of the task's folders.
func (c *counter) nameless(path string) error {
	var found unix.Statx_t
	// What a file system that does not answer knows of it already is enough.
	if unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS, &found) != nil {
		return nil
	}
	device := unix.Mkdev(found.Dev_major, found.Dev_minor)
	if found.Nlink != 0 || found.Mode&unix.S_IFMT != unix.S_IFREG || !c.devices[device] || !c.first(device, found.Ino) {
		return nil
	}
	return c.add(int64(found.Blocks))
}
