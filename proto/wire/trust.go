package wire

import (
	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// TrustToProto converts what is agreed on of keys.
func TrustToProto(t cluster.Trust) *claryv1.Trust {
	return &claryv1.Trust{
		Generation: t.Generation, Keyring: t.Keyring, Rotates: string(t.Rotates), Phase: string(t.Phase), Cas: t.CAs, Links: t.Links,
		Changed: t.Changed, By: t.By, Revoked: list(t.Revoked, RevocationToProto), Revision: t.Revision,
	}
}

// TrustFromProto converts what is agreed on of keys.
func TrustFromProto(t *claryv1.Trust) cluster.Trust {
	return cluster.Trust{
		Generation: t.GetGeneration(), Keyring: t.GetKeyring(), Rotates: cluster.Rotation(t.GetRotates()), Phase: cluster.Phase(t.GetPhase()),
		CAs: list(t.GetCas(), some[byte]), Links: list(t.GetLinks(), some[byte]), Changed: t.GetChanged(), By: t.GetBy(), Revoked: list(t.GetRevoked(), RevocationFromProto), Revision: t.GetRevision(),
	}
}

// RevocationToProto converts a member whom nobody believes.
func RevocationToProto(r cluster.Revocation) *claryv1.Revocation {
	return &claryv1.Revocation{Role: r.Role, Id: r.ID, Reason: r.Reason, By: r.By, At: r.At, Keys: r.Keys, Admitted: r.Admitted}
}

// RevocationFromProto converts a member whom nobody believes.
func RevocationFromProto(r *claryv1.Revocation) cluster.Revocation {
	return cluster.Revocation{
		Role: r.GetRole(), ID: r.GetId(), Reason: r.GetReason(), By: r.GetBy(), At: r.GetAt(), Keys: r.GetKeys(), Admitted: r.GetAdmitted(),
	}
}

// Revocations converts those whom nobody believes.
func Revocations(list []*claryv1.Revocation) []cluster.Revocation {
	var revoked []cluster.Revocation
	for _, r := range list {
		revoked = append(revoked, RevocationFromProto(r))
	}
	return revoked
}
