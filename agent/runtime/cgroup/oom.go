package cgroup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// OOM watches whether the kernel kills in a group for memory. The group may be gone when
// somebody asks, and its own count with it.
type OOM struct {
	news   *os.File // can be read when there is something to look at
	count  *os.File // the group's own, held open
	killed atomic.Bool
	over   chan struct{}
}

const (
	oomLook  = 2 * time.Millisecond // between two looks at the count
	oomLooks = 50                   // at most, after each news: the kernel tells before it kills
)

// WatchOOM begins to watch; an error says that the group's memory is not measured here.
func (g Group) WatchOOM() (*OOM, error) {
	w := &OOM{over: make(chan struct{})}
	var err error
	switch dir := g.Legacy["memory"]; {
	case slices.Contains(g.V2, "memory"):
		err = w.open(filepath.Join(g.Unified, "memory.events"), inotify)
	case dir != "":
		err = w.open(filepath.Join(dir, "memory.oom_control"), func(count *os.File) (int, error) { return event(dir, count) })
	default:
		err = errors.New("no control group with memory")
	}
	if err != nil {
		return nil, fmt.Errorf("watch for kills for memory: %w", err)
	}
	go w.watch()
	return w, nil
}

// open opens the count, and what tells of it.
func (w *OOM) open(path string, tell func(*os.File) (int, error)) error {
	count, err := os.Open(path)
	if err != nil {
		return err
	}
	fd, err := tell(count)
	if err != nil {
		return errors.Join(err, count.Close())
	}
	w.count, w.news = count, os.NewFile(uintptr(fd), path)
	return nil
}

// inotify tells of each change of a file, as the kernel makes one of memory.events.
func inotify(count *os.File) (int, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return 0, err
	}
	if _, err := unix.InotifyAddWatch(fd, count.Name(), unix.IN_MODIFY); err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// event tells of what version 1 of control groups tells of, among which is the group's end.
func event(dir string, count *os.File) (int, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return 0, err
	}
	if err := write(dir, "cgroup.event_control", fmt.Sprintf("%d %d", fd, count.Fd())); err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// watch ends with the group, or when Close closes what it reads.
func (w *OOM) watch() {
	defer close(w.over)
	for buffer := make([]byte, 4096); ; {
		if _, err := w.news.Read(buffer); err != nil {
			return
		}
		for range oomLooks {
			text := make([]byte, 4096)
			n, err := w.count.ReadAt(text, 0)
			if err != nil && !errors.Is(err, io.EOF) {
				return // the group is gone
			}
			if value(string(text[:n]), "oom_kill") > 0 {
				w.killed.Store(true)
				return
			}
			time.Sleep(oomLook)
		}
	}
}

// Killed reports whether the kernel has killed for memory.
func (w *OOM) Killed() bool { return w.killed.Load() }

// Close ends the watch.
func (w *OOM) Close() error {
	err := w.news.Close()
	<-w.over
	return errors.Join(err, w.count.Close())
}
