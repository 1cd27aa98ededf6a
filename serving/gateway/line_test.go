package gateway

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
)

func TestEveryKindOfRefusalSurvivesItsLine(t *testing.T) {
	for _, kind := range kinds {
		line, ok := strings.CutSuffix(string(answer(fault.New(kind, "task x\nis: away"))), "\n")
		err := parseAnswer(line)
		if !ok || strings.Contains(line, "\n") || fault.KindOf(err) != kind || err.Error() != "task x is: away" {
			t.Errorf("%s went as %q and came as %v", kind, line, err)
		}
	}
	if parseAnswer("ok") != nil {
		t.Error("ok is a refusal")
	}
	if long := answer(fault.New(fault.Unready, "%s", strings.Repeat("é", MaxLine))); len(long) > MaxLine || !fault.Is(parseAnswer(strings.TrimSpace(string(long))), fault.Unready) {
		t.Errorf("a long refusal has %d bytes", len(long))
	}
	for _, line := range []string{"", "okay", "no", "no ", "no way: x", "HTTP/1.1 400 Bad Request"} {
		if err := parseAnswer(line); !fault.Is(err, fault.Internal) {
			t.Errorf("%q means %v", line, err)
		}
	}
}

func TestNoOtherFirstLineNamesATask(t *testing.T) {
	for _, line := range []string{"", "serve", "serve ", "SERVE a", "serve a b", "serve a\r", "serve \x00", "GET / HTTP/1.1", "serve " + strings.Repeat("a", MaxLine)} {
		if task, err := parseRequest(line); err == nil {
			t.Errorf("%q asks for %q", line, task)
		}
	}
	for _, task := range []string{"", "a b", "a\nserve b", strings.Repeat("a", MaxLine)} {
		if line, err := request(task); err == nil {
			t.Errorf("%q is asked for by %q", task, line)
		}
	}
}

func FuzzWhatALineSaysIsSaidAgain(f *testing.F) {
	f.Add([]byte("serve shop/blue-1-0/replica-0.1\nPOST /"))
	f.Add([]byte("ok\n"))
	f.Add(bytes.Repeat([]byte("x"), 2*MaxLine))
	f.Fuzz(func(t *testing.T, said []byte) {
		from := bytes.NewReader(said)
		line, err := readLine(from)
		switch {
		case err == nil:
			if want, _, _ := bytes.Cut(said, []byte("\n")); line != string(want) || from.Len() != len(said)-len(line)-1 {
				t.Fatalf("read %q of %q and left %d bytes", line, said, from.Len())
			}
		case errors.Is(err, errLine):
			if bytes.IndexByte(said[:MaxLine], '\n') >= 0 {
				t.Fatalf("%q has an end", said)
			}
		default:
			if !errors.Is(err, io.EOF) || bytes.IndexByte(said, '\n') >= 0 {
				t.Fatalf("%q: %v", said, err)
			}
			return
		}
		if task, err := parseRequest(line); err == nil {
			if again, err := request(task); err != nil || string(again) != line+"\n" {
				t.Fatalf("%q asks for %q, which is asked for by %q, %v", line, task, again, err)
			}
		}
		if err := parseAnswer(line); err != nil && fault.KindOf(err) != fault.Internal && string(answer(err)) != line+"\n" && !strings.ContainsFunc(line, func(r rune) bool { return r < ' ' }) && len(line) < MaxLine {
			t.Fatalf("%q is %v, which is said as %q", line, err, answer(err))
		}
	})
}
