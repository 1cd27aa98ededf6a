package agent

import (
	"bufio"
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
	buffered := bufio.NewWriterSize(profileWriter{stream}, 64<<10)
	err := ops.Profile(stream.Context(), request.GetProfile(), time.Duration(request.GetLength()), buffered)
	if err == nil {
		err = buffered.Flush()
	}
	return wire.ToStatus(err)
}

// profileWriter sends what is written.
type profileWriter struct{ stream profileStream }

func (w profileWriter) Write(data []byte) (int, error) {
	return len(data), w.stream.Send(&claryv1.ProfileResponse{Data: data})
}
