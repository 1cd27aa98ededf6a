package script_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/modelserver"
	"github.com/clary-ml/clary/serving/modelserver/script"
)

// telling answers in parts, as the body says.
const telling = `
import os, time
def model_fn(d): return None
def input_fn(body, content_type): return body
def predict_fn(data, model):
    if data == "x": return "x"
    return tell(data)
def tell(data):
    if data == "value": raise ValueError("that is no row")
    yield "one"
    if data == "raise": raise KeyError("nothing")
    if data == "exit": os._exit(3)
    if data == "dict": yield {"a": 1}
    if data == "hang": time.sleep(1000)
    if data.startswith("/"):
        while not os.path.exists(data): time.sleep(0.005)
    yield b"two"
def output_fn(prediction, accept): return prediction
`

// parts asks, and returns what came.
func parts(ctx context.Context, p *script.Program, body string, each func(part string) error) (got []string, err error) {
	whole, _, err := p.Stream(ctx, []byte(body), "text/plain", "text/plain", func(_ string, part []byte) error {
		got = append(got, string(part))
		if each != nil {
			return each(string(part))
		}
		return nil
	})
	if len(whole) > 0 {
		got = append(got, "whole "+string(whole))
	}
	return got, err
}

func TestAnAnswerMayComeInParts(t *testing.T) {
	p, _ := started(t, telling)
	for _, c := range []struct {
		body, got, says string
		kind            fault.Kind
	}{
		{body: "go", got: "[one two]"},
		{body: "x", got: "[whole x]"},
		{body: "value", got: "[]", says: "that is no row", kind: fault.Invalid},
		{body: "raise", got: "[one]", says: "KeyError: 'nothing'", kind: fault.Internal},
		{body: "dict", got: "[one]", says: "gave a dict: it must give str or bytes", kind: fault.Internal},
		{body: "exit", got: "[one]", says: "the script's process ended while it was at a request: exit status 3", kind: fault.Internal},
		{body: "go", got: "[one two]"},
	} {
		got, err := parts(t.Context(), p, c.body, nil)
		if fmt.Sprint(got) != c.got || (err == nil) != (c.says == "") || err != nil && (!fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, %v; want %s, %q", c.body, got, err, c.got, c.says)
		}
	}
	if got, _, err := ask(t, p, "go", "text/plain", "text/plain"); got != "onetwo" || err != nil {
		t.Errorf("asked for all at once: %q, %v", got, err)
	}
}

func TestAPartComesBeforeTheNextIsThere(t *testing.T) {
	p, _ := started(t, telling)
	flag := filepath.Join(t.TempDir(), "flag")
	got, err := parts(t.Context(), p, flag, func(part string) error {
		if part == "one" { // the second waits for this
			return os.WriteFile(flag, nil, 0o600)
		}
		return nil
	})
	if fmt.Sprint(got) != "[one two]" || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}

func TestAnAnswerThatNobodyWantsEndsOrIsEnded(t *testing.T) {
	p, said := started(t, telling)
	gone := errors.New("the client has gone")
	if _, err := parts(t.Context(), p, "go", func(string) error { return gone }); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
	until(t, p, "x")
	if strings.Contains(said.String(), "started again") {
		t.Errorf("the script was about to end, and was killed: %s", said)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if got, err := parts(ctx, p, "hang", nil); fmt.Sprint(got) != "[one]" || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, %v", got, err)
	}
	until(t, p, "x")
	if !strings.Contains(said.String(), "started again") {
		t.Errorf("it hung, and was not: %s", said)
	}
}

// The usual output_fn writes what a generator gives as the client wants it, and the server passes it on.
func TestStreamsGoThroughTheServer(t *testing.T) {
	p, _ := started(t, `
import os, time
def model_fn(d): return None
def predict_fn(data, model):
    yield "a\nb"
    if data != [0]:
        while not os.path.exists(data): time.sleep(0.005)
    if data == [0]: raise KeyError("late")
    yield {"n": 1}
def input_fn(body, content_type): return [0] if body == "break" else body
`)
	s, err := modelserver.New(modelserver.Options{Program: p})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	flag := filepath.Join(t.TempDir(), "flag")
	post := func(body, accept string) *http.Response {
		request, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+l.Addr().String()+"/invocations", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "text/plain")
		request.Header.Set("Accept", accept)
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = answer.Body.Close() })
		return answer
	}
	answer := post(flag, "text/event-stream")
	reader := bufio.NewReader(answer.Body)
	first, err := reader.ReadString('b')
	if err != nil || first != "data: a\ndata: b" || answer.Header.Get("Content-Type") != "text/event-stream" || answer.ContentLength != -1 {
		t.Errorf("%q, %v, %v", first, err, answer.Header)
	}
	if err := os.WriteFile(flag, nil, 0o600); err != nil { // the rest waits for this
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(reader); string(rest) != "\n\ndata: {\"n\": 1}\n\n" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	if text, err := io.ReadAll(post(flag, "application/jsonlines").Body); string(text) != "\"a\\nb\"\n{\"n\": 1}\n" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := io.ReadAll(post("break", "text/event-stream").Body); string(text) != "data: a\ndata: b\n\n" || err == nil {
		t.Errorf("an answer that broke off looks whole: %q, %v", text, err)
	}
}
