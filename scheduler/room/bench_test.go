package room

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/clary-ml/clary/cluster"
)

// load is nodes and what arrives at them.
type load struct {
	nodes  []cluster.Node
	shapes []*Shape
}

func rows(tb testing.TB, path string) [][]string {
	file, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer file.Close()
	all, err := csv.NewReader(file).ReadAll()
	if err != nil {
		tb.Fatal(err)
	}
	return all[1:]
}

func number(tb testing.TB, text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// openb is the cluster of the FGD experiment tiled to so many nodes, and its pods until so much of the GPUs is asked
// for.
func openb(tb testing.TB, nodes int, asked float64) load {
	dir := os.Getenv("CLARY_TRACES")
	if dir == "" {
		tb.Skip("CLARY_TRACES does not say where the traces are")
	}
	var l load
	list := rows(tb, filepath.Join(dir, "fgd", "openb_node_list_gpu_node.csv"))
	gpus := int64(0)
	for i := range nodes {
		row := list[i%len(list)]
		n := cluster.Node{ID: fmt.Sprintf("node-%05d", i), State: cluster.NodeReady, MilliCPU: number(tb, row[1]), Memory: number(tb, row[2]) << 20}
		for d := range number(tb, row[3]) {
			n.Devices = append(n.Devices, cluster.Device{UUID: fmt.Sprintf("%s-%d", n.ID, d), Kind: cluster.DeviceGPU, Model: row[4], Healthy: true, Memory: 16 << 30})
			gpus++
		}
		l.nodes = append(l.nodes, n)
	}
	pods := rows(tb, filepath.Join(dir, "fgd", "openb_pod_list_default.csv"))
	known := map[string]*Shape{}
	for i, sum := 0, int64(0); sum < int64(asked*1000*float64(gpus)); i++ {
		row := pods[(i*5741)%len(pods)] // 5741 and 8152 have no common factor: all of them, not in order
		count, milli := number(tb, row[3]), number(tb, row[4])
		sum += count * milli
		key := fmt.Sprint(row[1:6])
		s := known[key]
		if s == nil {
			role := cluster.Role{Name: "pod", Count: 1, Ask: cluster.Ask{MilliCPU: number(tb, row[1]), Memory: number(tb, row[2]) << 20}}
			if role.Ask.GPUMilli = int32(milli); milli == 1000 {
				role.Ask.GPUs, role.Ask.GPUMilli = int32(count), 0
			}
			s = NewShape("job", []cluster.Role{role})
			known[key] = s
		}
		l.shapes = append(l.shapes, s)
	}
	return l
}

// synthetic is nodes of three sorts, and gangs of so many tasks in a few dozen sizes until so much of the GPUs is
// asked for.
func synthetic(nodes, gang int, asked float64) load {
	var l load
	gpus := 0
	for i := range nodes {
		n := cluster.Node{ID: fmt.Sprintf("node-%05d", i), State: cluster.NodeReady, MilliCPU: 64_000, Memory: 512 << 30, PortFirst: 20_000, PortLast: 20_999}
		for d := range [...]int{8, 4, 0}[i%3] {
			n.Devices = append(n.Devices, cluster.Device{
				UUID: fmt.Sprintf("%s-%d", n.ID, d), Kind: cluster.DeviceGPU, Model: [...]string{"H100", "A100"}[i%3], Healthy: true, Memory: 80 << 30,
			})
			gpus++
		}
		l.nodes = append(l.nodes, n)
	}
	for i, sum := 0, 0; sum < int(asked*float64(gpus)); i++ {
		kind := (i * 7) % 48
		ask := cluster.Ask{MilliCPU: int64(1000 * (1 + kind%8)), Memory: int64(1+kind/8) << 33, GPUs: int32(kind % 3), Ports: int32(kind % 2)}
		l.shapes = append(l.shapes, NewShape("job", []cluster.Role{{Name: "worker", Count: int32(gang), Ask: ask}}))
		sum += gang * int(ask.GPUs)
	}
	return l
}

func (l *load) fill(m *Map) {
	for _, n := range l.nodes {
		m.Set(n, cluster.Resources{})
	}
}

// run is one decision an op, placed or refused. Whenever all have arrived the cluster is emptied.
func (l *load) run(b *testing.B, policy Policy) {
	i, placed := len(l.shapes), 0
	var m *Map
	for b.Loop() {
		if i == len(l.shapes) {
			b.StopTimer()
			m = New(policy)
			l.fill(m)
			i = 0
			b.StartTimer()
		}
		if a, _ := m.Take(l.shapes[i]); a != nil {
			placed++
			m.Settle()
		}
		i++
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
	b.ReportMetric(float64(placed)/float64(b.N), "placed")
}

// BenchmarkDecision is one task, BenchmarkGang a gang of eight.
func BenchmarkDecision(b *testing.B) {
	for _, nodes := range []int{1000, 10_000, 50_000} {
		b.Run(fmt.Sprintf("openb/%d", nodes), func(b *testing.B) {
			l := openb(b, nodes, 1.3)
			l.run(b, nil)
		})
		b.Run(fmt.Sprintf("synthetic/%d", nodes), func(b *testing.B) {
			l := synthetic(nodes, 1, 1.3)
			l.run(b, nil)
		})
	}
}

func BenchmarkGang(b *testing.B) {
	for _, nodes := range []int{1000, 5000, 50_000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			l := synthetic(nodes, 8, 1.3)
			l.run(b, nil)
		})
	}
}

// BenchmarkSet is one node whose use has changed; BenchmarkClone a reader's copy of 10,000 nodes.
func BenchmarkSet(b *testing.B) {
	l, m := synthetic(10_000, 1, 0), New(nil)
	for i := range l.nodes {
		l.nodes[i].Revision = 1
	}
	l.fill(m)
	used := cluster.Resources{MilliCPU: 4000, Memory: 1 << 33, Ports: []int32{20_001, 20_007}}
	i := 0
	for b.Loop() {
		n := l.nodes[i*3%9999] // has eight GPUs
		used.Devices = []string{n.Devices[i%8].UUID}
		m.Set(n, used)
		i++
	}
}

func BenchmarkClone(b *testing.B) {
	l, m := synthetic(10_000, 1, 0), New(nil)
	l.fill(m)
	for b.Loop() {
		m.Clone()
	}
}

// fragments is about as costly as fragmentation-aware scoring: how much of a node's GPUs each of 35 classes could
// not use, before and after.
type fragments struct{ Tightest }

func fragmentsOf(n *State, devices []Device, milli, gpus int32) float64 {
	sum := 0.0
	for class := range int32(35) {
		ask, of := 200+class*20, int16(0)
		for i := range devices {
			if left := int32(devices[i].Milli) - milli; left < ask && n.Milli > class*100 {
				of += devices[i].Milli
			}
		}
		sum += float64(of) / float64(1+gpus)
	}
	return sum
}

func (fragments) Score(n *State, devices []Device, r *Request) int32 {
	before := fragmentsOf(n, devices, 0, r.GPUs)
	if !r.shares() {
		return int32(before - fragmentsOf(n, devices, 0, r.GPUs+1))
	}
	best := -1.0e9
	for i := range devices {
		if r.FitsShare(&devices[i]) {
			best = max(best, before-fragmentsOf(n, devices, r.GPUMilli, r.GPUs))
		}
	}
	return int32(best)
}

// BenchmarkCostly is one task with a policy that takes microseconds to score one node.
func BenchmarkCostly(b *testing.B) {
	l := openb(b, 10_000, 1.3)
	l.run(b, fragments{})
}
