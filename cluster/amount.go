package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Amount is how much of the cluster something holds, asks for or has. GPUs are counted in thousandths,
// since they can be shared.
type Amount struct {
	MilliCPU int64         // thousandths of a core
	Memory   int64         // bytes
	MilliGPU int64         // thousandths of a GPU, of all models
	Models   []ModelAmount // those of MilliGPU whose model is known; sorted by model, none zero
}

// ModelAmount are GPUs of one model.
type ModelAmount struct {
	Model string
	Milli int64
}

// The resources that quotas name. GPUs of one model are ResourceGPUs + "/" + the model.
const (
	ResourceCores  = "cores"
	ResourceMemory = "memory"
	ResourceGPUs   = "gpus"
)

// maxAmount keeps sums far from overflow.
const maxAmount = 1 << 60

// Plus adds b, or with sign -1 takes it away. Sums stop short of overflowing.
func (a Amount) Plus(b Amount, sign int64) Amount {
	a.MilliCPU = addAmount(a.MilliCPU, sign*b.MilliCPU)
	a.Memory = addAmount(a.Memory, sign*b.Memory)
	a.MilliGPU = addAmount(a.MilliGPU, sign*b.MilliGPU)
	if len(b.Models) == 0 {
		return a
	}
	models := make([]ModelAmount, 0, len(a.Models)+len(b.Models))
	i := 0
	for _, add := range b.Models {
		for i < len(a.Models) && a.Models[i].Model < add.Model {
			models = append(models, a.Models[i])
			i++
		}
		sum := sign * add.Milli
		if i < len(a.Models) && a.Models[i].Model == add.Model {
			sum = addAmount(a.Models[i].Milli, sum)
			i++
		}
		if sum != 0 {
			models = append(models, ModelAmount{add.Model, sum})
		}
	}
	a.Models = append(models, a.Models[i:]...)
	if len(a.Models) == 0 {
		a.Models = nil
	}
	return a
}

func addAmount(a, b int64) int64 {
	return max(-4*maxAmount, min(4*maxAmount, a+b))
}

// IsZero reports whether it is nothing.
func (a Amount) IsZero() bool {
	return a.MilliCPU == 0 && a.Memory == 0 && a.MilliGPU == 0 && len(a.Models) == 0
}

// Of returns how much of the named resource it is.
func (a Amount) Of(resource string) int64 {
	switch resource {
	case ResourceCores:
		return a.MilliCPU
	case ResourceMemory:
		return a.Memory
	case ResourceGPUs:
		return a.MilliGPU
	}
	for _, m := range a.Models {
		if len(resource) == len(ResourceGPUs)+1+len(m.Model) && strings.HasSuffix(resource, m.Model) {
			return m.Milli
		}
	}
	return 0
}

// Amount is what so many tasks that ask for this hold together, as far as it is known before they are
// placed: not of which model GPUs will be where several would do, nor what thousandths the memory of a
// shared one is.
func (a Ask) Amount(tasks int64) Amount {
	each := int64(a.GPUMilli)
	if a.GPUs > 0 {
		each = int64(a.GPUs) * profileMilli(a.MIG)
	}
	amount := Amount{MilliCPU: tasks * a.MilliCPU, Memory: tasks * a.Memory, MilliGPU: tasks * each}
	if models := a.Models(); len(models) == 1 && amount.MilliGPU > 0 {
		amount.Models = []ModelAmount{{models[0], amount.MilliGPU}}
	}
	return amount
}

// Amount is what the gang's current attempt asks for, all tasks together.
func (g Gang) Amount() Amount {
	var sum Amount
	for i, role := range g.Roles {
		sum = sum.Plus(role.Ask.Amount(int64(g.Tasks(i))), 1)
	}
	return sum
}

// Amount is how much it is, given the devices of its node: whole GPUs, shares of them, and slots by the
// sevenths of a GPU that compute for them.
func (r Resources) Amount(devices []Device) Amount {
	amount := Amount{MilliCPU: r.MilliCPU, Memory: r.Memory}
	model := func(uuid string) string {
		if at := slices.IndexFunc(devices, func(d Device) bool { return d.UUID == uuid }); at >= 0 {
			return devices[at].Model
		}
		return ""
	}
	add := func(uuid string, milli int64) {
		one := Amount{MilliGPU: milli}
		if name := model(uuid); name != "" && milli > 0 {
			one.Models = []ModelAmount{{name, milli}}
		}
		amount = amount.Plus(one, 1)
	}
	for _, uuid := range r.Devices {
		add(uuid, WholeGPU)
	}
	for _, share := range r.Shares {
		add(share.UUID, share.MilliGPU())
	}
	return amount
}

