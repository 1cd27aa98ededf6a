package async

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/reward"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/storage/object"
)

// The headers of a request and of its receipt, as SageMaker has them.
const (
	HeaderInput     = "X-Amzn-SageMaker-InputLocation"
	HeaderInference = "X-Amzn-SageMaker-Inference-Id"
	HeaderTTL       = "X-Amzn-SageMaker-RequestTTLSeconds"
	HeaderTimeout   = "X-Amzn-SageMaker-InvocationTimeoutSeconds"
	HeaderVariant   = "X-Amzn-SageMaker-Target-Variant"
	HeaderModel     = "X-Amzn-SageMaker-Target-Model"
	HeaderCustom    = "X-Amzn-SageMaker-Custom-Attributes"
	HeaderOutput    = "X-Amzn-SageMaker-OutputLocation"
	HeaderFailure   = "X-Amzn-SageMaker-FailureLocation"
)

// How long a request may wait and be worked on, if it does not say and at most.
const (
	defaultTTL, mostTTL         = 6 * time.Hour, 6 * time.Hour
	defaultTimeout, mostTimeout = 15 * time.Minute, time.Hour
)

// MaxInput is the most bytes of a request (1 GiB, as SageMaker has it).
const MaxInput = 1 << 30

// Receipt says where the answer of a request will be.
type Receipt struct {
	Inference string `json:"InferenceId"`
	Output    string `json:"OutputLocation"`
	Failure   string `json:"FailureLocation"`
}

// Write answers with the receipt.
func (r Receipt) Write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set(HeaderOutput, r.Output)
	h.Set(HeaderFailure, r.Failure)
	w.WriteHeader(http.StatusAccepted)
	text, _ := json.Marshal(r)         // three strings
	_, _ = w.Write(append(text, '\n')) // the client may have gone
}

// Submission is a request as it comes.
type Submission struct {
	Endpoint string
	Async    route.Async
	Header   http.Header
	// Body is the input, if Header names none; Size is its length, or -1 if that is not known. At most
	// MaxBody bytes are taken.
	Body    io.Reader
	Size    int64
	MaxBody int64
}

// Submit leaves a request in the endpoint's inbox. When it returns without an error the request is
// there, and is answered whatever ends.
func Submit(ctx context.Context, store Store, s Submission) (Receipt, error) {
	now := time.Now()
	e, err := s.entry(now)
	if err != nil {
		return Receipt{}, err
	}
	if e.Own {
		err = s.storeBody(ctx, store, e)
	} else {
		err = checkInput(ctx, store, e.Input)
	}
	if err != nil {
		return Receipt{}, err
	}
	text, err := json.Marshal(e)
	if err != nil || len(text) > maxEntry {
		return Receipt{}, fault.New(fault.Invalid, "the request's headers have more than %d bytes: send fewer", maxEntry)
	}
	if _, err := store.Put(ctx, entryAt(e.Endpoint, e.ID), bytes.NewReader(text), int64(len(text))); err != nil {
		// It may be there all the same: then it is answered, and nobody asks for it.
		return Receipt{}, fault.New(fault.Unready, "the request could not be stored: try again: %w", err)
	}
	return Receipt{Inference: e.Inference, Output: e.Output, Failure: e.Failure}, nil
}

// entry reads what the headers say.
func (s Submission) entry(now time.Time) (e entry, err error) {
	to, failures, err := places(s.Async)
	if err != nil {
		return e, err
	}
	id, h := newID(now), s.Header
	e = entry{
		ID: id, Inference: h.Get(HeaderInference), Endpoint: s.Endpoint, Input: h.Get(HeaderInput), ContentType: h.Get("Content-Type"), Accept: h.Get("Accept"),
		Attributes: h.Get(HeaderCustom), Variant: h.Get(HeaderVariant), Model: h.Get(HeaderModel),
		Output: to.Join(id + ".out").String(), Failure: failures.Join(id + ".json").String(), Submitted: now.UTC(),
	}
	if e.Inference == "" {
		e.Inference = id
	} else if err := reward.CheckOwn(e.Inference); err != nil {
		return e, err
	}
	if e.Input == "" {
		e.Own, e.Input = true, inputs(s.Endpoint).Join(id).String()
		if s.Size == 0 {
			return e, fault.New(fault.Invalid, "there is no input: send a body, or name an object with %s", HeaderInput)
		}
	} else if s.Size > 0 {
		return e, fault.New(fault.Invalid, "there are two inputs: send either a body or %s", HeaderInput)
	}
	ttl, err := seconds(h, HeaderTTL, defaultTTL, mostTTL)
	if err != nil {
		return e, err
	}
	e.Expires = now.Add(ttl).UTC()
	e.Timeout, err = seconds(h, HeaderTimeout, defaultTimeout, mostTimeout)
	return e, err
}

func seconds(h http.Header, name string, fallback, most time.Duration) (time.Duration, error) {
	text := h.Get(name)
	if text == "" {
		return fallback, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > int(most/time.Second) {
		return 0, fault.New(fault.Invalid, "%s %q: give 1 to %d seconds", name, text, int(most/time.Second))
	}
	return time.Duration(n) * time.Second, nil
}

// storeBody keeps a request's body as its input.
func (s Submission) storeBody(ctx context.Context, store Store, e entry) error {
	most := s.MaxBody
	if most <= 0 || most > MaxInput {
		most = MaxInput
	}
	if s.Size > most {
		return errTooLarge(most)
	}
	at, err := object.ParseURI(e.Input)
	if err != nil {
		return err
	}
	body := &limited{from: s.Body, left: most}
	_, err = store.Put(ctx, at, body, max(s.Size, -1))
	switch {
	case body.exceeded:
		return errTooLarge(most)
	case body.broke != nil:
		return fault.New(fault.Invalid, "the request's body broke off: %w", body.broke)
	case err != nil:
		return fault.New(fault.Unready, "the request could not be stored: try again: %w", err)
	}
	return nil
}

func errTooLarge(most int64) error {
	return fault.New(fault.Invalid, "the body has more than %d bytes: put it into the object store and name it with %s", most, HeaderInput)
}

// checkInput tells of an input that cannot be read now, rather than hours later.
func checkInput(ctx context.Context, store Store, input string) error {
	at, err := object.ParseURI(input)
	if err != nil {
		return fault.New(fault.Invalid, "%s: %w", HeaderInput, err)
	}
	info, err := store.Stat(ctx, at)
	switch {
	case fault.Is(err, fault.NotFound):
		return fault.New(fault.Invalid, "%s: there is no object %s", HeaderInput, at)
	case err != nil:
		return fault.New(fault.Unready, "%s: %w", HeaderInput, err)
	case info.Size > MaxInput:
		return fault.New(fault.Invalid, "%s: %s has %d bytes, and at most %d are sent", HeaderInput, at, info.Size, MaxInput)
	}
	return nil
}

// limited is a reader of at most so many bytes that remembers why it ended.
type limited struct {
	from     io.Reader
	left     int64
	exceeded bool
	broke    error
}

func (l *limited) Read(p []byte) (int, error) {
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.from.Read(p)
	if l.left -= int64(n); l.left < 0 {
		l.exceeded, l.left = true, 0
		return 0, fault.New(fault.Exhausted, "there is more than may be taken")
	}
	if err != nil && err != io.EOF {
		l.broke = err
	}
	return n, err
}
