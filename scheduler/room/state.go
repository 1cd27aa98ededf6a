package room

import (
	"math"

	"github.com/clary-ml/clary/cluster"
)

// State is a node as a Policy sees it: what is free, and what there is in all. It holds no pointer,
// so that ten thousand of them are one block of memory. What is free may be negative (more is used
// than there is): then nothing of it is free.
type State struct {
	Memory    int64 // bytes free
	CapMemory int64
	Milli     int32 // thousandths of a core free
	CapMilli  int32
	Ports     int32 // TCP ports free
	Kind      int32 // nodes of one kind have the same labels

	DeviceMilli int32 // sum over its healthy GPUs of what is free, in thousandths of a GPU
	MaxMilli    int16 // the most that is free on one of them
	Whole       int16 // how many of them nobody uses
	Devices     int16 // how many there are
	Model       int16 // of all of them; Mixed if they differ, UnknownModel if there are none

	phase            phase
	guarded, shunned bool   // its taints keep off, or are a last resort for, who tolerates nothing
	first            int32  // of its devices in the arena
	hash             uint64 // of all that a costly policy may look at
}

// Device is a healthy GPU. What is free may be negative, as of a State.
type Device struct {
	Memory    int64  // bytes free
	CapMemory int64  // 0 is unknown
	Milli     int16  // thousandths free
	Model     int16  // its number among the map's models; UnknownModel if it has none
	layout    int16  // how it is cut into slots; 0 is not at all. Of one that is cut nothing is free but slots
	Slots     uint64 // slices that slots have, four bits for each
}

// Whole reports whether nothing of the device is used.
func (d *Device) Whole() bool { return d.Milli == cluster.WholeGPU && d.Memory == d.CapMemory }

// Models are numbered from 0 in the order in which a Map met them.
const (
	MaxModels          = 63 // numbers that there are: a device of yet another model is only for those who take any
	UnknownModel int16 = -1
	Mixed        int16 = -2 // of a node: its devices are of several
)

// NoFit is the score of a node without room.
const NoFit int32 = math.MinInt32

// phase is how a node stands.
type phase uint8

const (
	gone phase = iota
	ready
	draining
	lost
	cordoned
)

// Request is what one task needs of a node, dense.
type Request struct {
	Memory    int64 // bytes
	Milli     int32
	Ports     int32
	GPUs      int32 // whole ones
	GPUMilli  int32 // or a share of one: thousandths,
	GPUMemory int64 // and bytes of its memory; see cluster.Ask.ShareOf
	// Models has the bit of every model that will do, 0 if any will. The bit MaxModels stands for models that no node has.
	Models  uint64
	Profile int16 // GPUs counts slots of this profile, by its number in the map; 0 for whole ones
	near    together
}

// Likes reports whether devices of a model will do.
func (r *Request) Likes(model int16) bool {
	return r.Models == 0 || model >= 0 && r.Models>>uint(model)&1 != 0
}

// shares reports whether the request is for a part of one GPU.
func (r *Request) shares() bool { return r.GPUMilli > 0 || r.GPUMemory > 0 }

// ShareOf is what the request takes of a device that it shares, in thousandths and bytes, as cluster.Ask.ShareOf
// says; ok is false if the device is smaller than that.
func (r *Request) ShareOf(d *Device) (milli int32, memory int64, ok bool) {
	return cluster.PartOf(r.GPUMilli, r.GPUMemory, d.CapMemory)
}

// FitsShare reports whether the device has room for the request's share of a GPU.
func (r *Request) FitsShare(d *Device) bool {
	if int32(d.Milli) < r.GPUMilli || d.Memory < r.GPUMemory || !r.Likes(d.Model) || d.layout != 0 {
		return false
	}
	milli, memory, ok := r.ShareOf(d)
	return ok && int32(d.Milli) >= milli && d.Memory >= memory
}

// Policy says which of the nodes that have room is best for one task. Both methods are pure: they depend on
// their arguments alone and change none of them, and a score depends neither on Ports nor on Kind.
type Policy interface {
	// Score is asked only where the request fits; the highest wins, of equals the first node by ID. It
	// is never NoFit.
	Score(n *State, devices []Device, r *Request) int32
	// Pick chooses the device for a share of a GPU among those that FitsShare.
	Pick(n *State, devices []Device, r *Request) int
}

// Binder is a Policy that knows models of GPUs by name: a Map tells it their numbers before it asks anything. A
// policy that does so belongs to one map and its clones.
type Binder interface {
	Bind(model func(name string) int16)
}

// Tightest prefers the node that is left tightest: the one with the smallest dominant share (Ghodsi et
// al., NSDI 2011, section 4) of what remains after the task. Of devices it takes the one with the least
// room that suffices.
type Tightest struct{}

// shareUnit is a whole in the scores of Tightest.
const shareUnit = 1 << 30

// Score is 2^30 times what is used of the resource that the task leaves most of.
func (Tightest) Score(n *State, _ []Device, r *Request) int32 {
	left := 0.0
	if n.CapMilli > 0 {
		left = max(0, float64(n.Milli-r.Milli)/float64(n.CapMilli)) // more may be used than there is
	}
	if n.CapMemory > 0 {
		left = max(left, float64(n.Memory-r.Memory)/float64(n.CapMemory))
	}
	if n.Devices > 0 {
		left = max(left, float64(n.DeviceMilli-r.GPUs*cluster.WholeGPU-r.GPUMilli)/float64(int32(n.Devices)*cluster.WholeGPU))
	}
	return shareUnit - int32(max(0, left)*shareUnit) // more may be used than there is
}

// Pick is the device with the least of its time free, then of its memory, then the first.
func (Tightest) Pick(_ *State, devices []Device, r *Request) int {
	best := -1
	for i := range devices {
		d := &devices[i]
		if !r.FitsShare(d) {
			continue
		}
		if best < 0 || d.Milli < devices[best].Milli || d.Milli == devices[best].Milli && d.Memory < devices[best].Memory {
			best = i
		}
	}
	return best
}
