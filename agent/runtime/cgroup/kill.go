package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Pids lists the processes in the group and in groups below it.
func (g Group) Pids() []int {
	var pids []int
	for _, dir := range g.folders() {
		_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.IsDir() {
				return nil //nolint:nilerr // a group that went away holds nothing
			}
			text, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			for word := range strings.FieldsSeq(string(text)) {
				if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
					pids = append(pids, pid)
				}
			}
			return nil
		})
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}

// Kill ends every process in the group and returns when none is left, or with an
// error after patience. It first forbids new processes, so that one that forks
// without end cannot outrun it.
func (g Group) Kill(patience time.Duration) error {
	if dir := g.Legacy["pids"]; dir != "" {
		_ = write(dir, "pids.max", "0")
	}
	deadline := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if g.Unified != "" {
			_ = write(g.Unified, "cgroup.kill", "1")
		}
		pids := g.Pids()
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("kill a task: %d processes are still there after %s, the first is %d: they hang in the kernel", len(pids), patience, pids[0])
		}
		time.Sleep(pause)
	}
}

// Remove deletes the folders, those below included. The kernel refuses while
// processes are inside; a process that has just died may hold on for a moment.
func (g Group) Remove() error {
	var errs []error
	for _, dir := range g.folders() {
		errs = append(errs, removeTree(dir))
	}
	return errors.Join(errs...)
}

func removeTree(dir string) error {
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeTree(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	for pause := time.Millisecond; ; pause *= 2 {
		err := syscall.Rmdir(dir)
		switch {
		case err == nil || errors.Is(err, syscall.ENOENT):
			return nil
		case !errors.Is(err, syscall.EBUSY) || pause > 200*time.Millisecond:
			return fmt.Errorf("remove control group %s: %w", dir, err)
		}
		time.Sleep(pause)
	}
}
