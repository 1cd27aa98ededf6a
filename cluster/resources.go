package cluster

import (
	"fmt"
	"math"
	"slices"
)

// Limits on what one task may ask for. They keep sums far from overflow.
const (
	MaxMilliCPU = 1 << 24 // 16,384 cores
	MaxMemory   = 1 << 50 // one pebibyte
	MaxGPUs     = 1024
	MaxPorts    = 64
)

// Resources are what a task holds or a node has: thousandths of a core, bytes of
// memory, and devices and ports by name.
type Resources struct {
	MilliCPU int64    // thousandths of a core
	Memory   int64    // bytes
	Devices  []string // device UUIDs, sorted
	Ports    []int32  // TCP ports, sorted
}

// Fits reports whether every amount and name of r is contained in free.
func (r Resources) Fits(free Resources) bool {
	return r.MilliCPU <= free.MilliCPU && r.Memory <= free.Memory &&
		contains(free.Devices, r.Devices) && contains(free.Ports, r.Ports)
}

func contains[T comparable](whole, part []T) bool {
	for _, item := range part {
		if !slices.Contains(whole, item) {
			return false
		}
	}
	return true
}

// Ask is what one task of a role needs, before it is known where it will run.
type Ask struct {
	MilliCPU int64  `json:"milli_cpu"`
	Memory   int64  `json:"memory"`
	GPUs     int32  `json:"gpus,omitempty"`
	GPUModel string `json:"gpu_model,omitempty"` // any model if empty
	Ports    int32  `json:"ports,omitempty"`     // how many TCP ports it listens on
}

// Validate reports amounts that are negative or absurd.
func (a Ask) Validate() Problems {
	var p Problems
	checkRange(&p, "milli_cpu", a.MilliCPU, 0, MaxMilliCPU)
	checkRange(&p, "memory", a.Memory, 0, MaxMemory)
	checkRange(&p, "gpus", int64(a.GPUs), 0, MaxGPUs)
	checkRange(&p, "ports", int64(a.Ports), 0, MaxPorts)
	if a.GPUModel != "" && a.GPUs == 0 {
		p.Add("gpu_model", "%q without gpus: say how many GPUs of that model", Clip(a.GPUModel))
	}
	return p
}

func checkRange(p *Problems, field string, value, least, most int64) {
	if value < least || value > most {
		p.Add(field, "%d is out of range: from %d to %d", value, least, most)
	}
}

// String reads like "2 cores, 512 MiB, 1 GPU (A100)".
func (a Ask) String() string {
	text := FormatCores(a.MilliCPU) + ", " + FormatBytes(a.Memory)
	if a.GPUs > 0 {
		text += fmt.Sprintf(", %d GPU", a.GPUs)
		if a.GPUs > 1 {
			text += "s"
		}
		if a.GPUModel != "" {
			text += " (" + a.GPUModel + ")"
		}
	}
	return text
}

// FormatCores reads like "1 core" or "2.5 cores"; milli is in thousandths.
func FormatCores(milli int64) string {
	if milli == 1000 {
		return "1 core"
	}
	return fmt.Sprintf("%g cores", float64(milli)/1000)
}

// FormatBytes reads like "512 MiB": at most one decimal, binary units.
func FormatBytes(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	value, unit := float64(n), 0
	for math.Abs(value) >= 1024 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	return fmt.Sprintf("%g %s", math.Round(value*10)/10, units[unit])
}
