package object_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
)

func TestAClockThatIsWrongIsSaidAndNotADenial(t *testing.T) {
	for skew, want := range map[time.Duration]fault.Kind{time.Hour: fault.Unready, -time.Hour: fault.Unready, time.Minute: fault.Denied} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(skew).UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusForbidden)
		}))
		store, err := object.Open(object.Config{Endpoint: strings.TrimPrefix(server.URL, "http://"), Region: "us-east-1", AccessKey: "key", SecretKey: "secret", Insecure: true})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		_, err = store.Stat(ctx, object.URI{Bucket: "data", Key: "a"})
		if !fault.Is(err, want) || want == fault.Unready && !strings.Contains(err.Error(), "set the one that is wrong") {
			t.Errorf("%s apart: %v, %v", skew, fault.KindOf(err), err)
		}
		cancel()
		server.Close()
	}
}

func TestAFullStoreIsSaidWithTheRemedy(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInsufficientStorage)
		fmt.Fprint(w, "<Error><Code>InsufficientStorage</Code><Message>No space left on device.</Message></Error>")
	}))
	defer server.Close()
	store, err := object.Open(object.Config{Endpoint: strings.TrimPrefix(server.URL, "http://"), Region: "us-east-1", AccessKey: "key", SecretKey: "secret", Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.Put(t.Context(), object.URI{Bucket: "data", Key: "a"}, strings.NewReader("x"), 1)
	if !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "s3://data/a") || !strings.Contains(err.Error(), "is full: delete objects") {
		t.Errorf("%v", err)
	}
}

// A name that begins as another does, and goes on with what comes before a slash, comes before the other.
func TestFoldersAreGoneThroughPageByPageAndNoneIsLeftOut(t *testing.T) {
	all := []string{"jobs/a-b/", "jobs/a-c/", "jobs/a/", "jobs/a0/", "jobs/b/"}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "<ListBucketResult>")
		for _, folder := range all {
			if folder >= r.URL.Query().Get("start-after") { // as of a store that tells of the one that is named, too
				fmt.Fprintf(w, "<CommonPrefixes><Prefix>%s</Prefix></CommonPrefixes>", folder)
			}
		}
		fmt.Fprint(w, "</ListBucketResult>")
	}))
	defer server.Close()
	store, err := object.Open(object.Config{Endpoint: strings.TrimPrefix(server.URL, "http://"), Region: "us-east-1", AccessKey: "key", SecretKey: "secret", Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	for most := 1; most <= len(all)+1; most++ {
		var names []string
		for after := ""; ; after = names[len(names)-1] {
			page, err := store.Folders(t.Context(), object.URI{Bucket: "clary", Key: "jobs/"}, after, most)
			if err != nil {
				t.Fatal(err)
			}
			if names = append(names, page...); len(page) < most {
				break
			}
		}
		if got := "jobs/" + strings.Join(names, "/ jobs/") + "/"; got != strings.Join(all, " ") {
			t.Errorf("%d at a time: %s", most, got)
		}
	}
}
