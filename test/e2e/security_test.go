package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/storage/object"
	"github.com/clary-ml/clary/test/testbed"
)

// refuses expects a command to fail and to say all of this.
func (m *machines) refuses(env []string, args []string, says ...string) {
	m.T.Helper()
	out, err := m.As(env, args...)
	if err == nil {
		m.T.Errorf("clary %s was accepted: %s", strings.Join(args, " "), out)
		return
	}
	for _, text := range says {
		if !strings.Contains(out, text) {
			m.T.Errorf("clary %s: %q does not say %q", strings.Join(args, " "), out, text)
		}
	}
}

// joining are the arguments of an agent that joins by itself.
func (m *machines) joining(name, token string) []string {
	return []string{
		"agent", "--id", name, "--data", m.Path(name), "--address", "127.0.0.1", "--listen", testbed.FreeAddress(m.T), "--gossip", testbed.FreeAddress(m.T),
		"--ports", "20000-20009", "--join", m.Address["s1"], "--token", token,
	}
}

func TestOnlyMachinesWithATokenOfTheirOwnJoin(t *testing.T) {
	m := start(t, 1, 0)
	good := m.Token("agent")
	secret := strings.Split(good, "_")
	secret[3] = strings.Repeat("0", len(secret[3]))
	var short struct{ Secret string }
	m.JSON(&short, "token", "create", "--join", "agent", "--ttl", "1s", "-o", "json")

	m.refuses(nil, m.joining("wrong", strings.Join(secret, "_")), "the token is not known here", "ask an admin")
	m.refuses(nil, m.joining("rubbish", "let-me-in"), "not a whole token")
	m.refuses(nil, m.joining("none", ""), "--token", "clary token create --join agent")
	time.Sleep(1100 * time.Millisecond) // what is tested is the clock
	m.refuses(nil, m.joining("late", short.Secret), "the token has expired", "ask an admin")
	m.refuses(nil, m.joining("chief", m.Token("coordinator")), "joining as coordinator, not as agent")

	// A start that is cut off and tried again is the same machine.
	first := m.joining("n1", good)
	m.Expect("n1", m.Path("n1"))
	m.Run("n1", first...)
	m.WaitFor("the agent", 20*time.Second, func() bool { return m.Ready() == 1 })
	m.Kill("n1")
	if err := os.Remove(filepath.Join(m.Path("n1"), "member.json")); err != nil {
		t.Fatal(err)
	}
	m.Again("n1")
	m.WaitFor("the agent's second joining", 20*time.Second, func() bool {
		_, err := os.Stat(filepath.Join(m.Path("n1"), "member.json"))
		return err == nil && m.Ready() == 1
	})
	m.refuses(nil, m.joining("thief", good), "the token was already used by another machine")
	if nodes := m.Clary("nodes", "-o", "json"); strings.Count(nodes, `"id"`) != 1 {
		t.Errorf("who was refused is a node: %s", nodes)
	}
}

func TestStrangersAreRefusedWithTheReason(t *testing.T) {
	m, other := start(t, 1, 1), start(t, 1, 1)
	address := m.Address["s1"]

	// An agent of another cluster, pointed here by its notes.
	other.End("n1")
	notes, err := os.ReadFile(filepath.Join(other.Path("n1"), "member.json"))
	if err != nil {
		t.Fatal(err)
	}
	moved := strings.ReplaceAll(string(notes), other.Address["s1"], address)
	if err := os.WriteFile(filepath.Join(other.Path("n1"), "member.json"), []byte(moved), 0o600); err != nil {
		t.Fatal(err)
	}
	other.Kill("s1") // whom its gossip would find
	other.Again("n1")
	other.WaitFor("the agent's complaint", 20*time.Second, func() bool { return logged(other, "n1", "the server's certificate comes from another CA") })
	if m.Ready() != 1 {
		t.Error("it is a node here")
	}

	// A client certificate of another CA, which does not mind whom it speaks to.
	strange, err := pki.LoadCredentials(filepath.Join(other.Path("n1"), "tls"))
	if err != nil {
		t.Fatal(err)
	}
	if err := hello(address, tlsWith(strange)); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("another CA's certificate: %v", err)
	}
	m.WaitFor("the coordinator's word on it", 10*time.Second, func() bool {
		return logged(m, "s1", "refused a connection") && logged(m, "s1", "unknown authority")
	})
	if err := hello(address, credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})); err == nil || !strings.Contains(err.Error(), "certificate is needed") {
		t.Errorf("no certificate: %v", err)
	}
	ours, err := pki.LoadCredentials(filepath.Join(m.Path("s1"), "tls"))
	if err != nil {
		t.Fatal(err)
	}
	if err := hello(address, tlsWith(ours)); err == nil || !strings.Contains(err.Error(), "for nodes with the role agent") {
		t.Errorf("a coordinator as an agent: %v", err)
	}
	if err := hello(address, insecure.NewCredentials()); err == nil {
		t.Error("gRPC without TLS was accepted")
	}
	if answer := plaintext(t, address, "GET / HTTP/1.1\r\nHost: clary\r\n\r\n"); !strings.HasPrefix(answer, "HTTP/1.1 400") || !strings.Contains(answer, "TLS 1.3 only") {
		t.Errorf("HTTP was answered %q", answer)
	}
	m.refuses([]string{"CLARY_CA_PIN=" + other.Context().CAPin}, []string{"jobs"}, "pin")
}

