package wire

import (
	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// ResourcesToProto converts what a task holds.
func ResourcesToProto(r cluster.Resources) *claryv1.Resources {
	return &claryv1.Resources{
		MilliCpu: r.MilliCPU, Memory: r.Memory, Devices: r.Devices, Ports: r.Ports,
		Shares: list(r.Shares, ShareToProto),
	}
}

// ResourcesFromProto converts what a task holds.
func ResourcesFromProto(r *claryv1.Resources) cluster.Resources {
	return cluster.Resources{
		MilliCPU: r.GetMilliCpu(), Memory: r.GetMemory(),
		Devices: some(r.GetDevices()), Ports: some(r.GetPorts()),
		Shares: list(r.GetShares(), ShareFromProto),
	}
}

// DeviceToProto converts a device.
func DeviceToProto(d cluster.Device) *claryv1.Device {
	return &claryv1.Device{
		Uuid: d.UUID, Kind: string(d.Kind), Model: d.Model, Memory: d.Memory,
		Simulated: d.Simulated, Healthy: d.Healthy,
		Numa: d.NUMA, Link: d.Link, Pci: d.PCI, Speed: d.Speed, Partitioned: d.Partitioned, Profiles: list(d.Profiles, MIGProfileToProto),
	}
}

// DeviceFromProto converts a device.
func DeviceFromProto(d *claryv1.Device) cluster.Device {
	return cluster.Device{
		UUID: d.GetUuid(), Kind: cluster.DeviceKind(d.GetKind()), Model: d.GetModel(),
		Memory: d.GetMemory(), Simulated: d.GetSimulated(), Healthy: d.GetHealthy(),
		NUMA: d.GetNuma(), Link: d.GetLink(), PCI: d.GetPci(), Speed: d.GetSpeed(),
		Partitioned: d.GetPartitioned(), Profiles: list(d.GetProfiles(), MIGProfileFromProto),
	}
}

// NodeToProto converts a node.
func NodeToProto(n cluster.Node) *claryv1.Node {
	return &claryv1.Node{
		Id: n.ID, Address: n.Address, LogsAddr: n.LogsAddr, State: string(n.State), Reason: n.Reason,
		MilliCpu: n.MilliCPU, Memory: n.Memory, Disk: n.Disk,
		Devices: list(n.Devices, DeviceToProto), PortFirst: n.PortFirst, PortLast: n.PortLast,
		Labels: n.Labels, Version: n.Version, Joined: n.Joined, Seen: n.Seen, Revision: n.Revision,
		Taints: list(n.Taints, TaintToProto), Cached: n.Cached, Empties: n.Empties, Deadline: n.Deadline, Key: n.Key,
	}
}

// NodeFromProto converts a node.
func NodeFromProto(n *claryv1.Node) cluster.Node {
	return cluster.Node{
		ID: n.GetId(), Address: n.GetAddress(), LogsAddr: n.GetLogsAddr(),
		State: cluster.NodeState(n.GetState()), Reason: n.GetReason(),
		MilliCPU: n.GetMilliCpu(), Memory: n.GetMemory(), Disk: n.GetDisk(),
		Devices:   list(n.GetDevices(), DeviceFromProto),
		PortFirst: n.GetPortFirst(), PortLast: n.GetPortLast(), Labels: table(n.GetLabels()),
		Version: n.GetVersion(), Joined: n.GetJoined(), Seen: n.GetSeen(), Revision: n.GetRevision(),
		Taints: list(n.GetTaints(), TaintFromProto), Cached: some(n.GetCached()), Empties: n.GetEmpties(), Deadline: n.GetDeadline(), Key: n.GetKey(),
	}
}

// TokenToProto converts a token.
func TokenToProto(t cluster.Token) *claryv1.Token {
	return &claryv1.Token{
		Id: t.ID, Kind: string(t.Kind), Name: t.Name, Role: t.Role, Hash: t.Hash,
		Created: t.Created, Expires: t.Expires, Revoked: t.Revoked, BoundKey: t.BoundKey,
		Revision: t.Revision, By: t.By,
	}
}

// TokenFromProto converts a token.
func TokenFromProto(t *claryv1.Token) cluster.Token {
	return cluster.Token{
		ID: t.GetId(), Kind: cluster.TokenKind(t.GetKind()), Name: t.GetName(), Role: t.GetRole(),
		Hash: some(t.GetHash()), Created: t.GetCreated(), Expires: t.GetExpires(),
		Revoked: t.GetRevoked(), BoundKey: t.GetBoundKey(), Revision: t.GetRevision(), By: t.GetBy(),
	}
}
