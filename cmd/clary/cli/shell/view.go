package shell

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
)

// What -o json and yaml show: the nouns in the words of the API, instants as RFC 3339,
// durations as "1h30m0s".

// PinJSON is the version that a job's alias meant when it was submitted.
type PinJSON struct {
	Ref     string `json:"ref"`
	Model   string `json:"model"`
	Version int64  `json:"version"`
	URI     string `json:"uri"`
	SHA256  string `json:"sha256"`
}

// PinsText reads like "model://digits:champion (digits@3)".
func PinsText(pins []cluster.ModelPin) string {
	var texts []string
	for _, p := range pins {
		texts = append(texts, fmt.Sprintf("%s (%s@%d)", p.Ref, p.Model, p.Number))
	}
	return strings.Join(texts, ", ")
}

// PinsToJSON are the versions that a job pinned.
func PinsToJSON(pins []cluster.ModelPin) []PinJSON {
	var out []PinJSON
	for _, p := range pins {
		out = append(out, PinJSON{Ref: p.Ref, Model: p.Model, Version: p.Number, URI: p.URI, SHA256: p.SHA256})
	}
	return out
}

// PartJSON is a part of a device that is in use: all shares together, or one slot.
type PartJSON struct {
	UUID     string  `json:"uuid"`
	Fraction float64 `json:"fraction,omitempty"`
	Memory   int64   `json:"memory,omitempty"`
	Profile  string  `json:"profile,omitempty"`
	Start    *int32  `json:"start,omitempty"`
}

// Text reads like "0.25 and 10 GiB" or "1g.10gb at 2".
func (p PartJSON) Text() string {
	if p.Profile != "" {
		return fmt.Sprintf("%s at %d", p.Profile, *p.Start)
	}
	return fmt.Sprintf("%g and %s", p.Fraction, cluster.FormatBytes(p.Memory))
}

// PartsToJSON are shares of one device.
func PartsToJSON(shares []cluster.DeviceShare, uuid string) []PartJSON {
	var out []PartJSON
	for _, s := range shares {
		if uuid != "" && s.UUID != uuid {
			continue
		}
		share := PartJSON{UUID: s.UUID, Fraction: float64(s.Milli) / cluster.WholeGPU, Memory: s.Memory, Profile: s.Profile}
		if s.Profile != "" {
			share.Start = &s.Start
		}
		out = append(out, share)
	}
	return out
}

func deviceToJSON(d cluster.Device, used cluster.Resources) deviceJSON {
	out := deviceJSON{
		UUID: d.UUID, Model: d.Model, Memory: d.Memory, Healthy: d.Healthy, Simulated: d.Simulated,
		Used: slices.Contains(used.Devices, d.UUID), NUMA: d.NUMA, Link: d.Link, PCI: d.PCI, Speed: float64(d.Speed) / 1000,
		Shares: PartsToJSON(used.Shares, d.UUID),
	}
	for _, profile := range d.Profiles {
		out.Profiles = append(out.Profiles, profile.Name)
	}
	return out
}

// JobJSON is a job.
type JobJSON struct {
	Name       string            `json:"name"`
	Kind       cluster.Kind      `json:"kind"`
	State      cluster.JobState  `json:"state"`
	Reason     string            `json:"reason,omitempty"`
	Owner      string            `json:"owner"`
	Queue      string            `json:"queue"`
	Priority   int32             `json:"priority"`
	Labels     map[string]string `json:"labels,omitempty"`
	Attempt    int32             `json:"attempt"`
	Failures   int32             `json:"failures,omitempty"`
	Preempted  int32             `json:"preempted,omitempty"`
	Held       bool              `json:"held,omitempty"`
	Cancel     bool              `json:"cancel,omitempty"`
	Retries    int32             `json:"retries,omitempty"`
	RetryOnly  []int32           `json:"retry_only,omitempty"`
	RetryNever []int32           `json:"retry_never,omitempty"`
	Backoff    string            `json:"backoff,omitempty"`
	MaxRuntime string            `json:"max_runtime,omitempty"`
	// Ran is how long its attempts had their room; of a job that has ended.
	Ran            string          `json:"ran,omitempty"`
	NonPreemptible bool            `json:"non_preemptible,omitempty"`
	Submitted      string          `json:"submitted,omitempty"`
	Started        string          `json:"started,omitempty"`
	Ended          string          `json:"ended,omitempty"`
	Delivered      bool            `json:"delivered,omitempty"`
	Archived       string          `json:"archived,omitempty"`
	Message        string          `json:"exit_message,omitempty"`
	Register       string          `json:"register,omitempty"`
	Models         []PinJSON       `json:"models,omitempty"`
	Revision       uint64          `json:"revision"`
	Spec           json.RawMessage `json:"spec,omitempty"`
	Tasks          []taskJSON      `json:"tasks,omitempty"`
	Outputs        []OutputJSON    `json:"outputs,omitempty"`
}

