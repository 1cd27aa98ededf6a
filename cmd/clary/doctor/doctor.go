// Package doctor examines a machine and, if there is one, its cluster: each check says whether all is well and, if
// not, what to do about it. Nothing is changed, and what it reads of a machine it is given, so that it can be tested
// anywhere.
package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/clary-ml/clary/cluster"
)

// Level is how a check came out.
type Level string

// The levels.
const (
	OK   Level = "ok"
	Warn Level = "warn" // it works, and will be trouble
	Fail Level = "fail" // something does not work
)

// Finding is what a check found.
type Finding struct {
	Check  string `json:"check"`
	Level  Level  `json:"level"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
}

// Machine is what is read of this machine.
type Machine struct {
	Read    func(path string) (string, error) // a file of the system
	Root    bool                              // whether this is the superuser
	Folders []string                          // data folders of Clary's processes
	Room    func(folder string) (free, total int64, err error)
	Objects func(folder string) bool                           // whether a data folder has the cluster's objects, on its own disk
	Sync    func(folder string) (time.Duration, error)         // how long a small write takes until it is on the disk
	Certs   func(folder string) ([]Certificate, error)         // of a data folder
	Keyring func(folder string) error                          // whether a coordinator can use its own; of another folder nil
	Ports   []Port                                             // that Clary's processes use
	Port    func(ctx context.Context, port Port) PortState     // of this machine
	GPUs    func(ctx context.Context) (found []GPU, err error) // none is no error
	Synced  func() (synced bool, err error)                    // whether the kernel says that its clock is kept
	Files   func() (limit uint64, err error)                   // that a process may have open
	Now     func() time.Time                                   // of this machine
	Cluster func(ctx context.Context) (*ClusterAnswers, error) // nil answers: no cluster is known here
}

// Certificate is a certificate on disk.
type Certificate struct {
	File          string
	Of            string
	Renew, Expiry time.Time
}

// Port is one that Clary uses.
type Port struct {
	Number int
	Of     string
	UDP    bool // beside TCP
}

// PortState says what becomes of a port.
type PortState string

// The states of a port.
const (
	Free     PortState = "free"
	Answered PortState = "answers"
	Silent   PortState = "taken, and does not answer"
)

// GPU is one accelerator.
type GPU struct {
	Model   string
	Healthy bool
}

// ClusterAnswers are what the coordinators and the cluster say.
type ClusterAnswers struct {
	Coordinators []CoordinatorAnswer
	Nodes        []cluster.Node
	NodesErr     error
	Backups      *BackupsAnswer // nil: whoever asks may not know
}

// BackupsAnswer is what there is of backups.
type BackupsAnswer struct {
	Every  time.Duration // 0: none is made by itself
	Newest time.Time     // zero: there is none
	Failed string        // why there is nothing newer, or why nobody knows
}

// CoordinatorAnswer is one coordinator asked by itself.
type CoordinatorAnswer struct {
	ID, Address string
	Err         error // it did not answer
	Version     string
	Leader      string // whom it takes for the leader
	Voter       bool
	Clock       bool          // it said what its clock shows
	Skew        time.Duration // how far its clock is ahead of this machine's
	Round       time.Duration // how long its answer took: Skew is no better known than that
}

// Examine makes all checks, in a fixed order.
func Examine(ctx context.Context, m Machine) []Finding {
	var found []Finding
	for _, check := range []func(context.Context, Machine) []Finding{
		kernel, privileges, cgroups, namespaces, files, clock, disks, syncs, certificates, keyrings, ports, gpus, members,
	} {
		found = append(found, check(ctx, m)...)
	}
	return found
}

// Failed reports whether something does not work.
func Failed(found []Finding) bool {
	for _, f := range found {
		if f.Level == Fail {
			return true
		}
	}
	return false
}

func finding(check string, level Level, text, remedy string) []Finding {
	return []Finding{{Check: check, Level: level, Text: text, Remedy: remedy}}
}

func well(check, format string, args ...any) []Finding {
	return finding(check, OK, fmt.Sprintf(format, args...), "")
}
