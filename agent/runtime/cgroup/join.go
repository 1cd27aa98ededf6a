package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// shelter is the folder beside the tasks' where shims live, so that a service
// manager that clears the agent's own group leaves shims and tasks alone.
const shelter = "shims"

// Shelter returns the v2 folder to start shims in, or "" where there is none.
func (h *Host) Shelter() string {
	if h.unified == "" {
		return ""
	}
	return filepath.Join(h.unified, shelter)
}

// makeShelter makes the shelter in every hierarchy.
func (h *Host) makeShelter() error {
	var errs []error
	for _, parent := range append(values(h.v1), h.unified) {
		if parent != "" {
			errs = append(errs, makeDir(filepath.Join(parent, shelter)))
		}
	}
	return errors.Join(errs...)
}

// Close removes the shelter and the parent folders, unless tasks are there: they live
// on without an agent.
func (h *Host) Close() error {
	if len(h.Names()) > 0 {
		return nil
	}
	var errs []error
	for _, parent := range append(slices.Compact(values(h.v1)), h.unified) {
		if parent != "" {
			errs = append(errs, removeTree(parent))
		}
	}
	return errors.Join(errs...)
}

// Enter moves the calling thread, and only it, into the group's v1 folders. A
// process forked from that thread starts in them, so that none of its instructions
// runs outside; the caller must have locked itself to the thread. Writing "0" to
// "tasks" is also the one move that takes no machine-wide lock in the kernel.
// leave takes the thread on into the shelter. The v2 tree has no such move:
// there a process is spawned into the group by SpawnFD.
func (g Group) Enter() (leave func() error, err error) {
	dirs := slices.Compact(values(g.Legacy))
	entered := 0
	leave = func() error {
		var errs []error
		for _, dir := range dirs[:entered] {
			errs = append(errs, write(filepath.Join(filepath.Dir(dir), shelter), "tasks", "0"))
		}
		return errors.Join(errs...)
	}
	for _, dir := range dirs {
		if err := write(dir, "tasks", "0"); err != nil {
			return nil, errors.Join(fmt.Errorf("enter control group: %w", err), leave())
		}
		entered++
	}
	return leave, nil
}

// SpawnFD opens the v2 folder for SysProcAttr.CgroupFD; nil where there is none.
func (g Group) SpawnFD() (*os.File, error) {
	if g.Unified == "" {
		return nil, nil //nolint:nilnil // no group is an answer, not an error
	}
	f, err := os.Open(g.Unified)
	if err != nil {
		return nil, fmt.Errorf("open control group: %w", err)
	}
	return f, nil
}

// Join moves the calling process into the group.
func (g Group) Join() error {
	for _, dir := range g.folders() {
		if err := write(dir, "cgroup.procs", "0"); err != nil {
			return fmt.Errorf("join control group: %w", err)
		}
	}
	return nil
}
