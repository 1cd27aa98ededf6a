// Package invoke asks endpoints for answers over HTTP, as their users do, at whichever router can be
// reached.
//
// A request that no router took is brought to the next one. One that a router may have begun to work on
// is not sent again: only its sender knows whether twice does harm.
package invoke

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/internal/fault"
)

// Headers of a request and of its answer; those of SageMaker where it has one.
const (
	HeaderVariant     = "X-Amzn-SageMaker-Target-Variant"
	HeaderModel       = "X-Amzn-SageMaker-Target-Model"
	HeaderSession     = "X-Amzn-SageMaker-Session-Id"
	HeaderInferenceID = "X-Amzn-SageMaker-Inference-Id"
	HeaderAttributes  = "X-Amzn-SageMaker-Custom-Attributes"
	HeaderInput       = "X-Amzn-SageMaker-InputLocation"
	HeaderOutput      = "X-Amzn-SageMaker-OutputLocation"
	HeaderFailure     = "X-Amzn-SageMaker-FailureLocation"

	HeaderInvoked  = "X-Amzn-Invoked-Production-Variant"
	HeaderAnswered = "X-Clary-Inference-Id"
	HeaderRequest  = "X-Request-Id"
)

// Router is a place to ask at.
type Router struct {
	// URL is https://HOST:PORT; http only on this machine.
	URL string
	// ID is the node that it runs on and whose certificate it shows; any coordinator's if it is empty.
	ID string
	// Ingress says that the node is an agent and no coordinator.
	Ingress bool
}

// Options say where a Caller asks, and as whom.
type Options struct {
	Routers []Router
	CAPin   string // of the cluster
	Token   string // of the user; empty for endpoints that are public
	// Roots vouch for routers that show another certificate than the cluster's; nil are the system's.
	Roots *x509.CertPool
	// Connect is how long a router may take to accept a connection; 0 is three seconds.
	Connect time.Duration
}

// Caller asks. Its methods may be called at the same time.
type Caller struct {
	routers []*place
	token   string
	next    atomic.Uint32
}

type place struct {
	url  *url.URL
	http *http.Client
}

const (
	defaultConnect = 3 * time.Second
	keptIdle       = 256
)

// New checks the options.
func New(o Options) (*Caller, error) {
	c := &Caller{token: o.Token}
	if len(o.Routers) == 0 {
		return nil, fault.New(fault.Unready, "no router is known: start coordinators with --serve-listen, or an agent with --ingress-listen, or name one with --url")
	}
	for _, router := range o.Routers {
		u, err := url.Parse(strings.TrimSuffix(router.URL, "/"))
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return nil, fault.New(fault.Invalid, "router %q is no address: give https://HOST:PORT", router.URL)
		}
		if u.Scheme == "http" && !loopback(u.Hostname()) {
			return nil, fault.New(fault.Invalid, "router %q is on another machine and not encrypted, and a token would be seen: give its https:// address", router.URL)
		}
		c.routers = append(c.routers, &place{u, &http.Client{Transport: transport(o, router, u.Hostname()), CheckRedirect: stay}})
	}
	return c, nil
}

// stay keeps a token from going where an answer says.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func transport(o Options, router Router, host string) *http.Transport {
	expect := pki.ExpectNode(pki.Coordinator)
	if router.ID != "" {
		expect = exactly(router)
	}
	return &http.Transport{
		DialContext:     (&net.Dialer{Timeout: cmp.Or(o.Connect, defaultConnect), KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig: secure(o, expect, host), TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConns: keptIdle, MaxIdleConnsPerHost: keptIdle, IdleConnTimeout: time.Minute, DisableCompression: true,
	}
}

// secure knows a router by the cluster's own certificate, or by one that the public vouches for: an
// administrator may have given it that.
func secure(o Options, expect pki.Expect, host string) *tls.Config {
	c := pki.PinnedAs(o.CAPin, expect, "http/1.1")
	c.MinVersion = tls.VersionTLS12
	pinned := c.VerifyConnection
	c.VerifyConnection = func(state tls.ConnectionState) error {
		err := pinned(state)
		if err == nil || len(state.PeerCertificates) == 0 {
			return err
		}
		between := x509.NewCertPool()
		for _, certificate := range state.PeerCertificates[1:] {
			between.AddCert(certificate)
		}
		if _, public := state.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: host, Roots: o.Roots, Intermediates: between}); public != nil {
			return err
		}
		return nil
	}
	return c
}

