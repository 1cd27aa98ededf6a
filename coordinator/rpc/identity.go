package rpc

import (
	"context"
	"crypto/tls"
	"path"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/request"
)

// Identity is who is calling: a user with a token, or a node with a certificate.
type Identity struct {
	Name    string // of the user, or the node's id
	Role    string // a user's viewer, user or admin; a node's agent or coordinator
	TokenID string // of the user's token
	Ends    int64  // when that token does, if it is soon; else 0
	Key     string // fingerprint of the node's key
}

// owns refuses to change a job that belongs to another.
func (i Identity) owns(job cluster.Job) error {
	if job.Owner == i.Name || auth.Allow(i.Role, auth.ControlAny) {
		return nil
	}
	return fault.New(fault.Denied, "job %s belongs to %s: only its owner or an admin may change it", job.Name, job.Owner)
}

type identityKey struct{}

// caller returns who is calling; the interceptors have put it there.
func caller(ctx context.Context) Identity {
	identity, _ := ctx.Value(identityKey{}).(Identity)
	return identity
}

// need is what a method asks of its caller: that a user's role allows an action, or that
// a node has a role.
type need struct {
	action  auth.Action
	node    string
	often   bool // programs call it many times a second, and what they change says who they are: it is not audited
	follows bool // it tells what becomes of the state for as long as the caller likes: not where that stands still
	frees   bool // it makes room, or keeps going what runs: it is done while the coordinators' disks are full
}

// begins reports whether a method has the cluster take in something new. What operators do, and what agents tell, does not.
func begins(method string) bool {
	n := needs[method]
	users := n.action == auth.Submit || n.action == auth.ControlOwn || n.action == auth.KeepSecrets
	return users && !n.frees
}

// changes reports whether a method changes something that the audit is to have. Whatever is not known
// to only look is taken to do so.
func changes(method string) bool {
	n := needs[method]
	switch n.action {
	case auth.Read, auth.Invoke, auth.Audit:
		return false
	}
	name := path.Base(method)
	looks := slices.ContainsFunc([]string{"List", "Get", "Show", "WhoAmI"}, func(begin string) bool { return strings.HasPrefix(name, begin) })
	return n.node == "" && !n.often && !looks
}

