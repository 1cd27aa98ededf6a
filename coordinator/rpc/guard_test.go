package rpc_test

import (
	"context"
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

// methods are all methods of all services that coordinators serve.
func methods() map[string]bool {
	found := map[string]bool{} // name → streams
	for _, service := range []grpc.ServiceDesc{
		claryv1.Jobs_ServiceDesc, claryv1.Nodes_ServiceDesc, claryv1.Objects_ServiceDesc,
		claryv1.Sweeps_ServiceDesc, claryv1.Admin_ServiceDesc, claryv1.AgentLink_ServiceDesc, claryv1.Peer_ServiceDesc, claryv1.Cluster_ServiceDesc,
	} {
		for _, method := range service.Methods {
			found["/"+service.ServiceName+"/"+method.MethodName] = false
		}
		for _, stream := range service.Streams {
			found["/"+service.ServiceName+"/"+stream.StreamName] = true
		}
	}
	return found
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

// wants is who may call what; the rest of a service's methods are for its last row.
func mayCall(who, method string) bool {
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/clary.v1."), "/")
	least := map[string]int{cluster.RoleViewer: 1, cluster.RoleUser: 2, cluster.RoleAdmin: 3}[who]
	switch service {
	case "AgentLink":
		return strings.HasPrefix(who, "agent ")
	case "Peer":
		return strings.HasPrefix(who, "coordinator ")
	case "Cluster":
		return least >= 3 || least >= 1 && name == "Members"
	case "Jobs":
		switch name {
		case "Submit", "Cancel", "Release", "Delete":
			return least >= 2
		}
		return least >= 1
	case "Sweeps":
		switch name {
		case "Get", "Watch", "Trials":
			return least >= 1
		}
		return least >= 2
	case "Objects":
		switch name {
		case "Put", "Delete", "Credentials":
			return least >= 2
		}
		return least >= 1
	case "Nodes":
		return least >= 3 || least >= 1 && (name == "List" || name == "Get")
	case "Admin":
		return name == "Join" || least >= 3 || least >= 1 && (name == "WhoAmI" || name == "Info")
	}
	return false
}

func TestEveryMethodIsOpenToWhomItIsMeantForAndToNobodyElse(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.T
		callers := []string{"", cluster.RoleViewer, cluster.RoleUser, cluster.RoleAdmin, "agent n1", "coordinator c2"}
		opened, closed := 0, 0
		for _, who := range callers {
			conn := w.as(who)
			for method, streams := range methods() {
				err := call(t.Context(), conn, method, streams)
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
		if len(methods()) < 30 || opened < 40 || closed < 60 {
			t.Errorf("%d methods, %d times open, %d times closed", len(methods()), opened, closed)
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
