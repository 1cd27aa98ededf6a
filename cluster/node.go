package cluster

import (
	"fmt"
	"hash/fnv"
	"net"
	"slices"
	"time"
)

// DeviceKind is a sort of accelerator.
type DeviceKind string

// DeviceGPU is an NVIDIA GPU, found through NVML or simulated.
const DeviceGPU DeviceKind = "gpu"

// Device is one accelerator of a node.
type Device struct {
	UUID      string // unique in the cluster, stable over restarts
	Kind      DeviceKind
	Model     string // e.g. "A100"
	Memory    int64  // bytes
	Simulated bool
	Healthy   bool

	NUMA  int32  // the NUMA node that it is attached to, counted from 1; 0: unknown
	Link  int32  // its NVLink island, counted from 1; 0: none
	PCI   string // bus address, like "0000:3b:00.0"; "" if unknown
	Speed int32  // in thousandths of an A100's; 0: unknown
	// Partitioned devices (MIG) are only given as slots, of the Profiles.
	Partitioned bool
	Profiles    []MIGProfile
}

// NodeState says whether a node may be given tasks.
//
//	            ┌────── drain ──────▶ draining ──┐
//	join ──▶ ready ◀───── resume ───────┘        │ lease ran out
//	            └───────── lease ran out ──▶ lost ◀┘
//	                                         │
//	                 ready ◀──── rejoin ─────┘
type NodeState string

// The states of a node.
const (
	NodeReady    NodeState = "ready"
	NodeDraining NodeState = "draining" // keeps what runs unless it Empties, gets nothing new
	NodeLost     NodeState = "lost"     // its lease ran out: its tasks are lost
)

var nodeEdges = edges[NodeState]{
	NodeReady:    {NodeDraining, NodeLost},
	NodeDraining: {NodeReady, NodeLost},
	NodeLost:     {NodeReady, NodeDraining},
}

// CanBecome reports whether a node may go from one state to the other.
func (s NodeState) CanBecome(next NodeState) bool { return nodeEdges.has(s, next) }

// Labels that an agent gives its node.
const (
	LabelContainers = "clary.containers" // LabelYes where containers can run
	LabelEngine     = "clary.engine"     // docker or podman
	LabelYes        = "yes"
)

// Node is a machine that runs tasks. It belongs to the ledger.
type Node struct {
	ID       string // chosen at join, stable over restarts
	Address  string // host under which other nodes reach its tasks' ports
	LogsAddr string // host:port where its agent answers coordinators
	State    NodeState
	Reason   string // why it is draining or lost

	MilliCPU  int64
	Memory    int64 // bytes
	Disk      int64 // bytes free for task folders and cache
	Devices   []Device
	PortFirst int32 // range of ports that tasks may be given, both ends included
	PortLast  int32
	Labels    map[string]string // os, arch, kernel and the operator's own
	Taints    []Taint           // the operator's; one of each key and effect, sorted
	Cached    []uint32          // digests of inputs in its cache (InputDigest), ascending

	Empties  bool  // while it is draining: what can move does
	Deadline int64 // and what cannot is ended then; 0: it is waited for

	Key      string // fingerprint of the key that its agent has shown; "" if an older build put it
	Version  string // of the agent's binary
	Joined   int64
	Seen     int64 // when the agent last introduced itself, not its last beat
	Revision uint64
}

// Validate reports every mistake in what an agent says about its machine.
func (n Node) Validate() Problems {
	var p Problems
	CheckName(&p, "id", n.ID)
	if n.Address == "" || len(n.Address) > 253 {
		p.Add("address", "%q is not a host", Clip(n.Address))
	}
	if n.LogsAddr != "" {
		if _, _, err := net.SplitHostPort(n.LogsAddr); err != nil {
			p.Add("logs_addr", "%q is not host:port", Clip(n.LogsAddr))
		}
	}
	if _, known := nodeEdges[n.State]; !known {
		p.Add("state", "%q is unknown: ready, draining or lost", Clip(string(n.State)))
	}
	checkRange(&p, "milli_cpu", n.MilliCPU, 0, MaxMilliCPU)
	checkRange(&p, "memory", n.Memory, 0, MaxMemory)
	checkRange(&p, "disk", n.Disk, 0, MaxMemory<<6)
	if n.PortFirst != 0 || n.PortLast != 0 {
		checkRange(&p, "port_first", int64(n.PortFirst), 1, 65535)
		checkRange(&p, "port_last", int64(n.PortLast), int64(n.PortFirst), 65535)
	}
	checkLabels(&p, "labels", n.Labels)
	p.Under("", n.checkDevices())
	if len(n.Taints) > MaxTaints {
		p.Add("taints", "%d taints: at most %d", len(n.Taints), MaxTaints)
	}
	for i, taint := range n.Taints {
		p.Under(fmt.Sprintf("taints[%d]", i), taint.Validate())
	}
	CheckCached(&p, "cached", n.Cached)
	return p
}

func (n Node) checkDevices() Problems {
	var p Problems
	if len(n.Devices) > MaxGPUs {
		p.Add("devices", "%d devices: at most %d", len(n.Devices), MaxGPUs)
	}
	seen := map[string]bool{}
	for _, device := range n.Devices {
		if device.UUID == "" || len(device.UUID) > 128 || seen[device.UUID] {
			p.Add("devices", "uuid %q is empty, longer than 128 bytes or there twice", Clip(device.UUID))
		}
		seen[device.UUID] = true
		checkRange(&p, "devices", device.Memory, 0, MaxMemory)
		checkRange(&p, "devices", int64(device.Speed), 0, 1_000_000)
		checkRange(&p, "devices", int64(device.NUMA), 0, MaxGPUs)
		checkRange(&p, "devices", int64(device.Link), 0, MaxGPUs)
		device.checkPartition(&p)
	}
	return p
}

// Capacity is all that tasks could be given on the node if it were empty.
func (n Node) Capacity() Resources {
	capacity := Resources{MilliCPU: n.MilliCPU, Memory: n.Memory}
	for _, device := range n.Devices {
		if device.Healthy {
			capacity.Devices = append(capacity.Devices, device.UUID)
		}
	}
	slices.Sort(capacity.Devices)
	return capacity
}

// MaxCached is how many inputs of its cache a node tells.
const MaxCached = 512

// CheckCached reports mistakes in what a node tells of its cache.
func CheckCached(p *Problems, field string, cached []uint32) {
	if len(cached) > MaxCached {
		p.Add(field, "%d inputs: at most %d", len(cached), MaxCached)
	}
	for i := 1; i < len(cached); i++ {
		if cached[i] <= cached[i-1] {
			p.Add(field, "%08x comes after %08x: tell each digest once, in ascending order", cached[i], cached[i-1])
			return
		}
	}
}

// InputDigest stands for an input's address where nodes tell what they have in their caches.
func InputDigest(uri string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(uri)) // it never fails
	return h.Sum32()
}

// LeaseTime is how long a node is believed alive after its last beat.
const LeaseTime = 10 * time.Second
