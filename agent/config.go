package agent

import (
	"fmt"
	"hash/crc32"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"slices"

	"github.com/hashicorp/memberlist"

	"github.com/clary-ml/clary/agent/device"
	"github.com/clary-ml/clary/agent/diskuse"
	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/serving/ingress"
)

// Config is how one agent is started.
type Config struct {
	ID      string // of the node, unique in the cluster, stable over restarts
	Data    string // folder of everything that lasts: tasks, cache, ledger, keys
	Address string // host under which other nodes reach this node's tasks
	Listen  string // host:port on which coordinators ask for logs and routers reach tasks
	Gossip  string // host:port of membership, UDP and TCP

	Join  string // RPC address of any coordinator, for the first start
	Token string // join token, for the first start

	// Metrics is where those who operate this agent ask; nil: nowhere.
	Metrics  net.Listener
	LogLevel *slog.LevelVar // of Log; nil: it is fixed

	Ingress ingress.Front // where this agent takes requests for endpoints, if it does

	PortFirst, PortLast int32             // ports that tasks may be given, both ends included
	Labels              map[string]string // the operator's own, beside what the machine says
	SimulateGPUs        string            // e.g. "8xA100"; empty asks NVML
	GPUSpeeds           map[string]string // of models, in multiples of an A100's, beside what is known of them
	MilliCPU            int64             // thousandths of a core to offer; 0 is all
	Memory              int64             // bytes to offer; 0 is what the machine has, less a reserve
	CacheBytes          int64             // most that the input cache may hold
	PipIndex            string            // URL of the package index for Python; "" leaves it to pip
	Wheelhouse          string            // folder of wheels: then the only source of Python packages
	Engine              string            // address of a container engine; "" looks for one, "none" uses none
	Mirrors             map[string]string // container registry to the mirror to ask first
	ImageBytes          int64             // most that images which the agent brought may hold; 0 is a quarter of the disk
	TaskDisk            int64             // bytes that a task may write on the disk if it does not say; 0 is a quarter of the disk
	UIDFirst, UIDLast   uint32            // users that tasks run as, one for each queue; 0 runs them as the agent

	// Network and GossipTransport stand in for the machine's own network where they are
	// set, Store for the cluster's object store, and Driver for processes under shims; whoever sets it closes it.
	Network         member.Network
	GossipTransport memberlist.NodeAwareTransport
	Driver          runtime.Driver
	Store           staging.Store

	Executable string // the clary binary, for tasks that run it
	Version    string
	Log        *slog.Logger
}

// Validate reports every mistake in the configuration, named by its flag.
func (c Config) Validate() cluster.Problems {
	var p cluster.Problems
	cluster.CheckName(&p, "--id", c.ID)
	if c.Data == "" {
		p.Add("--data", "is empty: name a folder")
	}
	if host := net.ParseIP(c.Address); c.Address == "" || host != nil && host.IsUnspecified() {
		p.Add("--address", "%q is no address that others can reach: say which of this machine's addresses they should use", c.Address)
	}
	for flag, address := range map[string]string{"--listen": c.Listen, "--gossip": c.Gossip} {
		if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
			p.Add(flag, "%q is not host:port", cluster.Clip(address))
		}
	}
	for _, model := range slices.Sorted(maps.Keys(c.GPUSpeeds)) {
		if _, err := device.ParseSpeed(c.GPUSpeeds[model]); err != nil {
			p.Add("--gpu-speed", "%s=%v", cluster.Clip(model), err)
		}
	}
	c.Ingress.Validate(&p, "--ingress")
	if c.PortFirst < 1 || c.PortLast > 65535 || c.PortLast < c.PortFirst {
		p.Add("--ports", "%d-%d is no range of ports: from 1-1 to 65535-65535, like 20000-20999", c.PortFirst, c.PortLast)
	}
	if c.UIDLast < c.UIDFirst || c.UIDFirst > 0 && c.UIDFirst < 1000 || c.UIDLast >= 1<<31 {
		p.Add("--task-uids", "%d-%d is no range of users: from 1000-1000 to 2147483647-2147483647, or 0-0 to run tasks as the agent", c.UIDFirst, c.UIDLast)
	}
	if c.MilliCPU < 0 || c.Memory < 0 || c.CacheBytes < 0 || c.TaskDisk < 0 {
		p.Add("--cores, --memory, --cache, --task-disk", "are negative")
	}
	return p
}

func (c Config) path(parts ...string) string {
	return filepath.Join(append([]string{c.Data}, parts...)...)
}

// groupName is the control group of this agent's tasks. What is in it and unknown gets
// killed, so it must be this data folder's alone.
func (c Config) groupName() string {
	folder, err := filepath.Abs(c.Data)
	if err != nil {
		folder = c.Data
	}
	return fmt.Sprintf("clary-%s-%08x", c.ID, crc32.ChecksumIEEE([]byte(folder)))
}

func (c Config) network() member.Network {
	if c.Network != nil {
		return c.Network
	}
	return member.TCP{}
}

// Bounds of a disk, as parts of the whole.
const (
	taskDiskShare    = 4  // that a task may have if nobody says
	imageShare       = 4  // that images may have if nobody says
	diskReserveShare = 50 // that is kept free
	mostDiskReserve  = 4 << 30
)

// imageBytes is how much images may hold.
func (c Config) imageBytes() (int64, error) {
	if c.ImageBytes != 0 {
		return c.ImageBytes, nil
	}
	room, err := diskuse.RoomOf(c.Data)
	return room.Total / imageShare, err
}

// diskBounds are how many bytes a task may write if it does not say, and how many are kept
// free.
func (c Config) diskBounds() (task, reserve int64, err error) {
	room, err := diskuse.RoomOf(c.Data)
	if err != nil {
		return 0, 0, err
	}
	task = c.TaskDisk
	if task == 0 {
		task = room.Total / taskDiskShare
	}
	return task, min(room.Total/diskReserveShare, mostDiskReserve), nil
}
