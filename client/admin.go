package client

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// Identity is who the cluster takes the caller for.
type Identity struct {
	Name    string `json:"name"`
	Role    string `json:"role"`
	TokenID string `json:"token_id"`
}

// Info is the cluster in a few words.
type Info struct {
	Leader       string        `json:"leader"` // ID, empty while there is none
	Coordinators []Coordinator `json:"coordinators"`
	Version      string        `json:"version"` // of the coordinator that answered
	CAPin        string        `json:"ca_pin"`
	Revision     uint64        `json:"revision"`
	ID           string        `json:"-"` // of the coordinator that answered
	Now          time.Time     `json:"-"` // by its clock; zero if it did not say
}

// Coordinator is one member of the cluster's quorum.
type Coordinator struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	Leader  bool   `json:"leader"`
	Voter   bool   `json:"voter"`
	Alive   bool   `json:"alive"`
}

// WhoAmI tells who the cluster takes the caller for.
func (c *Client) WhoAmI(ctx context.Context) (Identity, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.WhoAmIResponse, error) {
		return claryv1.NewAdminClient(conn).WhoAmI(ctx, &claryv1.WhoAmIRequest{})
	})
	return Identity{Name: response.GetName(), Role: response.GetRole(), TokenID: response.GetTokenId()}, err
}

// Info tells which coordinators there are and who leads.
func (c *Client) Info(ctx context.Context) (Info, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.ClusterInfo, error) {
		return claryv1.NewAdminClient(conn).Info(ctx, &claryv1.InfoRequest{})
	})
	var now time.Time
	if response.GetNow() != 0 {
		now = time.Unix(0, response.GetNow())
	}
	return Info{
		ID: response.GetId(), Now: now,
		Leader: response.GetLeader(), Version: response.GetVersion(), CAPin: response.GetCaPin(), Revision: response.GetRevision(),
		Coordinators: each(response.GetCoordinators(), func(m *claryv1.Coordinator) Coordinator {
			return Coordinator{ID: m.GetId(), Address: m.GetAddress(), Leader: m.GetLeader(), Voter: m.GetVoter(), Alive: m.GetAlive()}
		}),
	}, err
}

// CreateToken makes a token and returns it with its secret, which nobody can read
// again. A ttl of 0 is the server's default.
//
// Unlike all other requests it is sent once only, to a coordinator that has just
// answered: a second try could leave a token behind that nobody holds.
func (c *Client) CreateToken(ctx context.Context, kind cluster.TokenKind, name, role string, ttl time.Duration) (cluster.Token, string, error) {
	if _, err := c.WhoAmI(ctx); err != nil {
		return cluster.Token{}, "", err
	}
	p := c.peers[int(c.next.Load())%len(c.peers)]
	response, err := claryv1.NewAdminClient(p.conn).CreateToken(ctx, &claryv1.CreateTokenRequest{
		Kind: string(kind), Name: name, Role: role, Ttl: int64(ttl),
	})
	if err != nil {
		return cluster.Token{}, "", p.explain(wire.FromStatus(err))
	}
	return wire.TokenFromProto(response.GetToken()), response.GetSecret(), nil
}

// Tokens lists all tokens, without their secrets.
func (c *Client) Tokens(ctx context.Context) ([]cluster.Token, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.ListTokensResponse, error) {
		return claryv1.NewAdminClient(conn).ListTokens(ctx, &claryv1.ListTokensRequest{})
	})
	return each(response.GetTokens(), wire.TokenFromProto), err
}

// RevokeToken makes a token worthless at once.
func (c *Client) RevokeToken(ctx context.Context, id string) (cluster.Token, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.Token, error) {
		return claryv1.NewAdminClient(conn).RevokeToken(ctx, &claryv1.RevokeTokenRequest{Id: id})
	})
	if err != nil {
		return cluster.Token{}, err
	}
	return wire.TokenFromProto(response), nil
}

// Decisions copies the leader's record of what its scheduler was told and decided; with last only the newest segment of it.
// It is sent to one coordinator: half a copy is worth nothing.
func (c *Client) Decisions(ctx context.Context, last bool, to io.Writer) error {
	stream, err := call(ctx, c, func(_ context.Context, conn *grpc.ClientConn, _ int) (grpc.ServerStreamingClient[claryv1.DecisionsResponse], error) {
		return claryv1.NewAdminClient(conn).Decisions(ctx, &claryv1.DecisionsRequest{Last: last})
	})
	if err != nil {
		return err
	}
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return wire.FromStatus(err)
		}
		if _, err := to.Write(part.GetData()); err != nil {
			return err
		}
	}
}
