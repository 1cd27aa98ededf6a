package fgd

import (
	"fmt"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/room"
	"github.com/clary-ml/clary/scheduler/score"
)

// production is what the scheduler of Clary places with: its map of the nodes and its policy. All that it is
// told of the workload is the mix of what is asked for.
type production struct {
	nodes  *room.Map
	shapes map[Pod]*room.Shape
}

func newProduction(nodes []Node, workload []Pod) placer {
	var demand score.Demand
	for _, p := range workload {
		demand.Add(p.ask(), 1)
	}
	p := &production{room.New(score.New(demand.Mix())), map[Pod]*room.Shape{}}
	for i, n := range nodes {
		p.nodes.Set(n.cluster(fmt.Sprintf("%06d-%s", i, n.Name)), cluster.Resources{})
	}
	return p
}

func (p *production) place(pod Pod) bool {
	pod.Name = ""
	shape := p.shapes[pod]
	if shape == nil {
		shape = room.NewShape("pod", []cluster.Role{{Name: "pod", Count: 1, Ask: pod.ask()}})
		p.shapes[pod] = shape
	}
	allocations, _ := p.nodes.Take(shape)
	p.nodes.Settle()
	return allocations != nil
}

// ask is what a pod asks for, as a task.
func (p Pod) ask() cluster.Ask {
	ask := cluster.Ask{MilliCPU: p.CPU, Memory: p.Memory << 20}
	switch {
	case p.GPUs == 0:
		return ask
	case p.Milli == Milli:
		ask.GPUs = int32(p.GPUs)
	default:
		ask.GPUMilli = int32(p.Milli)
	}
	ask.GPUModel = strings.Join(models(p.Spec), ",")
	return ask
}

// cluster is a node under an ID.
func (n Node) cluster(id string) cluster.Node {
	node := cluster.Node{ID: id, State: cluster.NodeReady, MilliCPU: n.CPU, Memory: n.Memory << 20}
	for i := range n.GPUs {
		node.Devices = append(node.Devices, cluster.Device{UUID: fmt.Sprintf("%s-%04d", id, i), Kind: cluster.DeviceGPU, Model: n.Model, Healthy: true})
	}
	return node
}
