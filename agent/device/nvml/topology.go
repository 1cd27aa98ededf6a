//go:build cgo

package nvml

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/clary-ml/clary/agent/device"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// speed is how fast a model is.
func speed(model string) int32 { return device.Speed(model) }

// pciDevices is where the kernel says of devices on which NUMA node they are.
const pciDevices = "/sys/bus/pci/devices"

// address is a device's place on the bus, as the kernel writes it; "" if it does not say.
func address(handle nvml.Device) string {
	info, code := handle.GetPciInfo()
	if code != nvml.SUCCESS {
		return ""
	}
	var text []byte
	for _, c := range info.BusId {
		if c == 0 {
			break
		}
		text = append(text, byte(c))
	}
	domain, rest, ok := strings.Cut(strings.ToLower(string(text)), ":")
	if !ok {
		return ""
	}
	if len(domain) > 4 { // NVML writes eight digits, the kernel four
		domain = domain[len(domain)-4:]
	}
	return domain + ":" + rest
}

// numaOf is the NUMA node of a device on the bus, counted from 1; 0 if the kernel does not say.
func numaOf(root, address string) int32 {
	text, err := os.ReadFile(filepath.Join(root, address, "numa_node"))
	if address == "" || err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 16)
	if err != nil || n < 0 {
		return 0
	}
	return int32(n) + 1
}

// ability is something to know of GPUs for which older drivers lack a call.
type ability int

const (
	addresses ability = iota
	links
	slots
)

// calls are what each ability needs of the library.
var calls = [...][]string{
	addresses: {"nvmlDeviceGetPciInfo"},
	links:     {"nvmlDeviceGetNvLinkState", "nvmlDeviceGetNvLinkRemoteDeviceType", "nvmlDeviceGetNvLinkRemotePciInfo"},
	slots: {
		"nvmlDeviceGetMigMode", "nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMigDeviceHandleByIndex",
		"nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetGpuInstanceById", "nvmlGpuInstanceGetInfo",
	},
}

// can reports whether the library has all that an ability needs.
func (s *Source) can(a ability) bool {
	return !slices.ContainsFunc(calls[a], func(symbol string) bool { return !s.has(symbol) })
}

// link numbers islands: devices that reach one another over NVLink, directly or through a switch. Those without a
// link have none.
func link(devices []cluster.Device, handles []nvml.Device) {
	peers := make([]string, len(handles)) // what each is linked to, "switch" for a switch
	island := make([]int32, len(handles))
	next := int32(0)
	for i, handle := range handles {
		if !devices[i].Healthy {
			continue
		}
		var ends []string
		for l := range nvml.NVLINK_MAX_LINKS {
			if state, code := handle.GetNvLinkState(l); code != nvml.SUCCESS || state != nvml.FEATURE_ENABLED {
				continue
			}
			if kind, code := handle.GetNvLinkRemoteDeviceType(l); code == nvml.SUCCESS && kind == nvml.NVLINK_DEVICE_TYPE_SWITCH {
				ends = append(ends, "switch")
				continue
			}
			if info, code := handle.GetNvLinkRemotePciInfo(l); code == nvml.SUCCESS {
				ends = append(ends, fmt.Sprintf("%04x:%02x:%02x", info.Domain, info.Bus, info.Device))
			}
		}
		if len(ends) == 0 {
			continue
		}
		peers[i] = strings.Join(ends, " ")
		for j := range i { // an island that either is linked to
			if island[j] != 0 && (sharesSwitch(peers[i], peers[j]) || strings.Contains(peers[j], short(devices[i].PCI)) || strings.Contains(peers[i], short(devices[j].PCI))) {
				old := island[i]
				island[i] = island[j]
				for k := range i { // it joins two
					if old != 0 && island[k] == old {
						island[k] = island[j]
					}
				}
			}
		}
		if island[i] == 0 {
			next++
			island[i] = next
		}
	}
	for i := range devices {
		devices[i].Link = island[i]
	}
}

func sharesSwitch(a, b string) bool {
	return strings.Contains(a, "switch") && strings.Contains(b, "switch")
}

// short is an address without its function.
func short(address string) string {
	head, _, _ := strings.Cut(address, ".")
	if head == "" {
		return "none"
	}
	return head
}

