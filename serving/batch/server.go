package batch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/clary-ml/clary/internal/fault"
)

// Server answers requests.
type Server interface {
	// Invoke returns the answer to one request. A request that the server refuses is Invalid:
	// others may still succeed. Any other error means that the server is of no use: Unready if
	// it cannot be reached, so that another may be, else Internal.
	Invoke(ctx context.Context, request []byte) ([]byte, error)
}

// HTTPServer is a server by the contract: /ping, /execution-parameters and /invocations.
type HTTPServer struct {
	Base        string // http://host:port
	ContentType string
	Accept      string
	Timeout     time.Duration // of one try
	Retries     int           // further tries of a request, after the first
	MaxAnswer   int64         // bytes; DefaultMaxAnswer if 0
	client      *http.Client
}

// DefaultMaxAnswer bounds one answer.
const DefaultMaxAnswer = 256 << 20

const (
	pingTimeout = 2 * time.Second
	pingPause   = 250 * time.Millisecond
	firstPause  = 100 * time.Millisecond
	lastPause   = 5 * time.Second
)

// Dial prepares for a number of requests at the same time. It does not connect yet.
func (s *HTTPServer) Dial(concurrent int) {
	s.client = &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			MaxIdleConnsPerHost: concurrent, MaxIdleConns: concurrent, IdleConnTimeout: 30 * time.Second,
			DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Close lets go of connections.
func (s *HTTPServer) Close() {
	if s.client != nil {
		s.client.CloseIdleConnections()
	}
}

// AwaitHealthy waits until /ping answers 200, as long as within. It asks at least once, and what
// it asked is answered: a server that is not healthy is told of by that.
func (s *HTTPServer) AwaitHealthy(ctx context.Context, within time.Duration) error {
	limit := time.NewTimer(within)
	defer limit.Stop()
	for {
		err := s.ping(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-limit.C:
			return fault.New(fault.Unready, "the server did not become healthy within %s: GET /ping: %w", within, err)
		case <-time.After(pingPause):
		}
	}
}

func (s *HTTPServer) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	code, body, err := s.do(ctx, http.MethodGet, "/ping", nil)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("it answered %d %s: %s", code, http.StatusText(code), excerpt(body))
	}
	return err
}

// parameters are what /execution-parameters answers.
type parameters struct {
	MaxConcurrentTransforms *int
	BatchStrategy           *string
	MaxPayloadInMB          *int64
}

// Limits asks the server for its own; zero ones if it has none.
func (s *HTTPServer) Limits(ctx context.Context) (Limits, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	code, body, err := s.do(ctx, http.MethodGet, "/execution-parameters", nil)
	if err != nil {
		return Limits{}, fault.New(fault.Unready, "GET /execution-parameters: %w", err)
	}
	if code != http.StatusOK || len(bytes.TrimSpace(body)) == 0 {
		return Limits{}, nil
	}
	var p parameters
	if err := json.Unmarshal(body, &p); err != nil {
		return Limits{}, fault.New(fault.Internal, "GET /execution-parameters answered what is not its JSON: %s", excerpt(body))
	}
	limits, err := p.limits()
	if err == nil {
		err = limits.Validate()
	}
	if err != nil {
		return Limits{}, fault.New(fault.Internal, "GET /execution-parameters answered %s: %w", excerpt(body), err)
	}
	return limits, nil
}

func (p parameters) limits() (Limits, error) {
	var l Limits
	if p.MaxConcurrentTransforms != nil {
		l.Concurrent = *p.MaxConcurrentTransforms
	}
	if p.MaxPayloadInMB != nil {
		if *p.MaxPayloadInMB > MaxPayload>>20 {
			return l, fault.New(fault.Invalid, "max_payload: %d MB is out of range: up to %d", *p.MaxPayloadInMB, MaxPayload>>20)
		}
		l.Payload = *p.MaxPayloadInMB << 20
	}
	if p.BatchStrategy == nil {
		return l, nil
	}
	known := map[string]Strategy{"MULTI_RECORD": Multi, "SINGLE_RECORD": Single, "MULTIRECORD": Multi, "SINGLERECORD": Single}
	strategy, ok := known[strings.ToUpper(*p.BatchStrategy)]
	if !ok {
		return l, fault.New(fault.Invalid, "BatchStrategy %q is unknown", *p.BatchStrategy)
	}
	l.Strategy = strategy
	return l, nil
}

// Invoke implements Server. What may be a matter of the moment (no connection, no answer in
// time, 429, 5xx) is tried again, after growing pauses. A server that breaks off each of them and
// is healthy refuses the request.
func (s *HTTPServer) Invoke(ctx context.Context, request []byte) ([]byte, error) {
	pause := firstPause
	for try := 0; ; try++ {
		answer, again, err := s.try(ctx, request)
		if err == nil {
			return answer, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if !again {
			return nil, err
		}
		if try == s.Retries {
			kind := fault.KindOf(err)
			if kind == fault.Unready && s.ping(ctx) == nil { // it breaks off what it cannot answer
				kind, err = fault.Invalid, fmt.Errorf("%w, from a server that is healthy", err)
			}
			return nil, fault.New(kind, "%w; it was tried %d times", err, try+1)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

func (s *HTTPServer) try(ctx context.Context, request []byte) (answer []byte, again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	code, body, err := s.do(ctx, http.MethodPost, "/invocations", request)
	switch {
	case errors.Is(err, errAnswerTooLarge):
		return nil, false, fault.New(fault.Invalid, "POST /invocations: %w", err)
	case ctx.Err() != nil:
		return nil, true, fault.New(fault.Internal, "POST /invocations: the server did not answer within %s", s.Timeout)
	case isGone(err):
		return nil, true, fault.New(fault.Unready, "POST /invocations: %w", err)
	case err != nil:
		return nil, true, fault.New(fault.Internal, "POST /invocations: %w", err)
	case code == http.StatusOK:
		return body, false, nil
	}
	again = code == http.StatusTooManyRequests || code >= 500
	return nil, again, fault.New(fault.Invalid, "POST /invocations: the server answered %d %s: %s", code, http.StatusText(code), excerpt(body))
}

// isGone reports whether there is no server any more, and not one that speaks wrongly.
func isGone(err error) bool {
	var network *net.OpError
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

var errAnswerTooLarge = errors.New("its answer is too large")

func (s *HTTPServer) do(ctx context.Context, method, path string, body []byte) (int, []byte, error) {
	var content io.Reader
	if method == http.MethodPost {
		content = bytes.NewReader(body)
	}
	request, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(s.Base, "/")+path, content)
	if err != nil {
		return 0, nil, err
	}
	if method == http.MethodPost {
		for name, value := range map[string]string{"Content-Type": s.ContentType, "Accept": s.Accept} {
			if value != "" {
				request.Header.Set(name, value)
			}
		}
	}
	response, err := s.client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close() //nolint:errcheck // only read
	most := s.MaxAnswer
	if most == 0 {
		most = DefaultMaxAnswer
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, most+1))
	if err == nil && int64(len(answer)) > most {
		err = fmt.Errorf("%w: more than %d bytes: lower max_payload, so that a request has fewer records", errAnswerTooLarge, most)
	}
	return response.StatusCode, answer, err
}