// needs says what each method asks for. A method that is not in the table is refused, so
// that a new one cannot be forgotten.
var needs = map[string]need{
	"/clary.v1.Admin/Join": {}, // shows a join token instead

	"/clary.v1.Jobs/Get":      {action: auth.Read},
	"/clary.v1.Jobs/List":     {action: auth.Read},
	"/clary.v1.Jobs/Watch":    {action: auth.Read, follows: true},
	"/clary.v1.Jobs/Logs":     {action: auth.Read},
	"/clary.v1.Jobs/Why":      {action: auth.Read},
	"/clary.v1.Jobs/Whys":     {action: auth.Read},
	"/clary.v1.Metrics/Query": {action: auth.Read},
	"/clary.v1.Nodes/List":    {action: auth.Read},
	"/clary.v1.Nodes/Get":     {action: auth.Read},
	"/clary.v1.Admin/WhoAmI":  {action: auth.RenewOwn},
	"/clary.v1.Admin/Info":    {action: auth.Read},
	"/clary.v1.Objects/Get":   {action: auth.Read},
	"/clary.v1.Objects/List":  {action: auth.Read},
	"/clary.v1.Objects/Stat":  {action: auth.Read},

	"/clary.v1.Jobs/Submit":         {action: auth.Submit},
	"/clary.v1.Objects/Put":         {action: auth.Submit},
	"/clary.v1.Objects/Delete":      {action: auth.Submit, frees: true},
	"/clary.v1.Objects/Credentials": {action: auth.Submit, frees: true},

	"/clary.v1.Hands/Exec":    {action: auth.UseHands},
	"/clary.v1.Hands/Forward": {action: auth.UseHands},
	"/clary.v1.Hands/Audit":   {action: auth.Audit},

	"/clary.v1.Secrets/List":   {action: auth.Read},
	"/clary.v1.Secrets/Set":    {action: auth.KeepSecrets},
	"/clary.v1.Secrets/Delete": {action: auth.KeepSecrets, frees: true},

	"/clary.v1.Queues/List": {action: auth.Read},
	"/clary.v1.Queues/Edit": {action: auth.ManageQueues},

	"/clary.v1.Settings/Get":   {action: auth.Read},
	"/clary.v1.Settings/Edit":  {action: auth.ManageSettings},
	"/clary.v1.Settings/Sweep": {action: auth.ManageSettings},

	"/clary.v1.Sweeps/Get":      {action: auth.Read},
	"/clary.v1.Sweeps/Watch":    {action: auth.Read, follows: true},
	"/clary.v1.Sweeps/Trials":   {action: auth.Read},
	"/clary.v1.Sweeps/Control":  {action: auth.ControlOwn, frees: true},
	"/clary.v1.Sweeps/AddTrial": {action: auth.ControlOwn},
	"/clary.v1.Sweeps/Ask":      {action: auth.ControlOwn, often: true},
	"/clary.v1.Sweeps/Report":   {action: auth.ControlOwn, often: true, frees: true},
	"/clary.v1.Sweeps/Tell":     {action: auth.ControlOwn, often: true, frees: true},

	"/clary.v1.Models/Get":      {action: auth.Read},
	"/clary.v1.Models/List":     {action: auth.Read},
	"/clary.v1.Models/Versions": {action: auth.Read},
	"/clary.v1.Models/Version":  {action: auth.Read},
	"/clary.v1.Models/Register": {action: auth.Submit},
	"/clary.v1.Models/Evaluate": {action: auth.Submit},
	"/clary.v1.Models/Approve":  {action: auth.ControlOwn},
	"/clary.v1.Models/Alias":    {action: auth.ControlOwn},
	"/clary.v1.Models/Delete":   {action: auth.ControlOwn, frees: true},

	"/clary.v1.Endpoints/Get":        {action: auth.Read},
	"/clary.v1.Endpoints/List":       {action: auth.Read},
	"/clary.v1.Endpoints/Watch":      {action: auth.Read, follows: true},
	"/clary.v1.Endpoints/Routers":    {action: auth.Invoke},
	"/clary.v1.Endpoints/Update":     {action: auth.ControlOwn},
	"/clary.v1.Endpoints/Weights":    {action: auth.ControlOwn, frees: true},
	"/clary.v1.Endpoints/Scale":      {action: auth.ControlOwn, frees: true},
	"/clary.v1.Endpoints/Rollback":   {action: auth.ControlOwn, frees: true},
	"/clary.v1.Endpoints/Experiment": {action: auth.ControlOwn},

	"/clary.v1.Jobs/Cancel":  {action: auth.ControlOwn, frees: true},
	"/clary.v1.Jobs/Release": {action: auth.ControlOwn},
	"/clary.v1.Jobs/Delete":  {action: auth.ControlOwn, frees: true},

	"/clary.v1.Nodes/Drain":  {action: auth.ManageNodes},
	"/clary.v1.Nodes/Resume": {action: auth.ManageNodes},
	"/clary.v1.Nodes/Remove": {action: auth.ManageNodes},
	"/clary.v1.Nodes/Taint":  {action: auth.ManageNodes},

	"/clary.v1.Admin/CreateToken": {action: auth.ManageTokens},
	"/clary.v1.Admin/ListTokens":  {action: auth.ManageTokens},
	"/clary.v1.Admin/RevokeToken": {action: auth.ManageTokens},
	"/clary.v1.Admin/Decisions":   {action: auth.Audit},

	"/clary.v1.Cluster/Members":  {action: auth.Read},
	"/clary.v1.Cluster/Remove":   {action: auth.Operate},
	"/clary.v1.Cluster/Transfer": {action: auth.Operate},

	"/clary.v1.Cluster/TakeSnapshot": {action: auth.Operate},
	"/clary.v1.Cluster/Backup":       {action: auth.Operate},
	"/clary.v1.Cluster/ListBackups":  {action: auth.Operate},

	"/clary.v1.AgentLink/Connect":  {node: pki.Agent, follows: true},
	"/clary.v1.AgentLink/SignTask": {node: pki.Agent},
	"/clary.v1.AgentLink/Secrets":  {node: pki.Agent},
	"/clary.v1.AgentLink/Renew":    {node: pki.Agent},

	"/clary.v1.Routes/Follow": {node: pki.Agent, follows: true},
	"/clary.v1.Routes/Report": {node: pki.Agent},

	"/clary.v1.Peer/Reports":   {node: pki.Coordinator},
	"/clary.v1.Peer/Propose":   {node: pki.Coordinator},
	"/clary.v1.Peer/ReadIndex": {node: pki.Coordinator},
	"/clary.v1.Peer/Beats":     {node: pki.Coordinator},
	"/clary.v1.Peer/AddMember": {node: pki.Coordinator},
	"/clary.v1.Peer/Standing":  {node: pki.Coordinator},

	"/clary.v1.Peer/StageKeyring": {node: pki.Coordinator},
	"/clary.v1.Peer/FetchKeyring": {node: pki.Coordinator},
	"/clary.v1.Peer/KeyStatus":    {node: pki.Coordinator},

	"/clary.v1.Debug/Profile": {action: auth.Operate},

	"/clary.v1.Keys/Show":        {action: auth.Operate},
	"/clary.v1.Keys/Rotate":      {action: auth.Operate},
	"/clary.v1.Keys/Revoke":      {action: auth.ManageNodes},
	"/clary.v1.Keys/RotateToken": {action: auth.RenewOwn}, // others' are looked at again
}

