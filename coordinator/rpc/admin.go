package rpc

import (
	"bufio"
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// Members knows the machines of the cluster and can certify new ones.
type Members interface {
	// Admit certifies a machine that has shown a good token, and tells it what a member
	// needs to know. What the key is for has been checked.
	Admit(node pki.Node, address string, csr []byte) (*claryv1.JoinResponse, error)
	// Certify gives a member another certificate.
	Certify(node pki.Node, csr []byte, hosts ...string) ([]byte, error)
	// IsCoordinator reports whether a coordinator of that id is a member already.
	IsCoordinator(id string) bool
	// Info describes the cluster as seen from here.
	Info() *claryv1.ClusterInfo
	// Pin names the cluster's CA.
	Pin() string
}

// admin serves tokens and membership.
type admin struct {
	claryv1.UnimplementedAdminServer
	replica   Replica
	members   Members
	leader    leaderConns
	decisions func(to io.Writer, last bool) error
}

// Join certifies a machine. The token is bound to the machine's key in the log before
// the certificate is made, so that a retry works and nobody else can use the token.
func (s *admin) Join(ctx context.Context, request *claryv1.JoinRequest) (*claryv1.JoinResponse, error) {
	node := pki.Node{Role: request.GetRole(), ID: request.GetId()}
	var problems cluster.Problems
	if cluster.CheckName(&problems, "id", node.ID); problems.Err() != nil {
		return nil, fault.New(fault.Invalid, "%w", problems)
	}
	presented, err := auth.ParseToken(request.GetToken())
	if err != nil {
		return nil, err
	}
	csr, err := pki.ParseCSR(request.GetCsr())
	if err != nil {
		return nil, err
	}
	key, err := pki.Fingerprint(csr.PublicKey)
	if err != nil {
		return nil, err
	}
	if err := s.bind(ctx, presented, node, key); err != nil {
		return nil, err
	}
	return s.members.Admit(node, request.GetAddress(), request.GetCsr())
}

// bind checks the token and writes down which key has used it.
func (s *admin) bind(ctx context.Context, presented auth.Presented, node pki.Node, key string) error {
	for {
		token, join, err := s.joinToken(ctx, presented, node, key)
		if err != nil {
			return err
		}
		bound, err := auth.CheckJoin(token, presented, key, time.Now())
		if err != nil {
			return err
		}
		onBehalf(ctx, token)
		if token.Role != node.Role {
			return fault.New(fault.Denied, "role: the token is for joining as %s, not as %s", token.Role, cluster.Clip(node.Role))
		}
		admitted, err := lets(join.trust, node, key, join.used)
		if err != nil {
			return err
		}
		if token.BoundKey == key && (token.Name == "" || token.Name == node.ID) {
			return nil
		}
		if token.BoundKey == key {
			return fault.New(fault.Denied, "id: the token is bound to %s %q, not to %q: make another", node.Role, token.Name, node.ID)
		}
		if join.taken {
			return fault.New(fault.Conflict, "id: %s %q is a member already: choose another --id, or remove the old one first with %s", node.Role, node.ID, removal(node))
		}
		bound.Name = node.ID
		changes := []command.Change{{Expect: token.Revision, Token: &bound}}
		if admitted != nil {
			changes = append(changes, command.Change{Expect: join.trust.Revision, Trust: admitted})
		}
		_, err = s.replica.Propose(ctx, command.Record{Changes: changes})
		if err == nil || !fault.Is(err, fault.Conflict) || ctx.Err() != nil {
			return err
		}
	}
}

// removal is how an operator removes a member.
func removal(node pki.Node) string {
	if node.Role == pki.Coordinator {
		return "clary cluster remove " + node.ID
	}
	return "clary nodes remove " + node.ID
}

// joining is what else decides whether a machine may join.
type joining struct {
	taken bool // a live member has the node's id
	used  bool // a machine has joined with the key before
	trust cluster.Trust
}

// joinToken reads the token, and what is known of the id and the key.
func (s *admin) joinToken(ctx context.Context, presented auth.Presented, node pki.Node, key string) (cluster.Token, joining, error) {
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return cluster.Token{}, joining{}, err
	}
	defer snapshot.Close()
	token, ok := snapshot.Token(presented.ID)
	if !ok {
		return cluster.Token{}, joining{}, nil // auth refuses it as it refuses a wrong secret
	}
	known := joining{trust: snapshot.Trust()}
	if _, revoked := known.trust.Revocation(node.Role, node.ID); revoked {
		for other := range snapshot.Tokens() {
			known.used = known.used || other.BoundKey == key
		}
	}
	if node.Role == pki.Coordinator {
		known.taken = s.members.IsCoordinator(node.ID)
		return token, known, nil
	}
	old, exists := snapshot.Node(node.ID)
	known.taken = exists && old.State != cluster.NodeLost
	return token, known, nil
}

const (
	defaultJoinTTL = time.Hour
	maxTTL         = 10 * 365 * 24 * time.Hour
)

