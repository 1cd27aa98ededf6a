// Package device finds the accelerators of a node: real ones through package
// device/nvml, simulated ones here, behind one interface.
package device

import (
	"context"
	"crypto/sha256"
	"fmt"
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
	"T4": 16 * gib, "L4": 24 * gib, "A10G": 24 * gib, "L40S": 48 * gib, "V100": 16 * gib, "V100-32GB": 32 * gib,
	"A100": 80 * gib, "A100-40GB": 40 * gib, "A100-80GB": 80 * gib,
	"H100": 80 * gib, "H100-80GB": 80 * gib, "H200": 141 * gib, "B200": 180 * gib,
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
// node. The UUIDs follow from the node's ID and the place in the list, so they are
// the same after every start.
func ParseSimulated(node, text string) (*Simulated, error) {
	s := &Simulated{}
	for part := range strings.SplitSeq(text, ",") {
		count, model, ok := strings.Cut(strings.TrimSpace(part), "x")
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
		for range n {
			s.devices = append(s.devices, cluster.Device{
				UUID: simulatedUUID(node, len(s.devices)), Kind: cluster.DeviceGPU,
				Model: model, Memory: memory, Simulated: true, Healthy: true,
			})
		}
	}
	return s, nil
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
