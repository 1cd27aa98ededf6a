package wire

import (
	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// ShareToProto converts a part of a device.
func ShareToProto(s cluster.DeviceShare) *claryv1.DeviceShare {
	return &claryv1.DeviceShare{Uuid: s.UUID, Milli: s.Milli, Memory: s.Memory, Profile: s.Profile, Start: s.Start}
}

// ShareFromProto converts a part of a device.
func ShareFromProto(s *claryv1.DeviceShare) cluster.DeviceShare {
	return cluster.DeviceShare{UUID: s.GetUuid(), Milli: s.GetMilli(), Memory: s.GetMemory(), Profile: s.GetProfile(), Start: s.GetStart()}
}

// MIGProfileToProto converts a size that a device can be cut into.
func MIGProfileToProto(p cluster.MIGProfile) *claryv1.MIGProfile {
	return &claryv1.MIGProfile{Name: p.Name, Slices: p.Slices, Memory: p.Memory, Starts: p.Starts}
}

// MIGProfileFromProto converts a size that a device can be cut into.
func MIGProfileFromProto(p *claryv1.MIGProfile) cluster.MIGProfile {
	return cluster.MIGProfile{Name: p.GetName(), Slices: p.GetSlices(), Memory: p.GetMemory(), Starts: some(p.GetStarts())}
}

// TaintToProto converts a taint.
func TaintToProto(t cluster.Taint) *claryv1.Taint {
	return &claryv1.Taint{Key: t.Key, Value: t.Value, Effect: string(t.Effect)}
}

// TaintFromProto converts a taint.
func TaintFromProto(t *claryv1.Taint) cluster.Taint {
	return cluster.Taint{Key: t.GetKey(), Value: t.GetValue(), Effect: cluster.Effect(t.GetEffect())}
}

// ConstraintToProto converts what a node must be like.
func ConstraintToProto(c cluster.Constraint) *claryv1.Constraint {
	return &claryv1.Constraint{Attribute: c.Attribute, Operator: string(c.Operator), Values: c.Values, Weight: c.Weight}
}

// ConstraintFromProto converts what a node must be like.
func ConstraintFromProto(c *claryv1.Constraint) cluster.Constraint {
	return cluster.Constraint{
		Attribute: c.GetAttribute(), Operator: cluster.Operator(c.GetOperator()), Values: some(c.GetValues()), Weight: c.GetWeight(),
	}
}

// AffinityToProto converts what draws tasks to others.
func AffinityToProto(a cluster.Affinity) *claryv1.Affinity {
	return &claryv1.Affinity{Job: a.Job, Label: a.Label, Value: a.Value, Over: string(a.Over), Anti: a.Anti, Weight: a.Weight}
}

// AffinityFromProto converts what draws tasks to others.
func AffinityFromProto(a *claryv1.Affinity) cluster.Affinity {
	return cluster.Affinity{
		Job: a.GetJob(), Label: a.GetLabel(), Value: a.GetValue(), Over: cluster.Level(a.GetOver()), Anti: a.GetAnti(), Weight: a.GetWeight(),
	}
}

// TolerationToProto converts which taints do not matter.
func TolerationToProto(t cluster.Toleration) *claryv1.Toleration {
	return &claryv1.Toleration{Key: t.Key, Value: t.Value, Any: t.Any, Effect: string(t.Effect)}
}

// TolerationFromProto converts which taints do not matter.
func TolerationFromProto(t *claryv1.Toleration) cluster.Toleration {
	return cluster.Toleration{Key: t.GetKey(), Value: t.GetValue(), Any: t.GetAny(), Effect: cluster.Effect(t.GetEffect())}
}

// TopologyToProto converts what belongs close together.
func TopologyToProto(t cluster.Topology) *claryv1.Topology {
	if t == (cluster.Topology{}) {
		return nil
	}
	return &claryv1.Topology{Level: string(t.Level), Preferred: t.Preferred}
}

// TopologyFromProto converts what belongs close together.
func TopologyFromProto(t *claryv1.Topology) cluster.Topology {
	return cluster.Topology{Level: cluster.Level(t.GetLevel()), Preferred: t.GetPreferred()}
}
