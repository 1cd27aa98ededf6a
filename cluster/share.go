package cluster

import (
	"cmp"
	"fmt"
	"slices"
)

// WholeGPU is a whole GPU in thousandths.
const WholeGPU = 1000

// DeviceShare is a part of a device: a fraction of its time and its memory, or a slot of one that is
// partitioned (MIG).
type DeviceShare struct {
	UUID    string // of the device
	Milli   int32  // thousandths of it; 0 of a slot
	Memory  int64  // bytes of it
	Profile string // of a slot, like "1g.10gb"; "" of a share
	Start   int32  // of a slot: its first memory slice
}

// MIGProfile is a size that a partitioned device can be cut into, and where: the names and rules are
// NVIDIA's (MIG User Guide, "Supported MIG Profiles" and "Profile Placement").
type MIGProfile struct {
	Name   string  // like "3g.40gb"
	Slices int32   // memory slices that one takes
	Memory int64   // bytes
	Starts []int32 // first slices at which one may begin, ascending
}

// MaxSlices is the most memory slices that a device can be cut into.
const MaxSlices = 16

// Mask is the set of slices that one slot takes which begins at a slice: bit i is slice i.
func (p MIGProfile) Mask(start int32) uint16 { return uint16(1<<p.Slices-1) << start }

// MayBegin reports whether a slot may begin at a slice.
func (p MIGProfile) MayBegin(start int32) bool { return slices.Contains(p.Starts, start) }

// Profile returns the named profile of the device.
func (d Device) Profile(name string) (MIGProfile, bool) {
	for _, profile := range d.Profiles {
		if profile.Name == name {
			return profile, true
		}
	}
	return MIGProfile{}, false
}

// Shares reports whether the ask is for a part of one GPU that others may use too.
func (a Ask) Shares() bool { return a.GPUMilli > 0 || a.GPUMemory > 0 }

// ShareOf is what a task of the ask is given of a device that it shares: what it does not say of
// thousandths and memory follows from the other (PartOf). ok is false if the device is smaller than that.
func (a Ask) ShareOf(d Device) (share DeviceShare, ok bool) {
	milli, memory, ok := PartOf(a.GPUMilli, a.GPUMemory, d.Memory)
	return DeviceShare{UUID: d.UUID, Milli: milli, Memory: memory}, ok
}

// PartOf completes what a share does not say of a device with so many bytes of memory: thousandths by their part of
// the memory, rounded up, and memory by their thousandths, rounded down to MiB, so that shares of all thousandths fit
// into all memory. ok is false if the device is smaller than that.
func PartOf(milli int32, memory, all int64) (int32, int64, bool) {
	const step = 1 << 20
	switch {
	case all <= 0:
		return milli, memory, memory == 0
	case memory == 0: // all is at most 2^50
		return milli, all * int64(milli) / WholeGPU / step * step, true
	case memory > all:
		return milli, memory, false
	case milli == 0:
		return int32((memory*WholeGPU + all - 1) / all), memory, true
	}
	return milli, memory, true
}

// GPUs is how many GPUs are held: whole ones, shares as their fraction, and slots as their compute slices of
// the seven that a GPU is cut into.
func (r Resources) GPUs() float64 {
	milli := int64(len(r.Devices)) * WholeGPU
	for _, share := range r.Shares {
		milli += share.MilliGPU()
	}
	return float64(milli) / WholeGPU
}

// CompareShares orders shares by device and slot.
func CompareShares(a, b DeviceShare) int {
	return cmp.Or(cmp.Compare(a.UUID, b.UUID), cmp.Compare(a.Profile, b.Profile), cmp.Compare(a.Start, b.Start))
}

// AddShares adds what a task holds to what is held of a node's devices: one entry for each slot, and
// one for all the shares of a device together. Both are sorted; held may be changed. The error says
// that a slot is given twice.
func AddShares(held, more []DeviceShare) ([]DeviceShare, error) {
	for _, share := range more {
		at, found := slices.BinarySearchFunc(held, share, CompareShares)
		switch {
		case !found:
			held = slices.Insert(held, at, share)
		case share.Profile != "":
			return held, fmt.Errorf("slot %s at slice %d of device %s is in use", share.Profile, share.Start, share.UUID)
		default:
			held[at].Milli += share.Milli
			held[at].Memory += share.Memory
		}
	}
	return held, nil
}

// RemoveShares undoes AddShares.
func RemoveShares(held, less []DeviceShare) []DeviceShare {
	for _, share := range less {
		at, found := slices.BinarySearchFunc(held, share, CompareShares)
		if !found {
			continue
		}
		left := held[at]
		left.Milli -= share.Milli
		left.Memory -= share.Memory
		if held[at] = left; share.Profile != "" || left.Milli <= 0 && left.Memory <= 0 {
			held = slices.Delete(held, at, at+1)
		}
	}
	return held
}

// checkProfileName reports what is not the name of a MIG profile.
func checkProfileName(p *Problems, field, name string) {
	var slices, memory int
	var rest string
	n, _ := fmt.Sscanf(name, "%dg.%dgb%s", &slices, &memory, &rest)
	if n != 2 || slices < 1 || slices > 7 || memory < 1 || memory > 1024 || fmt.Sprintf("%dg.%dgb", slices, memory) != name {
		p.Add(field, "%q is not a MIG profile: write it like 1g.10gb", Clip(name))
	}
}

// checkPartition reports mistakes in how a device says that it can be cut.
func (d Device) checkPartition(p *Problems) {
	if len(d.Profiles) > 0 && !d.Partitioned {
		p.Add("devices", "device %q has MIG profiles and is not partitioned", Clip(d.UUID))
	}
	if len(d.Profiles) > 32 {
		p.Add("devices", "device %q has %d MIG profiles: at most 32", Clip(d.UUID), len(d.Profiles))
	}
	for i, profile := range d.Profiles {
		checkProfileName(p, "devices", profile.Name)
		checkRange(p, "devices", profile.Memory, 0, MaxMemory)
		ascending := slices.IsSorted(profile.Starts) && len(slices.Compact(slices.Clone(profile.Starts))) == len(profile.Starts)
		inside := profile.Slices >= 1 && profile.Slices <= MaxSlices && len(profile.Starts) > 0 && ascending &&
			profile.Starts[0] >= 0 && profile.Starts[len(profile.Starts)-1] <= MaxSlices-profile.Slices
		if !inside {
			p.Add("devices", "MIG profile %q takes %d slices from %v: starts ascend and end within %d slices", Clip(profile.Name), profile.Slices, profile.Starts[:min(len(profile.Starts), MaxSlices)], MaxSlices)
		}
		if slices.ContainsFunc(d.Profiles[:i], func(other MIGProfile) bool { return other.Name == profile.Name }) {
			p.Add("devices", "device %q has the MIG profile %q twice", Clip(d.UUID), profile.Name)
		}
	}
}
