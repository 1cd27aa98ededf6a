package cluster

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Limits on what one task may ask for. They keep sums far from overflow.
const (
	MaxMilliCPU = 1 << 24 // 16,384 cores
	MaxMemory   = 1 << 50 // one pebibyte
	MaxGPUs     = 1024
	MaxPorts    = 64
)

// Resources are what a task holds or a node has: thousandths of a core, bytes of
// memory, and devices and ports by name. A device is held whole, or in shares and slots.
type Resources struct {
	MilliCPU int64         // thousandths of a core
	Memory   int64         // bytes
	Devices  []string      // device UUIDs, sorted
	Ports    []int32       // TCP ports, sorted
	Shares   []DeviceShare // sorted
}

// Ask is what one task of a role needs, before it is known where it will run.
type Ask struct {
	MilliCPU int64  `json:"milli_cpu"`
	Memory   int64  `json:"memory"`
	GPUs     int32  `json:"gpus,omitempty"`
	GPUModel string `json:"gpu_model,omitempty"` // one of several, separated by commas; any if empty
	// GPUMilli and GPUMemory ask for a share of one GPU, in thousandths and in bytes, and GPUs is 0; see
	// ShareOf.
	GPUMilli  int32 `json:"gpu_milli,omitempty"`
	GPUMemory int64 `json:"gpu_memory,omitempty"`
	// MIG is a profile, like "1g.10gb": GPUs counts slots of it.
	MIG   string `json:"mig,omitempty"`
	Ports int32  `json:"ports,omitempty"` // how many TCP ports it listens on
}

// Validate reports amounts that are negative or absurd.
func (a Ask) Validate() Problems {
	var p Problems
	checkRange(&p, "milli_cpu", a.MilliCPU, 0, MaxMilliCPU)
	checkRange(&p, "memory", a.Memory, 0, MaxMemory)
	checkRange(&p, "gpus", int64(a.GPUs), 0, MaxGPUs)
	checkRange(&p, "ports", int64(a.Ports), 0, MaxPorts)
	p.Under("", a.validateGPUs())
	return p
}

func (a Ask) validateGPUs() Problems {
	var p Problems
	checkRange(&p, "gpu_milli", int64(a.GPUMilli), 0, WholeGPU-1)
	checkRange(&p, "gpu_memory", a.GPUMemory, 0, MaxMemory)
	if a.GPUModel != "" && a.GPUs == 0 && !a.Shares() {
		p.Add("gpu_model", "%q without gpus: say how many GPUs of that model", Clip(a.GPUModel))
	}
	models := a.Models()
	if len(a.GPUModel) > 512 || len(models) > 32 || slices.Contains(models, "") {
		p.Add("gpu_model", "%q is no list of models: write it like A100,H100, with at most 32", Clip(a.GPUModel))
	}
	if a.Shares() && a.GPUs > 0 {
		p.Add("gpus", "%d beside a share of one GPU: ask for whole GPUs, or for a share of one", a.GPUs)
	}
	if a.MIG == "" {
		return p
	}
	checkProfileName(&p, "mig", a.MIG)
	switch {
	case a.Shares():
		p.Add("mig", "%q beside a share of a GPU: a slot has its own memory", Clip(a.MIG))
	case a.GPUs == 0:
		p.Add("mig", "%q without gpus: say how many slots", Clip(a.MIG))
	}
	return p
}

// Models are those that the ask is content with; none is any.
func (a Ask) Models() []string {
	if a.GPUModel == "" {
		return nil
	}
	models := strings.Split(a.GPUModel, ",")
	for i := range models {
		models[i] = strings.TrimSpace(models[i])
	}
	return models
}

// Likes reports whether a device is of a model that the ask is content with.
func (a Ask) Likes(d Device) bool { return a.GPUModel == "" || slices.Contains(a.Models(), d.Model) }

func checkRange(p *Problems, field string, value, least, most int64) {
	if value < least || value > most {
		p.Add(field, "%d is out of range: from %d to %d", value, least, most)
	}
}

// String reads like "2 cores, 512 MiB, 1 GPU (A100)".
func (a Ask) String() string {
	text := FormatCores(a.MilliCPU) + ", " + FormatBytes(a.Memory)
	if gpus := a.gpus(); gpus != "" {
		text += ", " + gpus
	}
	return text
}

// gpus reads like "2 GPUs (A100)", "0.25 GPU", "8 GiB of a GPU" or "2 GPU slots 1g.10gb".
func (a Ask) gpus() string {
	text := ""
	switch {
	case a.MIG != "":
		text = fmt.Sprintf("%d GPU slot%s %s", a.GPUs, plural(a.GPUs), a.MIG)
	case a.GPUs > 0:
		text = fmt.Sprintf("%d GPU%s", a.GPUs, plural(a.GPUs))
	case a.GPUMilli > 0:
		if text = fmt.Sprintf("%g GPU", float64(a.GPUMilli)/WholeGPU); a.GPUMemory > 0 {
			text += " with " + FormatBytes(a.GPUMemory)
		}
	case a.GPUMemory > 0:
		text = FormatBytes(a.GPUMemory) + " of a GPU"
	}
	if text != "" && a.GPUModel != "" {
		text += " (" + a.GPUModel + ")"
	}
	return text
}

func plural(n int32) string {
	if n == 1 {
		return ""
	}
	return "s"
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
