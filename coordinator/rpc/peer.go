package rpc

import (
	"context"

	"github.com/clary-ml/clary/coordinator/quorum"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// peers serves the other coordinators.
type peers struct {
	claryv1.UnimplementedPeerServer
	replica Replica
	keeper  Keeper
	reports Reports
	warden  Warden
	quorum  Quorum
}

func (s *peers) Propose(ctx context.Context, request *claryv1.ProposeRequest) (*claryv1.ProposeResponse, error) {
	results, err := s.replica.HandlePropose(ctx, request.GetBatch())
	if err != nil {
		return nil, err
	}
	return &claryv1.ProposeResponse{Results: results}, nil
}

func (s *peers) ReadIndex(ctx context.Context, _ *claryv1.ReadIndexRequest) (*claryv1.ReadIndexResponse, error) {
	index, err := s.replica.HandleReadIndex(ctx)
	if err != nil {
		return nil, err
	}
	return &claryv1.ReadIndexResponse{Index: index}, nil
}

func (s *peers) Beats(_ context.Context, request *claryv1.BeatsRequest) (*claryv1.BeatsResponse, error) {
	unknown, err := s.keeper.Beat(request.GetNodes())
	if err != nil {
		return nil, err
	}
	return &claryv1.BeatsResponse{Unknown: unknown}, nil
}

func (s *peers) AddMember(ctx context.Context, request *claryv1.AddMemberRequest) (*claryv1.AddMemberResponse, error) {
	if id := caller(ctx).Name; request.GetId() != id {
		return nil, fault.New(fault.Denied, "id: %q, but the certificate is that of %q", request.GetId(), id)
	}
	voter, behind, err := s.quorum.Admit(ctx, quorum.Applicant{
		ID: request.GetId(), Address: request.GetAddress(), Key: caller(ctx).Key, Format: int(request.GetFormat()), Version: request.GetVersion(),
		Staged: request.GetStaged(), Applied: request.GetApplied(),
	})
	if err != nil {
		return nil, err
	}
	return &claryv1.AddMemberResponse{Voter: voter, Behind: behind}, nil
}

func (s *peers) Standing(context.Context, *claryv1.StandingRequest) (*claryv1.StandingResponse, error) {
	return s.quorum.Standing(), nil
}
