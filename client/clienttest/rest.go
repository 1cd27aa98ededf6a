package clienttest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

type nodes struct {
	claryv1.UnimplementedNodesServer
	c *Cluster
}

func (s *nodes) List(context.Context, *claryv1.ListNodesRequest) (*claryv1.ListNodesResponse, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	response := &claryv1.ListNodesResponse{}
	for _, id := range slices.Sorted(maps.Keys(s.c.nodes)) {
		response.Nodes = append(response.Nodes, nodeToProto(s.c.nodes[id]))
	}
	return response, nil
}

func nodeToProto(view client.NodeView) *claryv1.NodeView {
	return &claryv1.NodeView{Node: wire.NodeToProto(view.Node), Used: wire.ResourcesToProto(view.Used), Tasks: view.Tasks}
}

func (s *nodes) Get(_ context.Context, request *claryv1.GetNodeRequest) (*claryv1.NodeView, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	view, found := s.c.nodes[request.GetId()]
	if !found {
		return nil, noNode(request.GetId())
	}
	return nodeToProto(view), nil
}

func noNode(id string) error {
	return fault.New(fault.NotFound, "there is no node %q: see clary nodes", id)
}

func (s *nodes) set(id string, state cluster.NodeState, reason string) (*claryv1.Node, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	view, found := s.c.nodes[id]
	if !found {
		return nil, noNode(id)
	}
	view.Node.State, view.Node.Reason, view.Node.Empties, view.Node.Deadline = state, reason, false, 0
	s.c.nodes[id] = view
	return wire.NodeToProto(view.Node), nil
}

func (s *nodes) Drain(_ context.Context, request *claryv1.DrainNodeRequest) (*claryv1.Node, error) {
	if _, err := s.set(request.GetId(), cluster.NodeDraining, request.GetReason()); err != nil {
		return nil, err
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	view := s.c.nodes[request.GetId()]
	view.Node.Empties, view.Node.Deadline = request.GetEmpty() && !request.GetMove(), request.GetDeadline()
	s.c.nodes[request.GetId()] = view
	return wire.NodeToProto(view.Node), nil
}

func (s *nodes) Resume(_ context.Context, request *claryv1.ResumeNodeRequest) (*claryv1.Node, error) {
	return s.set(request.GetId(), cluster.NodeReady, "")
}

func (s *nodes) Taint(_ context.Context, request *claryv1.TaintNodeRequest) (*claryv1.Node, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	view, found := s.c.nodes[request.GetId()]
	if !found {
		return nil, noNode(request.GetId())
	}
	var put []cluster.Taint
	for _, t := range request.GetPut() {
		put = append(put, wire.TaintFromProto(t))
	}
	view.Node.Taints = cluster.ChangeTaints(view.Node.Taints, put, request.GetRemove())
	if err := view.Node.Validate().Err(); err != nil {
		return nil, fault.New(fault.Invalid, "%w", err)
	}
	s.c.nodes[request.GetId()] = view
	return wire.NodeToProto(view.Node), nil
}

func (s *nodes) Remove(_ context.Context, request *claryv1.RemoveNodeRequest) (*claryv1.RemoveNodeResponse, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	view, found := s.c.nodes[request.GetId()]
	if !found {
		return nil, noNode(request.GetId())
	}
	if view.Node.State != cluster.NodeLost {
		return nil, fault.New(fault.Conflict, "node %s is %s: only a lost node can be removed", request.GetId(), view.Node.State)
	}
	delete(s.c.nodes, request.GetId())
	return &claryv1.RemoveNodeResponse{}, nil
}

type objects struct {
	claryv1.UnimplementedObjectsServer
	c *Cluster
}

func info(uri string, data []byte) *claryv1.ObjectInfo {
	sum := sha256.Sum256(data)
	digest := hex.EncodeToString(sum[:])
	return &claryv1.ObjectInfo{Uri: uri, Size: int64(len(data)), Modified: 1_700_000_000_000_000_000, Etag: digest[:16], Sha256: digest}
}

func (s *objects) Put(stream grpc.ClientStreamingServer[claryv1.PutObjectRequest, claryv1.ObjectInfo]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if !strings.HasPrefix(first.GetUri(), "s3://") {
		return fault.New(fault.Invalid, "uri: %q is not s3://bucket/key", first.GetUri())
	}
	data := slices.Clone(first.GetData())
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			s.c.PutObject(first.GetUri(), data)
			return stream.SendAndClose(info(first.GetUri(), data))
		}
		if err != nil {
			return err
		}
		data = append(data, message.GetData()...)
	}
}

func (s *objects) Get(request *claryv1.GetObjectRequest, stream grpc.ServerStreamingServer[claryv1.ObjectChunk]) error {
	data, found := s.c.Object(request.GetUri())
	if !found {
		return noObject(request.GetUri())
	}
	if err := stream.Send(&claryv1.ObjectChunk{Info: info(request.GetUri(), data)}); err != nil {
		return err
	}
	for piece := range slices.Chunk(data[min(request.GetOffset(), int64(len(data))):], 64<<10) {
		if err := stream.Send(&claryv1.ObjectChunk{Data: piece}); err != nil {
			return err
		}
	}
	return nil
}

