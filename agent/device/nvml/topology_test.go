//go:build cgo

package nvml_test

import (
	"fmt"
	"reflect"
	"testing"

	lib "github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"

	"github.com/clary-ml/clary/agent/device/nvml"
	"github.com/clary-ml/clary/cluster"
)

// unlinked has every device say that it has no NVLink.
func unlinked(machine *server.Server) *server.Server {
	for _, d := range machine.Devices {
		d.(*server.Device).GetNvLinkStateFunc = func(int) (lib.EnableState, lib.Return) { return 0, lib.ERROR_NOT_SUPPORTED }
	}
	return machine
}

// gpu is a device at a place on the bus that is linked to others, by their place.
func gpu(bus int, to ...int) *mock.Device {
	return &mock.Device{
		GetUUIDFunc:       func() (string, lib.Return) { return fmt.Sprintf("GPU-%d", bus), lib.SUCCESS },
		GetNameFunc:       func() (string, lib.Return) { return "NVIDIA A100-SXM4-40GB", lib.SUCCESS },
		GetMemoryInfoFunc: func() (lib.Memory, lib.Return) { return lib.Memory{Total: 40 << 30}, lib.SUCCESS },
		GetPciInfoFunc: func() (lib.PciInfo, lib.Return) {
			var info lib.PciInfo
			for i, c := range fmt.Sprintf("00000000:%02X:00.0", bus) {
				info.BusId[i] = int8(c)
			}
			return info, lib.SUCCESS
		},
		GetMigModeFunc: func() (int, int, lib.Return) { return 0, 0, lib.ERROR_NOT_SUPPORTED },
		GetNvLinkStateFunc: func(l int) (lib.EnableState, lib.Return) {
			if l < len(to) {
				return lib.FEATURE_ENABLED, lib.SUCCESS
			}
			return lib.FEATURE_DISABLED, lib.SUCCESS
		},
		GetNvLinkRemoteDeviceTypeFunc: func(l int) (lib.IntNvLinkDeviceType, lib.Return) {
			if to[l] < 0 {
				return lib.NVLINK_DEVICE_TYPE_SWITCH, lib.SUCCESS
			}
			return lib.NVLINK_DEVICE_TYPE_GPU, lib.SUCCESS
		},
		GetNvLinkRemotePciInfoFunc: func(l int) (lib.PciInfo, lib.Return) {
			return lib.PciInfo{Bus: uint32(to[l])}, lib.SUCCESS
		},
	}
}

func read(t *testing.T, gpus ...*mock.Device) []cluster.Device {
	t.Helper()
	source := open(t, gpus...)
	devices, err := source.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return devices
}

func open(t *testing.T, gpus ...*mock.Device) *nvml.Source {
	t.Helper()
	source, err := nvml.Over(&mock.Interface{
		InitFunc:                   func() lib.Return { return lib.SUCCESS },
		DeviceGetCountFunc:         func() (int, lib.Return) { return len(gpus), lib.SUCCESS },
		DeviceGetHandleByIndexFunc: func(i int) (lib.Device, lib.Return) { return gpus[i], lib.SUCCESS },
	})
	if err != nil {
		t.Fatal(err)
	}
	return source
}

func TestIslandsAreWhatNVLinkConnects(t *testing.T) {
	links := func(devices []cluster.Device) (numbers []int32) {
		for _, d := range devices {
			numbers = append(numbers, d.Link)
		}
		return numbers
	}
	for name, c := range map[string]struct {
		gpus []*mock.Device
		want []int32
	}{
		"pairs":        {[]*mock.Device{gpu(1, 2), gpu(2, 1), gpu(3, 4), gpu(4, 3)}, []int32{1, 1, 2, 2}},
		"a switch":     {[]*mock.Device{gpu(1, -1), gpu(2, -1), gpu(3, -1)}, []int32{1, 1, 1}},
		"a chain":      {[]*mock.Device{gpu(1, 3), gpu(2, 3), gpu(3, 1, 2)}, []int32{2, 2, 2}},
		"none":         {[]*mock.Device{gpu(1), gpu(2)}, []int32{0, 0}},
		"one is alone": {[]*mock.Device{gpu(1, 2), gpu(2, 1), gpu(3)}, []int32{1, 1, 0}},
	} {
		if got := links(read(t, c.gpus...)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: islands %v, want %v", name, got, c.want)
		}
	}
	if d := read(t, gpu(0x3b))[0]; d.PCI != "0000:3b:00.0" || d.Speed != 1000 {
		t.Errorf("device %+v", d)
	}
}

