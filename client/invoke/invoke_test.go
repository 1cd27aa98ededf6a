package invoke_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/client/invoke"
	"github.com/clary-ml/clary/internal/fault"
)

// ca is a cluster's authority, and nodes its routers.
type ca struct {
	t         *testing.T
	authority *pki.Authority
}

func newCA(t *testing.T) ca {
	t.Helper()
	authority, err := pki.NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca{t, authority}
}

// router serves as a node does, and returns its address.
func (c ca) router(node pki.Node, handler http.HandlerFunc) string {
	c.t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		c.t.Fatal(err)
	}
	cert, err := c.authority.Issue(&key.PublicKey, pki.Request{Identity: node, Validity: time.Hour}, time.Now())
	if err != nil {
		c.t.Fatal(err)
	}
	keyPEM, err := pki.KeyPEM(key)
	if err != nil {
		c.t.Fatal(err)
	}
	shown, err := pki.ParseCredentials(cert, keyPEM, c.authority.CertPEM())
	if err != nil {
		c.t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.Listener = tls.NewListener(server.Listener, pki.ServerTLS(shown.Static(), "http/1.1"))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that a client ends
	server.Start()
	c.t.Cleanup(server.Close)
	return "https://" + server.Listener.Addr().String()
}

func (c ca) caller(routers ...invoke.Router) *invoke.Caller {
	c.t.Helper()
	caller, err := invoke.New(invoke.Options{Routers: routers, CAPin: c.authority.Pin(), Token: "clary_u_a_secret"})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(caller.Close)
	return caller
}

var coordinator = pki.Node{Role: pki.Coordinator, ID: "c1"}

// nobody is an address where nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return "https://" + listener.Addr().String()
}

func TestARequestIsWhatSageMakersClientsSend(t *testing.T) {
	c := newCA(t)
	var got *http.Request
	var body string
	url := c.router(coordinator, func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		got, body = r, string(text)
		w.Header().Set(invoke.HeaderInvoked, "blue")
		w.Header().Set(invoke.HeaderAnswered, "id-1")
		_, _ = io.WriteString(w, "4\n")
	})
	caller := c.caller(invoke.Router{URL: url})
	answer, err := caller.Invoke(t.Context(), invoke.Request{
		Endpoint: "churn", Body: []byte("1,2\n"), ContentType: "text/csv", Accept: "application/json",
		Variant: "blue", Model: "m.tar.gz", Session: "s", InferenceID: "i", Attributes: "a=b",
	})
	if err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(answer.Body)
	if err != nil || string(said) != "4\n" || answer.Variant() != "blue" || answer.InferenceID() != "id-1" || answer.Router != url {
		t.Errorf("%q, %v: %+v", said, err, answer)
	}
	if got.Method != http.MethodPost || got.URL.Path != "/endpoints/churn/invocations" || body != "1,2\n" {
		t.Errorf("%s %s %q", got.Method, got.URL, body)
	}
	for name, want := range map[string]string{
		"Authorization": "Bearer clary_u_a_secret", "Content-Type": "text/csv", "Accept": "application/json", "X-Amzn-SageMaker-Target-Variant": "blue",
		"X-Amzn-SageMaker-Target-Model": "m.tar.gz", "X-Amzn-SageMaker-Session-Id": "s", "X-Amzn-SageMaker-Inference-Id": "i", "X-Amzn-SageMaker-Custom-Attributes": "a=b",
	} {
		if got.Header.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, got.Header.Get(name), want)
		}
	}
	for path, request := range map[string]invoke.Request{
		"/endpoints/churn/invocations-response-stream": {Endpoint: "churn", Stream: true},
		"/endpoints/churn/async-invocations":           {Endpoint: "churn", Async: true, Input: "s3://bucket/in"},
	} {
		answer, err := caller.Invoke(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if got.URL.Path != path || got.Header.Get(invoke.HeaderInput) != request.Input {
			t.Errorf("%s, want %s", got.URL.Path, path)
		}
	}
	if err := caller.Reward(t.Context(), "churn", "i", 0.5); err != nil || got.URL.Path != "/endpoints/churn/rewards" || body != `{"inference_id":"i","reward":0.5}` {
		t.Errorf("%v: %s %s", err, got.URL.Path, body)
	}
}

func TestWhatNoRouterTookIsBroughtToTheNext(t *testing.T) {
	c := newCA(t)
	asked := 0
	url := c.router(coordinator, func(http.ResponseWriter, *http.Request) { asked++ })
	stranger := newCA(t).router(coordinator, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("a stranger got %v", r.Header) })
	caller := c.caller(invoke.Router{URL: nobody(t)}, invoke.Router{URL: stranger}, invoke.Router{URL: url, ID: "c1"})
	for range 2 {
		answer, err := caller.Invoke(t.Context(), invoke.Request{Endpoint: "churn"})
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
	}
	if asked != 2 {
		t.Errorf("%d of 2 came", asked)
	}
	_, err := c.caller(invoke.Router{URL: nobody(t)}, invoke.Router{URL: stranger}).Invoke(t.Context(), invoke.Request{Endpoint: "churn"})
	if !fault.Is(err, fault.Unready) || !strings.Contains(err.Error(), "refused") || !strings.Contains(err.Error(), "another CA") {
		t.Error(err)
	}
}