type taskJSON struct {
	ID       string             `json:"id"`
	Role     string             `json:"role"`
	Index    int32              `json:"index"`
	Attempt  int32              `json:"attempt"`
	State    cluster.TaskState  `json:"state"`
	Reason   string             `json:"reason,omitempty"`
	Node     string             `json:"node"`
	Cores    float64            `json:"cores"`
	Memory   int64              `json:"memory"`
	Devices  []string           `json:"devices,omitempty"`
	Shares   []PartJSON         `json:"shares,omitempty"`
	Ports    []int32            `json:"ports,omitempty"`
	ExitCode *int32             `json:"exit_code,omitempty"`
	Message  string             `json:"exit_message,omitempty"`
	Assigned string             `json:"assigned,omitempty"`
	Started  string             `json:"started,omitempty"`
	Ended    string             `json:"ended,omitempty"`
	Epoch    int32              `json:"epoch,omitempty"`
	Step     int64              `json:"step,omitempty"`
	Total    int64              `json:"total,omitempty"`
	Metrics  map[string]float64 `json:"metrics,omitempty"`
	// Checkpoint is when the newest was written that is in the store.
	Checkpoint string `json:"checkpoint,omitempty"`
}

// OutputJSON is what a job has published under a name.
type OutputJSON struct {
	Name   string `json:"name"`
	URI    string `json:"uri"`
	SHA256 string `json:"sha256,omitempty"`
	Size   int64  `json:"size"`
	Files  int64  `json:"files,omitempty"`
}

