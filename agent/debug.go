package agent

import (
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/internal/ops"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// agentDebug measures this process for coordinators, who ask for admins.
type agentDebug struct {
	claryv1.UnimplementedAgentDebugServer
}

type profileStream = grpc.ServerStreamingServer[claryv1.ProfileResponse]

// Profile measures this agent.
func (agentDebug) Profile(request *claryv1.ProfileRequest, stream profileStream) error {
	return wire.ToStatus(ops.SendProfile(stream.Context(), request.GetProfile(), time.Duration(request.GetLength()), func(data []byte) error {
		return stream.Send(&claryv1.ProfileResponse{Data: data})
	}))
}
