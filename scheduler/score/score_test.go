package score_test

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/room"
	"github.com/clary-ml/clary/scheduler/score"
)

const gib = 1 << 30

// machine is an idle node with GPUs of one model.
func machine(id string, cores, memory int64, gpus int, model string) cluster.Node {
	n := cluster.Node{ID: id, State: cluster.NodeReady, MilliCPU: cores * 1000, Memory: memory * gib}
	for i := range gpus {
		n.Devices = append(n.Devices, cluster.Device{UUID: fmt.Sprintf("%s-%d", id, i), Kind: cluster.DeviceGPU, Model: model, Memory: 16 * gib, Healthy: true})
	}
	return n
}

// placed is where a task of the ask goes, "" for nowhere.
func placed(t *testing.T, m *room.Map, ask cluster.Ask) cluster.Allocation {
	t.Helper()
	allocations, _ := m.Take(room.NewShape("j", []cluster.Role{{Name: "w", Count: 1, Ask: ask}}))
	m.Settle()
	if len(allocations) == 0 {
		return cluster.Allocation{}
	}
	return allocations[0]
}

func kinds(asks ...cluster.Ask) score.Mix {
	var d score.Demand
	for i, ask := range asks {
		d.Add(ask, int64(100-i))
	}
	return d.Mix()
}

func TestRoomForTheOthersIsKept(t *testing.T) {
	share := func(milli int32) cluster.Ask { return cluster.Ask{MilliCPU: 1000, Memory: gib, GPUMilli: milli} }
	whole := func(gpus int32) cluster.Ask { return cluster.Ask{MilliCPU: 1000, Memory: gib, GPUs: gpus} }
	idle := cluster.Ask{MilliCPU: 8000, Memory: gib}
	for _, test := range []struct {
		claim string
		mix   score.Mix
		nodes []cluster.Node
		first []cluster.Ask // placed before, one after the other
		ask   cluster.Ask
		want  string
	}{
		{
			"cores go where no GPU needs them", kinds(whole(1), idle),
			[]cluster.Node{machine("a", 8, 64, 4, "T4"), machine("b", 64, 64, 0, "")},
			nil, idle, "b",
		},
		{
			"cores run out before GPUs do, where those of one kind would still fit", kinds(cluster.Ask{MilliCPU: 4000, Memory: gib, GPUs: 1}),
			[]cluster.Node{machine("a", 16, 64, 4, "T4"), machine("b", 24, 64, 4, "T4")},
			nil, idle, "b",
		},
		{
			"memory runs out before GPUs do", kinds(cluster.Ask{MilliCPU: 1000, Memory: 16 * gib, GPUs: 1}),
			[]cluster.Node{machine("a", 64, 64, 4, "T4"), machine("b", 64, 128, 4, "T4")},
			nil,
			cluster.Ask{Memory: 40 * gib},
			"b",
		},
		{
			"a share goes beside the share that it completes", kinds(share(500), whole(1)),
			[]cluster.Node{machine("a", 64, 64, 2, "T4"), machine("b", 64, 64, 2, "T4")},
			[]cluster.Ask{share(500), whole(1), share(500), share(500)},
			share(500), "b",
		},
		{
			"a model that is asked for by name is kept", kinds(cluster.Ask{MilliCPU: 1000, Memory: gib, GPUs: 1, GPUModel: "A100"}, cluster.Ask{MilliCPU: 1000, Memory: gib, GPUs: 1}),
			[]cluster.Node{machine("a", 64, 64, 2, "A100"), machine("b", 64, 64, 2, "T4")},
			nil, whole(1), "b",
		},
		{
			"eight GPUs of one node stay together", kinds(whole(8), whole(1)),
			[]cluster.Node{machine("a", 64, 64, 8, "T4"), machine("b", 64, 64, 4, "T4")},
			nil, whole(1), "b",
		},
		{
			"of equal nodes the first", kinds(whole(1)),
			[]cluster.Node{machine("b", 64, 64, 4, "T4"), machine("a", 64, 64, 4, "T4")},
			nil, whole(1), "a",
		},
	} {
		m := room.New(score.New(test.mix))
		for _, n := range test.nodes {
			m.Set(n, cluster.Resources{})
		}
		for _, ask := range test.first {
			placed(t, m, ask)
		}
		if got := placed(t, m, test.ask); got.Node != test.want {
			t.Errorf("%s: placed on %q, want %q", test.claim, got.Node, test.want)
		}
	}
}

