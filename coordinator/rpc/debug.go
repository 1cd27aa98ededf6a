package rpc

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/ops"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// debugging has members measured.
type debugging struct {
	claryv1.UnimplementedDebugServer
	members      Members
	replica      Replica
	coordinators Conns
	agents       Conns
}

type profileStream = grpc.ServerStreamingServer[claryv1.ProfileResponse]

// Profile measures the member that is named, wherever it is.
func (s *debugging) Profile(request *claryv1.ProfileRequest, stream profileStream) error {
	if err := ops.CheckProfile(request.GetProfile(), time.Duration(request.GetLength())); err != nil {
		return err
	}
	role, err := s.roleOf(stream.Context(), request.GetMember(), request.GetRole())
	if err != nil {
		return err
	}
	if role == pki.Coordinator && request.GetMember() == s.members.Info().GetId() {
		return ops.SendProfile(stream.Context(), request.GetProfile(), time.Duration(request.GetLength()), func(data []byte) error {
			return stream.Send(&claryv1.ProfileResponse{Data: data})
		})
	}
	conns := s.agents
	if role == pki.Coordinator {
		conns = s.coordinators
	}
	conn, err := conns.Conn(request.GetMember())
	if err != nil {
		return err
	}
	var from grpc.ServerStreamingClient[claryv1.ProfileResponse]
	if role == pki.Coordinator {
		from, err = claryv1.NewDebugClient(conn).Profile(forwarded(stream.Context()), request)
	} else {
		from, err = claryv1.NewAgentDebugClient(conn).Profile(stream.Context(), request)
	}
	for err == nil {
		var part *claryv1.ProfileResponse
		if part, err = from.Recv(); err == nil {
			err = stream.Send(part)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return agentAway(request.GetMember(), false, wire.FromStatus(err))
}

// roleOf says what the member of an id is.
func (s *debugging) roleOf(ctx context.Context, id, role string) (string, error) {
	coordinator := s.members.IsCoordinator(id)
	snapshot, err := s.replica.Read(ctx, true)
	if err != nil {
		return "", err
	}
	_, agent := snapshot.Node(id)
	_ = snapshot.Close() // only read from
	switch {
	case role != "" && role != pki.Agent && role != pki.Coordinator:
		return "", fault.New(fault.Invalid, "role: %q is unknown: agent or coordinator", cluster.Clip(role))
	case role == "" && coordinator && agent:
		return "", fault.New(fault.Conflict, "member: there are a coordinator and an agent %s: say which, with --role", id)
	case coordinator && role != pki.Agent:
		return pki.Coordinator, nil
	case agent && role != pki.Coordinator:
		return pki.Agent, nil
	}
	return "", fault.New(fault.NotFound, "member: there is no %s %q: see clary nodes and clary cluster", orMember(role), cluster.Clip(id))
}

func orMember(role string) string {
	if role == "" {
		return "member"
	}
	return role
}
