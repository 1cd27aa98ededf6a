package enginetest

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	moby "github.com/moby/moby/client"
)

// Container is one that the engine has.
type Container struct {
	ID, Name string
	Task     string
	Running  bool
	New      bool // not started yet
	Code     int
	Ended    time.Time
}

// Containers are all that the engine has. Without an engine it says so.
func (e *Engine) Containers() ([]Container, error) {
	client := e.Client()
	defer client.Close()
	list, err := client.ContainerList(context.Background(), moby.ContainerListOptions{All: true})
	if err != nil {
		return nil, err
	}
	var found []Container
	for _, item := range list.Items {
		one := Container{ID: item.ID, Name: strings.Join(item.Names, " "), Task: item.Labels["clary.task"]}
		// The list may be older than what was waited for; what is gone meanwhile is not there.
		now, err := client.ContainerInspect(context.Background(), item.ID, moby.ContainerInspectOptions{})
		if err != nil || now.Container.State == nil {
			continue
		}
		state := now.Container.State
		one.Running, one.Code = state.Running, state.ExitCode
		started, _ := time.Parse(time.RFC3339Nano, state.StartedAt)
		one.Ended, _ = time.Parse(time.RFC3339Nano, state.FinishedAt)
		one.New = !one.Running && started.IsZero()
		found = append(found, one)
	}
	return found, nil
}

// Left is what is there of containers: they themselves, their monitors, control groups and
// processes, mounts and network namespaces, and ports on which somebody listens in the engine's
// network. It is empty as long as there has been no container.
func (e *Engine) Left() []string {
	var left []string
	containers, err := e.Containers()
	if err != nil {
		left = append(left, "containers cannot be counted: "+err.Error())
	}
	for _, c := range containers {
		left = append(left, "container "+c.Name+" of task "+c.Task)
	}
	for _, pid := range e.pids() {
		if line := commandLine(pid); strings.Contains(line, "containerd-shim") || strings.Contains(line, "/conmon") {
			left = append(left, fmt.Sprintf("monitor %d: %s", pid, line))
		}
	}
	for _, group := range e.groups() {
		left = append(left, "control group "+group)
		text, _ := os.ReadFile(filepath.Join(group, "cgroup.procs"))
		for word := range strings.FieldsSeq(string(text)) {
			pid, _ := strconv.Atoi(word)
			left = append(left, fmt.Sprintf("process %d in it: %s", pid, commandLine(pid)))
		}
	}
	for _, mount := range e.mounts() {
		if strings.HasSuffix(mount, "/merged") || strings.HasSuffix(mount, "/shm") || strings.Contains(mount, "/netns/") && filepath.Base(mount) != "default" {
			left = append(left, "mount "+mount)
		}
	}
	for _, port := range e.ports() {
		left = append(left, fmt.Sprintf("port %d is listened on in the engine's network", port))
	}
	return left
}

// pids are the processes whose command line names the engine's folder.
func (e *Engine) pids() []int {
	var found []int
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(line)))
		if pid != os.Getpid() && strings.Contains(commandLine(pid), e.dir+"/") {
			found = append(found, pid)
		}
	}
	return found
}

func commandLine(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.ReplaceAll(strings.TrimRight(string(text), "\x00"), "\x00", " ")
}

// group is the control group under which dockerd has its containers'; Podman's are below one
// that all Podmans share.
func (e *Engine) group() string { return filepath.Base(e.dir) }

// groups are the control groups below it.
func (e *Engine) groups() []string {
	var found []string
	for _, parent := range e.parents() {
		_ = filepath.WalkDir(parent, func(path string, item fs.DirEntry, err error) error {
			if err == nil && item.IsDir() && path != parent {
				found = append(found, path)
			}
			return nil
		})
	}
	return found
}

func (e *Engine) parents() []string {
	var found []string
	for _, depth := range []string{"", "*/"} {
		some, _ := filepath.Glob("/sys/fs/cgroup/" + depth + e.group())
		found = append(found, some...)
	}
	return found
}

// mounts are those below the engine's folder, outer ones first.
func (e *Engine) mounts() []string {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return []string{"(mounts cannot be counted: " + err.Error() + ")/merged"}
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], e.dir+"/") {
			found = append(found, fields[4])
		}
	}
	return found
}

// ports are those on which somebody listens in the engine's network, but for registries.
func (e *Engine) ports() []int {
	const listening = "0A"
	var found []int
	for _, table := range []string{"tcp", "tcp6"} {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", e.Process.Process.Pid, table))
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 4 || fields[3] != listening {
				continue
			}
			_, hex, _ := strings.Cut(fields[1], ":")
			port, err := strconv.ParseInt(hex, 16, 32)
			if err == nil && (port < firstRegistry || port >= firstRegistry+maxRegistries) && !slices.Contains(found, int(port)) {
				found = append(found, int(port))
			}
		}
	}
	return found
}

// tidy takes away what an engine leaves, and lets the test fail for what it should not have.
func (e *Engine) tidy() {
	for _, pid := range e.pids() { // Podman's monitors stay for minutes, to tell of programs beside a container
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, mount := range slices.Backward(e.mounts()) {
		if err := syscall.Unmount(mount, syscall.MNT_DETACH); err != nil {
			e.t.Errorf("unmount %s: %v", mount, err)
		}
	}
	groups := e.groups()
	slices.Reverse(groups) // inner ones first
	for _, group := range append(groups, e.parents()...) {
		if err := syscall.Rmdir(group); err != nil {
			e.t.Errorf("remove the control group %s: %v", group, err)
		}
	}
}