// exactly expects the router's own node.
func exactly(router Router) pki.Expect {
	want := pki.Node{Role: pki.Coordinator, ID: router.ID}
	if router.Ingress {
		want.Role = pki.Agent
	}
	return func(id pki.Identity) error {
		if id == want {
			return nil
		}
		return fault.New(fault.Denied, "the router is %s; %s is expected", id.URI(), want.URI())
	}
}

// Request is what is asked of an endpoint.
type Request struct {
	Endpoint    string
	Body        []byte
	ContentType string
	Accept      string

	Variant     string // that is to answer; by weights if it is empty
	Model       string // of many behind one endpoint
	Session     string
	InferenceID string
	Attributes  string // for the model's own use
	// Stream says that the answer comes in pieces, each as soon as the model has made it.
	Stream bool
	// Async has the request answered in the object store. Its input is Body, or the object at Input.
	Async bool
	Input string
}

func (r Request) path() string {
	path := "/endpoints/" + url.PathEscape(r.Endpoint)
	switch {
	case r.Async:
		return path + "/async-invocations"
	case r.Stream:
		return path + "/invocations-response-stream"
	}
	return path + "/invocations"
}

func (r Request) header() http.Header {
	header := http.Header{}
	for _, pair := range [][2]string{
		{"Content-Type", r.ContentType},
		{"Accept", r.Accept},
		{HeaderVariant, r.Variant},
		{HeaderModel, r.Model},
		{HeaderSession, r.Session},
		{HeaderInferenceID, r.InferenceID},
		{HeaderAttributes, r.Attributes},
		{HeaderInput, r.Input},
	} {
		if pair[1] != "" {
			header.Set(pair[0], pair[1])
		}
	}
	return header
}

// Answer is what came back. Its Body is the caller's to read and to close.
type Answer struct {
	Status int
	Header http.Header
	Body   io.ReadCloser
	Router string // URL of the one that answered
}

// Variant is who answered.
func (a Answer) Variant() string { return a.Header.Get(HeaderInvoked) }

// InferenceID names the answer, for a reward.
func (a Answer) InferenceID() string {
	return cmp.Or(a.Header.Get(HeaderAnswered), a.Header.Get(HeaderInferenceID))
}

// Invoke asks an endpoint. What is not answered with success is a *Refused.
func (c *Caller) Invoke(ctx context.Context, r Request) (*Answer, error) {
	return c.post(ctx, r.path(), r.header(), r.Body)
}

// Reward tells how good an answer was, by its inference id.
func (c *Caller) Reward(ctx context.Context, endpoint, inferenceID string, reward float64) error {
	body, err := json.Marshal(map[string]any{"inference_id": inferenceID, "reward": reward})
	if err != nil {
		return fault.New(fault.Invalid, "reward: %v: give a finite number", reward)
	}
	header := http.Header{"Content-Type": {"application/json"}}
	header.Set(HeaderInferenceID, inferenceID)
	answer, err := c.post(ctx, "/endpoints/"+url.PathEscape(endpoint)+"/rewards", header, body)
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

// post sends a request to one router after another until one takes it.
func (c *Caller) post(ctx context.Context, path string, header http.Header, body []byte) (*Answer, error) {
	if c.token != "" {
		header.Set("Authorization", "Bearer "+c.token)
	}
	var errs []error
	first := c.next.Load()
	for i := range uint32(len(c.routers)) {
		at := c.routers[(first+i)%uint32(len(c.routers))]
		connected := false
		traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected = true }})
		request, err := http.NewRequestWithContext(traced, http.MethodPost, at.url.String()+path, bytes.NewReader(body))
		if err != nil {
			return nil, fault.New(fault.Invalid, "%w", err)
		}
		request.Header = header
		response, err := at.http.Do(request)
		switch {
		case err == nil:
			return judge(&Answer{response.StatusCode, response.Header, response.Body, at.url.String()})
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case connected:
			return nil, fault.New(fault.Unready, "%s: the connection ended before an answer: %w: it may have been worked on; send it again if that does no harm", at.url, bare(err))
		}
		errs = append(errs, fault.New(fault.Unready, "%s: %w", at.url, bare(err)))
		c.next.CompareAndSwap(first+i, first+i+1) // later requests begin at the next one too
	}
	return nil, fault.New(fault.Unready, "no router can be reached: %w", errors.Join(errs...))
}

// bare is an error without the address, which is said before it.
func bare(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// Close ends all connections that nothing uses.
func (c *Caller) Close() {
	for _, at := range c.routers {
		at.http.CloseIdleConnections()
	}
}
