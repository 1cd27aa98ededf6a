package ingress_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clary-ml/clary/serving/ingress"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/storage/object"
)

// empty is an S3 store that has no bucket yet.
type empty struct {
	mu      sync.Mutex
	buckets map[string]bool
	puts    []string // objects that were taken
}

func (e *empty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case r.Method == http.MethodPut && key == "":
		e.buckets[bucket] = true
	case !e.buckets[bucket]:
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "<Error><Code>NoSuchBucket</Code></Error>")
	case r.Method == http.MethodPut:
		e.puts = append(e.puts, bucket+"/"+key)
		w.Header().Set("ETag", `"e"`)
	}
}

func TestTheFirstAsynchronousRequestOfAClusterIsTaken(t *testing.T) {
	s3 := &empty{buckets: map[string]bool{}}
	stored := httptest.NewServer(s3)
	defer stored.Close()
	client, err := object.Open(object.Config{Endpoint: stored.Listener.Addr().String(), AccessKey: "a", SecretKey: "secret-secret", Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	tables := make(chan route.Table)
	from, _ := source(t)
	s := open(t, ingress.Front{Listen: "127.0.0.1:0", Plaintext: true}, from, func(c *ingress.ServerConfig) {
		c.Routes = &coordinators{tables: tables}
		c.Store = func(context.Context) (*object.Client, error) { return client, nil }
	})
	tables <- route.Table{Version: 1, Endpoints: []route.Endpoint{{
		Name: "e", Public: true, Async: &route.Async{To: "s3://clary/answers"}, Fleets: []route.Fleet{{Variant: "v", Weight: 1, Cold: true}},
	}}}
	var answer *http.Response
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) { // until the table is in force
		if answer, err = http.Post(s.URL()+"/endpoints/e/async-invocations", "text/csv", strings.NewReader("rows")); err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusNotFound && answer.StatusCode != http.StatusUnauthorized {
			break
		}
	}
	if answer.StatusCode != http.StatusAccepted || len(s3.puts) != 2 {
		t.Errorf("it is answered %s; in the store are %v", answer.Status, s3.puts)
	}
}