func tlsWith(c pki.Credentials) credentials.TransportCredentials {
	return credentials.NewTLS(&tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{"h2"}, // the server must refuse, not this client
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: [][]byte{c.Cert.Raw}, PrivateKey: c.Key}, nil
		},
	})
}

// hello opens an agent's stream.
func hello(address string, secured credentials.TransportCredentials) error {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(secured))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	stream, err := claryv1.NewAgentLinkClient(conn).Connect(ctx)
	if err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

func plaintext(t *testing.T, address, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

// logged reports whether a process has written a text.
func logged(m *machines, name, text string) bool {
	log, _ := os.ReadFile(m.Path(name) + ".log")
	return strings.Contains(string(log), text)
}

func TestRolesBoundWhatUsersDo(t *testing.T) {
	m := start(t, 1, 0)
	tokens := map[string]string{}
	ids := map[string]string{}
	for name, role := range map[string]string{"ada": "user", "bob": "user", "vic": "viewer"} {
		var made struct{ ID, Secret string }
		m.JSON(&made, "token", "create", name, "--role", role, "-o", "json")
		tokens[name], ids[name] = "CLARY_TOKEN="+made.Secret, made.ID
	}
	ada, bob, vic := []string{tokens["ada"]}, []string{tokens["bob"]}, []string{tokens["vic"]}
	run := []string{"run", "--hold", "--name", "adas", "--", "true"}

	m.refuses(vic, run, "viewer", "it takes the role")
	m.refuses(vic, []string{"cp", "e2e_test.go", "s3://clary/x"}, "viewer")
	if out, err := m.As(ada, run...); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := m.As(vic, "job", "adas"); err != nil {
		t.Errorf("a viewer may look: %v: %s", err, out)
	}
	m.refuses(bob, []string{"cancel", "adas"}, "belongs to ada", "only its owner or an admin")
	m.refuses(bob, []string{"release", "adas"}, "belongs to ada")
	m.refuses(bob, []string{"token", "create", "eve", "--role", "admin"}, "it takes the role")
	m.refuses(bob, []string{"token", "create", "--join", "agent"}, "it takes the role")
	if state := m.Job("adas").State; state != "queued" {
		t.Errorf("it is %s", state)
	}
	if out, err := m.As(ada, "cancel", "adas"); err != nil {
		t.Errorf("its owner may: %v: %s", err, out)
	}
	var keys struct {
		Endpoint  string `json:"endpoint_url"`
		AccessKey string `json:"access_key_id"`
		SecretKey string `json:"secret_access_key"`
	}
	if out, err := m.As(ada, "s3", "-o", "json"); err != nil || json.Unmarshal([]byte(out), &keys) != nil || keys.SecretKey == "" {
		t.Fatalf("her S3 keys: %v: %s", err, out)
	}
	ca, err := os.ReadFile(filepath.Join(m.Path("s1"), "tls", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := object.Open(object.Config{Endpoint: strings.TrimPrefix(keys.Endpoint, "https://"), AccessKey: keys.AccessKey, SecretKey: keys.SecretKey, CA: ca})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.EnsureBucket(t.Context(), "adas"); err != nil {
		t.Errorf("with her S3 keys: %v", err)
	}
	m.Clary("token", "revoke", ids["ada"])
	m.WaitFor("her S3 keys to be refused", 10*time.Second, func() bool {
		_, err := store.List(t.Context(), object.URI{Bucket: "adas"})
		return fault.Is(err, fault.Denied)
	})
	m.refuses(ada, []string{"jobs"}, "the token was revoked", "ask an admin")
	m.refuses([]string{"CLARY_TOKEN=clary_u_rubbish"}, []string{"jobs"}, "not a whole token")
	m.refuses([]string{"CLARY_TOKEN=" + m.Token("agent")}, []string{"jobs"}, "this is a join token")
}
