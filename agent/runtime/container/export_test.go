package container

import "github.com/clary-ml/clary/agent/runtime/cgroup"

// HideGroup makes a task's control group one that cannot be found.
func (d *Driver) HideGroup(id string) {
	h, err := d.find(id)
	if err != nil {
		return
	}
	h.gauge.mu.Lock()
	defer h.gauge.mu.Unlock()
	h.gauge.group = cgroup.Group{}
}
