package container_test

import (
	"io"
	"log"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	driver "github.com/clary-ml/clary/agent/runtime/container"
	"github.com/clary-ml/clary/agent/runtime/container/enginetest"
)

var quiet = log.New(io.Discard, "", 0)

// registryIn serves a registry to the engine.
func registryIn(t *testing.T, e *enginetest.Engine, handler http.Handler) string {
	t.Helper()
	listener := e.Listen()
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close(); <-served })
	return listener.Addr().String()
}

func push(t *testing.T, e *enginetest.Engine, to string, image v1.Image, options ...remote.Option) {
	t.Helper()
	reference, err := name.ParseReference(to, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(reference, image, append(options, remote.WithTransport(&http.Transport{DialContext: e.Dial}))...); err != nil {
		t.Fatal(err)
	}
}

// keychain has one registry's credentials.
type keychain struct {
	registry string
	known    authn.Authenticator
}

func (k keychain) Resolve(of authn.Resource) (authn.Authenticator, error) {
	if of.RegistryStr() == k.registry {
		return k.known, nil
	}
	return authn.Anonymous, nil
}

func credentials(t *testing.T, e *enginetest.Engine) {
	open := registry.New(registry.Logger(quiet))
	host := registryIn(t, e, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "puller" || password != "open sesame" {
			w.Header().Set("WWW-Authenticate", `Basic realm="tests"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}`, http.StatusUnauthorized)
			return
		}
		open.ServeHTTP(w, r)
	}))
	known := &authn.Basic{Username: "puller", Password: "open sesame"}
	push(t, e, host+"/team/private:1", busybox(t, "private"), remote.WithAuth(known))
	b := newBench(t, e)
	b.refuses("job/main/none-0.1", host+"/team/private:1", "cannot be pulled")
	b = newBench(t, e, func(c *driver.Config) {
		c.Credentials = keychain{host, &authn.Basic{Username: "puller", Password: "wrong"}}
	})
	b.refuses("job/main/wrong-0.1", host+"/team/private:1", "cannot be pulled")
	b = newBench(t, e, func(c *driver.Config) { c.Credentials = keychain{host, known} })
	b.must("job/main/right-0.1", host+"/team/private:1")
}

func pulls(t *testing.T, e *enginetest.Engine) {
	host := registryIn(t, e, registry.New(registry.Logger(quiet)))
	pushed := busybox(t, "pushed")
	push(t, e, host+"/team/tool:1", pushed)
	digest, err := pushed.Digest()
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, e, func(c *driver.Config) { c.Mirrors = map[string]string{"registry.example": host} })
	b.must("job/main/digest-0.1", host+"/team/tool@"+digest.String())
	b.must("job/main/tag-0.1", host+"/team/tool:1")
	b.must("job/main/mirror-0.1", "registry.example/team/tool:1")
	b.refuses("job/main/wrong-0.1", host+"/team/tool@sha256:"+strings.Repeat("0", 64), "cannot be pulled")
	b.refuses("job/main/wrong-0.1", host+"/team/tool:2", "cannot be pulled")
}
