package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/warden"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/ops"
)

// Bounds of what is well.
const (
	slowSync, badSync = 10 * time.Millisecond, 100 * time.Millisecond // raft appends at most so seldom
	fewFiles          = 65_536
)

func kernel(_ context.Context, m Machine) []Finding {
	text, err := m.Read("/proc/sys/kernel/osrelease")
	if err != nil {
		return finding("kernel", Fail, err.Error(), "run Clary on Linux")
	}
	text = strings.TrimSpace(text)
	var major, minor int
	if _, err := fmt.Sscanf(text, "%d.%d", &major, &minor); err != nil {
		return finding("kernel", Warn, fmt.Sprintf("its version %q is none that is known", text), "")
	}
	if major < 5 || major == 5 && minor < 12 {
		return finding("kernel", Warn, text+": tasks of this machine are not kept apart from one another", "agents need Linux 5.12 for that: upgrade the kernel")
	}
	return well("kernel", "%s", text)
}

func privileges(_ context.Context, m Machine) []Finding {
	if m.Root {
		return well("privileges", "root")
	}
	return finding("privileges", Warn, "not root: an agent here cannot keep tasks apart or limit them, and some checks see less", "run agents, and clary doctor, as root")
}

func cgroups(_ context.Context, m Machine) []Finding {
	text, err := m.Read("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		return finding("cgroups", Warn, "no cgroup v2 at /sys/fs/cgroup: limits of tasks may not hold", "boot with systemd.unified_cgroup_hierarchy=1; coordinators need none")
	}
	have := strings.Fields(text)
	var missing []string
	for _, controller := range []string{"cpu", "memory", "pids"} {
		if !slices.Contains(have, controller) {
			missing = append(missing, controller)
		}
	}
	if len(missing) > 0 {
		return finding("cgroups", Warn, "without the controllers "+strings.Join(missing, ", ")+": limits of tasks do not hold", "enable them in cgroup.subtree_control above the agent's group, or give its unit Delegate=yes")
	}
	return well("cgroups", "v2 with %s", strings.Join(have, ", "))
}

func namespaces(_ context.Context, m Machine) []Finding {
	for _, kind := range []string{"mnt", "pid", "net", "ipc"} {
		text, err := m.Read("/proc/sys/user/max_" + kind + "_namespaces")
		if err != nil {
			return finding("namespaces", Warn, "the kernel does not say whether there are "+kind+" namespaces: tasks may see the whole machine", "use a kernel with namespaces; coordinators need none")
		}
		if strings.TrimSpace(text) == "0" {
			return finding("namespaces", Warn, "no "+kind+" namespaces are allowed: tasks see the whole machine", "sysctl user.max_"+kind+"_namespaces=10000")
		}
	}
	return well("namespaces", "mnt, pid, net and ipc")
}

func files(_ context.Context, m Machine) []Finding {
	limit, err := m.Files()
	if err != nil {
		return finding("open files", Warn, err.Error(), "")
	}
	if limit < fewFiles {
		return finding("open files", Warn, fmt.Sprintf("a process may have %d open: a coordinator of many agents, or a router, needs more", limit), "set LimitNOFILE=1048576 in the units, or ulimit -n")
	}
	return well("open files", "%d", limit)
}

func clock(_ context.Context, m Machine) []Finding {
	synced, err := m.Synced()
	switch {
	case err != nil:
		return finding("clock", Warn, err.Error(), "")
	case !synced:
		return finding("clock", Warn, "the kernel says that nobody keeps it: it will drift, and certificates and tokens are judged by it", "run chrony or systemd-timesyncd")
	}
	return well("clock", "kept in step")
}

func disks(_ context.Context, m Machine) []Finding {
	var found []Finding
	for _, folder := range m.Folders {
		free, total, err := m.Room(folder)
		if err != nil {
			found = append(found, finding("disk", Fail, err.Error(), "name the data folder of this machine's process with --data")...)
			continue
		}
		text := fmt.Sprintf("%s: %s of %s are free", folder, cluster.FormatBytes(free), cluster.FormatBytes(total))
		remedy := "free some, or move the folder to a larger disk"
		if m.Objects(folder) {
			text += "; the cluster's objects are there, and uploads are refused while a coordinator's disk is low"
			remedy = "delete objects or jobs (clary delete, clary gc), give objects/ a disk of its own, or move the folder to a larger one"
		}
		switch {
		case free < ops.LeastFree(total):
			found = append(found, finding("disk", Fail, text, remedy)...)
		case free < total/10:
			found = append(found, finding("disk", Warn, text, "free some soon")...)
		default:
			found = append(found, well("disk", "%s", text)...)
		}
	}
	return found
}

