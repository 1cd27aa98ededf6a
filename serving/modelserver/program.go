package modelserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/clary-ml/clary/internal/fault"
)

// errCut is the end of an answer of which the client has a part.
var errCut = errors.New("the answer broke off")

// invokeProgram hands a body on as it is, and the answer too: whole, or in parts as they come.
func (s *Server) invokeProgram(w http.ResponseWriter, r *http.Request, body []byte) error {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	late := time.AfterFunc(s.options.Timeout, func() { cancel(context.DeadlineExceeded) })
	defer late.Stop()
	contentType, accept := r.Header.Get("Content-Type"), r.Header.Get("Accept")
	if accept == "" || accept == "*/*" { // as it came
		accept = contentType
	}
	out := parts{w: w, control: http.NewResponseController(w), late: late, within: s.options.Timeout}
	var answer []byte
	var answerType string
	var err error
	if p, is := s.options.Program.(Streamer); is {
		answer, answerType, err = p.Stream(ctx, body, contentType, accept, out.pass)
	} else {
		answer, answerType, err = s.options.Program.Invoke(ctx, body, contentType, accept)
	}
	if err != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	switch {
	case err != nil && out.begun:
		return fault.New(fault.Internal, "%w: %w", errCut, err)
	case err != nil && errors.Is(err, ErrUnsupported):
		return refusal{err, http.StatusUnsupportedMediaType}
	case err != nil:
		return s.late(err)
	case out.begun:
		return nil
	}
	w.Header().Set("Content-Type", answerType)
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	_, _ = w.Write(answer) // the client may have gone
	return nil
}

// parts is an answer on its way. It may take as long as it likes, if neither a part nor who reads it
// keeps the other waiting for too long.
type parts struct {
	w       http.ResponseWriter
	control *http.ResponseController
	late    *time.Timer
	within  time.Duration
	begun   bool
}

func (p *parts) pass(answerType string, data []byte) error {
	p.late.Reset(p.within)
	if !p.begun {
		p.begun = true
		_ = p.control.SetReadDeadline(time.Time{}) // all of the request is here; the deadline would end its context
		p.w.Header().Set("Content-Type", answerType)
		p.w.Header().Set("Cache-Control", "no-cache")
		p.w.WriteHeader(http.StatusOK)
	}
	_ = p.control.SetWriteDeadline(time.Now().Add(slowest)) // that fails, the write does too
	if _, err := p.w.Write(data); err != nil {
		return err
	}
	return p.control.Flush()
}
