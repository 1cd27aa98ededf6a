// Package runtime is the seam between the agent and what runs tasks on a node: the
// process driver today, containers beside it.
//
// A driver's tasks outlive the agent. A new agent calls Recover and then waits for
// them as if it had started them; package runtimetest holds every driver to that.
package runtime

import (
	"context"
	"io"
	"net"
	"strings"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/journal"
)

// Driver runs tasks. All methods may be called at the same time; a task is known
// by its ID from Start, or Recover, until Remove.
type Driver interface {
	// Start returns when the task's process exists. An Invalid error means that the
	// task cannot be started as it is asked for; Conflict, that the ID runs or ran.
	Start(ctx context.Context, spec Spec) (time.Time, error)
	// Recover finds the tasks that an earlier agent started, ended or not.
	Recover(ctx context.Context) ([]Found, error)
	// Wait returns how the task ended, as soon as nothing of it is left.
	Wait(ctx context.Context, id string) (Exit, error)
	// Stop asks the task to end within the grace, after which it is killed, and does
	// not wait. Asking again may shorten the grace. An ended task is no error.
	Stop(ctx context.Context, id string, grace time.Duration) error
	// Logs gives what the query wants of what the task wrote, streams Stdout and Stderr, in the
	// order in which it came, as far as it is kept. Times increase strictly. With Follow it goes
	// on until the task has ended. NotFound says that there is no log, or no longer.
	Logs(ctx context.Context, id string, query journal.Query, sink journal.Sink) error
	// Remove forgets an ended task and deletes all that the driver kept of it. It
	// refuses, with Conflict, while the task runs; an unknown ID is no error.
	Remove(ctx context.Context, id string) error
}

// Leaser is implemented by drivers that can end a task by themselves when the node
// has lost its coordinators, even if the agent is gone.
type Leaser interface {
	// SetLease lets an exclusive task run for so long from now.
	SetLease(id string, left time.Duration) error
}

// LogKeeper is implemented by drivers that keep logs themselves and can let go of them.
type LogKeeper interface {
	// DropLog deletes the log of an ended task. None is no error.
	DropLog(id string) error
}

// Meter is implemented by drivers that can tell what a running task uses.
type Meter interface {
	Usage(id string) (Usage, error)
}

// Isolator is implemented by drivers that can give a task a view of the machine of
// its own: Spec.Isolation.
type Isolator interface {
	// CanIsolate says why this machine cannot, or nil.
	CanIsolate() error
}

// Fetcher is implemented by drivers whose tasks run in images.
type Fetcher interface {
	// Fetch brings an image to the node, which may take minutes; Start then finds it there.
	// Unready means that it may be tried again.
	Fetch(ctx context.Context, image string) error
}

// Execer is implemented by drivers that can run another program beside a task, with
// its view, its limits and its user.
type Execer interface {
	// Exec returns the program's exit code when it has ended. Input may be nil.
	Exec(ctx context.Context, id string, command Command, streams Streams) (int, error)
}

// Dialer is implemented by drivers that can reach a port on which a task listens.
type Dialer interface {
	Dial(ctx context.Context, id string, port int) (net.Conn, error)
}

// Occupant is implemented by drivers that can tell what of a running task takes room on the
// node's disk.
type Occupant interface {
	// Occupies names folders that the task may fill beside its mounts, and its processes,
	// which may hold files that were deleted.
	Occupies(ctx context.Context, id string) (folders []string, pids []int, err error)
}

// Spec is what to run.
type Spec struct {
	ID     string
	Argv   []string // of a container the arguments, instead of the image's own
	Env    []string // "NAME=value"
	Dir    string   // working folder
	Limits Limits
	// Devices are UUIDs; none means that the task sees none.
	Devices    []string
	MaxRuntime time.Duration // 0 is no limit
	Grace      time.Duration // used when the driver itself ends the task
	LogBytes   int64         // kept of what it writes; 0 is DefaultLogBytes
	Exclusive  bool          // ends when Lease, or what SetLease made of it, is over
	Lease      time.Duration

	// Secrets are variables like Env that no file or listing may show.
	Secrets []string
	// User runs the task as another than the agent; nil is the agent's own.
	User *User
	// Isolation gives a process a view of its own; a container always has one. Nil is the
	// machine's, in which Mounts, Hosts, Hostname and Network mean nothing.
	Isolation *Isolation

	Image      string   // a container's; "" is a process
	Entrypoint []string // instead of the image's own
}

