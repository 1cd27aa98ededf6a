package rpc_test

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// rotates ends the token that it is called with.
const rotates = "/clary.v1.Keys/RotateToken"

// methods are all methods of all services that the coordinator serves, the one that ends its caller's token last.
func (w *world) methods() []method {
	var found []method
	for service, info := range w.served {
		for _, m := range info.Methods {
			found = append(found, method{"/" + service + "/" + m.Name, m.IsClientStream || m.IsServerStream})
		}
	}
	last := func(m method) int { return strings.Count(m.name, rotates) }
	slices.SortFunc(found, func(a, b method) int { return cmp.Or(last(a)-last(b), strings.Compare(a.name, b.name)) })
	return found
}

type method struct {
	name    string
	streams bool
}

// call calls a method with an empty request.
func call(ctx context.Context, conn *grpc.ClientConn, method string, streams bool) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if !streams {
		return conn.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{})
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		return err
	}
	_ = stream.SendMsg(&emptypb.Empty{})
	_ = stream.CloseSend()
	for err == nil {
		err = stream.RecvMsg(&emptypb.Empty{})
	}
	return err
}

// refused says that the guard has let nobody through, whatever the service would say.
func refused(err error) bool {
	s := status.Convert(err)
	return s.Code() == codes.PermissionDenied || s.Code() == codes.InvalidArgument && strings.Contains(s.Message(), "not a whole token")
}

// least is which users' role a method takes at the least: "" is for the rest of a service's methods.
var least = map[string]map[string]string{
	"Jobs":      {"": cluster.RoleViewer, "Submit": cluster.RoleUser, "Cancel": cluster.RoleUser, "Release": cluster.RoleUser, "Delete": cluster.RoleUser},
	"Metrics":   {"": cluster.RoleViewer},
	"Sweeps":    {"": cluster.RoleUser, "Get": cluster.RoleViewer, "Watch": cluster.RoleViewer, "Trials": cluster.RoleViewer},
	"Objects":   {"": cluster.RoleViewer, "Put": cluster.RoleUser, "Delete": cluster.RoleUser, "Credentials": cluster.RoleUser},
	"Nodes":     {"": cluster.RoleAdmin, "List": cluster.RoleViewer, "Get": cluster.RoleViewer},
	"Admin":     {"": cluster.RoleAdmin, "WhoAmI": cluster.RoleViewer, "Info": cluster.RoleViewer},
	"Cluster":   {"": cluster.RoleAdmin, "Members": cluster.RoleViewer},
	"Keys":      {"": cluster.RoleAdmin, "RotateToken": cluster.RoleViewer},
	"Debug":     {"": cluster.RoleAdmin},
	"Settings":  {"": cluster.RoleAdmin, "Get": cluster.RoleViewer},
	"Queues":    {"": cluster.RoleAdmin, "List": cluster.RoleViewer},
	"Secrets":   {"": cluster.RoleUser, "List": cluster.RoleViewer},
	"Hands":     {"": cluster.RoleUser, "Audit": cluster.RoleAdmin},
	"Models":    {"": cluster.RoleUser, "Get": cluster.RoleViewer, "List": cluster.RoleViewer, "Versions": cluster.RoleViewer, "Version": cluster.RoleViewer},
	"Endpoints": {"": cluster.RoleUser, "Get": cluster.RoleViewer, "List": cluster.RoleViewer, "Watch": cluster.RoleViewer},
}

// mayCall is who may call what.
func mayCall(who, method string) bool {
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/clary.v1."), "/")
	switch service {
	case "AgentLink", "Routes":
		return strings.HasPrefix(who, "agent ")
	case "Peer":
		return strings.HasPrefix(who, "coordinator ")
	}
	ranks := []string{cluster.RoleViewer, cluster.RoleUser, cluster.RoleAdmin}
	role, named := least[service][name]
	if !named {
		role = least[service][""]
	}
	return role != "" && slices.Contains(ranks[slices.Index(ranks, role):], who)
}

