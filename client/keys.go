package client

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// Keys is which keys are in force, and which each member goes by.
type Keys struct {
	Generation uint64               `json:"generation"`
	Rotates    cluster.Rotation     `json:"rotates,omitempty"`
	Phase      cluster.Phase        `json:"phase,omitempty"`
	Changed    time.Time            `json:"changed,omitzero"`
	By         string               `json:"by,omitempty"`
	CAs        []TrustedCA          `json:"cas"`
	Members    []MemberKeys         `json:"members"`
	Revoked    []cluster.Revocation `json:"-"`
}

// TrustedCA is a CA whose certificates are good.
type TrustedCA struct {
	Pin       string    `json:"pin"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Signs     bool      `json:"signs"`
}

// MemberKeys is which keys a member goes by.
type MemberKeys struct {
	Role       string    `json:"role"`
	ID         string    `json:"id"`
	Confirmed  bool      `json:"confirmed"` // it is through with the phase that the cluster is in
	Generation uint64    `json:"generation"`
	CAPin      string    `json:"ca_pin,omitempty"`
	NotAfter   time.Time `json:"not_after,omitzero"`
	// TasksBehind is how many of an agent's tasks have certificates from before, or trust only whom they did.
	TasksBehind int    `json:"tasks_behind,omitempty"`
	Problem     string `json:"problem,omitempty"` // why it could not be asked
}

func keysOf(view *claryv1.KeysView) Keys {
	trust := wire.TrustFromProto(view.GetTrust())
	keys := Keys{
		Generation: trust.Generation, Rotates: trust.Rotates, Phase: trust.Phase, By: trust.By, Revoked: trust.Revoked,
		CAs: each(view.GetCas(), func(ca *claryv1.TrustedCA) TrustedCA {
			return TrustedCA{Pin: ca.GetPin(), NotBefore: time.Unix(0, ca.GetNotBefore()), NotAfter: time.Unix(0, ca.GetNotAfter()), Signs: ca.GetSigns()}
		}),
		Members: each(view.GetMembers(), func(m *claryv1.MemberKeys) MemberKeys {
			member := MemberKeys{
				Role: m.GetRole(), ID: m.GetId(), Confirmed: m.GetConfirmed(), Generation: m.GetStatus().GetGeneration(), CAPin: m.GetStatus().GetCaPin(), Problem: m.GetProblem(), TasksBehind: int(m.GetStatus().GetTasksBehind()),
			}
			if end := m.GetStatus().GetNotAfter(); end != 0 {
				member.NotAfter = time.Unix(0, end)
			}
			return member
		}),
	}
	if trust.Changed != 0 {
		keys.Changed = time.Unix(0, trust.Changed)
	}
	return keys
}

// Keys tells which keys are in force, and which each member goes by.
func (c *Client) Keys(ctx context.Context) (Keys, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.KeysView, error) {
		return claryv1.NewKeysClient(conn).Show(ctx, &claryv1.ShowKeysRequest{})
	})
	return keysOf(response), err
}

// RotateKeys takes one step of a rotation. A step that was taken already, by a try whose answer was lost, is a conflict.
func (c *Client) RotateKeys(ctx context.Context, what cluster.Rotation, step cluster.Phase, force bool) (Keys, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.KeysView, error) {
		return claryv1.NewKeysClient(conn).Rotate(ctx, &claryv1.RotateKeysRequest{What: string(what), Step: string(step), Force: force})
	})
	return keysOf(response), err
}

// Revoke has nobody believe a member any more, whatever certificate it shows. Doing it twice is no harm. What it means that a coordinator
// leaves the quorum, beyond one less, has to be forced.
func (c *Client) Revoke(ctx context.Context, role, id, reason string, force bool) (cluster.Revocation, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.Revocation, error) {
		return claryv1.NewKeysClient(conn).Revoke(ctx, &claryv1.RevokeRequest{Role: role, Id: id, Reason: reason, Force: force})
	})
	if err != nil {
		return cluster.Revocation{}, err
	}
	return wire.RevocationFromProto(response), nil
}

// RotateToken makes a new token for the user of another, the caller's own if no ID is given, and ends that after the
// overlap. A ttl of 0 is as long as the old one had. It is sent once only, like CreateToken.
func (c *Client) RotateToken(ctx context.Context, id string, overlap, ttl time.Duration) (made cluster.Token, secret string, old cluster.Token, err error) {
	if _, err := c.WhoAmI(ctx); err != nil && !fault.Is(err, fault.Denied) { // one answers; whether this role may look is not asked here
		return made, "", old, err
	}
	p := c.peers[int(c.next.Load())%len(c.peers)]
	response, err := claryv1.NewKeysClient(p.conn).RotateToken(ctx, &claryv1.RotateTokenRequest{Id: id, Overlap: int64(overlap), Ttl: int64(ttl)})
	if err != nil {
		return made, "", old, p.explain(wire.FromStatus(err))
	}
	return wire.TokenFromProto(response.GetToken()), response.GetSecret(), wire.TokenFromProto(response.GetOld()), nil
}

// Successor is the pin of the CA that has taken the place of the pinned one, which vouches for it; "" as long as none
// has. Whoever remembers the pin remembers this one from now on: the old CA is dropped some day.
func (c *Client) Successor() string {
	for _, p := range c.peers {
		if pin := p.successor.Load(); pin != nil {
			return *pin
		}
	}
	return ""
}
