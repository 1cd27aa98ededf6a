// Package async answers requests that are left in the object store, and leaves the answers there.
//
// A request is acknowledged once its entry is in the endpoint's inbox. A worker reads the inboxes,
// asks, writes the answer or why there is none, and then deletes the entry. An entry is written once
// and never changed, so that the inbox alone says what is left to do: whatever ends at whatever
// point, a request is asked again until its answer is there. It may be asked more than once; its
// answer has one name.
package async

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/storage/object"
)

// Bucket is where inboxes are.
const Bucket = "clary"

// Store is the object store.
type Store interface {
	Put(ctx context.Context, to object.URI, content io.Reader, size int64) (object.Info, error)
	Open(ctx context.Context, from object.URI, offset, length int64) (io.ReadCloser, object.Info, error)
	Stat(ctx context.Context, of object.URI) (object.Info, error)
	List(ctx context.Context, prefix object.URI) ([]object.Info, error)
	Delete(ctx context.Context, at object.URI) error
}

// Endpoint is one that may be asked in this way.
type Endpoint struct {
	Name  string
	Async route.Async
	// Replicas are how many answer now.
	Replicas int
}

// Folder is where everything lies that waits for an endpoint. Whoever deletes an endpoint deletes it.
func Folder(endpoint string) object.URI {
	return object.URI{Bucket: Bucket, Key: "endpoints/" + endpoint + "/async/"}
}

func inbox(endpoint string) object.URI {
	folder := Folder(endpoint)
	folder.Key += "inbox/"
	return folder
}

func inputs(endpoint string) object.URI {
	folder := Folder(endpoint)
	folder.Key += "input/"
	return folder
}

const entrySuffix = ".json"

func entryAt(endpoint, id string) object.URI { return inbox(endpoint).Join(id + entrySuffix) }

// newID is a name whose order is that of time.
func newID(now time.Time) string {
	var random [8]byte
	_, _ = rand.Read(random[:]) // it does not fail
	return fmt.Sprintf("%012x-%s", now.UnixMilli(), hex.EncodeToString(random[:]))
}

// entry is what an inbox has of a request.
type entry struct {
	ID        string `json:"id"`
	Inference string `json:"inference_id"` // the client's name for it, or ID
	Endpoint  string `json:"endpoint"`
	Input     string `json:"input"`
	// Own says that the input was the request's body, which is deleted with the entry.
	Own         bool          `json:"own,omitempty"`
	ContentType string        `json:"content_type,omitempty"`
	Accept      string        `json:"accept,omitempty"`
	Attributes  string        `json:"custom_attributes,omitempty"`
	Variant     string        `json:"target_variant,omitempty"`
	Model       string        `json:"target_model,omitempty"`
	Output      string        `json:"output"`
	Failure     string        `json:"failure"`
	Submitted   time.Time     `json:"submitted"`
	Expires     time.Time     `json:"expires"`
	Timeout     time.Duration `json:"timeout"`
}

// maxEntry is the most bytes of an entry: it has no body.
const maxEntry = 64 << 10

// readEntry reads what an inbox has.
func readEntry(ctx context.Context, store Store, at object.URI) (e entry, err error) {
	body, _, err := store.Open(ctx, at, 0, -1)
	if err != nil {
		return e, err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxEntry+1))
	if err != nil {
		return e, fault.New(fault.Unready, "read %s: %w", at, err)
	}
	err = json.Unmarshal(text, &e)
	if err == nil && entryAt(e.Endpoint, e.ID) != at {
		err = fault.New(fault.Invalid, "it is the entry of %q at %q", e.ID, e.Endpoint)
	}
	if err != nil {
		return e, fault.New(fault.Invalid, "%s is no entry of an inbox: %w", at, err)
	}
	return e, nil
}

// places are where answers and failures of an endpoint go.
func places(a route.Async) (to, failures object.URI, err error) {
	if to, err = object.ParseURI(a.To); err != nil {
		return to, failures, fault.New(fault.Invalid, "async.to: %w", err)
	}
	if failures = to.Join("failures"); a.Failures != "" {
		if failures, err = object.ParseURI(strings.TrimSuffix(a.Failures, "/")); err != nil {
			return to, failures, fault.New(fault.Invalid, "async.failures: %w", err)
		}
	}
	return to, failures, nil
}