func TestWhatARouterMayHaveTakenIsNotSentAgain(t *testing.T) {
	c := newCA(t)
	var asked atomic.Int32
	cut := func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		connection, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		connection.Close()
	}
	caller := c.caller(invoke.Router{URL: c.router(coordinator, cut)}, invoke.Router{URL: c.router(coordinator, cut)})
	_, err := caller.Invoke(t.Context(), invoke.Request{Endpoint: "churn"})
	if !fault.Is(err, fault.Unready) || !strings.Contains(err.Error(), "may have been worked on") || asked.Load() != 1 {
		t.Errorf("%v after %d requests", err, asked.Load())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := caller.Invoke(ctx, invoke.Request{Endpoint: "churn"}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestARouterIsTheNodeThatItIsSaidToBe(t *testing.T) {
	c := newCA(t)
	serve := func(http.ResponseWriter, *http.Request) {}
	agent := c.router(pki.Node{Role: pki.Agent, ID: "n1"}, serve)
	for _, row := range []struct {
		router invoke.Router
		right  bool
	}{
		{invoke.Router{URL: agent, ID: "n1", Ingress: true}, true},
		{invoke.Router{URL: agent, ID: "n2", Ingress: true}, false},
		{invoke.Router{URL: agent, ID: "n1"}, false},
		{invoke.Router{URL: agent}, false},
	} {
		answer, err := c.caller(row.router).Invoke(t.Context(), invoke.Request{Endpoint: "churn"})
		if (err == nil) != row.right {
			t.Errorf("%+v: %v", row.router, err)
		}
		if err == nil {
			answer.Body.Close()
		}
	}
}

func TestARouterWithACertificateOfThePublicIsKnownByItsName(t *testing.T) {
	public := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer public.Close()
	public.Config.ErrorLog = log.New(io.Discard, "", 0)
	roots := x509.NewCertPool()
	roots.AddCert(public.Certificate())
	c := newCA(t)
	for _, row := range []struct {
		url   string
		roots *x509.CertPool
		right bool
	}{
		{public.URL, roots, true},
		{strings.Replace(public.URL, "127.0.0.1", "127.0.0.2", 1), roots, false}, // its certificate is for another address
		{public.URL, x509.NewCertPool(), false},
	} {
		caller, err := invoke.New(invoke.Options{Routers: []invoke.Router{{URL: row.url, ID: "c1"}}, CAPin: c.authority.Pin(), Roots: row.roots})
		if err != nil {
			t.Fatal(err)
		}
		answer, err := caller.Invoke(t.Context(), invoke.Request{Endpoint: "churn"})
		if (err == nil) != row.right {
			t.Errorf("%s: %v", row.url, err)
		}
		if err == nil {
			answer.Body.Close()
		}
		caller.Close()
	}
}

func TestARefusalSaysWhatTheRouterSaid(t *testing.T) {
	c := newCA(t)
	var status int
	var said string
	url := c.router(coordinator, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(invoke.HeaderRequest, "r7")
		w.Header().Set("Retry-After", "2")
		w.Header().Set("Location", "https://elsewhere.example/")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, said)
	})
	for _, row := range []struct {
		status    int
		said      string
		kind      fault.Kind
		text      string
		temporary bool
	}{
		{429, `{"error":"the queue is full"}`, fault.Exhausted, "429 Too Many Requests: the queue is full (again after 2 s) (request r7)", true},
		{503, "cold\n", fault.Unready, "503 Service Unavailable: cold (again after 2 s) (request r7)", true},
		{404, `{"message":"no such endpoint"}`, fault.NotFound, "404 Not Found: no such endpoint", false},
		{400, `{"error":{"code":3}}`, fault.Invalid, `{"code":3}`, false},
		{401, "", fault.Denied, "401 Unauthorized", false},
		{413, "", fault.Invalid, "413 ", false},
		{500, "\xff\xfe", fault.Internal, "2 bytes that are no text", false},
		{302, "", fault.Invalid, "302 Found", false},
	} {
		status, said = row.status, row.said
		_, err := c.caller(invoke.Router{URL: url}).Invoke(t.Context(), invoke.Request{Endpoint: "churn"})
		refused, ok := errors.AsType[*invoke.Refused](err)
		if !ok || fault.KindOf(err) != row.kind || !strings.Contains(err.Error(), row.text) || refused.Temporary() != row.temporary || refused.Status != row.status {
			t.Errorf("%d: %v (%v)", row.status, err, fault.KindOf(err))
		}
	}
}

func TestATokenGoesNowhereInTheClear(t *testing.T) {
	for url, want := range map[string]string{
		"http://10.0.0.1:80": "not encrypted", "ftp://10.0.0.1": "no address", "10.0.0.1:80": "no address", "https://": "no address",
	} {
		_, err := invoke.New(invoke.Options{Routers: []invoke.Router{{URL: url}}})
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", url, err)
		}
	}
	if _, err := invoke.New(invoke.Options{}); !fault.Is(err, fault.Unready) {
		t.Error(err)
	}
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer plain.Close()
	answer, err := newCA(t).caller(invoke.Router{URL: plain.URL}).Invoke(t.Context(), invoke.Request{Endpoint: "churn"})
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
}
