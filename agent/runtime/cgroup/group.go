package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Group is one task's folders. It is plain data, written into the shim's
// instructions; the zero Group is a task that has no control group.
type Group struct {
	// Unified is the folder in the v2 tree.
	Unified string `json:"unified,omitempty"`
	// Legacy are the folders in v1 hierarchies by controller.
	Legacy map[string]string `json:"legacy,omitempty"`
	// V2 are the controllers that limit in the v2 tree.
	V2 []string `json:"v2,omitempty"`
}

// Usage is what a task consumed.
type Usage struct {
	CPUNanos   int64 `json:"cpu_nanos"`
	PeakMemory int64 `json:"peak_memory"`
	Memory     int64 `json:"memory"`
	OOMKills   int64 `json:"oom_kills"`
	Refused    int64 `json:"refused,omitempty"` // processes that were too many
}

// Create makes the folders of one task and writes its limits. It is not an error
// if they exist: a retried start finds what the first try made. name must be a
// plain file name.
func (h *Host) Create(name string, limits Limits) (Group, error) {
	if name == "" || name != filepath.Base(name) || name[0] == '.' {
		return Group{}, fmt.Errorf("control group %q: the name must be a plain file name", name)
	}
	var group Group
	if h.unified != "" {
		group.Unified = filepath.Join(h.unified, name)
		if err := makeDir(group.Unified); err != nil {
			return Group{}, err
		}
		for _, controller := range controllers {
			if h.v2[controller] {
				group.V2 = append(group.V2, controller)
			}
		}
	}
	made := map[string]bool{}
	for controller, parent := range h.v1 {
		if h.v2[controller] {
			continue
		}
		dir := filepath.Join(parent, name)
		if !made[dir] {
			if err := makeDir(dir); err != nil {
				return group, errors.Join(err, group.Remove())
			}
			made[dir] = true
		}
		if group.Legacy == nil {
			group.Legacy = map[string]string{}
		}
		group.Legacy[controller] = dir
	}
	if err := group.limit(limits); err != nil {
		return group, errors.Join(err, group.Remove())
	}
	return group, nil
}

// Names lists the groups that exist below the parent, in any hierarchy.
func (h *Host) Names() []string {
	seen := map[string]bool{}
	for _, parent := range append([]string{h.unified}, values(h.v1)...) {
		if parent == "" {
			continue
		}
		entries, _ := os.ReadDir(parent)
		for _, entry := range entries {
			if entry.IsDir() && entry.Name() != shelter {
				seen[entry.Name()] = true
			}
		}
	}
	names := make([]string, 0, len(seen))
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Find returns the group called name as far as its folders exist.
func (h *Host) Find(name string) Group {
	var group Group
	if h.unified != "" && exists(filepath.Join(h.unified, name)) {
		group.Unified = filepath.Join(h.unified, name)
		for _, controller := range controllers {
			if h.v2[controller] {
				group.V2 = append(group.V2, controller)
			}
		}
	}
	for controller, parent := range h.v1 {
		if dir := filepath.Join(parent, name); exists(dir) {
			if group.Legacy == nil {
				group.Legacy = map[string]string{}
			}
			group.Legacy[controller] = dir
		}
	}
	return group
}

// Empty reports whether there is no folder at all.
func (g Group) Empty() bool { return g.Unified == "" && len(g.Legacy) == 0 }

// folders are all of the group's folders, once each, in a fixed order.
func (g Group) folders() []string {
	dirs := values(g.Legacy)
	if g.Unified != "" {
		dirs = append(dirs, g.Unified)
	}
	return slices.Compact(dirs)
}

func (g Group) limit(limits Limits) error {
	v2 := func(controller string) bool { return slices.Contains(g.V2, controller) }
	var errs []error
	put := func(dir, file string, value int64) {
		if err := write(dir, file, strconv.FormatInt(value, 10)); err != nil {
			errs = append(errs, fmt.Errorf("limit a task: %w", err))
		}
	}
	if dir := g.Legacy["cpu"]; limits.CPU > 0 && v2("cpu") {
		put(g.Unified, "cpu.weight", min(max(limits.CPU/10, 1), 10_000))
		if limits.CPUHard {
			errs = append(errs, write(g.Unified, "cpu.max", fmt.Sprintf("%d %d", limits.CPU*100, 100_000)))
		}
	} else if limits.CPU > 0 && dir != "" {
		put(dir, "cpu.shares", max(limits.CPU*1024/1000, 2))
		if limits.CPUHard {
			put(dir, "cpu.cfs_period_us", 100_000)
			put(dir, "cpu.cfs_quota_us", max(limits.CPU*100, 1000))
		}
	}
	if dir := g.Legacy["memory"]; limits.Memory > 0 && v2("memory") {
		put(g.Unified, "memory.max", limits.Memory)
		_ = write(g.Unified, "memory.swap.max", "0")
		// A task that lost one of its processes is broken: end it whole.
		_ = write(g.Unified, "memory.oom.group", "1")
	} else if limits.Memory > 0 && dir != "" {
		put(dir, "memory.limit_in_bytes", limits.Memory)
		_ = write(dir, "memory.memsw.limit_in_bytes", strconv.FormatInt(limits.Memory, 10))
	}
	if dir := g.Legacy["pids"]; limits.Pids > 0 && v2("pids") {
		put(g.Unified, "pids.max", limits.Pids)
	} else if limits.Pids > 0 && dir != "" {
		put(dir, "pids.max", limits.Pids)
	}
	return errors.Join(errs...)
}

// Usage reads what the group has consumed so far; what is not measured is zero.
func (g Group) Usage() Usage {
	var usage Usage
	if g.Unified != "" {
		usage.CPUNanos = field(g.Unified, "cpu.stat", "usage_usec") * 1000
	}
	if dir := g.Legacy["cpuacct"]; dir != "" {
		usage.CPUNanos = number(dir, "cpuacct.usage")
	}
	if dir := g.Legacy["memory"]; slices.Contains(g.V2, "memory") {
		usage.Memory = number(g.Unified, "memory.current")
		usage.PeakMemory = number(g.Unified, "memory.peak")
		usage.OOMKills = field(g.Unified, "memory.events", "oom_kill")
	} else if dir != "" {
		usage.Memory = number(dir, "memory.usage_in_bytes")
		usage.PeakMemory = number(dir, "memory.max_usage_in_bytes")
		usage.OOMKills = field(dir, "memory.oom_control", "oom_kill")
	}
	if dir := g.Legacy["pids"]; slices.Contains(g.V2, "pids") {
		usage.Refused = field(g.Unified, "pids.events", "max")
	} else if dir != "" {
		usage.Refused = field(dir, "pids.events", "max")
	}
	return usage
}

func makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make control group: %w", err)
	}
	return nil
}

func exists(dir string) bool {
	_, err := os.Stat(dir)
	return err == nil
}

func values(m map[string]string) []string {
	all := make([]string, 0, len(m))
	for _, v := range m {
		all = append(all, v)
	}
	slices.Sort(all)
	return all
}

// number reads a file that holds one number; field reads the line "name number".
func number(dir, file string) int64 {
	text, _ := os.ReadFile(filepath.Join(dir, file))
	n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n
}

func field(dir, file, name string) int64 {
	text, _ := os.ReadFile(filepath.Join(dir, file))
	return value(string(text), name)
}

func value(text, name string) int64 {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			n, _ := strconv.ParseInt(value, 10, 64)
			return n
		}
	}
	return 0
}