func TestWithoutGPUsInTheMixItIsTightest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, devices := drawNode(t)
		r := drawRequest(t)
		g := score.New(kinds(cluster.Ask{MilliCPU: 1000, Memory: gib}))
		if got, want := g.Score(n, devices, r), (room.Tightest{}).Score(n, devices, r); got != want {
			t.Fatalf("scored %d, want %d", got, want)
		}
		if got, want := g.Pick(n, devices, r), (room.Tightest{}).Pick(n, devices, r); got != want {
			t.Fatalf("picked %d, want %d", got, want)
		}
	})
}

func TestNoChangeIsTheMiddleLevel(t *testing.T) {
	g := score.New(kinds(cluster.Ask{MilliCPU: 1000, GPUs: 1}))
	n := &room.State{CapMilli: 8000, Milli: 8000, Devices: 1, DeviceMilli: 1000}
	if got := g.Score(n, []room.Device{{Milli: cluster.WholeGPU}}, &room.Request{Milli: 7000}) >> 20; got != 50 {
		t.Errorf("a task that takes cores which no GPU needs is of level %d, want 50", got)
	}
	if got := g.Score(n, []room.Device{{Milli: cluster.WholeGPU}}, &room.Request{Milli: 7001}) >> 20; got >= 50 {
		t.Errorf("a task that takes the last core is of level %d, want less than 50", got)
	}
}

// drawNode draws a node whose GPUs are partly used.
func drawNode(t *rapid.T) (*room.State, []room.Device) {
	n := &room.State{
		CapMilli: 64000, CapMemory: 256 * gib, Milli: rapid.Int32Range(0, 64).Draw(t, "cores") * 1000,
		Memory: rapid.Int64Range(0, 256).Draw(t, "memory") * gib, Devices: int16(rapid.IntRange(0, 20).Draw(t, "devices")),
		Model: int16(rapid.IntRange(0, 1).Draw(t, "model")),
	}
	mixed := rapid.Bool().Draw(t, "mixed")
	var devices []room.Device
	for i := range n.Devices {
		d := room.Device{Milli: rapid.SampledFrom([]int16{-100, 0, 190, 530, 1000, 1000}).Draw(t, "free"), Model: n.Model}
		if mixed && i > 0 {
			d.Model, n.Model = int16(rapid.IntRange(0, 1).Draw(t, "other")), room.Mixed
		}
		n.DeviceMilli += int32(max(0, d.Milli))
		devices = append(devices, d)
	}
	return n, devices
}

func drawRequest(t *rapid.T) *room.Request {
	r := &room.Request{Milli: rapid.Int32Range(0, 16).Draw(t, "ask cores") * 1000, Memory: rapid.Int64Range(0, 32).Draw(t, "ask memory") * gib}
	switch rapid.IntRange(0, 2).Draw(t, "sort") {
	case 1:
		r.GPUs = rapid.Int32Range(1, 8).Draw(t, "gpus")
	case 2:
		r.GPUMilli = rapid.SampledFrom([]int32{160, 470, 530, 810}).Draw(t, "milli")
	}
	if r.GPUs+r.GPUMilli > 0 {
		r.Models = rapid.Uint64Range(0, 2).Draw(t, "models")
	}
	return r
}

