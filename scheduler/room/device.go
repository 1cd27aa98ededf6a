package room

import (
	"cmp"
	"slices"

	"github.com/clary-ml/clary/cluster"
)

func (m *Map) devicesOf(n *State) []Device { return m.devices[n.first : n.first+int32(n.Devices)] }

// fitsWhole reports whether the node has enough devices that nobody uses.
func (m *Map) fitsWhole(n *State, r *Request) bool {
	if r.near != anywhere {
		_, found := m.island(n, r, r.near)
		return found
	}
	switch {
	case int32(n.Whole) < r.GPUs:
		return false
	case r.Models == 0:
		return true
	case n.Model != Mixed:
		return r.Likes(n.Model)
	}
	return countWhole(m.devicesOf(n), r) >= r.GPUs
}

func countWhole(devices []Device, r *Request) int32 {
	count := int32(0)
	for i := range devices {
		if devices[i].Whole() && r.Likes(devices[i].Model) {
			count++
		}
	}
	return count
}

// fitsShare reports whether one of the node's devices has room for a share.
func (m *Map) fitsShare(n *State, r *Request) bool {
	if n.MaxMilli <= 0 || int32(n.MaxMilli) < r.GPUMilli {
		return false
	}
	devices := m.devicesOf(n)
	for i := range devices {
		if r.FitsShare(&devices[i]) {
			return true
		}
	}
	return false
}

// tightestModel is the model with the fewest devices that nobody uses and that are still enough, or Mixed if
// only a mixture is. Devices of one model stand together.
func tightestModel(devices []Device, r *Request) int16 {
	best, least := Mixed, int32(0)
	for i := 0; i < len(devices); {
		j, free := i, int32(0)
		for j < len(devices) && devices[j].Model == devices[i].Model {
			if devices[j].Whole() {
				free++
			}
			j++
		}
		if free >= r.GPUs && r.Likes(devices[i].Model) && (best == Mixed || free < least) {
			best, least = devices[i].Model, free
		}
		i = j
	}
	return best
}

// takeWhole gives so many devices that nobody uses to one task, and says which.
func (m *Map) takeWhole(place int32, r *Request) []string {
	n := &m.nodes[place]
	devices := m.devicesOf(n)
	model, by, group := n.Model, anywhere, int16(0)
	if model == Mixed {
		model = tightestModel(devices, r)
	}
	if r.GPUs > 1 {
		by, group = m.closest(n, r, model)
	}
	if r.near != anywhere {
		model = Mixed // one island has one model, if anything
	}
	taken := make([]string, 0, r.GPUs)
	for i := range devices {
		if len(taken) == int(r.GPUs) {
			break
		}
		if by != anywhere && by.of(m.fixed.near[n.first+int32(i)]) != group {
			continue
		}
		if d := &devices[i]; d.Whole() && (d.Model == model || model == Mixed && r.Likes(d.Model)) {
			m.use(n.first+int32(i), cluster.WholeGPU, d.CapMemory)
			taken = append(taken, m.fixed.uuids[n.first+int32(i)])
		}
	}
	m.countDevices(n)
	slices.Sort(taken)
	return taken
}

// takeShare gives a part of one device to one task, and says which.
func (m *Map) takeShare(place int32, r *Request) []cluster.DeviceShare {
	n := &m.nodes[place]
	device := n.first + int32(m.policy.Pick(n, m.devicesOf(n), r))
	milli, memory, _ := r.ShareOf(&m.devices[device])
	m.use(device, milli, memory)
	m.countDevices(n)
	return []cluster.DeviceShare{{UUID: m.fixed.uuids[device], Milli: milli, Memory: memory}}
}

// closest is the tightest group of devices that are close to one another and enough: an NVLink island, else those of
// one NUMA node, else any.
func (m *Map) closest(n *State, r *Request, model int16) (by together, group int16) {
	if r.near != anywhere {
		group, _ = m.island(n, r, r.near)
		return r.near, group
	}
	want := *r
	if model >= 0 {
		want.Models = 1 << model
	}
	for _, by := range []together{sameLink, sameNUMA} {
		if group, found := m.island(n, &want, by); found {
			return by, group
		}
	}
	return anywhere, 0
}