// User is whom a task runs as.
type User struct {
	UID, GID uint32
	Name     string // shown inside the task
}

// Isolation is a task's own view of the machine: its own processes, a read-only root,
// a private /tmp and /dev/shm, no new privileges, and system calls of ordinary programs.
type Isolation struct {
	Mounts   []Mount
	Hosts    map[string]string // names that resolve inside the task, to IP addresses
	Hostname string            // "" is the machine's
	Network  Network
	Hide     []string // folders of the machine that are empty for the task
	ReadOnly bool     // a container's own root cannot be written; a process's never can
}

// Mount shows a folder or file of the machine inside the task. What is mounted below the
// source is shown too.
type Mount struct {
	Source   string
	Target   string // made if it can be
	ReadOnly bool
}

// Network is what a task may reach.
type Network string

// The networks.
const (
	NetworkHost   Network = ""       // the machine's own
	NetworkNone   Network = "none"   // its own loopback
	NetworkBridge Network = "bridge" // an address of its own behind the machine's; containers only
)

// Command is a program to run beside a task.
type Command struct {
	Argv []string
	Env  []string // beside the task's own
	Dir  string   // the task's own if empty
	// Terminal gives it a terminal, whose size follows Sizes; output is then all Stdout.
	Terminal bool
	Sizes    <-chan Size
}

// Size of a terminal, in characters.
type Size struct{ Rows, Columns uint16 }

// Streams are a command's; any may be nil.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// DefaultLogBytes are kept of a task's log on its node.
const DefaultLogBytes = 64 << 20

// Limits bounds a task; zero means no limit.
type Limits struct {
	MilliCPU int64 // a weight: an idle machine is used fully
	HardCPU  bool  // a ceiling too
	Memory   int64 // bytes, no swap beyond
	Pids     int64 // processes and threads
}

// Found is a task that Recover came upon.
type Found struct {
	ID      string
	Started time.Time
	Running bool
}

// Cause says who ended a task that did not end by itself.
type Cause string

// The causes.
const (
	CauseNone       Cause = ""
	CauseStopped    Cause = "stopped"
	CauseMaxRuntime Cause = "max_runtime"
	CauseLease      Cause = "lease"
)

// Exit is how a task ended. A driver may write it down.
type Exit struct {
	Code        int       `json:"code"`             // exit code, -1 if there is none
	Signal      int       `json:"signal,omitempty"` // that ended it, or 0
	Error       string    `json:"error,omitempty"`  // why it could not be started, or ""
	Cause       Cause     `json:"cause,omitempty"`
	OutOfMemory bool      `json:"out_of_memory,omitempty"`
	Unknown     bool      `json:"unknown,omitempty"` // nobody knows how it ended; nothing of it is left
	Started     time.Time `json:"started"`
	Ended       time.Time `json:"ended"`
	Usage       Usage     `json:"usage"`
	LogsDropped int64     `json:"logs_dropped,omitempty"` // bytes that could not be written
}

// Usage is what a task used.
type Usage struct {
	CPU        time.Duration `json:"cpu"`
	Memory     int64         `json:"memory"`      // bytes now
	PeakMemory int64         `json:"peak_memory"` // bytes
	// Refused counts processes and threads that could not be made, since the task had as
	// many as it may.
	Refused int64 `json:"refused,omitempty"`
}

// The streams of a task's log.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// FolderName turns a task's ID into the name of its folder and control group; ID
// turns it back. "digits/main/worker-0.1" becomes "digits~main~worker-0.1".
func FolderName(id string) (string, error) {
	name := strings.ReplaceAll(id, "/", "~")
	if id == "" || len(name) > 240 || name[0] == '.' || strings.ContainsAny(id, "~\x00\n") {
		return "", fault.New(fault.Invalid, "task %q: an ID is 1 to 240 bytes without '~', not starting with '.'", id)
	}
	return name, nil
}

// TaskID is the ID of the task whose folder has the name.
func TaskID(folder string) string { return strings.ReplaceAll(folder, "~", "/") }
