package routes

import (
	"net"
	"net/netip"
	"strconv"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/workload"
	"github.com/clary-ml/clary/workload/endpoint"
)

// OfEndpoint is the Build of endpoints: what their kind tells routers, with where each replica is. A
// replica whose task is to end gets nothing new, whatever its node still says of it.
func OfEndpoint(job cluster.Job, view workload.View, node func(id string) (cluster.Node, bool)) (route.Endpoint, error) {
	gangs := map[string]cluster.Gang{}
	for _, gang := range view.Gangs {
		gangs[gang.ID()] = gang
	}
	var tasks []cluster.Task
	for _, task := range view.Tasks {
		if gang, known := gangs[task.Gang]; known && !gang.Stop && gang.Attempt == task.Attempt {
			tasks = append(tasks, task)
		}
	}
	built, err := endpoint.Table(job, *view.Endpoint, tasks, func(task cluster.Task) (string, bool, bool) {
		at, known := node(task.Allocation.Node)
		role, _ := gangs[task.Gang].Role(task.Role)
		if !known {
			return "", false, false
		}
		return address(at, role.Program, task.Allocation.Resources.Ports)
	})
	if err != nil {
		return built, err
	}
	sum := 0.0
	for _, fleet := range built.Fleets {
		sum += fleet.Weight
	}
	for i := range built.Fleets { // an endpoint that ends: its replicas drain, and a router takes no table without weights
		if sum == 0 {
			built.Fleets[i].Weight = 1
		}
	}
	return built, nil
}

// address is where a router reaches a task: through its node's agent, unless the whole cluster is on
// one machine and so is the port.
func address(node cluster.Node, program cluster.Program, ports []int32) (address string, gateway, ok bool) {
	port := program.Port
	if len(ports) > 0 {
		port = ports[0]
	}
	if at, err := netip.ParseAddr(node.Address); err == nil && at.IsLoopback() && program.Network == cluster.NetworkHost && port > 0 {
		return net.JoinHostPort(node.Address, strconv.Itoa(int(port))), false, true
	}
	return node.LogsAddr, true, node.LogsAddr != "" && port > 0
}