// use takes so much of a device, or gives it back if negative, and notes it for undoing.
func (m *Map) use(device, milli int32, memory int64) {
	d := &m.devices[device]
	m.undo.device(device, *d)
	d.Milli -= int16(milli)
	d.Memory -= memory
}

// countDevices works out the sums over a node's devices.
func (m *Map) countDevices(n *State) {
	n.DeviceMilli, n.MaxMilli, n.Whole = 0, 0, 0
	devices := m.devicesOf(n)
	for i := range devices {
		d := &devices[i]
		n.DeviceMilli += int32(max(0, d.Milli))
		n.MaxMilli = max(n.MaxMilli, d.Milli)
		if d.Whole() {
			n.Whole++
		}
	}
}

// useNamed takes named devices and shares of them, free or not, or gives them back if sign is -1.
func (m *Map) useNamed(place int32, r *cluster.Resources, sign int32) {
	if len(r.Devices)+len(r.Shares) == 0 {
		return
	}
	n := &m.nodes[place]
	uuids := m.fixed.uuids[n.first : n.first+int32(n.Devices)]
	for _, uuid := range r.Devices {
		if i := slices.Index(uuids, uuid); i >= 0 {
			device := n.first + int32(i)
			if m.devices[device].layout != 0 { // it was whole when it was given
				m.useSlot(device, eachSlice, sign)
				continue
			}
			m.use(device, sign*cluster.WholeGPU, int64(sign)*m.devices[device].CapMemory)
		}
	}
	for _, share := range r.Shares {
		i := slices.Index(uuids, share.UUID)
		switch device := n.first + int32(i); {
		case i < 0:
		case share.Profile != "":
			m.useSlot(device, m.fixed.patternOf(m.devices[device].layout, share), sign)
		default:
			m.use(device, sign*min(share.Milli, cluster.WholeGPU), int64(sign)*share.Memory)
		}
	}
	m.countDevices(n)
}

// describeDevices notes a node's devices: the healthy GPUs, one model after the other, so that a task that takes any model
// gets one kind if it can. It reports whether one stands where none stood.
func (m *Map) describeDevices(place int32, all []cluster.Device) (moved bool) {
	f := m.fixed
	var healthy []cluster.Device
	for _, d := range all {
		if d.Kind == cluster.DeviceGPU && d.Healthy && len(healthy) < cluster.MaxGPUs {
			healthy = append(healthy, d)
		}
	}
	slices.SortFunc(healthy, func(a, b cluster.Device) int {
		return cmp.Or(cmp.Compare(a.Model, b.Model), cmp.Compare(a.UUID, b.UUID))
	})
	n := &m.nodes[place]
	if int(n.Devices) < len(healthy) {
		m.waste += int(n.Devices)
		n.first = int32(len(m.devices))
		m.devices = append(m.devices, make([]Device, len(healthy))...)
		f.uuids = append(f.uuids, make([]string, len(healthy))...)
		f.near = append(f.near, make([]near, len(healthy))...)
	}
	n.Devices, n.Model = int16(len(healthy)), UnknownModel
	met := f.met
	for i, d := range healthy {
		at := n.first + int32(i)
		m.devices[at] = Device{CapMemory: min(max(0, d.Memory), cluster.MaxMemory), Model: f.modelOf(d), layout: f.layoutOf(d)}
		stands := near{int16(d.Link), int16(d.NUMA)}
		moved = moved || f.near[at] != stands
		f.uuids[at], f.near[at] = d.UUID, stands
		if model := m.devices[at].Model; i == 0 {
			n.Model = model
		} else if n.Model != model {
			n.Model = Mixed
		}
	}
	if f.met > met {
		m.forgetUnknown()
	}
	return moved
}
