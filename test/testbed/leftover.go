package testbed

import (
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// PIDs are this cluster's processes whose environment or command line holds the text. A
// process is the cluster's if it names its folder there, or is in a control group of one
// of its agents: a task that has its own view of the machine knows nothing of the folder.
func (m *Machines) PIDs(text string) []int {
	var found []int
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		told := read(pid, "environ") + read(pid, "cmdline")
		if strings.Contains(told, text) && (strings.Contains(told, m.Dir+"/") || m.grouped(read(pid, "cgroup"))) {
			found = append(found, pid)
		}
	}
	slices.Sort(found)
	return found
}

// grouped reports whether a process's control groups are of this cluster's agents.
func (m *Machines) grouped(groups string) bool {
	return slices.ContainsFunc(m.parents, func(parent string) bool { return strings.Contains(groups, "/"+parent+"/") })
}

func read(pid int, name string) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	return string(text)
}

// LeftOver lists what of this cluster is still there once it has ended: processes, shims
// and tasks included, which it kills; mounts; ports; secrets; and control groups.
func (m *Machines) LeftOver() []string {
	var left []string
	for _, pid := range m.PIDs("") {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if len(line) == 0 {
			continue // it has ended meanwhile
		}
		left = append(left, fmt.Sprintf("process %d: %s", pid, strings.ReplaceAll(string(line), "\x00", " ")))
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	left = append(left, m.Mounts()...)
	left = append(append(left, m.Ports()...), m.InMemory()...)
	return append(left, m.Groups()...)
}

// Expect notes the control group that the agent of a data folder makes.
func (m *Machines) Expect(id, data string) {
	m.parents = append(m.parents, fmt.Sprintf("clary-%s-%08x", id, crc32.ChecksumIEEE([]byte(data))))
}

// Groups are the control groups of this cluster's agents and their tasks.
func (m *Machines) Groups() []string {
	var found []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && slices.Contains(m.parents, entry.Name()) {
			found = append(found, path)
			return fs.SkipDir
		}
		return nil
	})
	return found
}

// InMemory are the files with secrets that agents of this cluster keep.
func (m *Machines) InMemory() []string {
	var found []string
	for _, parent := range m.parents {
		files, _ := filepath.Glob(filepath.Join("/dev/shm", parent, "*", "*"))
		found = append(found, files...)
	}
	return found
}
