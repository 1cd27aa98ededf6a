// Package probe asks a server on this node, again and again, whether it serves: one goroutine and one
// connection that is kept.
package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/clary-ml/clary/cluster"
)

const (
	// A server that starts is asked often, so that it is found as soon as it serves: after a part of
	// the time that it has taken so far, within bounds.
	startFirst = 20 * time.Millisecond
	startLast  = time.Second
	startPart  = 10
	// A server that was silent once is asked again soon: whether it is busy or gone.
	silenceAgain = 100 * time.Millisecond
	answerBytes  = 4 << 10 // read of an answer
	saidBytes    = 200     // told of an answer
)

// Config is whom to ask, and how.
type Config struct {
	Probe cluster.Probe
	// Dial connects to the server.
	Dial func(ctx context.Context) (net.Conn, error)
	// Serves says that it served when it was last asked, by somebody else.
	Serves bool
}

// News is that something has changed.
type News struct {
	Serves bool
	// Failed is why the server is to be ended; "" if it is not.
	Failed string
}

// Run asks until ctx ends or the server has failed, and tells what changes as soon as it does. A
// server that refuses, or answers anything but 200, does not serve; one that is silent once is asked
// again before that is believed.
func Run(ctx context.Context, config Config, tell func(News)) {
	p := config.Probe.WithDefaults()
	transport := &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return config.Dial(ctx) },
		MaxIdleConnsPerHost: 1, DisableCompression: true, IdleConnTimeout: 2 * p.Every, MaxResponseHeaderBytes: 64 << 10,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	began := time.Now()
	serves, served, failures := config.Serves, config.Serves, int32(0)
	for {
		err := ask(ctx, client, p)
		if ctx.Err() != nil {
			return
		}
		wait := p.Every
		if err == nil {
			failures = 0
			if !serves {
				serves, served = true, true
				tell(News{Serves: true})
			}
		} else {
			failures++
			silent := errors.Is(err, context.DeadlineExceeded)
			if serves && silent && failures == 1 {
				wait = min(wait, silenceAgain)
			} else if serves {
				serves = false
				tell(News{})
			}
			if why := verdict(p, served, failures, time.Since(began), err); why != "" {
				tell(News{Failed: why})
				return
			}
			if !served {
				wait = min(max(startFirst, time.Since(began)/startPart), startLast, time.Until(began.Add(p.Startup)))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// verdict is why a server has failed for good, or "".
func verdict(p cluster.Probe, served bool, failures int32, took time.Duration, err error) string {
	switch {
	case !served && took >= p.Startup:
		return fmt.Sprintf("it did not begin to serve within %s: GET %s: %s", p.Startup, p.Path, said(err))
	case served && p.Failures > 0 && failures >= p.Failures:
		return fmt.Sprintf("it does not serve any more: GET %s failed %d times in a row: %s", p.Path, failures, said(err))
	}
	return ""
}

func said(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	return err.Error()
}

// ask is one probe; nil is that the server serves.
func ask(ctx context.Context, client *http.Client, p cluster.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+p.Path, http.NoBody)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "clary-probe")
	answer, err := client.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return errors.Unwrap(err) // of a *url.Error, which names a host that means nothing
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, answerBytes)) // to its end, so that the connection is kept
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	return errors.New(strings.TrimSpace(fmt.Sprintf("answered %s: %s", answer.Status, clip(text))))
}

// clip makes of an answer what can be shown in a line.
func clip(text []byte) string {
	line := strings.Join(strings.FieldsFunc(strings.ToValidUTF8(string(text[:min(len(text), saidBytes)]), "?"), func(r rune) bool { return r < ' ' }), " ")
	if len(text) > saidBytes {
		line += "…"
	}
	return line
}
