package testbed

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
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

// Ports are those of the claimed ranges on which somebody listens, in this network, unless all machines have their own, and in those of machines.
func (m *Machines) Ports() []string {
	var found []string
	if !m.apart {
		found = m.listening(listeners(""))
	}
	for name := range m.plugged {
		for _, line := range m.listening(listeners(m.netns(name))) {
			found = append(found, line+" on "+name)
		}
	}
	return found
}

// listeners are the sockets of a network, "" for this one.
func listeners(netns string) string {
	if netns == "" {
		four, _ := os.ReadFile("/proc/net/tcp")
		six, _ := os.ReadFile("/proc/net/tcp6")
		return string(four) + string(six)
	}
	out, _ := exec.Command("nsenter", "--net="+netns, "cat", "/proc/net/tcp", "/proc/net/tcp6").Output()
	return string(out)
}

func (m *Machines) listening(sockets string) []string {
	var found []string
	for line := range strings.Lines(sockets) {
		fields := strings.Fields(line)
		const listening = "0A"
		if len(fields) < 4 || fields[3] != listening {
			continue
		}
		_, hex, _ := strings.Cut(fields[1], ":")
		port, err := strconv.ParseInt(hex, 16, 32)
		if err == nil && slices.ContainsFunc(m.ranges, func(first int) bool { return int(port) >= first && int(port) < first+perRange }) {
			found = append(found, fmt.Sprintf("port %d is listened on", port))
		}
	}
	return found
}

// Namespaces are those of this cluster's processes that are neither the test's own nor a machine's
// network, as "net:[4026531840]", with a process that is in it.
func (m *Machines) Namespaces() map[string]int {
	found := map[string]int{}
	machines := map[string]bool{}
	for name := range m.plugged {
		if file, err := os.Stat(m.netns(name)); err == nil {
			machines[fmt.Sprintf("net:[%d]", file.Sys().(*syscall.Stat_t).Ino)] = true
		}
	}
	for _, pid := range m.PIDs("") {
		for _, kind := range []string{"net", "mnt", "pid", "ipc", "uts"} {
			name, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "ns", kind))
			own, _ := os.Readlink("/proc/self/ns/" + kind)
			if err == nil && name != own && !machines[name] {
				found[name] = pid
			}
		}
	}
	return found
}
