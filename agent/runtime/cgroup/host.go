// Package cgroup gives each task control groups of its own, on machines with
// version 1, version 2, or both mounted side by side.
//
// It writes the kernel's files directly: the shim, which must stay small, uses it
// too, and all that is needed is a handful of files. A task has at most one folder
// per hierarchy. The v2 tree, where there is one, serves for spawning (clone3 into
// the group) and for killing (cgroup.kill); limits go to whichever tree has the
// controller.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Limits bounds one task. Zero means no limit.
type Limits struct {
	// CPU in thousandths of a core. A weight among competing tasks, so that an idle
	// machine is used fully; a hard quota as well if CPUHard.
	CPU     int64 `json:"cpu,omitempty"`
	CPUHard bool  `json:"cpu_hard,omitempty"`
	// Memory in bytes, without swap. Exceeding it ends in an out-of-memory kill.
	Memory int64 `json:"memory,omitempty"`
	// Pids is the most processes and threads at once.
	Pids int64 `json:"pids,omitempty"`
}

// controllers are the ones that Limits needs, in the order they are reported.
var controllers = []string{"cpu", "memory", "pids"}

// Host is what this machine offers below one parent folder.
type Host struct {
	unified string            // the parent folder in the v2 tree, or ""
	v2      map[string]bool   // controllers that limit in the v2 tree
	v1      map[string]string // controller to its parent folder
	lacks   []string
}

// Open finds the hierarchies in mountinfo (the text of /proc/self/mountinfo) and
// makes the folder parent in each. It never fails: what cannot be had is told by
// Lacks, and the tasks run without it.
func Open(mountinfo, parent string) *Host {
	h := &Host{v2: map[string]bool{}, v1: map[string]string{}}
	mounts := parseMounts(mountinfo)
	var denied error
	if mounts.unified != "" {
		dir, err := prepareUnified(mounts.unified, parent)
		if err == nil {
			h.unified = dir
			h.v2 = enabled(dir)
		}
		denied = errors.Join(denied, err)
	}
	for name, mount := range mounts.v1 {
		if name != "cpuacct" && !slices.Contains(controllers, name) {
			continue
		}
		dir := filepath.Join(mount, parent)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			denied = errors.Join(denied, err)
			continue
		}
		h.v1[name] = dir
	}
	denied = errors.Join(denied, h.makeShelter())
	h.lacks = h.missing(denied)
	return h
}

// OpenSelf is Open with this process's mounts.
func OpenSelf(parent string) *Host {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return &Host{lacks: []string{"no control groups: " + err.Error()}}
	}
	return Open(string(text), parent)
}

// Lacks says in plain words what tasks here cannot be limited in, and why; it is
// empty on a machine that offers everything.
func (h *Host) Lacks() []string { return slices.Clone(h.lacks) }

func (h *Host) missing(denied error) []string {
	var lacks []string
	for _, name := range controllers {
		if h.v2[name] || h.v1[name] != "" {
			continue
		}
		why := "this machine has no such control group mounted"
		if denied != nil {
			why = "the agent may not create control groups (run it as root, or name a delegated folder): " + firstLine(denied)
		}
		lacks = append(lacks, fmt.Sprintf("%s of tasks is not limited: %s", name, why))
	}
	return lacks
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// mounts is where hierarchies are mounted.
type mounts struct {
	unified string
	v1      map[string]string
}

// parseMounts reads mountinfo lines: "... mountpoint options [tags] - type source superoptions".
func parseMounts(text string) mounts {
	found := mounts{v1: map[string]string{}}
	for line := range strings.Lines(text) {
		left, right, ok := strings.Cut(strings.TrimSpace(line), " - ")
		fields, tail := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 5 || len(tail) < 3 {
			continue
		}
		point := fields[4]
		switch tail[0] {
		case "cgroup2":
			if found.unified == "" {
				found.unified = point
			}
		case "cgroup":
			for option := range strings.SplitSeq(tail[2], ",") {
				if _, ok := found.v1[option]; !ok && option != "rw" && option != "ro" {
					found.v1[option] = point
				}
			}
		}
	}
	return found
}

// prepareUnified makes parent in the v2 tree and hands the controllers down to it
// and to its children, level by level.
func prepareUnified(mount, parent string) (string, error) {
	dir := mount
	enable(dir)
	for element := range strings.SplitSeq(filepath.Clean(parent), "/") {
		dir = filepath.Join(dir, element)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return "", err
		}
		enable(dir)
	}
	return dir, nil
}

// enable asks for each controller by itself, since one that is missing would fail
// the others.
func enable(dir string) {
	for _, name := range controllers {
		_ = write(dir, "cgroup.subtree_control", "+"+name)
	}
}

func enabled(dir string) map[string]bool {
	text, _ := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	set := map[string]bool{}
	for name := range strings.FieldsSeq(string(text)) {
		set[name] = true
	}
	return set
}

func write(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
