package rpc

import (
	"cmp"
	"context"
	"time"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/warden"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// Warden keeps this coordinator's keys.
type Warden interface {
	Show(ctx context.Context) (cluster.Trust, []warden.Member, error)
	CAs() []*claryv1.TrustedCA
	Rotate(ctx context.Context, what cluster.Rotation, step cluster.Phase, by string, force bool) error
	Revoke(ctx context.Context, revocation cluster.Revocation, force bool) (cluster.Revocation, error)
	Stage(text []byte) error
	Fetch(id string) ([]byte, error)
	Status() *claryv1.KeyStatusResponse
	Bundle() *claryv1.TrustBundle
	Changed() <-chan struct{}
}

// keys serves what admins do with the cluster's keys. The leader answers.
type keys struct {
	claryv1.UnimplementedKeysServer
	replica Replica
	leader  leaderConns
	warden  Warden
}

func (s *keys) Show(ctx context.Context, request *claryv1.ShowKeysRequest) (*claryv1.KeysView, error) {
	if conn, err := s.leader.elsewhere(); err != nil || conn != nil {
		if err != nil {
			return nil, err
		}
		return claryv1.NewKeysClient(conn).Show(forwarded(ctx), request)
	}
	return s.view(ctx)
}

func (s *keys) view(ctx context.Context) (*claryv1.KeysView, error) {
	trust, members, err := s.warden.Show(ctx)
	if err != nil {
		return nil, err
	}
	view := &claryv1.KeysView{Trust: wire.TrustToProto(trust), Cas: s.warden.CAs()}
	for _, ca := range view.GetCas() {
		if ca.GetSigns() {
			view.CaPin = ca.GetPin()
		}
	}
	for _, m := range members {
		view.Members = append(view.Members, &claryv1.MemberKeys{Role: m.Role, Id: m.ID, Status: m.Status, Problem: m.Problem, Confirmed: m.Confirmed})
	}
	return view, nil
}

func (s *keys) Rotate(ctx context.Context, request *claryv1.RotateKeysRequest) (*claryv1.KeysView, error) {
	if conn, err := s.leader.elsewhere(); err != nil || conn != nil {
		if err != nil {
			return nil, err
		}
		return claryv1.NewKeysClient(conn).Rotate(forwarded(ctx), request)
	}
	what, step := cluster.Rotation(request.GetWhat()), cluster.Phase(request.GetStep())
	if err := s.warden.Rotate(ctx, what, step, caller(ctx).Name, request.GetForce()); err != nil {
		return nil, err
	}
	return s.view(ctx)
}

func (s *keys) Revoke(ctx context.Context, request *claryv1.RevokeRequest) (*claryv1.Revocation, error) {
	if conn, err := s.leader.elsewhere(); err != nil || conn != nil {
		if err != nil {
			return nil, err
		}
		return claryv1.NewKeysClient(conn).Revoke(forwarded(ctx), request)
	}
	revoked := cluster.Revocation{Role: request.GetRole(), ID: request.GetId(), Reason: request.GetReason(), By: caller(ctx).Name}
	if revoked.Reason == "" {
		return nil, fault.New(fault.Invalid, "reason: is empty: say why, for those who ask what became of the node")
	}
	agreed, err := s.warden.Revoke(ctx, revoked, request.GetForce())
	if err != nil {
		return nil, err
	}
	return wire.RevocationToProto(agreed), nil
}

// maxOverlap is how long a token may go on beside the one that takes its place.
const maxOverlap = 90 * 24 * time.Hour

// RotateToken makes a new token for the user of another. Everybody may renew his own, for as long as it was given for; others' are an
// admin's to renew.
func (s *keys) RotateToken(ctx context.Context, request *claryv1.RotateTokenRequest) (*claryv1.RotateTokenResponse, error) {
	who, id := caller(ctx), request.GetId()
	if id == "" {
		id = who.TokenID
		actOf(ctx).object.Store(&id)
	}
	if id != who.TokenID {
		if err := auth.Authorize(who.Role, auth.ManageTokens); err != nil {
			return nil, err
		}
	}
	overlap, ttl := time.Duration(request.GetOverlap()), time.Duration(request.GetTtl())
	if overlap < 0 || overlap > maxOverlap {
		return nil, fault.New(fault.Invalid, "overlap: %s is out of range: from 0 to %s", overlap, maxOverlap)
	}
	if ttl < 0 || ttl > maxTTL {
		return nil, fault.New(fault.Invalid, "ttl: %s is out of range: from 0 (as long as the old one had) to %s", ttl, maxTTL)
	}
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	old, ok := snapshot.Token(id)
	_ = snapshot.Close() // only read from
	now := time.Now()
	switch {
	case !ok:
		return nil, fault.New(fault.NotFound, "id: there is no token %q: see clary token list", cluster.Clip(id))
	case old.Kind != cluster.TokenUser:
		return nil, fault.New(fault.Invalid, "id: %s is a join token: make another with clary token create --join %s", old.ID, old.Role)
	case old.Revoked || old.Expires != 0 && old.Expires <= now.UnixNano():
		return nil, fault.New(fault.Conflict, "id: %s is not valid any more: make another with clary token create %s --role %s", old.ID, old.Name, old.Role)
	}
	if lasts := time.Duration(old.Expires - old.Created); old.Expires != 0 {
		if ttl > lasts && !auth.Allow(who.Role, auth.ManageTokens) {
			return nil, fault.New(fault.Denied, "ttl: %s is longer than the %s that the token was given: ask an admin for one that lasts longer", ttl, lasts)
		}
		ttl = cmp.Or(ttl, lasts)
	}
	token, secret, err := auth.NewUserToken(old.Name, old.Role, ttl, now)
	if err != nil {
		return nil, err
	}
	token.By = who.Name
	expect := old.Revision
	if end := now.Add(overlap).UnixNano(); old.Expires == 0 || end < old.Expires {
		old.Expires = end
	}
	if _, err := s.replica.Propose(ctx, command.Record{Changes: []command.Change{{Token: &token}, {Expect: expect, Token: &old}}}); err != nil {
		return nil, err
	}
	return &claryv1.RotateTokenResponse{Token: withoutHash(token), Secret: secret, Old: withoutHash(old)}, nil
}

func (s *peers) StageKeyring(_ context.Context, request *claryv1.StageKeyringRequest) (*claryv1.StageKeyringResponse, error) {
	return &claryv1.StageKeyringResponse{}, s.warden.Stage(request.GetKeyring())
}

func (s *peers) FetchKeyring(_ context.Context, request *claryv1.FetchKeyringRequest) (*claryv1.FetchKeyringResponse, error) {
	text, err := s.warden.Fetch(request.GetId())
	return &claryv1.FetchKeyringResponse{Keyring: text}, err
}

func (s *peers) KeyStatus(context.Context, *claryv1.KeyStatusRequest) (*claryv1.KeyStatusResponse, error) {
	return s.warden.Status(), nil
}

// lets checks whether a machine may join, or join again, under an id that was revoked: only with a key that the revoked
// never had. It returns the trust that admits it, or nil if nothing is to be changed.
func lets(trust cluster.Trust, node pki.Node, key string, used bool) (*cluster.Trust, error) {
	revoked, was := trust.Revocation(node.Role, node.ID)
	if !was || revoked.Admitted == key {
		return nil, nil //nolint:nilnil // nothing to be changed is an answer
	}
	for _, old := range revoked.Keys {
		used = used || old == key
	}
	if used {
		return nil, pki.Revoked(revoked)
	}
	revoked.Admitted = key
	admitted := trust
	admitted.Revoked = append([]cluster.Revocation{}, trust.Revoked...)
	for i, r := range admitted.Revoked {
		if r.Role == node.Role && r.ID == node.ID {
			admitted.Revoked[i] = revoked
		}
	}
	admitted.Generation++
	return &admitted, nil
}