func syncs(_ context.Context, m Machine) []Finding {
	var found []Finding
	for _, folder := range m.Folders {
		took, err := m.Sync(folder)
		text := fmt.Sprintf("%s: a write is on the disk after %s", folder, took.Round(10*time.Microsecond))
		switch {
		case err != nil:
			found = append(found, finding("fsync", Warn, err.Error(), "see that this user may write there: clary doctor as root")...)
		case took > badSync:
			found = append(found, finding("fsync", Fail, text+": leaders will not keep their leases", "give coordinators an SSD of their own; see what else writes there")...)
		case took > slowSync:
			found = append(found, finding("fsync", Warn, text+": everything that is submitted waits for that", "give coordinators an SSD; see what else writes there")...)
		default:
			found = append(found, well("fsync", "%s", text)...)
		}
	}
	return found
}

// unusable is a file of a member's that cannot be read, or without which it does not start.
func unusable(check string, err error) []Finding {
	if errors.Is(err, fs.ErrPermission) {
		return finding(check, Warn, err.Error(), "see that this user may read there: clary doctor as root")
	}
	return finding(check, Fail, err.Error(), "take the member out (clary cluster remove, clary nodes remove), delete its data folder and join it again")
}

func keyrings(_ context.Context, m Machine) []Finding {
	var found []Finding
	for _, folder := range m.Folders {
		switch err := m.Keyring(folder); {
		case err == nil:
		case fault.Is(err, fault.Denied): // it says what to do
			found = append(found, finding("keyring", Fail, err.Error(), "chmod 600 "+filepath.Join(folder, warden.File))...)
		default:
			found = append(found, unusable("keyring", err)...)
		}
	}
	return found
}

func certificates(_ context.Context, m Machine) []Finding {
	var found []Finding
	for _, folder := range m.Folders {
		certs, err := m.Certs(folder)
		if err != nil {
			found = append(found, unusable("certificates", err)...)
		}
		for _, cert := range certs {
			text := fmt.Sprintf("%s of %s ends %s", cert.File, cert.Of, cert.Expiry.UTC().Format("2006-01-02 15:04"))
			switch now := m.Now(); {
			case now.After(cert.Expiry):
				found = append(found, finding("certificates", Fail, text+": nobody accepts it any more", "join again with --join and a new token from clary token create --join")...)
			case now.After(cert.Renew):
				found = append(found, finding("certificates", Warn, text+": it should have been renewed by now", "see that the process runs and reaches a coordinator; its log says why it is not renewed")...)
			default:
				found = append(found, well("certificates", "%s", text)...)
			}
		}
	}
	return found
}

func ports(ctx context.Context, m Machine) []Finding {
	var found []Finding
	for _, port := range m.Ports {
		name := fmt.Sprintf("%d (%s)", port.Number, port.Of)
		switch state := m.Port(ctx, port); state {
		case Silent:
			found = append(found, finding("ports", Fail, name+" is "+string(state), fmt.Sprintf("see who has it, ss -lptn 'sport = :%d', or name another with the process's flag", port.Number))...)
		default:
			found = append(found, well("ports", "%s %s", name, state)...)
		}
	}
	return found
}

func gpus(ctx context.Context, m Machine) []Finding {
	found, err := m.GPUs(ctx)
	if err != nil {
		return finding("gpus", Fail, err.Error(), "see nvidia-smi: the driver and its library must be of one version")
	}
	if len(found) == 0 {
		return well("gpus", "none")
	}
	counts, sick := map[string]int{}, 0
	for _, gpu := range found {
		counts[gpu.Model]++
		if !gpu.Healthy {
			sick++
		}
	}
	var texts []string
	for model, n := range counts {
		texts = append(texts, fmt.Sprintf("%d %s", n, model))
	}
	slices.Sort(texts)
	text := strings.Join(texts, ", ")
	if sick > 0 {
		return finding("gpus", Warn, fmt.Sprintf("%s; %d of them are not well, and get no task", text, sick), "see nvidia-smi -q and the kernel's log (Xid); reset or replace them")
	}
	return well("gpus", "%s", text)
}
