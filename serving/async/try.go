package async

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
)

// outcome is what became of a try.
type outcome struct {
	// again says why the request is to be tried again; nil is that it is over.
	again error
	// failed says that the endpoint's answer was a failure, or that there was none; of an end that it
	// ended so.
	failed bool
	// asked says that this try is what brought it to its end.
	asked bool
}

func later(err error) outcome { return outcome{again: err} }

// Failure is what is written where there is no answer.
type Failure struct {
	Inference string    `json:"inference_id"`
	Endpoint  string    `json:"endpoint"`
	Input     string    `json:"input_location"`
	Error     string    `json:"error"`
	Status    int       `json:"status,omitempty"` // of the last answer
	Body      string    `json:"body,omitempty"`   // its first 4 KiB
	Tries     int       `json:"tries"`
	Submitted time.Time `json:"submitted"`
	Failed    time.Time `json:"failed"`
}

// try works on one request. The order of its steps is what makes every end harmless: the answer or
// the failure is written, then the input is deleted, then the entry.
func (w *Worker) try(ctx context.Context, endpoint Endpoint, id string, failed int) outcome {
	from := entryAt(endpoint.Name, id)
	e, err := readEntry(ctx, w.store, from)
	switch {
	case fault.Is(err, fault.NotFound):
		return outcome{} // it is over: the list was older
	case fault.Is(err, fault.Invalid):
		return w.discard(ctx, endpoint, id, err)
	case err != nil:
		return later(err)
	}
	done, err := w.over(ctx, e)
	if err != nil {
		return later(err)
	}
	if done {
		return w.finish(ctx, e, outcome{})
	}
	f := Failure{Inference: e.Inference, Endpoint: e.Endpoint, Input: e.Input, Tries: failed, Submitted: e.Submitted}
	if !time.Now().Before(e.Expires) {
		f.Error = fmt.Sprintf("it was not answered by %s: give the endpoint more replicas, or raise %s", e.Expires.Format(time.RFC3339), HeaderTTL)
		return w.fail(ctx, e, f)
	}
	result := w.ask(ctx, e)
	f.Status, f.Body = result.status, result.body
	switch {
	case ctx.Err() != nil:
		return later(ctx.Err())
	case result.err == nil:
		return w.finish(ctx, e, outcome{asked: true})
	case result.gone: // perhaps another worker was faster
		if done, err := w.over(ctx, e); err != nil || done {
			return later(cmp.Or(err, result.err))
		}
	case result.busy:
		return later(result.err)
	case !result.final && failed < cmp.Or(max(endpoint.Async.Retries, 0), w.options.Retries):
		return outcome{again: result.err, failed: true}
	}
	f.Error, f.Tries = result.err.Error(), failed+1
	return w.fail(ctx, e, f)
}

// over says whether a request has its answer or its failure, from a worker that ended before it had
// deleted the entry.
func (w *Worker) over(ctx context.Context, e entry) (bool, error) {
	for _, text := range []string{e.Output, e.Failure} {
		place, err := object.ParseURI(text)
		if err == nil {
			_, err = w.store.Stat(ctx, place)
		}
		if err == nil {
			return true, nil
		}
		if !fault.Is(err, fault.NotFound) {
			return false, err
		}
	}
	return false, nil
}

// finish deletes what a request has that is over.
func (w *Worker) finish(ctx context.Context, e entry, end outcome) outcome {
	if e.Own {
		if err := w.delete(ctx, e.Input); err != nil {
			return later(err)
		}
	}
	if err := w.store.Delete(ctx, entryAt(e.Endpoint, e.ID)); err != nil {
		return later(err)
	}
	return end
}

func (w *Worker) delete(ctx context.Context, place string) error {
	u, err := object.ParseURI(place)
	if err != nil {
		return err
	}
	return w.store.Delete(ctx, u)
}

// fail writes why there is no answer, and ends the request.
func (w *Worker) fail(ctx context.Context, e entry, f Failure) outcome {
	to, err := object.ParseURI(e.Failure)
	if err == nil {
		err = w.put(ctx, to, f)
	}
	if err != nil {
		return later(err)
	}
	return w.finish(ctx, e, outcome{asked: true, failed: true})
}

func (w *Worker) put(ctx context.Context, to object.URI, f Failure) error {
	f.Failed = time.Now().UTC()
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fault.New(fault.Internal, "write %s: %w", to, err)
	}
	_, err = w.store.Put(ctx, to, bytes.NewReader(text), int64(len(text)))
	return err
}

