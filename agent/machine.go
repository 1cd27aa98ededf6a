package agent

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/clary-ml/clary/agent/device"
	"github.com/clary-ml/clary/agent/device/nvml"
	"github.com/clary-ml/clary/agent/inventory"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// memoryReserve is what is left to the system and the agent where the operator names no
// amount: a tenth of the machine.
const memoryReserve = 10

// gaugeEvery is how often GPUs are asked what they use.
const gaugeEvery = 5 * time.Second

// machine is what this node offers.
type machine struct {
	config  Config
	host    inventory.Host
	devices device.Source
	gauge   *device.Gauge // what the devices use
	close   func() error
}

// lookAround takes inventory. A machine without NVML has no GPUs, which is worth one
// line in the log and no error.
func lookAround(c Config) (*machine, error) {
	host, err := inventory.Read(c.Data)
	if err != nil {
		return nil, err
	}
	m := &machine{config: c, host: host, devices: device.None{}, close: func() error { return nil }}
	if c.SimulateGPUs != "" {
		if m.devices, err = device.ParseSimulated(c.ID, c.SimulateGPUs); err != nil {
			return nil, err
		}
		m.gauge = device.NewGauge(m.devices, gaugeEvery, c.Log)
		return m, nil
	}
	source, err := nvml.Open()
	switch {
	case errors.Is(err, nvml.ErrNone):
		c.Log.Info(err.Error())
	case err != nil:
		return nil, err
	default:
		m.devices, m.close = source, source.Close
	}
	m.gauge = device.NewGauge(m.devices, gaugeEvery, c.Log)
	return m, nil
}

// slot names a slot of a GPU that is cut.
func (m *machine) slot(ctx context.Context, share cluster.DeviceShare) (string, error) {
	source, can := m.devices.(device.Slotter)
	if !can {
		return "", fault.New(fault.Invalid, "device %s cannot be cut into slots on this node", share.UUID)
	}
	return source.Slot(ctx, share)
}

// node describes the machine as it is now. A GPU that cannot be asked is told of and
// left out; the rest still counts.
func (m *machine) node(ctx context.Context) cluster.Node {
	devices, err := m.devices.Devices(ctx)
	if err != nil {
		m.config.Log.Warn("GPUs", "error", err)
	}
	c := m.config
	for i := range devices { // a copy of our own
		if said, ok := c.GPUSpeeds[devices[i].Model]; ok {
			devices[i].Speed, _ = device.ParseSpeed(said) // Validate has read it
		}
	}
	node := cluster.Node{
		ID: c.ID, Address: c.Address, State: cluster.NodeReady,
		MilliCPU: m.host.MilliCPU, Memory: m.host.Memory - m.host.Memory/memoryReserve, Disk: m.host.Disk,
		Devices: devices, PortFirst: c.PortFirst, PortLast: c.PortLast,
		Labels: maps.Clone(m.host.Labels), Version: c.Version, Seen: time.Now().UnixNano(),
	}
	if c.MilliCPU != 0 {
		node.MilliCPU = c.MilliCPU
	}
	if c.Memory != 0 {
		node.Memory = c.Memory
	}
	maps.Copy(node.Labels, c.Labels)
	return node
}
