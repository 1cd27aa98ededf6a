// Package shim is the parent of one task's process: all that the small program
// clary-shim does.
//
// A shim and the agent speak through files in the task's folder and one lock, never
// over a connection: so either may be killed at any time and the other, or its
// successor, finds the whole truth on disk.
//
//	shim.json    agent → shim   what to run (Spec)
//	shim.lock    held as long as the shim lives; taken by the agent, inherited by the shim
//	start.json   shim → agent   the process (Start); absent means nothing was ever run
//	stop.json    agent → shim   the wish to end it (Stop); followed by SIGUSR1
//	lease        agent → shim   until when an exclusive task may run (SetLease)
//	exit.json    shim → agent   how it ended (Exit); written last, synced
//	output.log, output.log.1   what it wrote, a bounded journal of two streams
//
// A free lock with start.json and without exit.json means that the shim was killed:
// how the task ended is unknown.
package shim

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/clary-ml/clary/agent/runtime/cgroup"
	"github.com/clary-ml/clary/agent/runtime/sandbox"
)

// The files in a task's folder.
const (
	SpecFile  = "shim.json"
	LockFile  = "shim.lock"
	StartFile = "start.json"
	StopFile  = "stop.json"
	LeaseFile = "lease"
	ExitFile  = "exit.json"
	LogFile   = "output.log" // see storage/journal
)

// Spec is what a shim is told to run.
type Spec struct {
	Argv []string `json:"argv"` // argv[0] is looked up in the PATH of Env
	Env  []string `json:"env"`
	Dir  string   `json:"dir"`

	// User runs the process as a user without privileges; nil keeps the shim's own.
	User *sandbox.User `json:"user,omitempty"`
	// Sandbox gives it a view of the machine of its own; nil is the machine's.
	Sandbox *sandbox.Spec `json:"sandbox,omitempty"`

	Rlimits []Rlimit     `json:"rlimits,omitempty"`
	Group   cgroup.Group `json:"group"`

	LogBytes   int64         `json:"log_bytes"`             // kept of what it writes
	MaxRuntime time.Duration `json:"max_runtime,omitempty"` // 0 is no limit
	Grace      time.Duration `json:"grace"`                 // between SIGTERM and SIGKILL
	Exclusive  bool          `json:"exclusive,omitempty"`   // ends when the lease file's instant has passed
}

// Rlimit is a resource limit by the kernel's number (RLIMIT_*).
type Rlimit struct {
	Resource int    `json:"resource"`
	Soft     uint64 `json:"soft"`
	Hard     uint64 `json:"hard"`
}

// Start identifies the process for ever: Boot and Ticks tell it from another
// process that was given the same pid.
type Start struct {
	Boot  string    `json:"boot"`
	Shim  int       `json:"shim"`
	Pid   int       `json:"pid"` // 0 while it is being forked
	Ticks uint64    `json:"ticks"`
	Time  time.Time `json:"time"`
}

// Stop is the wish to end the task. The first byte of grace counts from when the
// shim sees it; a later, shorter one shortens it.
type Stop struct {
	Grace time.Duration `json:"grace"`
}

// Cause says why the shim itself ended the task.
type Cause string

// The causes. CauseNone means that the task ended by itself.
const (
	CauseNone       Cause = ""
	CauseStopped    Cause = "stopped"
	CauseMaxRuntime Cause = "max_runtime"
	CauseLease      Cause = "lease"
)

// Exit is how the task ended.
type Exit struct {
	Code    int           `json:"code"`            // exit code; -1 when a signal ended it or it never started
	Signal  int           `json:"signal"`          // the signal that ended it, or 0
	Error   string        `json:"error,omitempty"` // why it could not be started
	Cause   Cause         `json:"cause,omitempty"`
	Started time.Time     `json:"started"`
	Ended   time.Time     `json:"ended"`
	Ran     time.Duration `json:"ran"` // by the monotonic clock
	Usage   cgroup.Usage  `json:"usage"`
	Dropped int64         `json:"dropped,omitempty"` // bytes of output that could not be written
	Unknown bool          `json:"unknown,omitempty"` // the shim was killed: nothing else here is known
}

// OutOfMemory reports whether the kernel killed for memory and the task failed of it.
func (e Exit) OutOfMemory() bool {
	return e.Usage.OOMKills > 0 && e.Cause == CauseNone && (e.Code != 0 || e.Signal != 0)
}

// ReadJSON reads a file of a task's folder into v.
func ReadJSON(dir, name string, v any) error {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

// WriteJSON replaces a file of a task's folder at once; if durable, it has reached
// the disk when WriteJSON returns.
func WriteJSON(dir, name string, v any, durable bool) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return replace(dir, name, text, durable)
}

func replace(dir, name string, text []byte, durable bool) error {
	temp := filepath.Join(dir, name+".tmp")
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if durable {
		err = errors.Join(err, f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, filepath.Join(dir, name)); err != nil {
		return err
	}
	if !durable {
		return nil
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// Boot identifies this boot of the machine.
func Boot() string {
	text, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text))
}