// fits is whether a node has room for a request, in the plainest words.
func fits(n *room.State, devices []room.Device, r *room.Request) bool {
	if n.Milli < r.Milli || n.Memory < r.Memory {
		return false
	}
	able := int32(0)
	for _, d := range devices {
		if r.Likes(d.Model) && (r.GPUs > 0 && d.Milli == cluster.WholeGPU || r.GPUMilli > 0 && int32(d.Milli) >= r.GPUMilli) {
			able++
		}
	}
	return r.GPUs == 0 && r.GPUMilli == 0 || r.GPUs > 0 && able >= r.GPUs || r.GPUMilli > 0 && able > 0
}

// useless is the definition, in real numbers.
func useless(n *room.State, devices []room.Device, mix []room.Request, weights []float64) (sum float64) {
	for i := range mix {
		k, total, usable, tasks := &mix[i], 0.0, 0.0, 0.0
		for _, d := range devices {
			free := max(0, float64(d.Milli))
			total += free
			switch {
			case !k.Likes(d.Model):
			case k.GPUs > 0 && d.Milli == cluster.WholeGPU:
				usable += free
				tasks += 1 / float64(k.GPUs)
			case k.GPUMilli > 0 && int32(d.Milli) >= k.GPUMilli:
				usable += free
				tasks += math.Floor(free / float64(k.GPUMilli))
			}
		}
		lost := total
		if fits(n, devices, k) && k.GPUs+k.GPUMilli > 0 {
			tasks = math.Floor(tasks + 1e-9)
			able := tasks
			if k.Milli > 0 {
				able = min(able, math.Floor(float64(n.Milli)/float64(k.Milli)))
			}
			if k.Memory > 0 {
				able = min(able, math.Floor(float64(n.Memory)/float64(k.Memory)))
			}
			lost = total - usable + (tasks-able)*float64(k.GPUs*cluster.WholeGPU+k.GPUMilli)/10
		}
		sum += weights[i] * lost
	}
	return sum
}

// The level of a score is what the definition gives, computed the slow way, and so is the best device.
func TestScoresAreAsDefined(t *testing.T) {
	compared, shares, levels := 0, 0, map[int32]bool{}
	rapid.Check(t, func(t *rapid.T) {
		n, devices := drawNode(t)
		r := drawRequest(t)
		if !fits(n, devices, r) || len(devices) == 0 {
			return
		}
		var mix score.Mix
		var requests []room.Request
		var weights []float64
		for i := range rapid.IntRange(1, 5).Draw(t, "kinds") {
			k := drawRequest(t)
			weight := rapid.Int64Range(1, 4).Draw(t, "weight") << 8
			if i == 0 {
				*k = room.Request{Milli: 4000, Memory: 8 * gib, GPUs: 1} // there is a kind with GPUs
			}
			ask := cluster.Ask{MilliCPU: int64(k.Milli), Memory: k.Memory, GPUs: k.GPUs, GPUMilli: k.GPUMilli}
			if k.Models != 0 {
				ask.GPUModel = [...]string{"", "A", "B"}[k.Models]
			}
			mix, requests, weights = append(mix, score.Kind{Ask: ask, Weight: weight}), append(requests, *k), append(weights, float64(weight))
		}
		total := 0.0
		for _, w := range weights {
			total += w
		}
		for i := range weights {
			weights[i] = math.Round(weights[i]/total*65536) / 65536
		}
		g := score.New(mix)
		g.Bind(func(name string) int16 { return map[string]int16{"A": 0, "B": 1}[name] })
		best := -1.0
		for i := range devices { // every choice of a device for a share; one choice of whole ones
			after := append([]room.Device(nil), devices...)
			left := *n
			left.Milli, left.Memory = n.Milli-r.Milli, n.Memory-r.Memory
			if r.GPUMilli > 0 {
				if !r.Likes(after[i].Model) || int32(after[i].Milli) < r.GPUMilli {
					continue
				}
				after[i].Milli -= int16(r.GPUMilli)
			}
			for j, wanted := 0, r.GPUs; wanted > 0; j++ {
				if after[j].Milli == cluster.WholeGPU && r.Likes(after[j].Model) {
					after[j].Milli = 0
					wanted--
				}
			}
			best = max(best, 100/(1+math.Exp((useless(&left, after, requests, weights)-useless(n, devices, requests, weights))/1000)))
		}
		level := g.Score(n, devices, r) >> 20
		if near := math.Abs(best - math.Round(best)); math.Abs(float64(level)+0.5-best) > 0.5+near && near < 0.02 || near >= 0.02 && level != int32(best) {
			t.Fatalf("level %d, want %.3f", level, best)
		}
		compared++
		levels[level] = true
		if r.GPUMilli > 0 {
			shares++
			if d := devices[g.Pick(n, devices, r)]; int32(d.Milli) < r.GPUMilli || !r.Likes(d.Model) {
				t.Fatalf("picked a device with %d of model %d", d.Milli, d.Model)
			}
		}
	})
	if compared == 0 || shares == 0 || len(levels) < 3 {
		t.Errorf("%d scores were compared, %d of shares, %d levels", compared, shares, len(levels))
	}
}

