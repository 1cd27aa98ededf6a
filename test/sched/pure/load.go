package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/room"
	"github.com/clary-ml/clary/scheduler/sim/fgd"
)

// load is nodes, and what arrives at them one after the other.
type load struct {
	name   string
	nodes  []cluster.Node
	roles  []*cluster.Role // of one role each
	shapes map[*cluster.Role]*room.Shape
	gang   int // tasks of each
}

// asked is how much of the GPUs is asked for in all: more than there is, so that many decisions are refusals.
const asked = 1.3

// openb is the nodes and the pods of the FGD experiment (hkust-adsl/kubernetes-scheduler-simulator), tiled.
func openb(traces string, nodes int) (load, error) {
	l := load{name: "openb", gang: 1, shapes: map[*cluster.Role]*room.Shape{}}
	machines, err := read(filepath.Join(traces, "fgd", "openb_node_list_gpu_node.csv"), fgd.ReadNodes)
	if err != nil {
		return l, err
	}
	pods, err := read(filepath.Join(traces, "fgd", "openb_pod_list_default.csv"), fgd.ReadPods)
	if err != nil {
		return l, err
	}
	gpus := 0
	for i := range nodes {
		m := machines[i%len(machines)]
		l.nodes = append(l.nodes, machine(i, m.CPU, m.Memory<<20, m.GPUs, m.Model, 16<<30))
		gpus += m.GPUs
	}
	known := map[fgd.Pod]*cluster.Role{}
	for i, sum := 0, 0.0; sum < asked*float64(gpus); i++ {
		p := pods[(i*5741)%len(pods)] // 5741 and 8152 have no common factor: each once before any comes again
		sum += float64(p.GPUs) * float64(p.Milli) / fgd.Milli
		p.Name = ""
		if known[p] == nil {
			ask := cluster.Ask{MilliCPU: p.CPU, Memory: p.Memory << 20, GPUModel: strings.ReplaceAll(p.Spec, "|", ",")}
			if ask.GPUs = int32(p.GPUs); p.Milli < fgd.Milli {
				ask.GPUs, ask.GPUMilli = 0, int32(p.Milli)
			}
			known[p] = l.role(ask)
		}
		l.roles = append(l.roles, known[p])
	}
	return l, nil
}

// role is one more sort of what arrives.
func (l *load) role(ask cluster.Ask) *cluster.Role {
	role := &cluster.Role{Name: "worker", Count: int32(l.gang), Ask: ask}
	l.shapes[role] = room.NewShape("job", []cluster.Role{*role})
	return role
}

func read[T any](path string, parse func(string, io.Reader) ([]T, error)) ([]T, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return parse(path, file)
}

func machine(i int, milli, memory int64, gpus int, model string, gpuMemory int64) cluster.Node {
	n := cluster.Node{ID: fmt.Sprintf("node-%05d", i), State: cluster.NodeReady, MilliCPU: milli, Memory: memory, PortFirst: 20_000, PortLast: 20_999, Revision: 1}
	for d := range gpus {
		n.Devices = append(n.Devices, cluster.Device{
			UUID: fmt.Sprintf("%s-%d", n.ID, d), Kind: cluster.DeviceGPU, Model: model, Healthy: true, Memory: gpuMemory,
		})
	}
	return n
}

// synthetic is nodes of three sorts, and gangs of so many tasks in 48 sizes.
func synthetic(nodes, gang int) load {
	l := load{name: "synthetic", gang: gang, shapes: map[*cluster.Role]*room.Shape{}}
	gpus := 0
	for i := range nodes {
		has := [...]int{8, 4, 0}[i%3]
		l.nodes = append(l.nodes, machine(i, 64_000, 512<<30, has, [...]string{"H100", "A100", ""}[i%3], 80<<30))
		gpus += has
	}
	var roles []*cluster.Role
	for kind := range 48 {
		ask := cluster.Ask{MilliCPU: int64(1000 * (1 + kind%8)), Memory: int64(1+kind/8) << 33, GPUs: int32(kind % 3), Ports: int32(kind % 2)}
		roles = append(roles, l.role(ask))
	}
	for i, sum := 0, 0; sum < int(asked*float64(gpus)); i++ {
		role := roles[(i*7)%len(roles)]
		l.roles = append(l.roles, role)
		sum += gang * int(role.Ask.GPUs)
	}
	return l
}
