// Package device finds the accelerators of a node: real ones through package
// device/nvml, simulated ones here, behind one interface.
package device

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// Source tells a node's devices. What it answers may change with their health, but
// a device keeps its UUID.
type Source interface {
	Devices(ctx context.Context) ([]cluster.Device, error)
}

// None is a node without devices.
type None struct{}

// Devices returns nothing.
func (None) Devices(context.Context) ([]cluster.Device, error) { return nil, nil }

const gib = 1 << 30

// memories are the models that can be simulated, in bytes as their makers count.
var memories = map[string]int64{
	"A30": 24 * gib, "T4": 16 * gib, "L4": 24 * gib, "A10G": 24 * gib, "L40S": 48 * gib, "V100": 16 * gib, "V100-32GB": 32 * gib,
	"A100": 80 * gib, "A100-40GB": 40 * gib, "A100-80GB": 80 * gib,
	"H100": 80 * gib, "H100-80GB": 80 * gib, "H200": 141 * gib, "B200": 180 * gib,
}

// speeds are what models compute in a second, in thousandths of an A100: dense FP16 on tensor cores, from NVIDIA's data
// sheets (A100 312 TFLOPS).
var speeds = map[string]int32{
	"A30": 529, "T4": 208, "L4": 388, "A10G": 224, "L40S": 1160, "V100": 401, "V100-16GB": 401, "V100-32GB": 401,
	"A100": 1000, "A100-40GB": 1000, "A100-80GB": 1000, "H100": 3170, "H100-80GB": 3170, "H200": 3170, "B200": 7212,
}

// Speed is how fast a model is in thousandths of an A100; 0 if it is not known.
func Speed(model string) int32 { return speeds[model] }

// ParseSpeed reads a speed in multiples of an A100's, like "1.8", into thousandths.
func ParseSpeed(text string) (int32, error) {
	times, err := strconv.ParseFloat(text, 64)
	if err != nil || !(times >= 0.001 && times <= 1000) { // NaN is neither
		return 0, fault.New(fault.Invalid, "%q is no speed in multiples of an A100's: write a number from 0.001 to 1000, like 1.8", cluster.Clip(text))
	}
	return int32(math.Round(times * 1000)), nil
}

// Models lists what can be simulated.
func Models() []string {
	names := make([]string, 0, len(memories))
	for name := range memories {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Simulated are pretended GPUs. They come and stay as declared.
type Simulated struct{ devices []cluster.Device }

// ParseSimulated reads a declaration like "8xA100" or "2xH100-80GB,4xT4" for a
// node. After a model may stand, each behind a colon, "mig" for devices that are partitioned, "nvlink=N" for
// islands of N devices, and "numa=N" for N devices to a NUMA node. The UUIDs follow from the node's ID and the place in the list, so they are
// the same after every start.
func ParseSimulated(node, text string) (*Simulated, error) {
	s := &Simulated{}
	for part := range strings.SplitSeq(text, ",") {
		count, kind, ok := strings.Cut(strings.TrimSpace(part), "x")
		model, options, given := strings.Cut(kind, ":")
		n, err := strconv.Atoi(count)
		if !ok || err != nil || n < 1 || len(s.devices)+n > cluster.MaxGPUs {
			return nil, fault.New(fault.Invalid, "simulated GPUs %q: write COUNTxMODEL, like 8xA100 or 2xH100-80GB,4xT4, with 1 to %d in all",
				cluster.Clip(text), cluster.MaxGPUs)
		}
		memory, ok := memories[model]
		if !ok {
			return nil, fault.New(fault.Invalid, "simulated GPUs %q: there is no model %q, only %s",
				cluster.Clip(text), cluster.Clip(model), strings.Join(Models(), ", "))
		}
		first := len(s.devices)
		for range n {
			s.devices = append(s.devices, cluster.Device{
				UUID: simulatedUUID(node, len(s.devices)), Kind: cluster.DeviceGPU,
				Model: model, Memory: memory, Simulated: true, Healthy: true, Speed: Speed(model),
			})
		}
		if !given {
			continue
		}
		if err := s.arrange(first, options); err != nil {
			return nil, fault.New(fault.Invalid, "simulated GPUs %q: %w", cluster.Clip(text), err)
		}
	}
	return s, nil
}

// arrange applies the options of the devices from the first on.
func (s *Simulated) arrange(first int, options string) error {
	devices := s.devices[first:]
	var links, numas int32 // what the devices before have: this model's islands and nodes come after them
	for _, d := range s.devices[:first] {
		links, numas = max(links, d.Link), max(numas, d.NUMA)
	}
	for option := range strings.SplitSeq(options, ":") {
		name, number, _ := strings.Cut(option, "=")
		size, err := strconv.Atoi(number)
		for i := range devices {
			d := &devices[i]
			switch {
			case option == "mig":
				if d.Partitioned, d.Profiles = true, partition(d.Model); len(d.Profiles) == 0 {
					return fmt.Errorf("%s cannot be partitioned", d.Model)
				}
			case name == "nvlink" && err == nil && size > 0:
				d.Link = links + int32(i/size) + 1
			case name == "numa" && err == nil && size > 0:
				d.NUMA = numas + int32(i/size) + 1
			default:
				return fmt.Errorf("%q is no option: mig, nvlink=4 or numa=4", cluster.Clip(option))
			}
		}
	}
	return nil
}

// simulatedUUID looks like NVML's: "GPU-" and a UUID.
func simulatedUUID(node string, index int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "simulated %s %d", node, index))
	return fmt.Sprintf("GPU-%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// Devices returns the declared GPUs.
func (s *Simulated) Devices(context.Context) ([]cluster.Device, error) {
	return slices.Clone(s.devices), nil
}
