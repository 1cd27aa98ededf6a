//go:build cgo

// Package nvml finds NVIDIA GPUs through the driver's own library, which is loaded
// when the program runs: the same binary starts on machines without it.
package nvml

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/clary-ml/clary/cluster"
)

// ErrNone says that there is no NVML on this machine, hence no GPU; its text says
// why. It is no fault.
var ErrNone = errors.New("no NVIDIA GPUs on this node")

// Source answers from NVML.
type Source struct {
	library nvml.Interface
	has     func(symbol string) bool // calling what a library lacks would end the process

	mu   sync.Mutex
	open bool
}

// Open loads the library; the error wraps ErrNone where there is none.
func Open() (*Source, error) {
	library := nvml.New()
	source, err := Over(library)
	if err != nil {
		return nil, err
	}
	source.has = func(symbol string) bool { return library.Extensions().LookupSymbol(symbol) == nil }
	return source, nil
}

// Over is Open with another implementation of the library.
func Over(library nvml.Interface) (*Source, error) {
	if code := library.Init(); code != nvml.SUCCESS {
		return nil, fmt.Errorf("%w: %s", ErrNone, message(code))
	}
	return &Source{library: library, has: func(string) bool { return true }, open: true}, nil
}

func message(code nvml.Return) string {
	if code == nvml.ERROR_LIBRARY_NOT_FOUND {
		return "the library libnvidia-ml.so.1 is not installed"
	}
	return code.Error()
}

// Close lets go of the library.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return nil
	}
	s.open = false
	if code := s.library.Shutdown(); code != nvml.SUCCESS {
		return fmt.Errorf("shut down NVML: %w", code)
	}
	return nil
}

// Devices asks for every GPU. One that no longer answers is told as unhealthy if it
// can still be named; else it is left out, and the error says so beside the rest.
func (s *Source) Devices(context.Context) ([]cluster.Device, error) {
	var devices []cluster.Device
	var handles []nvml.Device
	err := s.each(func(i int) error {
		device, handle, err := s.device(i)
		if handle != nil {
			devices, handles = append(devices, device), append(handles, handle)
		}
		return err
	})
	if s.can(links) {
		link(devices, handles)
	}
	return devices, err
}

// each calls do for every GPU's index, and gathers what could not be done.
func (s *Source) each(do func(index int) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return errors.New("read GPUs: NVML is closed")
	}
	count, code := s.library.DeviceGetCount()
	if code != nvml.SUCCESS {
		return fmt.Errorf("count GPUs: %w", code)
	}
	var errs []error
	for i := range count {
		errs = append(errs, do(i))
	}
	return errors.Join(errs...)
}

func (s *Source) handle(index int) (nvml.Device, string, error) {
	handle, code := s.library.DeviceGetHandleByIndex(index)
	if code != nvml.SUCCESS {
		return nil, "", fmt.Errorf("open GPU %d: %w", index, code)
	}
	uuid, code := handle.GetUUID()
	if code != nvml.SUCCESS {
		return nil, "", fmt.Errorf("read the UUID of GPU %d: %w", index, code)
	}
	return handle, uuid, nil
}

func (s *Source) device(index int) (cluster.Device, nvml.Device, error) {
	handle, uuid, err := s.handle(index)
	if err != nil {
		return cluster.Device{}, nil, err
	}
	device := cluster.Device{UUID: uuid, Kind: cluster.DeviceGPU, Healthy: true}
	if name, code := handle.GetName(); code == nvml.SUCCESS {
		device.Model = Model(name)
	} else {
		device.Healthy = false
	}
	if memory, code := handle.GetMemoryInfo(); code == nvml.SUCCESS {
		device.Memory = int64(memory.Total)
	} else {
		device.Healthy = false
	}
	if !device.Healthy {
		return device, handle, nil
	}
	device.Speed = speed(device.Model)
	if s.can(addresses) {
		device.PCI = address(handle)
		device.NUMA = numaOf(pciDevices, device.PCI)
	}
	if s.can(slots) {
		err = partition(handle, &device)
	}
	return device, handle, err
}

// Model shortens NVML's product name to what people ask for: "NVIDIA A100-SXM4-40GB"
// becomes "A100-40GB", "Tesla T4" becomes "T4", "NVIDIA H100 80GB HBM3" "H100-80GB".
func Model(name string) string {
	var parts []string
	for word := range strings.FieldsFuncSeq(name, func(r rune) bool { return r == ' ' || r == '-' }) {
		switch {
		case word == "NVIDIA" || word == "Tesla" || word == "Mock":
		case strings.HasPrefix(word, "SXM") || word == "PCIE" || word == "PCIe" || strings.HasPrefix(word, "HBM"):
		default:
			parts = append(parts, word)
		}
	}
	return strings.Join(parts, "-")
}