func noObject(uri string) error {
	return fault.New(fault.NotFound, "there is no object %s: see clary ls", uri)
}

func (s *objects) Stat(_ context.Context, request *claryv1.StatObjectRequest) (*claryv1.ObjectInfo, error) {
	data, found := s.c.Object(request.GetUri())
	if !found {
		return nil, noObject(request.GetUri())
	}
	return info(request.GetUri(), data), nil
}

func (s *objects) List(_ context.Context, request *claryv1.ListObjectsRequest) (*claryv1.ListObjectsResponse, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	response := &claryv1.ListObjectsResponse{}
	for _, uri := range slices.Sorted(maps.Keys(s.c.objects)) {
		rest, below := strings.CutPrefix(uri, request.GetUri())
		if !below {
			continue
		}
		if folder, _, deeper := strings.Cut(rest, "/"); deeper && !request.GetRecursive() {
			if prefix := request.GetUri() + folder + "/"; !slices.Contains(response.Prefixes, prefix) {
				response.Prefixes = append(response.Prefixes, prefix)
			}
			continue
		}
		response.Objects = append(response.Objects, info(uri, s.c.objects[uri]))
	}
	return response, nil
}

func (s *objects) Delete(_ context.Context, request *claryv1.DeleteObjectRequest) (*claryv1.DeleteObjectResponse, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	before := len(s.c.objects)
	maps.DeleteFunc(s.c.objects, func(uri string, _ []byte) bool {
		return uri == request.GetUri() || request.GetRecursive() && strings.HasPrefix(uri, request.GetUri())
	})
	if before == len(s.c.objects) {
		return nil, noObject(request.GetUri())
	}
	return &claryv1.DeleteObjectResponse{Deleted: int64(before - len(s.c.objects))}, nil
}

func (s *objects) Credentials(context.Context, *claryv1.CredentialsRequest) (*claryv1.CredentialsResponse, error) {
	return &claryv1.CredentialsResponse{Endpoint: "https://127.0.0.1:1", Region: "us-east-1", AccessKey: "CLARY-root", SecretKey: "secret"}, nil
}

type admin struct {
	claryv1.UnimplementedAdminServer
	c *Cluster
}

func (s *admin) WhoAmI(ctx context.Context, _ *claryv1.WhoAmIRequest) (*claryv1.WhoAmIResponse, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	token, _ := s.c.caller(ctx)
	return &claryv1.WhoAmIResponse{Name: token.Name, Role: token.Role, TokenId: token.ID}, nil
}

func (s *admin) Info(context.Context, *claryv1.InfoRequest) (*claryv1.ClusterInfo, error) {
	response := &claryv1.ClusterInfo{Leader: "c1", Version: "test", CaPin: s.c.authority.Pin(), Revision: 1}
	if s.c.Clock != nil {
		response.Now = s.c.Clock().UnixNano()
	}
	for i, member := range s.c.coordinators {
		response.Coordinators = append(response.Coordinators, &claryv1.Coordinator{
			Id: "c" + string(rune('1'+i)), Address: member.address, Leader: i == 0, Voter: true, Alive: true,
		})
	}
	return response, nil
}

func (s *admin) Decisions(_ *claryv1.DecisionsRequest, stream grpc.ServerStreamingServer[claryv1.DecisionsResponse]) error {
	if s.c.Decisions == nil {
		return fault.New(fault.NotFound, "this cluster records no decisions")
	}
	return s.c.Decisions(func(part []byte) error { return stream.Send(&claryv1.DecisionsResponse{Data: part}) })
}

func (s *admin) CreateToken(_ context.Context, request *claryv1.CreateTokenRequest) (*claryv1.CreateTokenResponse, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	id := "t" + string(rune('0'+len(s.c.tokens)))
	token := cluster.Token{
		ID: id, Kind: cluster.TokenKind(request.GetKind()), Name: request.GetName(), Role: request.GetRole(),
		Hash: make([]byte, 32), Created: time.Now().UnixNano(),
	}
	if problems := token.Validate(); problems != nil {
		return nil, fault.New(fault.Invalid, "%w", problems)
	}
	if request.GetTtl() > 0 {
		token.Expires = token.Created + request.GetTtl()
	}
	secret := "clary_u_" + id + "_secret"
	s.c.tokens[secret] = token
	return &claryv1.CreateTokenResponse{Token: wire.TokenToProto(token), Secret: secret}, nil
}

func (s *admin) ListTokens(context.Context, *claryv1.ListTokensRequest) (*claryv1.ListTokensResponse, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	response := &claryv1.ListTokensResponse{}
	for _, secret := range slices.Sorted(maps.Keys(s.c.tokens)) {
		response.Tokens = append(response.Tokens, wire.TokenToProto(s.c.tokens[secret]))
	}
	return response, nil
}

func (s *admin) RevokeToken(_ context.Context, request *claryv1.RevokeTokenRequest) (*claryv1.Token, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for secret, token := range s.c.tokens {
		if token.ID == request.GetId() {
			token.Revoked = true
			s.c.tokens[secret] = token
			return wire.TokenToProto(token), nil
		}
	}
	return nil, fault.New(fault.NotFound, "there is no token %q: see clary token list", request.GetId())
}