// admit returns the context with the caller's identity in it, if that is known, and why the caller may not.
func (g *Guard) admit(ctx context.Context, method string) (context.Context, error) {
	need, known := needs[method]
	switch {
	case !known:
		return ctx, fault.New(fault.Denied, "method %s is open to nobody", method)
	case need.node != "":
		return g.admitNode(ctx, method, need.node)
	case need.action == "":
		return ctx, nil
	}
	who, err := g.user(ctx)
	if err != nil {
		return ctx, err
	}
	if who.Ends != 0 {
		_ = grpc.SetHeader(ctx, metadata.Pairs(request.TokenEnds, time.Unix(0, who.Ends).UTC().Format(time.RFC3339))) // a hint, of which nothing depends
	}
	return context.WithValue(ctx, identityKey{}, who), auth.Authorize(who.Role, need.action)
}

func (g *Guard) admitNode(ctx context.Context, method, role string) (context.Context, error) {
	node, state, err := callingNode(ctx)
	if err != nil {
		return ctx, err
	}
	if g.Believes != nil {
		if err := g.Believes(state); err != nil {
			return ctx, err
		}
	}
	ctx = context.WithValue(ctx, identityKey{}, Identity{Name: node.ID, Role: node.Role, Key: pki.PinOf(state.PeerCertificates[0])})
	if node.Role != role {
		return ctx, fault.New(fault.Denied, "method %s is for nodes with the role %s, the certificate says %s", method, role, node.Role)
	}
	if role == pki.Coordinator {
		return ctx, g.sameLife(node.ID, member.CallersLife(ctx))
	}
	return ctx, nil
}

// sameLife refuses a coordinator of another life of the cluster.
func (g *Guard) sameLife(id, life string) error {
	switch {
	case life == g.Life:
		return nil
	case life > g.Life:
		return fault.New(fault.Unready, "this coordinator is of %s, and %s of %s: stop this one and delete its folder", cluster.LifeText(g.Life), id, cluster.LifeText(life))
	}
	return fault.New(fault.Denied, "the cluster was restored from a backup, and coordinator %s is not of %s: delete its data folder, and join it anew with a token from clary cluster add %s",
		id, cluster.LifeText(g.Life), id)
}

// callingNode is who the client's certificate speaks for. TLS has checked that it is
// genuine.
func callingNode(ctx context.Context) (pki.Node, tls.ConnectionState, error) {
	var none tls.ConnectionState
	from, _ := peer.FromContext(ctx)
	if from == nil {
		return pki.Node{}, none, fault.New(fault.Denied, "no connection to identify")
	}
	secured, ok := from.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return pki.Node{}, none, fault.New(fault.Denied, "the connection has no TLS")
	}
	identity, shown, err := pki.PeerIdentity(secured.State)
	if err != nil {
		return pki.Node{}, none, fault.New(fault.Denied, "%w", err)
	}
	node, isNode := identity.(pki.Node)
	if !shown || !isNode {
		return pki.Node{}, none, fault.New(fault.Denied, "a node's certificate is needed: join with clary agent --join ADDRESS --token TOKEN")
	}
	return node, secured.State, nil
}

// user finds the caller's token in the replicated state and checks its secret.
func (g *Guard) user(ctx context.Context) (Identity, error) {
	incoming, _ := metadata.FromIncomingContext(ctx)
	values := incoming.Get("authorization")
	if len(values) != 1 {
		return Identity{}, fault.New(fault.Denied, "no token: run clary login ADDRESS --token-file FILE, or set CLARY_TOKEN")
	}
	return g.holder(ctx, strings.TrimPrefix(values[0], "Bearer "))
}

// Allow refuses a token's holder who may not do something.
func (g *Guard) Allow(ctx context.Context, token string, action auth.Action) error {
	who, err := g.holder(ctx, token)
	if err != nil {
		return err
	}
	return auth.Authorize(who.Role, action)
}

// holder is whose token it is.
func (g *Guard) holder(ctx context.Context, text string) (Identity, error) {
	presented, err := auth.ParseToken(text)
	if err != nil {
		return Identity{}, err
	}
	token, err := g.token(ctx, presented.ID)
	if err != nil {
		return Identity{}, err
	}
	if presented.Kind != cluster.TokenUser {
		return Identity{}, fault.New(fault.Denied, "this is a join token, for machines: a user's token is needed")
	}
	if err := auth.Check(token, presented, g.Now()); err != nil {
		return Identity{}, err
	}
	who := Identity{Name: token.Name, Role: token.Role, TokenID: token.ID}
	if auth.EndsSoon(token, g.Now()) {
		who.Ends = token.Expires
	}
	return who, nil
}

// token finds a token, or the zero token. One that is not there yet, because this
// coordinator is behind the others or has just started, is looked for again where
// nothing is missing, before its holder is told that it is unknown.
func (g *Guard) token(ctx context.Context, id string) (cluster.Token, error) {
	for _, stale := range []bool{true, false} {
		snapshot, err := g.Replica.Read(ctx, stale)
		if err != nil {
			return cluster.Token{}, err
		}
		token, ok := snapshot.Token(id)
		snapshot.Close()
		if ok {
			return token, nil
		}
	}
	return cluster.Token{}, nil
}
