// Package rig puts a simulation's jobs in front of the scheduler of production: the same Cluster, told in the same
// words, with one queue whose order is shortest.
package rig

import (
	"fmt"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
)

const queue = "sim"

// Second is one in the scheduler's time; MaxSeconds is the last instant that fits.
const (
	Second     = int64(time.Second)
	MaxSeconds = 1 << 33
)

// Job is what the scheduler is told of a job before it runs. Times are in seconds.
type Job struct {
	Name   string // what those of a kind have in common, and perhaps a number
	GPUs   int32
	Submit int64
}

// Cluster is the scheduler with a number of equal nodes.
type Cluster struct {
	*scheduler.Cluster
	perTask int32
	jobs    []Job
	gangs   []cluster.Gang
	places  map[string]int // of gangs by their IDs
	runs    map[int]scheduler.Running
}

// Setting is the cluster of a simulation.
type Setting struct {
	GPUs, PerNode int64 // the last node has the rest, if there is one
	PerTask       int32 // GPUs of a job's tasks; the last one has the rest
	Restart       int64 // what a start costs, in seconds
}

// New returns a cluster of equal nodes, for these jobs.
func New(jobs []Job, s Setting) *Cluster {
	c := &Cluster{
		Cluster: scheduler.New(scheduler.Options{Restart: time.Duration(max(1, s.Restart*Second))}), perTask: s.PerTask,
		jobs: jobs, gangs: make([]cluster.Gang, len(jobs)), places: map[string]int{}, runs: map[int]scheduler.Running{},
	}
	for i := int64(0); i*s.PerNode < s.GPUs; i++ {
		n := cluster.Node{ID: fmt.Sprintf("node-%07d", i), State: cluster.NodeReady}
		for g := range min(s.PerNode, s.GPUs-i*s.PerNode) {
			n.Devices = append(n.Devices, cluster.Device{UUID: fmt.Sprintf("%07d-%d", i, g), Kind: cluster.DeviceGPU, Model: "GPU", Healthy: true})
		}
		c.SetNode(n, cluster.Resources{})
	}
	err := c.SetQueues([]cluster.Queue{{
		Name: queue, Weight: 1, Order: cluster.OrderShortest, Preempt: cluster.Preempt{Within: cluster.PreemptLonger}, MinRuntime: 1,
	}})
	if err != nil {
		panic(err) // the queue is a constant
	}
	return c
}

// Submit has a job wait.
func (c *Cluster) Submit(place int) {
	job := c.jobs[place]
	gang := cluster.Gang{
		Job: fmt.Sprintf("%s-%d", job.Name, place), Name: "main", Queue: queue, Submitted: job.Submit * Second,
	}
	if whole := job.GPUs / c.perTask; whole > 0 {
		gang.Roles = append(gang.Roles, cluster.Role{Name: "worker", Count: whole, Ask: cluster.Ask{GPUs: c.perTask}})
	}
	if rest := job.GPUs % c.perTask; rest > 0 {
		gang.Roles = append(gang.Roles, cluster.Role{Name: "rest", Count: 1, Ask: cluster.Ask{GPUs: rest}})
	}
	c.gangs[place] = gang
	c.places[gang.ID()] = place
	c.wait(place)
}

func (c *Cluster) wait(place int) {
	gang := &c.gangs[place]
	gang.Attempt++
	gang.Revision++
	c.Wait(scheduler.NewAsk(*gang))
}

// Work is what a job that runs has done: it worked so many seconds in all, and reports so much of what in all (0: it
// reports nothing).
type Work struct{ Ran, Done, Total int64 }

// Report tells what a job that runs has done; what it has done is safe.
func (c *Cluster) Report(place int, now int64, work Work) {
	r := c.runs[place]
	r.Checkpoint, r.Done, r.Total = now*Second, work.Done, work.Total
	c.runs[place] = r
	c.Run(r)
}

// Finish tells that a job that runs is over, and for how long it worked.
func (c *Cluster) Finish(place int, ran int64) {
	id := c.gangs[place].ID()
	c.Succeeded(c.gangs[place], time.Duration(ran*Second))
	c.End(id)
	c.Drop(id)
	delete(c.runs, place)
}

// Next is when the scheduler wants to be asked though nothing has happened.
func (c *Cluster) Next() (now int64, any bool) {
	at, any := c.Cluster.Next()
	return at/Second + min(1, at%Second), any
}

// Start is a job that gets GPUs: on how many nodes, and how many on each.
type Start struct {
	Place int
	GPUs  []int
}

// Plan asks the scheduler until it has nothing more to say at this instant. Who makes room does so at once; stop is
// told of it and answers what it has done.
func (c *Cluster) Plan(now int64, stop func(place int) Work, start func(Start)) {
	for {
		plan := c.Cluster.Plan(now * Second)
		if len(plan.Placements) == 0 && len(plan.Evictions) == 0 {
			return
		}
		for _, p := range plan.Placements {
			start(c.placed(p, now))
		}
		for _, e := range plan.Evictions {
			place := c.places[e.Gang]
			work := stop(place)
			c.gangs[place].Ran = time.Duration(work.Ran * Second)
			c.End(e.Gang)
			delete(c.runs, place)
			c.wait(place)
		}
	}
}

// placed notes that a gang runs, as the coordinator's ledger does.
func (c *Cluster) placed(p cluster.Placement, now int64) Start {
	place := c.places[p.Gang]
	gang := &c.gangs[place]
	start := Start{Place: place}
	tasks := make([]cluster.Task, len(p.Allocations))
	counts := map[string]int{} // by node: its place among the nodes
	for i, a := range p.Allocations {
		tasks[i] = cluster.Task{Gang: p.Gang, Attempt: gang.Attempt, Allocation: a, Assigned: now * Second, Status: cluster.TaskStatus{State: cluster.TaskRunning}}
		at, known := counts[a.Node]
		if !known {
			at = len(start.GPUs)
			counts[a.Node] = at
			start.GPUs = append(start.GPUs, 0)
		}
		start.GPUs[at] += len(a.Resources.Devices)
	}
	c.runs[place], _ = scheduler.NewRunning(*gang, tasks)
	return start
}
