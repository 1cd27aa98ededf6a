package state

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/clary-ml/clary/cluster"
)

// Used returns what the unended tasks of a node hold of it together, this command's
// own changes included.
func (tx *Tx) Used(node string) cluster.Resources {
	if used, changed := tx.used[node]; changed {
		return used
	}
	return tx.reader.Used(node)
}

// take adds a task's allocation to its node. Selling a device or a port twice panics:
// the commands check it before, and no state may ever hold it.
func (tx *Tx) take(task cluster.Task) {
	a := task.Allocation
	tx.hold(a.Node, func(used *cluster.Resources) {
		used.MilliCPU += a.Resources.MilliCPU
		used.Memory += a.Resources.Memory
		used.Devices = with(used.Devices, a.Resources.Devices, task.ID)
		used.Ports = with(used.Ports, a.Resources.Ports, task.ID)
		var err error
		if used.Shares, err = cluster.AddShares(used.Shares, a.Resources.Shares); err != nil {
			panic(fmt.Sprintf("state: %s was given to %s", err, task.ID))
		}
	})
	if err := tx.buckets.placed.Put(tx.kv, a.Node+"/"+task.ID, struct{}{}); err != nil && tx.err == nil {
		tx.err = err
	}
}

// free gives back what take took.
func (tx *Tx) free(task cluster.Task) {
	a := task.Allocation
	tx.hold(a.Node, func(used *cluster.Resources) {
		used.MilliCPU -= a.Resources.MilliCPU
		used.Memory -= a.Resources.Memory
		used.Devices = without(used.Devices, a.Resources.Devices)
		used.Ports = without(used.Ports, a.Resources.Ports)
		used.Shares = cluster.RemoveShares(used.Shares, a.Resources.Shares)
		if used.MilliCPU < 0 || used.Memory < 0 {
			panic(fmt.Sprintf("state: node %s has less than nothing in use after %s ended", a.Node, task.ID))
		}
	})
	tx.buckets.placed.Delete(tx.kv, a.Node+"/"+task.ID)
}

func (tx *Tx) hold(node string, change func(*cluster.Resources)) {
	used, changed := tx.used[node]
	if !changed {
		used = tx.reader.Used(node) // decoded for us alone: its slices may be changed
	}
	change(&used)
	if tx.used == nil {
		tx.used = map[string]cluster.Resources{}
	}
	tx.used[node] = used
}

// with inserts items into a sorted set.
func with[T cmp.Ordered](set, items []T, task string) []T {
	for _, item := range items {
		at, twice := slices.BinarySearch(set, item)
		if twice {
			panic(fmt.Sprintf("state: %v was given to %s but is in use", item, task))
		}
		set = slices.Insert(set, at, item)
	}
	return set
}

// without removes items from a sorted set.
func without[T cmp.Ordered](set, items []T) []T {
	for _, item := range items {
		if at, found := slices.BinarySearch(set, item); found {
			set = slices.Delete(set, at, at+1)
		}
	}
	return set
}
