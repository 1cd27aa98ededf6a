package modelserver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/modelserver/payload"
)

// Handler answers HTTP requests. Its queue runs while Serve or Run does.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ping", s.ping)
	mux.Handle("POST /invocations", s.counted("invocations", s.invoke))
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /execution-parameters", s.parameters)
	s.routeV2(mux)
	return mux
}

// status is what an error means over HTTP.
type status struct {
	code  int
	after int // seconds until it makes sense to try again, 0 if it does not
}

// A refusal is an error with an HTTP code of its own.
type refusal struct {
	error
	code int
}

func (r refusal) Unwrap() error { return r.error }

// Refuse gives an error an HTTP code that its kind alone does not have.
func Refuse(code int, err error) error { return refusal{err, code} }

var statuses = map[fault.Kind]status{
	fault.Invalid: {code: http.StatusBadRequest}, fault.NotFound: {code: http.StatusNotFound}, fault.Conflict: {code: http.StatusConflict},
	fault.Denied: {code: http.StatusForbidden}, fault.Exhausted: {http.StatusTooManyRequests, 1}, fault.Unready: {http.StatusServiceUnavailable, 1},
	fault.Internal: {code: http.StatusInternalServerError},
}

func statusOf(err error) status {
	var r refusal
	switch {
	case errors.As(err, &r):
		return status{code: r.code}
	case errors.Is(err, context.DeadlineExceeded):
		return status{code: http.StatusGatewayTimeout}
	case errors.Is(err, context.Canceled):
		return status{code: 499} // the client has gone; nginx's number for it
	}
	return statuses[fault.KindOf(err)]
}

func httpCode(err error) string { return strconv.Itoa(statusOf(err).code) }

func (s *Server) fail(w http.ResponseWriter, err error) int { return Fail(w, s.options.Log, err) }

// Fail answers with an error as JSON, and says with which code.
func Fail(w http.ResponseWriter, log *slog.Logger, err error) int {
	st := statusOf(err)
	if st.after > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(st.after))
	}
	if st.code >= 500 && !fault.Is(err, fault.Unready) {
		log.Error("request failed", "error", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(st.code)
	text, _ := json.Marshal(map[string]string{"error": err.Error()}) // a string can always be written
	_, _ = w.Write(append(text, '\n'))                               // the client may have gone
	return st.code
}

// counted bounds and measures an endpoint. What it returns as an error is answered as one.
func (s *Server) counted(name string, answer func(http.ResponseWriter, *http.Request) error) http.Handler {
	e := s.metrics.endpoint(name)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		code := http.StatusOK
		err := s.admit(w, r, answer)
		cut := errors.Is(err, errCut)
		if cut {
			code = http.StatusInternalServerError
			s.options.Log.Error("an answer broke off", "error", err)
		} else if err != nil {
			code = s.fail(w, err)
		}
		e.done(began, strconv.Itoa(code))
		if cut {
			panic(http.ErrAbortHandler) // so that the client does not take it for whole
		}
	})
}

func (s *Server) admit(w http.ResponseWriter, r *http.Request, answer func(http.ResponseWriter, *http.Request) error) error {
	size := r.ContentLength
	if size > s.options.MaxPayload {
		return s.tooLarge()
	}
	if size < 0 { // it does not say
		size = s.options.MaxPayload
	}
	if s.draining.Load() {
		w.Header().Set("Connection", "close")
	}
	if err := s.gate.Enter(size); err != nil {
		return err
	}
	defer s.gate.Leave(size)
	return answer(w, r)
}

func (s *Server) tooLarge() error {
	return refusal{fault.New(fault.Invalid, "the body has more than %d bytes: send fewer rows at once, or raise the server's max payload", s.options.MaxPayload), http.StatusRequestEntityTooLarge}
}

// body reads a request whole.
func (s *Server) body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Header.Get("Content-Encoding") != "" && r.Header.Get("Content-Encoding") != "identity" {
		return nil, refusal{fault.New(fault.Invalid, "Content-Encoding %q is not known here: send the body as it is", r.Header.Get("Content-Encoding")), http.StatusUnsupportedMediaType}
	}
	limited := http.MaxBytesReader(w, r.Body, s.options.MaxPayload)
	var body []byte
	var err error
	if n := r.ContentLength; n >= 0 {
		body = make([]byte, n)
		_, err = io.ReadFull(limited, body)
	} else {
		body, err = io.ReadAll(limited)
	}
	var over *http.MaxBytesError
	if errors.As(err, &over) {
		return nil, s.tooLarge()
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "read the body: %w", err)
	}
	return body, nil
}

func (s *Server) ping(w http.ResponseWriter, r *http.Request) {
	if err := s.ready(r.Context()); err != nil {
		s.fail(w, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// parameters tells batch transform what suits this server.
func (s *Server) parameters(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	text, _ := json.Marshal(map[string]any{ // numbers and a string
		"MaxConcurrentTransforms": 2 * s.options.Lanes, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": max(s.options.MaxPayload>>20, 1),
	})
	_, _ = w.Write(append(text, '\n'))
}

// invoke answers rows by the formats that the headers name.
func (s *Server) invoke(w http.ResponseWriter, r *http.Request) error {
	body, err := s.body(w, r)
	if err != nil {
		return err
	}
	if s.options.Program != nil {
		return s.invokeProgram(w, r, body)
	}
	format, err := payload.ContentFormat(r.Header.Get("Content-Type"), body)
	if err != nil {
		return refusal{err, http.StatusUnsupportedMediaType}
	}
	accept, err := payload.AcceptFormat(r.Header.Get("Accept"), format)
	if err != nil {
		return refusal{err, http.StatusNotAcceptable}
	}
	tensors, rows, err := s.decoder.Decode(format, body)
	if err != nil {
		return err
	}
	outputs, err := s.answer(r.Context(), tensors, rows)
	if err != nil {
		return err
	}
	text := payload.Encode(nil, accept, outputs)
	w.Header().Set("Content-Type", string(accept))
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text) // the client may have gone
	return nil
}

// ErrUnsupported marks what a program says of a content type that it does not know.
var ErrUnsupported = errors.New("the content type is not known here")
