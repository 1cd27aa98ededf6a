//go:build cgo

package nvml

import (
	"context"
	"errors"
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/clary-ml/clary/agent/device"
)

// Usage asks every GPU what it measures of itself. What a GPU does not support is left
// out; one that cannot be asked at all is left out and named in the error.
func (s *Source) Usage(context.Context) (map[string]map[string]float64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return nil, errors.New("read GPUs: NVML is closed")
	}
	count, code := s.library.DeviceGetCount()
	if code != nvml.SUCCESS {
		return nil, fmt.Errorf("count GPUs: %w", code)
	}
	usage := map[string]map[string]float64{}
	var errs []error
	for i := range count {
		handle, code := s.library.DeviceGetHandleByIndex(i)
		if code != nvml.SUCCESS {
			errs = append(errs, fmt.Errorf("open GPU %d: %w", i, code))
			continue
		}
		uuid, code := handle.GetUUID()
		if code != nvml.SUCCESS {
			errs = append(errs, fmt.Errorf("read the UUID of GPU %d: %w", i, code))
			continue
		}
		usage[uuid] = measure(handle)
	}
	return usage, errors.Join(errs...)
}

func measure(handle nvml.Device) map[string]float64 {
	values := map[string]float64{}
	if rates, code := handle.GetUtilizationRates(); code == nvml.SUCCESS {
		values[device.Utilization] = float64(rates.Gpu) / 100
	}
	if memory, code := handle.GetMemoryInfo(); code == nvml.SUCCESS {
		values[device.Memory] = float64(memory.Used)
	}
	if milliwatts, code := handle.GetPowerUsage(); code == nvml.SUCCESS {
		values[device.Power] = float64(milliwatts) / 1000
	}
	if celsius, code := handle.GetTemperature(nvml.TEMPERATURE_GPU); code == nvml.SUCCESS {
		values[device.Temperature] = float64(celsius)
	}
	return values
}
