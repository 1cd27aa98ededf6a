package modelserver

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"

	"github.com/clary-ml/clary/internal/version"
	"github.com/clary-ml/clary/proto/inference"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/serving/modelserver/oip"
	"github.com/clary-ml/clary/serving/modelserver/tensor"
)

// overhead is what a message has beside its tensors' bytes.
const overhead = 1 << 20

// grpcServer is the protocol's service on a server.
func (s *Server) grpcServer() *grpc.Server {
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(int(s.options.MaxPayload+overhead)),
		grpc.MaxSendMsgSize(1<<31-1),
		grpc.ConnectionTimeout(readHeader),
		grpc.MaxConcurrentStreams(uint32(s.options.MaxRequests)),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	inference.RegisterGRPCInferenceServiceServer(server, &service{Server: s, endpoint: s.metrics.endpoint("grpc")})
	return server
}

// service answers the protocol's calls.
type service struct {
	inference.UnimplementedGRPCInferenceServiceServer
	*Server
	endpoint *endpoint
}

func (s *service) ServerLive(context.Context, *inference.ServerLiveRequest) (*inference.ServerLiveResponse, error) {
	return &inference.ServerLiveResponse{Live: true}, nil
}

func (s *service) ServerReady(ctx context.Context, _ *inference.ServerReadyRequest) (*inference.ServerReadyResponse, error) {
	return &inference.ServerReadyResponse{Ready: s.ready(ctx) == nil}, nil
}

func (s *service) ModelReady(ctx context.Context, r *inference.ModelReadyRequest) (*inference.ModelReadyResponse, error) {
	if err := s.has(r.GetName(), r.GetVersion()); err != nil {
		return nil, wire.ToStatus(err)
	}
	return &inference.ModelReadyResponse{Ready: s.ready(ctx) == nil}, nil
}

func (s *service) ServerMetadata(context.Context, *inference.ServerMetadataRequest) (*inference.ServerMetadataResponse, error) {
	return &inference.ServerMetadataResponse{Name: serverName, Version: version.String(), Extensions: extensions}, nil
}

func (s *service) ModelMetadata(_ context.Context, r *inference.ModelMetadataRequest) (*inference.ModelMetadataResponse, error) {
	if err := s.has(r.GetName(), r.GetVersion()); err != nil {
		return nil, wire.ToStatus(err)
	}
	return &inference.ModelMetadataResponse{
		Name: s.options.Name, Versions: []string{s.options.Version}, Platform: s.signature.Platform,
		Inputs: portsProto(s.signature.Inputs), Outputs: portsProto(s.signature.Outputs),
	}, nil
}

func portsProto(ports []tensor.Port) []*inference.ModelMetadataResponse_TensorMetadata {
	var out []*inference.ModelMetadataResponse_TensorMetadata
	for _, p := range ports {
		out = append(out, &inference.ModelMetadataResponse_TensorMetadata{Name: p.Name, Datatype: string(p.Type), Shape: p.Shape})
	}
	return out
}

func (s *service) ModelInfer(ctx context.Context, m *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
	began := time.Now()
	answer, err := s.modelInfer(ctx, m)
	code := "200" // HTTP's numbers, as for the other endpoints
	if err != nil {
		code = httpCode(err)
		err = wire.ToStatus(err)
	}
	s.endpoint.done(began, code)
	return answer, err
}

func (s *service) modelInfer(ctx context.Context, m *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
	if err := s.has(m.GetModelName(), m.GetModelVersion()); err != nil {
		return nil, err
	}
	size := int64(proto.Size(m))
	if size > s.options.MaxPayload {
		return nil, s.tooLarge()
	}
	if err := s.gate.Enter(size); err != nil {
		return nil, err
	}
	defer s.gate.Leave(size)
	request, raw, err := oip.FromProto(m)
	if err != nil {
		return nil, err
	}
	outputs, err := s.infer(ctx, request.Inputs)
	if err != nil {
		return nil, err
	}
	picked, _, err := request.Pick(outputs)
	if err != nil {
		return nil, err
	}
	response := oip.Response{Model: s.options.Name, Version: s.options.Version, ID: request.ID, Outputs: picked}
	return response.Proto(raw)
}
