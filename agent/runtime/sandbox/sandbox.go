// Package sandbox gives a process a view of the machine of its own: a read-only root with
// a private /tmp, /run, /dev and /dev/shm, folders bound where it expects them, names that
// resolve, on request no network, and neither privileges nor a way to get any.
//
// A parent makes the namespaces with clone (Flags); the first program in them is Enter's
// caller, which arranges the view from the inside and becomes the program. There is no
// process between the parent and the program, and no process namespace: the parent's
// exit codes, signals and control groups work as without. That others' processes are not
// seen is proc's hidepid, that they are not reached is the user's.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Spec is a view of the machine.
type Spec struct {
	Mounts   []Mount           `json:"mounts,omitempty"`
	Hosts    map[string]string `json:"hosts,omitempty"` // names to IP addresses
	Hostname string            `json:"hostname,omitempty"`
	Offline  bool              `json:"offline,omitempty"` // a network of its own, with nothing but loopback
	Hide     []string          `json:"hide,omitempty"`    // folders that are empty inside
	TempSize int64             `json:"temp_size,omitempty"`
}

// Mount shows a folder or file of the machine, with all that is mounted below it, at a
// place inside. What does not exist there is made.
type Mount struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only,omitempty"`
}

// User is whom the program runs as.
type User struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"`
	Name   string   `json:"name,omitempty"`
}

// defaultTempSize bounds what /tmp, and /dev/shm, hold if the spec does not say.
const defaultTempSize = 1 << 30

// Flags are the namespaces that a process with this view is cloned into.
func (s Spec) Flags() uintptr {
	flags := uintptr(syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC)
	if s.Hostname != "" {
		flags |= syscall.CLONE_NEWUTS
	}
	if s.Offline {
		flags |= syscall.CLONE_NEWNET
	}
	return flags
}

// Enter arranges the view; the caller is alone in its namespaces and still root. It must
// then Drop its privileges.
func Enter(s Spec, user User) error {
	if err := checkKernel(); err != nil {
		return err
	}
	if s.TempSize == 0 {
		s.TempSize = defaultTempSize
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	trees, err := openTrees(s.Mounts)
	if err != nil {
		return err
	}
	defer closeTrees(trees)
	resolver, _ := os.ReadFile("/etc/resolv.conf")
	files := etc(s, user)
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"make places for what is shown", func() error { return makeTargets(s, trees) }},
		{"make the root read-only", func() error { return setReadOnly(unix.AT_FDCWD, "/", true) }},
		{"make private folders", func() error { return private(s) }},
		{"write /etc/hosts", func() error { return overlayFiles(files, resolver) }},
		{"show folders", func() error { return attachTrees(s, trees) }},
		{"set the host's name", func() error { return setHostname(s.Hostname) }},
		{"bring loopback up", func() error { return loopback(s.Offline) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

// checkKernel refuses kernels without mount_setattr, and with a hidepid that would hold
// for the whole machine.
func checkKernel() error {
	if err := unix.MountSetattr(-1, "", 0, &unix.MountAttr{}); errors.Is(err, unix.ENOSYS) {
		return errors.New("tasks cannot have a view of their own: Linux 5.12 or newer is needed")
	}
	return nil
}

func setHostname(name string) error {
	if name == "" {
		return nil
	}
	return unix.Sethostname([]byte(name))
}

// loopback brings up the only interface that a new network has.
func loopback(offline bool) error {
	if !offline {
		return nil
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket) //nolint:errcheck // nothing was written
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request)
}

// etc is what stands in files below /etc: the machine's, with the names and the user.
func etc(s Spec, user User) map[string]string {
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
	if s.Hostname != "" && s.Hosts[s.Hostname] == "" {
		fmt.Fprintf(&hosts, "127.0.1.1 %s\n", s.Hostname)
	}
	for _, name := range sortedKeys(s.Hosts) {
		fmt.Fprintf(&hosts, "%s %s\n", s.Hosts[name], name)
	}
	files := map[string]string{"/etc/hosts": hosts.String()}
	if user.Name != "" {
		files["/etc/passwd"] = withLine("/etc/passwd", fmt.Sprintf("%s:x:%d:%d:clary task:/tmp:/bin/sh", user.Name, user.UID, user.GID))
		files["/etc/group"] = withLine("/etc/group", fmt.Sprintf("%s:x:%d:", user.Name, user.GID))
	}
	return files
}

// withLine is a file's text with one line more.
func withLine(path, line string) string {
	text, _ := os.ReadFile(path)
	if len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	return string(text) + line + "\n"
}
