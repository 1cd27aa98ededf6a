//go:build cgo

package nvml_test

import (
	"errors"
	"maps"
	"strings"
	"testing"

	lib "github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"

	"github.com/clary-ml/clary/agent/device"
	"github.com/clary-ml/clary/agent/device/nvml"
	"github.com/clary-ml/clary/cluster"
)

var _ device.Source = (*nvml.Source)(nil)

func TestEightA100sAreFound(t *testing.T) {
	source, err := nvml.Over(unlinked(dgxa100.New()))
	if err != nil {
		t.Fatal(err)
	}
	devices, err := source.Devices(t.Context())
	if err != nil || len(devices) != 8 {
		t.Fatalf("%d devices, %v", len(devices), err)
	}
	for _, d := range devices {
		if d.Model != "A100-40GB" || d.Kind != cluster.DeviceGPU || d.Memory < 39<<30 || !d.Healthy || d.Simulated || !strings.HasPrefix(d.UUID, "GPU-") {
			t.Errorf("device %+v", d)
		}
	}
	if err := errors.Join(source.Close(), source.Close()); err != nil {
		t.Error(err)
	}
	if _, err := source.Devices(t.Context()); err == nil {
		t.Error("a closed source answers")
	}
}

func TestABrokenGPUDoesNotHideTheOthers(t *testing.T) {
	server := unlinked(dgxa100.New())
	server.DeviceGetHandleByIndexFunc = func(i int) (lib.Device, lib.Return) {
		switch i {
		case 1:
			return nil, lib.ERROR_GPU_IS_LOST
		case 2:
			return &mock.Device{
				GetUUIDFunc:       func() (string, lib.Return) { return "GPU-two", lib.SUCCESS },
				GetNameFunc:       func() (string, lib.Return) { return "NVIDIA A100", lib.SUCCESS },
				GetMemoryInfoFunc: func() (lib.Memory, lib.Return) { return lib.Memory{}, lib.ERROR_GPU_IS_LOST },
			}, lib.SUCCESS
		}
		return server.Devices[i], lib.SUCCESS
	}
	source, err := nvml.Over(server)
	if err != nil {
		t.Fatal(err)
	}
	devices, err := source.Devices(t.Context())
	if len(devices) != 7 || err == nil || !strings.Contains(err.Error(), "GPU 1") {
		t.Errorf("%d devices, %v", len(devices), err)
	}
	for _, d := range devices {
		if d.Healthy != (d.UUID != "GPU-two") {
			t.Errorf("device %+v", d)
		}
	}
}

func TestWithoutTheLibraryThereAreNoGPUs(t *testing.T) {
	_, err := nvml.Over(&mock.Interface{InitFunc: func() lib.Return { return lib.ERROR_LIBRARY_NOT_FOUND }})
	if !errors.Is(err, nvml.ErrNone) || !strings.Contains(err.Error(), "libnvidia-ml") {
		t.Errorf("error %v", err)
	}
}

func TestModelNamesAreThoseThatPeopleAskFor(t *testing.T) {
	for name, want := range map[string]string{
		"NVIDIA A100-SXM4-40GB": "A100-40GB", "Tesla T4": "T4", "NVIDIA H100 80GB HBM3": "H100-80GB",
		"Tesla V100-SXM2-16GB": "V100-16GB", "NVIDIA L40S": "L40S", "NVIDIA GeForce RTX 4090": "GeForce-RTX-4090",
	} {
		if got := nvml.Model(name); got != want {
			t.Errorf("%q becomes %q, want %q", name, got, want)
		}
	}
}

var _ device.Meter = (*nvml.Source)(nil)

func TestAGPUTellsWhatItCanOfItsUse(t *testing.T) {
	one := &mock.Device{
		GetUUIDFunc:             func() (string, lib.Return) { return "GPU-one", lib.SUCCESS },
		GetUtilizationRatesFunc: func() (lib.Utilization, lib.Return) { return lib.Utilization{Gpu: 75}, lib.SUCCESS },
		GetMemoryInfoFunc:       func() (lib.Memory, lib.Return) { return lib.Memory{Total: 40 << 30, Used: 3 << 30}, lib.SUCCESS },
		GetPowerUsageFunc:       func() (uint32, lib.Return) { return 250_500, lib.SUCCESS },
		GetTemperatureFunc: func(lib.TemperatureSensors) (uint32, lib.Return) {
			return 0, lib.ERROR_NOT_SUPPORTED
		},
	}
	source, err := nvml.Over(&mock.Interface{
		InitFunc:           func() lib.Return { return lib.SUCCESS },
		DeviceGetCountFunc: func() (int, lib.Return) { return 2, lib.SUCCESS },
		DeviceGetHandleByIndexFunc: func(i int) (lib.Device, lib.Return) {
			if i == 1 {
				return nil, lib.ERROR_GPU_IS_LOST
			}
			return one, lib.SUCCESS
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	usage, err := source.Usage(t.Context())
	if err == nil || !strings.Contains(err.Error(), "GPU 1") {
		t.Errorf("of the lost GPU it says %v", err)
	}
	want := map[string]float64{device.Utilization: 0.75, device.Memory: 3 << 30, device.Power: 250.5}
	if len(usage) != 1 || !maps.Equal(usage["GPU-one"], want) {
		t.Errorf("usage %v", usage)
	}
}
