package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Of finds the control groups of a process that somebody else made, as a container engine
// does: those whose path has an element that holds the name, such as a container's ID.
// Without that element a group is shared with others, and left out. The zero Group says
// that nothing was found: the process is gone, or lives where this one cannot look.
func Of(pid int, name string) Group {
	mounted, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Group{}
	}
	told, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return Group{}
	}
	return named(parseMounts(string(mounted)), string(told), name)
}

// named reads the lines of a process's cgroup file: "number:controllers:path".
func named(at mounts, told, name string) Group {
	var group Group
	for line := range strings.Lines(told) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		path := upTo(fields[2], name)
		if path == "" {
			continue
		}
		if fields[1] == "" && at.unified != "" {
			if dir := filepath.Join(at.unified, path); exists(dir) {
				group.Unified, group.V2 = dir, available(dir)
			}
			continue
		}
		for controller := range strings.SplitSeq(fields[1], ",") {
			dir := filepath.Join(at.v1[controller], path)
			if at.v1[controller] == "" || !exists(dir) {
				continue
			}
			if group.Legacy == nil {
				group.Legacy = map[string]string{}
			}
			group.Legacy[controller] = dir
		}
	}
	return group
}

// upTo cuts a path behind the element that holds the name; "" if none does.
func upTo(path, name string) string {
	at := strings.Index(path, name)
	if name == "" || at < 0 {
		return ""
	}
	if end := strings.IndexByte(path[at:], '/'); end >= 0 {
		return path[:at+end]
	}
	return path
}

// available are the controllers that measure a group of the v2 tree.
func available(dir string) []string {
	text, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	return slices.DeleteFunc(strings.Fields(string(text)), func(name string) bool { return !slices.Contains(controllers, name) })
}

// deepest is how far below a hierarchy's root engines put their containers' groups.
const deepest = 3

// Named finds the control groups with an element of that name wherever they are: of a container
// whose engine does not tell its process.
func Named(name string) Group {
	mounted, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || name == "" || strings.ContainsAny(name, "/*?[\\") {
		return Group{}
	}
	at, group := parseMounts(string(mounted)), Group{}
	find := func(mount string) string {
		for depth := range deepest {
			if found, _ := filepath.Glob(filepath.Join(mount, strings.Repeat("*/", depth), "*"+name+"*")); len(found) > 0 {
				return found[0]
			}
		}
		return ""
	}
	if at.unified != "" {
		group.Unified = find(at.unified)
	}
	for controller, mount := range at.v1 {
		if dir := find(mount); dir != "" {
			if group.Legacy == nil {
				group.Legacy = map[string]string{}
			}
			group.Legacy[controller] = dir
		}
	}
	return group
}

// Gone reports whether none of the group's folders is there any more.
func (g Group) Gone() bool { return !slices.ContainsFunc(g.folders(), exists) }