// NodeJSON is a node.
type NodeJSON struct {
	ID       string            `json:"id"`
	State    cluster.NodeState `json:"state"`
	Reason   string            `json:"reason,omitempty"`
	Empties  bool              `json:"empties,omitempty"`  // it is drained, not cordoned alone
	Deadline string            `json:"deadline,omitempty"` // when what is left there is ended
	Address  string            `json:"address"`
	Cores    amountJSON        `json:"cores"`
	Memory   amountJSON        `json:"memory"`
	GPUs     amountJSON        `json:"gpus"`
	Disk     int64             `json:"disk,omitempty"`
	Devices  []deviceJSON      `json:"devices,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Taints   []string          `json:"taints,omitempty"`
	Cached   int               `json:"cached_inputs,omitempty"` // inputs of jobs that are whole in its cache
	Tasks    []string          `json:"tasks,omitempty"`
	Version  string            `json:"version,omitempty"`
	Joined   string            `json:"joined,omitempty"`
	Revision uint64            `json:"revision"`
}

type amountJSON struct {
	Used  float64 `json:"used"`
	Total float64 `json:"total"`
}

type deviceJSON struct {
	UUID      string     `json:"uuid"`
	Model     string     `json:"model"`
	Memory    int64      `json:"memory"`
	Healthy   bool       `json:"healthy"`
	Simulated bool       `json:"simulated,omitempty"`
	Used      bool       `json:"used"` // as a whole
	NUMA      int32      `json:"numa,omitempty"`
	Link      int32      `json:"link,omitempty"`
	PCI       string     `json:"pci,omitempty"`
	Speed     float64    `json:"speed,omitempty"`
	Profiles  []string   `json:"profiles,omitempty"`
	Shares    []PartJSON `json:"shares,omitempty"`
}

// TokenJSON is a token, without its secret.
type TokenJSON struct {
	ID      string            `json:"id"`
	Kind    cluster.TokenKind `json:"kind"`
	Name    string            `json:"name,omitempty"`
	Role    string            `json:"role"`
	Created string            `json:"created,omitempty"`
	Expires string            `json:"expires,omitempty"`
	Revoked bool              `json:"revoked,omitempty"`
	By      string            `json:"by,omitempty"`
	Secret  string            `json:"secret,omitempty"`
}

// JobToJSON is a job with its tasks.
func JobToJSON(view client.JobView) JobJSON {
	j := view.Job
	out := JobJSON{
		Name: j.Name, Kind: j.Kind, State: j.State, Reason: j.Reason, Owner: j.Owner, Queue: j.Queue, Priority: j.Priority,
		Labels: j.Labels, Attempt: j.Attempt, Failures: j.Failures, Preempted: j.Preempted, NonPreemptible: j.NonPreemptible, Ran: DurationText(j.Ran), Held: j.Held, Cancel: j.Cancel, Retries: j.Retry.Limit,
		RetryOnly: j.Retry.Only, RetryNever: j.Retry.Never,
		Backoff: DurationText(j.Retry.Backoff), MaxRuntime: DurationText(j.MaxRuntime),
		Submitted: Moment(j.Submitted), Started: Moment(j.Started), Ended: Moment(j.Ended), Archived: Moment(view.Archived), Delivered: j.Delivered, Revision: j.Revision,
		Register: j.Register, Models: PinsToJSON(j.Models),
	}
	if json.Valid(j.Spec) {
		out.Spec = j.Spec
	}
	for _, task := range view.Tasks {
		out.Tasks = append(out.Tasks, taskToJSON(task))
	}
	out.Message = ExitMessage(view)
	if view.Publication != nil {
		for _, o := range view.Publication.Outputs {
			out.Outputs = append(out.Outputs, OutputJSON(o))
		}
	}
	return out
}

// DurationText is a duration as "1h30m0s", or nothing.
func DurationText(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

func taskToJSON(t cluster.Task) taskJSON {
	held, status := t.Allocation.Resources, t.Status
	out := taskJSON{
		ID: t.ID, Role: t.Role, Index: t.Index, Attempt: t.Attempt, State: status.State, Reason: status.Reason, Node: t.Allocation.Node,
		Cores: float64(held.MilliCPU) / 1000, Memory: held.Memory, Devices: held.Devices, Shares: PartsToJSON(held.Shares, ""), Ports: held.Ports,
		Assigned: Moment(t.Assigned), Started: Moment(status.Started), Ended: Moment(status.Ended),
		Epoch: status.Progress.Epoch, Step: status.Progress.Step, Total: status.Progress.Total, Metrics: status.Progress.Metrics, Checkpoint: Moment(status.Progress.Checkpoint),
	}
	if status.State.Ended() {
		out.ExitCode, out.Message = &status.ExitCode, status.Message
	}
	return out
}

// NodeToJSON is a node with what is used of it.
func NodeToJSON(view client.NodeView) NodeJSON {
	n := view.Node
	out := NodeJSON{
		ID: n.ID, State: n.State, Reason: n.Reason, Empties: n.Empties, Deadline: Moment(n.Deadline), Address: n.Address, Disk: n.Disk, Labels: n.Labels, Tasks: view.Tasks, Cached: len(n.Cached),
		Cores:   amountJSON{float64(view.Used.MilliCPU) / 1000, float64(n.MilliCPU) / 1000},
		Memory:  amountJSON{float64(view.Used.Memory), float64(n.Memory)},
		GPUs:    amountJSON{view.Used.GPUs(), float64(len(n.Devices))},
		Version: n.Version, Joined: Moment(n.Joined), Revision: n.Revision,
	}
	for _, taint := range n.Taints {
		out.Taints = append(out.Taints, taint.String())
	}
	for _, d := range n.Devices {
		out.Devices = append(out.Devices, deviceToJSON(d, view.Used))
	}
	return out
}

// TokenToJSON is a token, without its secret.
func TokenToJSON(t cluster.Token) TokenJSON {
	return TokenJSON{ID: t.ID, Kind: t.Kind, Name: t.Name, Role: t.Role, Created: Moment(t.Created), Expires: Moment(t.Expires), Revoked: t.Revoked, By: t.By}
}

// ExitMessage is what the first instance of the newest attempt that left a message says of its end.
func ExitMessage(view client.JobView) string {
	for _, task := range view.Tasks {
		stopped := task.Status.State == cluster.TaskStopped // a service; it was told to end
		if task.Attempt == view.Job.Attempt && task.Status.Message != "" && !stopped {
			return task.Status.Message
		}
	}
	return ""
}
