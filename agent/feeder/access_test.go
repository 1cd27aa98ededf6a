package feeder_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clary-ml/clary/agent/feeder"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
)

func TestKeysThatRotateAreReadAgain(t *testing.T) {
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Authorization"), "Credential=new/") {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "<Error><Code>AccessDenied</Code></Error>")
			return
		}
		w.Header().Set("ETag", `"e"`)
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2023 15:04:05 GMT")
		_, _ = io.WriteString(w, "hello")
	}))
	defer store.Close()
	path := filepath.Join(t.TempDir(), "objects.json")
	if _, err := feeder.OpenAccess(path); !fault.Is(err, fault.Unready) {
		t.Errorf("before the agent knows a store: %v", err)
	}
	tell := func(key string) {
		t.Helper()
		config := object.Config{Endpoint: strings.TrimPrefix(store.URL, "http://"), AccessKey: key, SecretKey: "secret", Insecure: true}
		if err := feeder.WriteAccess(path, config); err != nil {
			t.Fatal(err)
		}
	}
	tell("old")
	access, err := feeder.OpenAccess(path)
	if err != nil {
		t.Fatal(err)
	}
	read := func() (string, error) {
		body, err := access.OpenRange(t.Context(), "data", staging.Object{Key: "a", ETag: "e", Size: 5}, 0, 5)
		if err != nil {
			return "", err
		}
		defer body.Close() //nolint:errcheck // only read
		text, err := io.ReadAll(body)
		return string(text), err
	}
	if _, err := read(); !fault.Is(err, fault.Denied) {
		t.Errorf("with keys that are no longer good: %v", err)
	}
	tell("new")
	for range 2 {
		if text, err := read(); err != nil || text != "hello" {
			t.Errorf("with the new ones: %q, %v", text, err)
		}
	}
}