// partition says how a device is cut that is partitioned: as its MIG devices are. Clary makes none itself: whoever
// runs the machine does, with nvidia-smi mig. Those that are not whole GPU instances are left out.
func partition(handle nvml.Device, d *cluster.Device) error {
	mode, _, code := handle.GetMigMode()
	if code != nvml.SUCCESS || mode != nvml.DEVICE_MIG_ENABLE {
		return nil
	}
	d.Partitioned = true
	return eachSlot(handle, func(s slot) {
		at := slices.IndexFunc(d.Profiles, func(p cluster.MIGProfile) bool { return p.Name == s.profile })
		if at < 0 {
			at = len(d.Profiles)
			d.Profiles = append(d.Profiles, cluster.MIGProfile{Name: s.profile, Slices: s.size, Memory: s.memory})
		}
		d.Profiles[at].Memory = min(d.Profiles[at].Memory, s.memory)
		if !slices.Contains(d.Profiles[at].Starts, s.start) {
			d.Profiles[at].Starts = append(d.Profiles[at].Starts, s.start)
			slices.Sort(d.Profiles[at].Starts)
		}
	})
}

// slot is a MIG device.
type slot struct {
	uuid, profile string
	start, size   int32
	memory        int64
}

// eachSlot looks at the MIG devices of a device.
func eachSlot(handle nvml.Device, see func(slot)) error {
	most, code := handle.GetMaxMigDeviceCount()
	if code != nvml.SUCCESS {
		return fmt.Errorf("count MIG devices: %w", code)
	}
	var errs []error
	for i := range most {
		mig, code := handle.GetMigDeviceHandleByIndex(i)
		if code != nvml.SUCCESS {
			continue // there is none of this number
		}
		s, err := readSlot(handle, mig)
		if err != nil {
			errs = append(errs, fmt.Errorf("MIG device %d: %w", i, err))
			continue
		}
		if s.profile != "" {
			see(s)
		}
	}
	return errors.Join(errs...)
}

// readSlot reads one MIG device; one that has only a part of its GPU instance has no profile.
func readSlot(handle, mig nvml.Device) (slot, error) {
	var s slot
	uuid, code := mig.GetUUID()
	if code != nvml.SUCCESS {
		return s, fmt.Errorf("read its UUID: %w", code)
	}
	name, code := mig.GetName() // "NVIDIA A100-SXM4-40GB MIG 1g.5gb"
	if code != nvml.SUCCESS {
		return s, fmt.Errorf("read its name: %w", code)
	}
	id, code := mig.GetGpuInstanceId()
	if code != nvml.SUCCESS {
		return s, fmt.Errorf("read its GPU instance: %w", code)
	}
	instance, code := handle.GetGpuInstanceById(id)
	if code != nvml.SUCCESS {
		return s, fmt.Errorf("open its GPU instance: %w", code)
	}
	info, code := instance.GetInfo()
	if code != nvml.SUCCESS {
		return s, fmt.Errorf("read its GPU instance: %w", code)
	}
	memory, code := mig.GetMemoryInfo()
	if code != nvml.SUCCESS {
		return s, fmt.Errorf("read its memory: %w", code)
	}
	if _, profile, ok := strings.Cut(name, "MIG "); ok && !strings.Contains(profile, "c.") && !strings.ContainsAny(profile, "+ ") {
		s.profile = profile
	}
	s.uuid, s.start, s.size, s.memory = uuid, int32(info.Placement.Start), int32(info.Placement.Size), int64(memory.Total)
	return s, nil
}

// Slot is the UUID of the MIG device that a task was given.
func (s *Source) Slot(_ context.Context, share cluster.DeviceShare) (string, error) {
	found := ""
	err := s.each(func(i int) error {
		handle, uuid, err := s.handle(i)
		if err != nil || uuid != share.UUID || !s.can(slots) {
			return nil //nolint:nilerr // another's fault
		}
		return eachSlot(handle, func(one slot) {
			if one.profile == share.Profile && one.start == share.Start {
				found = one.uuid
			}
		})
	})
	if found == "" {
		return "", errors.Join(fault.New(fault.Unready, "device %s has no MIG device %s at slice %d any more", share.UUID, share.Profile, share.Start), err)
	}
	return found, nil
}

var _ device.Slotter = (*Source)(nil)
