package cluster

import (
	"math"
	"slices"
	"testing"
)

func TestAShareSaysBothItsFractionAndItsMemory(t *testing.T) {
	device := Device{UUID: "g", Memory: 80 << 30}
	for name, c := range map[string]struct {
		ask   Ask
		want  DeviceShare
		given bool
	}{
		"a fraction": {Ask{GPUMilli: 250}, DeviceShare{UUID: "g", Milli: 250, Memory: 20 << 30}, true},
		"memory":     {Ask{GPUMemory: 8 << 30}, DeviceShare{UUID: "g", Milli: 100, Memory: 8 << 30}, true},
		"a little":   {Ask{GPUMemory: 1}, DeviceShare{UUID: "g", Milli: 1, Memory: 1}, true},
		"both":       {Ask{GPUMilli: 500, GPUMemory: 1 << 30}, DeviceShare{UUID: "g", Milli: 500, Memory: 1 << 30}, true},
		"too much":   {Ask{GPUMemory: 81 << 30}, DeviceShare{UUID: "g", Memory: 81 << 30}, false},
	} {
		got, ok := c.ask.ShareOf(device)
		if ok != c.given || ok && got != c.want {
			t.Errorf("%s: %+v, %v", name, got, ok)
		}
	}
	if share, ok := (Ask{GPUMemory: 1}).ShareOf(Device{}); ok {
		t.Errorf("%+v of a device without memory", share)
	}
	if share, ok := (Ask{GPUMemory: MaxMemory}).ShareOf(Device{Memory: 1}); ok {
		t.Errorf("%+v of a little device", share)
	}
	huge := Device{Memory: MaxMemory}
	if share, ok := (Ask{GPUMemory: MaxMemory}).ShareOf(huge); !ok || share.Milli != WholeGPU {
		t.Errorf("all of the largest device is %+v", share)
	}
}

func TestSharesAddUpAndComeBack(t *testing.T) {
	held, err := AddShares(nil, []DeviceShare{{UUID: "b", Milli: 300, Memory: 3}, {UUID: "a", Profile: "1g.5gb", Start: 2, Memory: 5}})
	if err != nil {
		t.Fatal(err)
	}
	if held, err = AddShares(held, []DeviceShare{{UUID: "b", Milli: 200, Memory: 1}}); err != nil || len(held) != 2 || held[1].Milli != 500 || held[1].Memory != 4 {
		t.Fatalf("%+v, %v", held, err)
	}
	if _, err := AddShares(slices.Clone(held), []DeviceShare{{UUID: "a", Profile: "1g.5gb", Start: 2}}); err == nil {
		t.Error("a slot is given twice")
	}
	if got := (Resources{Devices: []string{"x"}, Shares: held}).GPUs(); math.Abs(got-(1.5+1.0/7)) > 1e-3 {
		t.Errorf("%v GPUs", got)
	}
	held = RemoveShares(held, []DeviceShare{{UUID: "b", Milli: 300, Memory: 3}})
	held = RemoveShares(held, []DeviceShare{{UUID: "a", Profile: "1g.5gb", Start: 2, Memory: 5}, {UUID: "nobody", Milli: 1}})
	if len(held) != 1 || held[0].Milli != 200 {
		t.Errorf("%+v is left", held)
	}
	if held = RemoveShares(held, []DeviceShare{{UUID: "b", Milli: 200, Memory: 1}}); len(held) != 0 {
		t.Errorf("%+v is left of nothing", held)
	}
}

func TestAnAskForAShareIsForOneGPU(t *testing.T) {
	for name, c := range map[string]struct {
		ask   Ask
		field string
	}{
		"negative":            {Ask{GPUMilli: -1}, "gpu_milli"},
		"a whole":             {Ask{GPUMilli: 1000}, "gpu_milli"},
		"negative memory":     {Ask{GPUMemory: -1}, "gpu_memory"},
		"too much memory":     {Ask{GPUMemory: math.MaxInt64}, "gpu_memory"},
		"beside whole ones":   {Ask{GPUs: 1, GPUMilli: 500}, "gpus"},
		"slots without count": {Ask{MIG: "1g.10gb"}, "mig"},
		"slots and a share":   {Ask{MIG: "1g.10gb", GPUMilli: 1}, "mig"},
		"no profile":          {Ask{MIG: "big", GPUs: 1}, "mig"},
		"an absurd profile":   {Ask{MIG: "9g.10gb", GPUs: 1}, "mig"},
		"more than a profile": {Ask{MIG: "1g.10gb+me", GPUs: 1}, "mig"},
		"no list":             {Ask{GPUs: 1, GPUModel: "A100,,H100"}, "gpu_model"},
		"a model of nothing":  {Ask{GPUModel: "A100"}, "gpu_model"},
	} {
		if problems := c.ask.Validate(); len(problems) == 0 || problems[0].Field != c.field {
			t.Errorf("%s: %v", name, problems)
		}
	}
	for text, ask := range map[string]Ask{
		"1 core, 0 B, 0.25 GPU":            {MilliCPU: 1000, GPUMilli: 250},
		"1 core, 0 B, 8 GiB of a GPU":      {MilliCPU: 1000, GPUMemory: 8 << 30},
		"1 core, 0 B, 2 GPU slots 1g.10gb": {MilliCPU: 1000, GPUs: 2, MIG: "1g.10gb"},
		"1 core, 0 B, 1 GPU (A100,H100)":   {MilliCPU: 1000, GPUs: 1, GPUModel: "A100,H100"},
	} {
		if err := ask.Validate().Err(); err != nil || ask.String() != text {
			t.Errorf("%q, %v; want %q", ask, err, text)
		}
	}
}

func TestNodesThatContradictThemselvesAreRefused(t *testing.T) {
	node := func(d Device) Node {
		d.UUID = "g"
		return Node{ID: "n", Address: "10.0.0.1", State: NodeReady, Devices: []Device{d}}
	}
	slot := MIGProfile{Name: "1g.5gb", Slices: 1, Starts: []int32{0, 1}}
	for name, n := range map[string]Node{
		"profiles without partition": node(Device{Profiles: []MIGProfile{slot}}),
		"no profile":                 node(Device{Partitioned: true, Profiles: []MIGProfile{{Name: "x", Slices: 1, Starts: []int32{0}}}}),
		"twice":                      node(Device{Partitioned: true, Profiles: []MIGProfile{slot, slot}}),
		"beyond the end":             node(Device{Partitioned: true, Profiles: []MIGProfile{{Name: "1g.5gb", Slices: 8, Starts: []int32{0, 9}}}}),
		"before the beginning":       node(Device{Partitioned: true, Profiles: []MIGProfile{{Name: "1g.5gb", Slices: 1, Starts: []int32{-1}}}}),
		"not ascending":              node(Device{Partitioned: true, Profiles: []MIGProfile{{Name: "1g.5gb", Slices: 1, Starts: []int32{1, 1}}}}),
		"nowhere":                    node(Device{Partitioned: true, Profiles: []MIGProfile{{Name: "1g.5gb", Slices: 1}}}),
		"negative speed":             node(Device{Speed: -1}),
	} {
		if len(n.Validate()) == 0 {
			t.Errorf("%s: it is accepted", name)
		}
	}
	if err := node(Device{Partitioned: true, Profiles: []MIGProfile{slot}}).Validate().Err(); err != nil {
		t.Error(err)
	}
	tainted := node(Device{})
	tainted.Taints = []Taint{{Key: "", Effect: "never"}}
	if len(tainted.Validate()) != 2 {
		t.Errorf("%v", tainted.Validate())
	}
}