// discard ends what is in an inbox and is no entry.
func (w *Worker) discard(ctx context.Context, endpoint Endpoint, id string, why error) outcome {
	_, failures, err := places(endpoint.Async)
	if err == nil {
		err = w.put(ctx, failures.Join(id+".json"), Failure{Endpoint: endpoint.Name, Inference: id, Error: why.Error()})
	}
	if err == nil {
		err = w.store.Delete(ctx, entryAt(endpoint.Name, id))
	}
	if err != nil {
		return later(err)
	}
	return outcome{asked: true, failed: true}
}

// result is what came of asking. Without an error the answer is in the store.
type result struct {
	err    error
	status int
	body   string
	final  bool // it makes no sense to ask again
	busy   bool // nobody was asked: it does not count
	gone   bool // there is no input
}

// ask sends a request's input to its endpoint, and the answer to the store.
func (w *Worker) ask(ctx context.Context, e entry) result {
	from, err := object.ParseURI(e.Input)
	if err != nil {
		return result{err: err, final: true}
	}
	body, info, err := w.store.Open(ctx, from, 0, -1)
	switch {
	case fault.Is(err, fault.NotFound):
		return result{err: fault.New(fault.NotFound, "there is no input %s any more", from), gone: true}
	case err != nil:
		return result{err: err, busy: true}
	case info.Size > MaxInput:
		return result{err: errors.Join(fault.New(fault.Invalid, "%s has %d bytes, and at most %d are sent", from, info.Size, MaxInput), body.Close()), final: true}
	}
	defer body.Close()
	input := &limited{from: body, left: MaxInput}
	within, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	answer, err := w.invoke(within, Request{
		Endpoint: e.Endpoint, ID: e.ID, Inference: e.Inference, ContentType: e.ContentType, Accept: e.Accept, Attributes: e.Attributes,
		Variant: e.Variant, Model: e.Model, Body: input, Size: info.Size,
	})
	if err != nil {
		busy := input.broke != nil || within.Err() == nil && (fault.Is(err, fault.Unready) || fault.Is(err, fault.Exhausted))
		if within.Err() != nil && ctx.Err() == nil {
			err = fault.New(fault.Unready, "there was no answer within %v: %w", e.Timeout, err)
		}
		return result{err: err, busy: busy}
	}
	defer answer.Body.Close()
	if answer.Status < 200 || answer.Status > 299 {
		return refused(answer)
	}
	return w.keep(ctx, e, answer)
}

// statuses are those after which a request is asked again, and whether that counts: what is busy was
// not asked. Others are final, but for 5xx.
var statuses = map[int]result{
	http.StatusTooManyRequests: {busy: true}, http.StatusServiceUnavailable: {busy: true}, http.StatusRequestTimeout: {},
}

func refused(a Answer) result {
	text, _ := io.ReadAll(io.LimitReader(a.Body, 4<<10)) // what there is of it
	r, has := statuses[a.Status]
	r.final = !has && a.Status < 500
	r.status, r.body = a.Status, string(bytes.ToValidUTF8(text, []byte("?")))
	r.err = fault.New(fault.Internal, "the endpoint answered %d %s", a.Status, http.StatusText(a.Status))
	return r
}

// small is how much of an answer is read before it is sent on: most are read whole then, and go to
// the store without room for a large part.
const small = 1 << 20

// keep writes an answer to its place.
func (w *Worker) keep(ctx context.Context, e entry, a Answer) result {
	to, err := object.ParseURI(e.Output)
	if err != nil {
		return result{err: err, final: true}
	}
	body := &limited{from: a.Body, left: w.options.MaxAnswer, exceeded: a.Size > w.options.MaxAnswer}
	head, err := io.ReadAll(io.LimitReader(body, small))
	if err == nil && !body.exceeded {
		whole := bytes.NewReader(head) // which a store may read twice
		if len(head) < small {
			_, err = w.store.Put(ctx, to, whole, whole.Size())
		} else {
			_, err = w.store.Put(ctx, to, io.MultiReader(whole, body), max(a.Size, -1))
		}
	}
	switch {
	case body.exceeded:
		return result{status: a.Status, err: fault.New(fault.Exhausted, "the answer has more than %d bytes", w.options.MaxAnswer), final: true}
	case body.broke != nil:
		return result{status: a.Status, err: fault.New(fault.Internal, "the answer broke off: %w", body.broke)}
	case err != nil: // the store's
		return result{status: a.Status, err: err, busy: true}
	}
	return result{}
}
