package clienttest

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/request"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// keys keeps to the steps of a rotation. The CA itself stays: what members show of it is not played.
type keys struct {
	claryv1.UnimplementedKeysServer
	c *Cluster
}

func (s *keys) Show(context.Context, *claryv1.ShowKeysRequest) (*claryv1.KeysView, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.view(), nil
}

func (s *keys) view() *claryv1.KeysView {
	ca := s.c.authority.Certificate()
	view := &claryv1.KeysView{
		Trust: wire.TrustToProto(s.c.trust), CaPin: s.c.authority.Pin(),
		Cas: []*claryv1.TrustedCA{{Pin: s.c.authority.Pin(), NotBefore: ca.NotBefore.UnixNano(), NotAfter: ca.NotAfter.UnixNano(), Signs: true}},
	}
	status := &claryv1.KeyStatusResponse{Generation: s.c.trust.Generation, CaPin: s.c.authority.Pin(), NotAfter: time.Now().Add(time.Hour).UnixNano()}
	for i := range s.c.coordinators {
		view.Members = append(view.Members, &claryv1.MemberKeys{Role: cluster.RoleCoordinator, Id: "c" + string(rune('1'+i)), Confirmed: true, Status: status})
	}
	for id := range s.c.nodes {
		if !s.c.trust.Out(cluster.RoleAgent, id) {
			view.Members = append(view.Members, &claryv1.MemberKeys{Role: cluster.RoleAgent, Id: id, Confirmed: true, Status: status})
		}
	}
	return view
}

func (s *keys) Rotate(ctx context.Context, request *claryv1.RotateKeysRequest) (*claryv1.KeysView, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	what, trust := cluster.Rotation(request.GetWhat()), s.c.trust
	if trust.Rotates != "" && trust.Rotates != what {
		return nil, fault.New(fault.Conflict, "%s is being rotated, in the phase %s: go on with that first: clary keys rotate %s", trust.Rotates, trust.Phase, trust.Rotates)
	}
	phase, ok := trust.Phase.After(cluster.Phase(request.GetStep()))
	if !ok {
		return nil, fault.New(fault.Conflict, "%s: --phase %s: no such step now", what, request.GetStep())
	}
	who, _ := s.c.caller(ctx)
	trust.Generation++
	trust.Rotates, trust.Phase, trust.By, trust.Changed = what, phase, who.Name, time.Now().UnixNano()
	if phase == "" {
		trust.Rotates = ""
	}
	s.c.trust = trust
	return s.view(), nil
}

func (s *keys) Revoke(ctx context.Context, request *claryv1.RevokeRequest) (*claryv1.Revocation, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if _, known := s.c.nodes[request.GetId()]; !known || request.GetRole() != cluster.RoleAgent {
		return nil, fault.New(fault.NotFound, "id: there is no %s %q", request.GetRole(), request.GetId())
	}
	who, _ := s.c.caller(ctx)
	revoked := cluster.Revocation{Role: request.GetRole(), ID: request.GetId(), Reason: request.GetReason(), By: who.Name, At: time.Now().UnixNano()}
	s.c.trust.Generation++
	s.c.trust.Revoked = append(slices.Clone(s.c.trust.Revoked), revoked)
	return wire.RevocationToProto(revoked), nil
}

func (s *keys) RotateToken(ctx context.Context, request *claryv1.RotateTokenRequest) (*claryv1.RotateTokenResponse, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	who, _ := s.c.caller(ctx)
	id := request.GetId()
	if id == "" {
		id = who.ID
	}
	for secret, old := range s.c.tokens {
		if old.ID != id {
			continue
		}
		token := old
		token.ID, token.By, token.Created = old.ID+"x", who.Name, time.Now().UnixNano()
		if request.GetTtl() > 0 {
			token.Expires = token.Created + request.GetTtl()
		}
		old.Expires = time.Now().Add(time.Duration(request.GetOverlap())).UnixNano()
		made := "clary_u_" + token.ID + "_secret"
		s.c.tokens[secret], s.c.tokens[made] = old, token
		return &claryv1.RotateTokenResponse{Token: wire.TokenToProto(token), Secret: made, Old: wire.TokenToProto(old)}, nil
	}
	return nil, fault.New(fault.NotFound, "id: there is no token %q: see clary token list", id)
}

// endsSoon is how long before its end a token is told of here, whatever it was given.
const endsSoon = 14 * 24 * time.Hour

// tellEnd says in an answer when the caller's token ends, if that is soon.
func (c *Cluster) tellEnd(ctx context.Context) {
	token, _ := c.caller(ctx)
	if end := time.Unix(0, token.Expires); token.Expires != 0 && time.Until(end) < endsSoon {
		_ = grpc.SetHeader(ctx, metadata.Pairs(request.TokenEnds, end.UTC().Format(time.RFC3339)))
	}
}

// debug measures nothing: the profile is a few bytes.
type debug struct {
	claryv1.UnimplementedDebugServer
}

// Profile is what the member that is asked for is called.
func (debug) Profile(request *claryv1.ProfileRequest, stream grpc.ServerStreamingServer[claryv1.ProfileResponse]) error {
	if request.GetMember() == "" || request.GetMember() == "nobody" {
		return fault.New(fault.NotFound, "member: there is no member %q: see clary nodes and clary cluster", request.GetMember())
	}
	return stream.Send(&claryv1.ProfileResponse{Data: []byte(request.GetProfile() + " of " + request.GetMember() + "\n")})
}
