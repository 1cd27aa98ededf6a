package routes_test

import (
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/routes"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/workload"
)

func TestAReplicaIsReachedThroughItsNodeUnlessAllIsOneMachine(t *testing.T) {
	far := cluster.Node{ID: "n1", Address: "10.0.0.1", LogsAddr: "10.0.0.1:7424"}
	near := cluster.Node{ID: "n1", Address: "127.0.0.1", LogsAddr: "127.0.0.1:7424"}
	id := "shop/blue-1-0/server-0.2"
	for claim, c := range map[string]struct {
		node cluster.Node
		edit func(*cluster.Gang, *cluster.Task)
		want []route.Replica
	}{
		"on another machine": {far, nil, []route.Replica{{ID: id, Node: "n1", Address: "10.0.0.1:7424", Gateway: true}}},
		"on this machine":    {near, nil, []route.Replica{{ID: id, Node: "n1", Address: "127.0.0.1:20001"}}},
		"in a container with an address of its own, here": {
			near, func(g *cluster.Gang, _ *cluster.Task) { g.Roles[0].Program.Network = cluster.NetworkBridge },
			[]route.Replica{{ID: id, Node: "n1", Address: "127.0.0.1:7424", Gateway: true}},
		},
		"at a port of its program's own": {near, func(g *cluster.Gang, t *cluster.Task) {
			g.Roles[0].Program.Port, t.Allocation.Resources.Ports = 8080, nil
		}, []route.Replica{{ID: id, Node: "n1", Address: "127.0.0.1:8080"}}},
		"on a node that says no address": {cluster.Node{ID: "n1", Address: "10.0.0.1"}, nil, nil},
		"without a port":                 {far, func(_ *cluster.Gang, t *cluster.Task) { t.Allocation.Resources.Ports = nil }, nil},
		"of an older attempt":            {far, func(g *cluster.Gang, _ *cluster.Task) { g.Attempt = 3 }, nil},
		"that is to end":                 {far, func(g *cluster.Gang, _ *cluster.Task) { g.Stop = true }, nil},
		"that does not answer now":       {far, func(_ *cluster.Gang, t *cluster.Task) { t.Status.Healthy = 0 }, []route.Replica{{ID: id, Node: "n1", Address: "10.0.0.1:7424", Gateway: true, Draining: true}}},
		"that does not run yet":          {far, func(_ *cluster.Gang, t *cluster.Task) { t.Status.State = cluster.TaskReady }, nil},
		"that moves":                     {far, func(g *cluster.Gang, _ *cluster.Task) { g.Moves = true }, []route.Replica{{ID: id, Node: "n1", Address: "10.0.0.1:7424", Gateway: true}}},
	} {
		role := cluster.Role{Name: "server", Count: 1}
		gang := cluster.Gang{Job: "shop", Name: "blue-1-0", Attempt: 2, Roles: []cluster.Role{role}}
		task := cluster.Task{
			ID: id, Job: "shop", Gang: "shop/blue-1-0", Role: "server", Attempt: 2,
			Allocation: cluster.Allocation{Node: "n1", Resources: cluster.Resources{Ports: []int32{20001, 20002}}}, Status: cluster.TaskStatus{State: cluster.TaskRunning, Healthy: 5},
		}
		if c.edit != nil {
			c.edit(&gang, &task)
		}
		e := cluster.Endpoint{Job: "shop", Generation: 1, Last: 1, Spec: []byte(`{"variants":[{"name":"blue"}]}`), Fleets: []cluster.Fleet{{Variant: "blue", Generation: 1, Role: role, Weight: 1, Share: 1, Replicas: 1, Next: 1}}}
		built, err := routes.OfEndpoint(cluster.Job{Name: "shop", State: cluster.JobRunning}, workload.View{Gangs: []cluster.Gang{gang}, Tasks: []cluster.Task{task}, Endpoint: &e},
			func(string) (cluster.Node, bool) { return c.node, true })
		if err != nil || len(built.Fleets) != 1 {
			t.Fatalf("%s: %+v, %v", claim, built, err)
		}
		got := built.Fleets[0].Replicas
		if len(got) != len(c.want) || len(got) > 0 && got[0] != c.want[0] {
			t.Errorf("%s: %+v, want %+v", claim, got, c.want)
		}
	}
}

func TestAnEndpointThatEndsIsToldOfWhileItsReplicasDrain(t *testing.T) {
	role := cluster.Role{Name: "server", Count: 1}
	gang := cluster.Gang{Job: "shop", Name: "blue-1-0", Attempt: 1, Roles: []cluster.Role{role}}
	task := cluster.Task{
		ID: "shop/blue-1-0/server-0.1", Job: "shop", Gang: "shop/blue-1-0", Role: "server", Attempt: 1,
		Allocation: cluster.Allocation{Node: "n1", Resources: cluster.Resources{Ports: []int32{20001}}}, Status: cluster.TaskStatus{State: cluster.TaskRunning, Healthy: 5},
	}
	e := cluster.Endpoint{Job: "shop", Generation: 1, Last: 1, Spec: []byte(`{"variants":[{"name":"blue"}]}`), Fleets: []cluster.Fleet{{Variant: "blue", Generation: 1, Role: role, Weight: 1, Retired: true, Next: 1}}}
	built, err := routes.OfEndpoint(cluster.Job{Name: "shop", State: cluster.JobRunning, Cancel: true}, workload.View{Gangs: []cluster.Gang{gang}, Tasks: []cluster.Task{task}, Endpoint: &e},
		func(string) (cluster.Node, bool) {
			return cluster.Node{ID: "n1", Address: "10.0.0.1", LogsAddr: "10.0.0.1:7424"}, true
		})
	if err != nil || len(built.Fleets) != 1 || len(built.Fleets[0].Replicas) != 1 || !built.Fleets[0].Replicas[0].Draining {
		t.Fatalf("%+v, %v", built, err)
	}
	if err := (route.Table{Endpoints: []route.Endpoint{built}}).Validate().Err(); err != nil {
		t.Errorf("a router takes no table with it: %v", err)
	}
}
