//go:build cgo

package nvml

import (
	"context"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/clary-ml/clary/agent/device"
)

// Usage asks every GPU what it measures of itself. What a GPU does not support is left
// out; one that cannot be asked at all is left out and named in the error.
func (s *Source) Usage(context.Context) (map[string]map[string]float64, error) {
	usage := map[string]map[string]float64{}
	err := s.each(func(i int) error {
		handle, uuid, err := s.handle(i)
		if err == nil {
			usage[uuid] = measure(handle)
		}
		return err
	})
	return usage, err
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