func (s *admin) CreateToken(ctx context.Context, request *claryv1.CreateTokenRequest) (*claryv1.CreateTokenResponse, error) {
	ttl := time.Duration(request.GetTtl())
	if ttl < 0 || ttl > maxTTL {
		return nil, fault.New(fault.Invalid, "ttl: %s is out of range: from 0 (the default) to %s", ttl, maxTTL)
	}
	token, secret, err := s.newToken(request, ttl, time.Now())
	if err != nil {
		return nil, err
	}
	token.By = caller(ctx).Name
	results, err := s.replica.Propose(ctx, command.Record{Changes: []command.Change{{Token: &token}}})
	if err != nil {
		return nil, err
	}
	token.Revision = results[0].Revision
	return &claryv1.CreateTokenResponse{Token: withoutHash(token), Secret: secret}, nil
}

func (s *admin) newToken(request *claryv1.CreateTokenRequest, ttl time.Duration, now time.Time) (cluster.Token, string, error) {
	switch cluster.TokenKind(request.GetKind()) {
	case cluster.TokenUser:
		return auth.NewUserToken(request.GetName(), request.GetRole(), ttl, now)
	case cluster.TokenJoin:
		if ttl == 0 {
			ttl = defaultJoinTTL
		}
		return auth.NewJoinToken(request.GetRole(), s.members.Pin(), ttl, now)
	}
	return cluster.Token{}, "", fault.New(fault.Invalid, "kind: %q is unknown: user or join", cluster.Clip(request.GetKind()))
}

// withoutHash is a token as it may be shown.
func withoutHash(token cluster.Token) *claryv1.Token {
	token.Hash = nil
	return wire.TokenToProto(token)
}

func (s *admin) ListTokens(ctx context.Context, _ *claryv1.ListTokensRequest) (*claryv1.ListTokensResponse, error) {
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	answer := &claryv1.ListTokensResponse{}
	for token := range snapshot.Tokens() {
		answer.Tokens = append(answer.Tokens, withoutHash(token))
	}
	return answer, nil
}

func (s *admin) RevokeToken(ctx context.Context, request *claryv1.RevokeTokenRequest) (*claryv1.Token, error) {
	for {
		token, err := s.token(ctx, request.GetId())
		if err != nil {
			return nil, err
		}
		if token.Revoked {
			return withoutHash(token), nil
		}
		token = token.Revoke(time.Now().UnixNano())
		_, err = s.replica.Propose(ctx, command.Record{Changes: []command.Change{{Expect: token.Revision, Token: &token}}})
		if err != nil && (!fault.Is(err, fault.Conflict) || ctx.Err() != nil) {
			return nil, err
		}
	}
}

func (s *admin) token(ctx context.Context, id string) (cluster.Token, error) {
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return cluster.Token{}, err
	}
	defer snapshot.Close()
	token, ok := snapshot.Token(id)
	if !ok {
		return token, fault.New(fault.NotFound, "id: there is no token %q: see clary token list", cluster.Clip(id))
	}
	return token, nil
}

func (s *admin) WhoAmI(ctx context.Context, _ *claryv1.WhoAmIRequest) (*claryv1.WhoAmIResponse, error) {
	who := caller(ctx)
	return &claryv1.WhoAmIResponse{Name: who.Name, Role: who.Role, TokenId: who.TokenID}, nil
}

func (s *admin) Info(ctx context.Context, _ *claryv1.InfoRequest) (*claryv1.ClusterInfo, error) {
	snapshot, err := s.replica.Read(ctx, true)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	info := s.members.Info()
	info.Revision = snapshot.Revision()
	return info, nil
}

type decisionsStream = grpc.ServerStreamingServer[claryv1.DecisionsResponse]

// Decisions copies the leader's record.
func (s *admin) Decisions(request *claryv1.DecisionsRequest, stream decisionsStream) error {
	conn, err := s.leader.elsewhere()
	if err != nil {
		return err
	}
	if conn != nil {
		return s.passOn(conn, request, stream)
	}
	if s.decisions == nil {
		return fault.New(fault.Unready, "this coordinator records no decisions: start it without --no-decisions")
	}
	buffered := bufio.NewWriterSize(decisionsWriter{stream}, 64<<10)
	if err := s.decisions(buffered, request.GetLast()); err != nil {
		return err
	}
	return buffered.Flush()
}

func (s *admin) passOn(conn *grpc.ClientConn, request *claryv1.DecisionsRequest, stream decisionsStream) error {
	from, err := claryv1.NewAdminClient(conn).Decisions(forwarded(stream.Context()), request)
	for err == nil {
		var part *claryv1.DecisionsResponse
		if part, err = from.Recv(); err == nil {
			err = stream.Send(part)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// decisionsWriter sends what is written.
type decisionsWriter struct{ stream decisionsStream }

func (w decisionsWriter) Write(data []byte) (int, error) {
	return len(data), w.stream.Send(&claryv1.DecisionsResponse{Data: data})
}
