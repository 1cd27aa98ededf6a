package wire

import (
	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// SecretToProto converts a secret, sealed as it is.
func SecretToProto(s cluster.Secret) *claryv1.Secret {
	return &claryv1.Secret{
		Queue: s.Queue, Name: s.Name, Sealed: s.Sealed, Owner: s.Owner, Created: s.Created, Updated: s.Updated,
		Version: s.Version, Revision: s.Revision,
	}
}

// SecretFromProto converts a secret.
func SecretFromProto(s *claryv1.Secret) cluster.Secret {
	return cluster.Secret{
		Queue: s.GetQueue(), Name: s.GetName(), Sealed: some(s.GetSealed()), Owner: s.GetOwner(), Created: s.GetCreated(), Updated: s.GetUpdated(),
		Version: s.GetVersion(), Revision: s.GetRevision(),
	}
}

// DeedToProto converts a deed.
func DeedToProto(d cluster.Deed) *claryv1.Deed {
	return &claryv1.Deed{
		Id: d.ID, Time: d.Time, Ended: d.Ended, User: d.User, Action: d.Action, Task: d.Task, Node: d.Node, Detail: d.Detail,
		Result: d.Result, Revision: d.Revision, Object: d.Object, From: d.From, Request: d.Request, Outcome: d.Outcome,
	}
}

// DeedFromProto converts a deed.
func DeedFromProto(d *claryv1.Deed) cluster.Deed {
	return cluster.Deed{
		ID: d.GetId(), Time: d.GetTime(), Ended: d.GetEnded(), User: d.GetUser(), Action: d.GetAction(), Task: d.GetTask(), Node: d.GetNode(), Detail: d.GetDetail(),
		Result: d.GetResult(), Revision: d.GetRevision(), Object: d.GetObject(), From: d.GetFrom(), Request: d.GetRequest(), Outcome: d.GetOutcome(),
	}
}
