package testbed

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Mounts are the places below the cluster's folder where something is mounted.
func (m *Machines) Mounts() []string {
	var found []string
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return []string{"mounts cannot be counted: " + err.Error()}
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && strings.HasPrefix(fields[4], m.Dir+"/") && !m.allowed[fields[4]] {
			found = append(found, "mount "+fields[4])
		}
	}
	return found
}

// Allow says that the test itself mounted something, which is not left over.
func (m *Machines) Allow(mount string) {
	if m.allowed == nil {
		m.allowed = map[string]bool{}
	}
	m.allowed[mount] = true
}

// Ports are those of the agents' ranges on which somebody listens, in this network.
func (m *Machines) Ports() []string {
	var found []string
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, _ := os.ReadFile(table)
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			const listening = "0A"
			if len(fields) < 4 || fields[3] != listening {
				continue
			}
			_, hex, _ := strings.Cut(fields[1], ":")
			port, err := strconv.ParseInt(hex, 16, 32)
			if err == nil && int(port) >= m.firstPort && int(port) < m.ports {
				found = append(found, fmt.Sprintf("port %d is listened on", port))
			}
		}
	}
	return found
}

// Namespaces are those of this cluster's processes that are not the test's own, as
// "net:[4026531840]", with a process that is in it.
func (m *Machines) Namespaces() map[string]int {
	found := map[string]int{}
	for _, pid := range m.PIDs("") {
		for _, kind := range []string{"net", "mnt", "pid", "ipc", "uts"} {
			name, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "ns", kind))
			own, _ := os.Readlink("/proc/self/ns/" + kind)
			if err == nil && name != own {
				found[name] = pid
			}
		}
	}
	return found
}
