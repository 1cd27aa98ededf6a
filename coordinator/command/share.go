package command

import (
	"fmt"

	"github.com/clary-ml/clary/cluster"
)

// shared is what is left of a device that may be given in parts.
type shared struct {
	device cluster.Device
	milli  int32
	memory int64
	slices uint16 // that slots take
	parts  int    // shares that are taken
}

// offer notes what is left of a device that no task has as a whole.
func (r *room) offer(device cluster.Device, used []cluster.DeviceShare) {
	left := &shared{device: device, milli: cluster.WholeGPU, memory: device.Memory}
	for _, share := range used {
		if share.UUID != device.UUID {
			continue
		}
		left.parts++
		left.milli -= share.Milli
		left.memory -= share.Memory
		if share.Profile != "" {
			profile, known := device.Profile(share.Profile)
			if !known { // it is cut in another way by now: nothing of it is given until that slot's task ends
				left.slices = ^uint16(0)
				continue
			}
			left.slices |= profile.Mask(share.Start)
		}
	}
	r.shared[device.UUID] = left
	if left.parts == 0 && !device.Partitioned {
		r.devices[device.UUID] = device
	}
}

// takeDevices takes what the task is given of devices: whole ones, a share of one, or slots.
func (r *room) takeDevices(role cluster.Role, give cluster.Resources) string {
	ask := role.Ask
	whole, parts := int(ask.GPUs), 0
	switch {
	case ask.MIG != "":
		whole, parts = 0, int(ask.GPUs)
	case ask.Shares():
		parts = 1
	}
	switch {
	case len(give.Devices) != whole:
		return fmt.Sprintf("given %d devices, it asks for %d", len(give.Devices), whole)
	case len(give.Shares) != parts:
		return fmt.Sprintf("given %d parts of devices, it asks for %d", len(give.Shares), parts)
	}
	for _, uuid := range give.Devices {
		device, free := r.devices[uuid]
		if left := r.shared[uuid]; left != nil && left.device.Partitioned {
			return fmt.Sprintf("device %q is partitioned: it is given in slots", uuid)
		}
		if !free {
			return fmt.Sprintf("device %q is in use, unhealthy or not there", cluster.Clip(uuid))
		}
		if why := suits(role, device); why != "" {
			return why
		}
		delete(r.devices, uuid)
		delete(r.shared, uuid)
	}
	for _, part := range give.Shares {
		left := r.shared[part.UUID]
		if left == nil {
			return fmt.Sprintf("device %q is in use, unhealthy or not there", cluster.Clip(part.UUID))
		}
		why := suits(role, left.device)
		if why == "" && ask.MIG != "" {
			why = left.takeSlot(ask, part)
		} else if why == "" {
			why = left.takeShare(ask, part)
		}
		if why != "" {
			return why
		}
		left.parts++
		delete(r.devices, part.UUID)
	}
	return ""
}

// suits says why a device is none that the role's tasks may have.
func suits(role cluster.Role, device cluster.Device) string {
	switch {
	case device.Kind != cluster.DeviceGPU:
		return fmt.Sprintf("device %q is no GPU", device.UUID)
	case !role.Ask.Likes(device):
		return fmt.Sprintf("device %q is a %q, it asks for %q", device.UUID, device.Model, role.Ask.GPUModel)
	}
	for _, c := range role.Constraints {
		if c.Weight == 0 && !c.AllowsDevice(device) {
			return fmt.Sprintf("device %q is not as demanded: %s", device.UUID, c)
		}
	}
	return ""
}

// takeShare takes thousandths and memory.
func (s *shared) takeShare(ask cluster.Ask, part cluster.DeviceShare) string {
	due, fits := ask.ShareOf(s.device)
	switch {
	case s.device.Partitioned:
		return fmt.Sprintf("device %q is partitioned: it is given in slots", part.UUID)
	case !fits:
		return fmt.Sprintf("device %q has %s in all", part.UUID, cluster.FormatBytes(s.device.Memory))
	case part != due:
		return fmt.Sprintf("given %d thousandths and %s of device %q, it asks for %d and %s",
			part.Milli, cluster.FormatBytes(part.Memory), part.UUID, due.Milli, cluster.FormatBytes(due.Memory))
	case part.Milli > s.milli:
		return fmt.Sprintf("%d thousandths of device %q asked, %d free", part.Milli, part.UUID, s.milli)
	case part.Memory > s.memory:
		return fmt.Sprintf("%s of device %q asked, %s free", cluster.FormatBytes(part.Memory), part.UUID, cluster.FormatBytes(s.memory))
	}
	s.milli -= part.Milli
	s.memory -= part.Memory
	return ""
}

// takeSlot takes slices, where the profile may begin.
func (s *shared) takeSlot(ask cluster.Ask, part cluster.DeviceShare) string {
	profile, known := s.device.Profile(part.Profile)
	switch {
	case part.Profile != ask.MIG:
		return fmt.Sprintf("given a slot %q, it asks for %q", cluster.Clip(part.Profile), ask.MIG)
	case !known:
		return fmt.Sprintf("device %q has no slots %q", part.UUID, ask.MIG)
	case part.Milli != 0 || part.Memory != profile.Memory:
		return fmt.Sprintf("given %s of device %q, a slot %q has %s", cluster.FormatBytes(part.Memory), part.UUID, ask.MIG, cluster.FormatBytes(profile.Memory))
	case !profile.MayBegin(part.Start):
		return fmt.Sprintf("a slot %q of device %q cannot begin at slice %d", ask.MIG, part.UUID, part.Start)
	case s.slices&profile.Mask(part.Start) != 0:
		return fmt.Sprintf("slices of device %q from %d on are in use", part.UUID, part.Start)
	}
	s.slices |= profile.Mask(part.Start)
	return ""
}