func TestEveryMethodIsOpenToWhomItIsMeantForAndToNobodyElse(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.T
		callers := []string{"", cluster.RoleViewer, cluster.RoleUser, cluster.RoleAdmin, "agent n1", "coordinator c2"}
		opened, closed := 0, 0
		for _, who := range callers {
			conn := w.as(who)
			for _, m := range w.methods() {
				method := m.name
				err := call(t.Context(), conn, method, m.streams)
				if method == "/clary.v1.Admin/Join" {
					if status.Code(err) != codes.InvalidArgument { // an empty request, but heard
						t.Errorf("%q calls %s: %v", who, method, err)
					}
					continue
				}
				if strings.Contains(status.Convert(err).Message(), "open to nobody") {
					t.Errorf("%s is missing in the table of needs", method)
				}
				switch may := mayCall(who, method); {
				case may && guarded(err):
					t.Errorf("%q may call %s, and is told %v", who, method, err)
				case !may && !refused(err):
					t.Errorf("%q must not call %s, and is told %v", who, method, err)
				case may:
					opened++
				default:
					closed++
				}
			}
		}
		for service := range w.served {
			if name := strings.TrimPrefix(service, "clary.v1."); least[name] == nil && name != "AgentLink" && name != "Peer" && name != "Routes" {
				t.Errorf("who may call the methods of %s?", service)
			}
		}
		if len(w.methods()) < 80 || opened < 100 || closed < 300 {
			t.Errorf("%d methods, %d times open, %d times closed", len(w.methods()), opened, closed)
		}
	})
}

// guarded tells the guard's refusals from those of the services behind it.
func guarded(err error) bool {
	message := status.Convert(err).Message()
	for _, text := range []string{"no token", "it takes the role", "a node's certificate is needed", "is for nodes with the role", "the token"} {
		if refused(err) && strings.Contains(message, text) {
			return true
		}
	}
	return false
}

func TestATokenThatIsNotGoodOpensNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.T
		revoked, old := w.user("eve", cluster.RoleAdmin), w.user("old", cluster.RoleAdmin)
		change := func(secret string, edit func(*cluster.Token)) {
			presented, err := auth.ParseToken(secret)
			if err != nil {
				t.Fatal(err)
			}
			snapshot, err := w.replica.Read(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			token, _ := snapshot.Token(presented.ID)
			snapshot.Close()
			edit(&token)
			w.propose(command.Record{Changes: []command.Change{{Expect: token.Revision, Token: &token}}})
		}
		change(revoked, func(token *cluster.Token) { token.Revoked = true })
		expiring, text, err := auth.NewUserToken("fleeting", cluster.RoleAdmin, time.Second, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		w.propose(command.Record{Changes: []command.Change{{Token: &expiring}}})
		_, join, err := auth.NewJoinToken(cluster.RoleAgent, w.ca.Pin(), time.Hour, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		_, unknown, err := auth.NewUserToken("ghost", cluster.RoleAdmin, 0, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		parts := strings.Split(old, "_")
		wrong := strings.Join(append(parts[:3:3], strings.Repeat("0", len(parts[3]))), "_")
		for _, c := range []struct{ name, token, want string }{
			{"revoked", revoked, "revoked"},
			{"expired", text, "expired"},
			{"unknown", unknown, "not known here"},
			{"a right id with a wrong secret", wrong, "not known here"},
			{"a join token", join, "join token"},
			{"rubbish", "hello", "not a whole token"},
		} {
			_, err := claryv1.NewAdminClient(w.as(c.token)).WhoAmI(t.Context(), &claryv1.WhoAmIRequest{})
			if !refused(err) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), c.token) {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		me, err := claryv1.NewAdminClient(w.as(old)).WhoAmI(t.Context(), &claryv1.WhoAmIRequest{})
		if err != nil || me.GetName() != "old" || me.GetRole() != cluster.RoleAdmin {
			t.Errorf("%v, %v", me, err)
		}
	})
}

func TestADefectInAServiceIsAnErrorOfOneRequest(t *testing.T) {
	inWorld(t, func(w *world) {
		objects := claryv1.NewObjectsClient(w.as(cluster.RoleUser))
		w.defect = true
		_, err := objects.Credentials(w.Context(), &claryv1.CredentialsRequest{})
		if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "Objects/Credentials failed by a defect") {
			w.Errorf("error %v", err)
		}
		w.defect = false
		if _, err := objects.Credentials(w.Context(), &claryv1.CredentialsRequest{}); err != nil {
			w.Errorf("the next request: %v", err)
		}
	})
}