// cut is a MIG device.
func cut(name string, number, start, size uint32) (*mock.Device, *mock.GpuInstance) {
	return &mock.Device{
		GetUUIDFunc:          func() (string, lib.Return) { return fmt.Sprintf("MIG-%d", number), lib.SUCCESS },
		GetNameFunc:          func() (string, lib.Return) { return "NVIDIA A100-SXM4-40GB MIG " + name, lib.SUCCESS },
		GetGpuInstanceIdFunc: func() (int, lib.Return) { return int(number), lib.SUCCESS },
		GetMemoryInfoFunc:    func() (lib.Memory, lib.Return) { return lib.Memory{Total: uint64(size) * 5 << 30}, lib.SUCCESS },
	}, &mock.GpuInstance{GetInfoFunc: func() (lib.GpuInstanceInfo, lib.Return) {
		return lib.GpuInstanceInfo{Id: number, Placement: lib.GpuInstancePlacement{Start: start, Size: size}}, lib.SUCCESS
	}}
}

func TestAPartitionedGPUIsTheSlotsThatAreThere(t *testing.T) {
	parent := gpu(1)
	parent.GetMigModeFunc = func() (int, int, lib.Return) { return lib.DEVICE_MIG_ENABLE, lib.DEVICE_MIG_ENABLE, lib.SUCCESS }
	parent.GetMaxMigDeviceCountFunc = func() (int, lib.Return) { return 7, lib.SUCCESS }
	var slots []*mock.Device
	var instances []*mock.GpuInstance
	for i, s := range []struct {
		name        string
		start, size uint32
	}{{"1g.5gb", 6, 1}, {"3g.20gb", 0, 4}, {"1g.5gb", 4, 1}, {"1c.2g.10gb", 2, 2}} {
		d, instance := cut(s.name, uint32(i), s.start, s.size)
		slots, instances = append(slots, d), append(instances, instance)
	}
	parent.GetMigDeviceHandleByIndexFunc = func(i int) (lib.Device, lib.Return) {
		if i >= len(slots) {
			return nil, lib.ERROR_NOT_FOUND
		}
		return slots[i], lib.SUCCESS
	}
	parent.GetGpuInstanceByIdFunc = func(id int) (lib.GpuInstance, lib.Return) { return instances[id], lib.SUCCESS }
	source := open(t, parent, gpu(2))
	devices, err := source.Devices(t.Context())
	if err != nil || !devices[0].Partitioned || devices[1].Partitioned {
		t.Fatalf("%+v, %v", devices, err)
	}
	want := []cluster.MIGProfile{
		{Name: "1g.5gb", Slices: 1, Memory: 5 << 30, Starts: []int32{4, 6}}, {Name: "3g.20gb", Slices: 4, Memory: 20 << 30, Starts: []int32{0}},
	}
	if !reflect.DeepEqual(devices[0].Profiles, want) {
		t.Errorf("profiles %+v", devices[0].Profiles)
	}
	node := cluster.Node{ID: "n", Address: "10.0.0.1", State: cluster.NodeReady, Devices: devices}
	if err := node.Validate().Err(); err != nil {
		t.Error(err)
	}
	name, err := source.Slot(t.Context(), cluster.DeviceShare{UUID: "GPU-1", Profile: "1g.5gb", Start: 4})
	if err != nil || name != "MIG-2" {
		t.Errorf("slot %q, %v", name, err)
	}
	if name, err := source.Slot(t.Context(), cluster.DeviceShare{UUID: "GPU-1", Profile: "1g.5gb", Start: 5}); err == nil {
		t.Errorf("a slot that is not there is %q", name)
	}
}
