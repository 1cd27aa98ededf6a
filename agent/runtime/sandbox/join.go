package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// kinds are the namespaces that a view is made of.
var kinds = []string{"ipc", "uts", "net", "mnt"}

// Join gives the calling thread, which is locked, another process's view of the machine.
func Join(pid int) error {
	var spaces []*os.File
	defer func() {
		for _, space := range spaces {
			_ = space.Close()
		}
	}()
	for _, kind := range kinds { // all are opened before proc shows another view
		space, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
		if errors.Is(err, os.ErrNotExist) {
			return errors.New("the task has ended")
		}
		if err != nil {
			return err
		}
		spaces = append(spaces, space)
	}
	// Threads share their root and folder, and who shares them cannot change the mounts.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	for i, space := range spaces {
		if err := unix.Setns(int(space.Fd()), 0); err != nil {
			return fmt.Errorf("enter the %s namespace: %w", kinds[i], err)
		}
	}
	return nil
}

// InNetwork calls a function on a thread that is in another process's network.
func InNetwork(pid int, do func() error) (err error) {
	theirs, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer theirs.Close() //nolint:errcheck // only read
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer own.Close() //nolint:errcheck // only read
	if err := unix.Setns(int(theirs.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	defer func() {
		// A thread that cannot come back stays locked, and ends with its goroutine.
		if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
			err = errors.Join(err, fmt.Errorf("leave the network namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
	}()
	return do()
}