func TestTheMixIsWhatIsAskedForMost(t *testing.T) {
	var d score.Demand
	common := cluster.Ask{MilliCPU: 1000, Memory: gib, GPUs: 1}
	d.Add(common, 60)
	common.Memory, common.Ports = 3*gib, 2
	d.Add(common, 60)
	d.Add(cluster.Ask{MilliCPU: 2000, Memory: gib, GPUMilli: 500}, 80)
	d.Add(cluster.Ask{MilliCPU: 3000, Memory: gib, GPUMilli: 500}, 5)
	d.Add(cluster.Ask{MilliCPU: 1000, GPUs: 1, MIG: "1g.10gb"}, 1000)
	d.Add(cluster.Ask{MilliCPU: 4000}, 0)
	want := score.Mix{
		{Ask: cluster.Ask{MilliCPU: 1000, Memory: 2 * gib, GPUs: 1}, Weight: 120},
		{Ask: cluster.Ask{MilliCPU: 2000, Memory: gib, GPUMilli: 500}, Weight: 80},
	}
	if got := d.Mix(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the mix is %v, want %v", got, want)
	}
	for range 3 {
		d.Fade()
	}
	d.Add(cluster.Ask{MilliCPU: 5000}, 1000)
	if got := d.Mix(); len(got) != 1 || got[0].MilliCPU != 5000 {
		t.Errorf("what was asked for long ago still counts: %v", got)
	}
	d.Add(cluster.Ask{MilliCPU: 5000}, math.MaxInt64)
	d.Add(cluster.Ask{MilliCPU: 5000, Memory: math.MaxInt64}, math.MaxInt64)
	if got := d.Mix(); got[0].Weight <= 0 || got[0].Memory < 0 {
		t.Errorf("absurd amounts overflow: %v", got)
	}
}

func BenchmarkScore(b *testing.B) {
	var d score.Demand
	for i := range int64(20) {
		d.Add(cluster.Ask{MilliCPU: 1000 * i, Memory: gib, GPUs: 1}, 10)
		d.Add(cluster.Ask{MilliCPU: 1000 * i, Memory: gib, GPUMilli: int32(100 + 40*i)}, 10)
	}
	g := score.New(d.Mix())
	n := &room.State{CapMilli: 96000, CapMemory: 256 * gib, Milli: 50000, Memory: 100 * gib, Devices: 8, DeviceMilli: 4000}
	devices := make([]room.Device, 8)
	for i := range devices {
		devices[i].Milli = int16(i * 140)
	}
	for _, r := range []room.Request{{Milli: 4000, Memory: gib, GPUMilli: 500}, {Milli: 4000, Memory: gib}} {
		b.Run(fmt.Sprint(r.GPUMilli), func(b *testing.B) {
			for b.Loop() {
				g.Score(n, devices, &r)
			}
		})
	}
}