// MilliGPU is how much of a GPU it counts for, in thousandths.
func (s DeviceShare) MilliGPU() int64 {
	if s.Profile != "" {
		return profileMilli(s.Profile)
	}
	return int64(s.Milli)
}

// profileMilli is what a slot is of a GPU, in thousandths; "" is a whole one. A GPU has seven compute
// slices.
func profileMilli(profile string) int64 {
	if compute, _, ok := strings.Cut(profile, "g."); ok {
		if n, err := strconv.Atoi(compute); err == nil && n >= 1 && n < 7 {
			return int64(n) * WholeGPU / 7
		}
	}
	return WholeGPU
}

// Amount is what a node has that could be given out: healthy GPUs only.
func (n Node) Amount() Amount {
	amount := Amount{MilliCPU: n.MilliCPU, Memory: n.Memory}
	for _, d := range n.Devices {
		if d.Kind == DeviceGPU && d.Healthy {
			one := Amount{MilliGPU: WholeGPU}
			if d.Model != "" {
				one.Models = []ModelAmount{{d.Model, WholeGPU}}
			}
			amount = amount.Plus(one, 1)
		}
	}
	return amount
}

// Quota is limits by resource, sorted by resource, each named once.
type Quota []Limit

// Limit is an amount of one resource: thousandths of a core, bytes, or thousandths of a GPU.
type Limit struct {
	Resource string // cores, memory, gpus or gpus/MODEL
	Amount   int64
}

// Of returns the limit for a resource, and whether it is named.
func (q Quota) Of(resource string) (int64, bool) {
	at, found := slices.BinarySearchFunc(q, resource, func(l Limit, r string) int { return cmp.Compare(l.Resource, r) })
	if !found {
		return 0, false
	}
	return q[at].Amount, true
}

// With returns the quota with one limit set, or with a negative amount taken out.
func (q Quota) With(resource string, amount int64) Quota {
	made := slices.DeleteFunc(slices.Clone(q), func(l Limit) bool { return l.Resource == resource })
	if amount >= 0 {
		at, _ := slices.BinarySearchFunc(made, resource, func(l Limit, r string) int { return cmp.Compare(l.Resource, r) })
		made = slices.Insert(made, at, Limit{resource, amount})
	}
	if len(made) == 0 {
		return nil
	}
	return made
}

// MaxQuotaModels is how many resources a quota may name.
const MaxQuotaModels = 64

// Validate reports resources that are unknown or named twice, and amounts that are absurd.
func (q Quota) Validate() Problems {
	var p Problems
	if len(q) > MaxQuotaModels {
		p.Add("", "%d resources: at most %d", len(q), MaxQuotaModels)
	}
	for i, limit := range q {
		field := Clip(limit.Resource)
		model, isModel := strings.CutPrefix(limit.Resource, ResourceGPUs+"/")
		switch {
		case isModel && (model == "" || len(model) > 128):
			p.Add(field, "the model has %d bytes: from 1 to 128", len(model))
		case !isModel && limit.Resource != ResourceCores && limit.Resource != ResourceMemory && limit.Resource != ResourceGPUs:
			p.Add(field, "no such resource: cores, memory, gpus or gpus/MODEL")
		case i > 0 && q[i-1].Resource == limit.Resource:
			p.Add(field, "it is there twice")
		case i > 0 && q[i-1].Resource > limit.Resource:
			p.Add(field, "resources are to be sorted by name")
		}
		if limit.Amount < 0 || limit.Amount > mostOf(limit.Resource) {
			p.Add(field, "%s is out of range: from 0 to %s", FormatAmount(limit.Resource, limit.Amount), FormatAmount(limit.Resource, mostOf(limit.Resource)))
		}
	}
	return p
}

func mostOf(resource string) int64 {
	if resource == ResourceMemory {
		return maxAmount
	}
	return 1e12 // a thousand million cores or GPUs
}

// FormatAmount reads like "2.5 cores", "64 GiB", "8 GPUs" or "4 A100 GPUs".
func FormatAmount(resource string, amount int64) string {
	switch resource {
	case ResourceCores:
		return FormatCores(amount)
	case ResourceMemory:
		return FormatBytes(amount)
	}
	text := fmt.Sprintf("%g ", float64(amount)/WholeGPU)
	if model, ok := strings.CutPrefix(resource, ResourceGPUs+"/"); ok {
		text += model + " "
	}
	if amount == 1000 {
		return text + "GPU"
	}
	return text + "GPUs"
}
