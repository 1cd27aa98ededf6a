package h1_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/serving/router/h1"
)

func TestARequestWithTwoReadingsIsRefused(t *testing.T) {
	const start = "POST /x HTTP/1.1\r\nHost: a\r\n"
	for name, c := range map[string]struct {
		text   string
		status int
	}{
		"length and chunks":                {start + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		"chunks and length":                {start + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400},
		"two lengths":                      {start + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400},
		"the same length twice":            {start + "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 400},
		"a list of lengths":                {start + "Content-Length: 5, 5\r\n\r\n", 400},
		"a signed length":                  {start + "Content-Length: +5\r\n\r\n", 400},
		"a negative length":                {start + "Content-Length: -5\r\n\r\n", 400},
		"a hexadecimal length":             {start + "Content-Length: 0x5\r\n\r\n", 400},
		"an empty length":                  {start + "Content-Length:\r\n\r\n", 400},
		"a length that overflows":          {start + "Content-Length: 99999999999999999999\r\n\r\n", 400},
		"a space before the colon":         {start + "Content-Length : 5\r\n\r\n", 400},
		"a folded field":                   {start + "X: 1\r\n Content-Length: 5\r\n\r\n", 400},
		"a fold before the first field":    {"POST /x HTTP/1.1\r\n Host: a\r\n\r\n", 400},
		"a bare line feed":                 {start + "X: 1\nContent-Length: 5\r\n\r\n", 400},
		"a bare carriage return":           {start + "X: 1\rContent-Length: 5\r\n\r\n", 400},
		"a null byte":                      {start + "X: a\x00b\r\n\r\n", 400},
		"a nameless field":                 {start + ": 1\r\n\r\n", 400},
		"a line without a colon":           {start + "Content-Length\r\n\r\n", 400},
		"an odd byte in a name":            {start + "Content(Length: 5\r\n\r\n", 400},
		"two codings":                      {start + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		"a list of codings":                {start + "Transfer-Encoding: gzip, chunked\r\n\r\n", 501},
		"a coding with a tab before":       {start + "Transfer-Encoding:\x0bchunked\r\n\r\n", 400},
		"another coding":                   {start + "Transfer-Encoding: identity\r\n\r\n", 501},
		"chunks in HTTP/1.0":               {"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		"no host":                          {"POST /x HTTP/1.1\r\n\r\n", 400},
		"two hosts":                        {start + "Host: b\r\n\r\n", 400},
		"a host with a path":               {"POST /x HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
		"HTTP/2":                           {"POST /x HTTP/2.0\r\nHost: a\r\n\r\n", 505},
		"HTTP/1.2":                         {"POST /x HTTP/1.2\r\nHost: a\r\n\r\n", 505},
		"HTTP/0.9":                         {"GET /x\r\n\r\n", 400},
		"two spaces":                       {"POST  /x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"a space in the target":            {"POST /x y HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"a control byte in the target":     {"POST /x\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"a fragment":                       {"POST /x#y HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"no path":                          {"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"a tunnel":                         {"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"a method with a control byte":     {"PO\x01T /x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"an expectation that is not known": {start + "Expect: 200-ok\r\n\r\n", 417},
		"too many fields":                  {start + strings.Repeat("X: y\r\n", 20) + "\r\n", 431},
	} {
		t.Run(name, func(t *testing.T) {
			var r h1.Request
			err := r.Read([]byte(c.text), 20)
			if err == nil {
				t.Fatalf("%q was read as %+v", c.text, r.Body)
			}
			if err.Status != c.status || err.Error() == "" {
				t.Errorf("%q: %d %v, want %d", c.text, err.Status, err, c.status)
			}
		})
	}
}

func TestARequestIsReadAsItIsMeant(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want string
	}{
		"plain":            {"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n", "GET /a ?b=c x body 0 false keep true continue false"},
		"a length":         {"POST /a HTTP/1.1\r\nhost: x\r\ncontent-LENGTH: 12\r\n\r\n", "POST /a  x body 12 false keep true continue false"},
		"chunks":           {"POST /a HTTP/1.1\r\nhost: x\r\nTransfer-Encoding: Chunked\r\n\r\n", "POST /a  x body 0 true keep true continue false"},
		"the whole URL":    {"GET http://x/a?b HTTP/1.1\r\nHost: x\r\n\r\n", "GET /a ?b x body 0 false keep true continue false"},
		"close":            {"GET /a HTTP/1.1\r\nHost: x\r\nConnection: foo, Close\r\n\r\n", "GET /a  x body 0 false keep false continue false"},
		"HTTP/1.0":         {"GET /a HTTP/1.0\r\n\r\n", "GET /a   body 0 false keep false continue false"},
		"HTTP/1.0 kept":    {"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET /a   body 0 false keep true continue false"},
		"an expectation":   {"PUT /a HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n", "PUT /a  x body 1 false keep true continue true"},
		"space around":     {"GET /a HTTP/1.1\r\nHost: \t x \t\r\n\r\n", "GET /a  x body 0 false keep true continue false"},
		"other characters": {"GET /a HTTP/1.1\r\nHost: x\r\nX: \xe4\r\n\r\n", "GET /a  x body 0 false keep true continue false"},
	} {
		t.Run(name, func(t *testing.T) {
			var r h1.Request
			if err := r.Read([]byte(c.text), 20); err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprintf("%s %s %s %s body %d %v keep %v continue %v", r.Method, r.Path, r.Query, r.Host, r.Body.Length, r.Body.Chunked, r.Keep, r.Continue)
			if got != c.want {
				t.Errorf("%q is\n%s, want\n%s", c.text, got, c.want)
			}
		})
	}
}

func TestConnectionTakesFieldsAwayButNotThoseThatMatter(t *testing.T) {
	var r h1.Request
	if err := r.Read([]byte("POST /a HTTP/1.1\r\nHost: x\r\nX-Mine: 1\r\nAuthorization: s\r\nContent-Length: 3\r\nConnection: x-mine, authorization, content-length\r\n\r\n"), 20); err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Fields {
		if want := string(f.Name) == "X-Mine"; f.Drop != want {
			t.Errorf("%s: dropped %v, want %v", f.Name, f.Drop, want)
		}
	}
}

// A request that net/http's own writer has made is read here as net/http reads it.
func TestWhatNetHTTPWritesIsReadLikeNetHTTP(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		method := rapid.SampledFrom([]string{"GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"}).Draw(t, "method")
		path := rapid.StringMatching(`/[a-zA-Z0-9._~/-]{0,20}(\?[a-z0-9=&]{0,10})?`).Draw(t, "path")
		body := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "body")
		made, err := http.NewRequest(method, "http://host.example"+path, bytes.NewReader(body))
		if err != nil {
			t.Skip()
		}
		for name, value := range rapid.MapOfN(rapid.StringMatching(`X-[A-Za-z0-9-]{1,10}`), rapid.StringMatching(`[ -~]{0,20}`), 0, 5).Draw(t, "fields") {
			made.Header.Set(name, value)
		}
		made.Close = rapid.Bool().Draw(t, "close")
		if rapid.Bool().Draw(t, "chunked") {
			made.ContentLength = -1
			made.Body = io.NopCloser(bytes.NewReader(body))
		}
		var wire bytes.Buffer
		if err := made.Write(&wire); err != nil {
			t.Fatal(err)
		}
		theirs, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(wire.Bytes())))
		if err != nil {
			t.Fatal(err)
		}
		end := h1.End(wire.Bytes(), 0)
		var ours h1.Request
		if wrong := ours.Read(wire.Bytes()[:end], 100); wrong != nil {
			t.Fatalf("%q: %v", wire.String(), wrong)
		}
		if string(ours.Method) != theirs.Method || string(ours.Path)+string(ours.Query) != theirs.RequestURI || string(ours.Host) != theirs.Host || ours.Keep == theirs.Close {
			t.Fatalf("%q is %s %s%s of %s, keep %v", wire.String(), ours.Method, ours.Path, ours.Query, ours.Host, ours.Keep)
		}
		for _, f := range ours.Fields {
			if f.Is == h1.Other && theirs.Header.Get(string(f.Name)) != string(f.Value) {
				t.Fatalf("%s is %q, want %q", f.Name, f.Value, theirs.Header.Get(string(f.Name)))
			}
		}
		want, err := io.ReadAll(theirs.Body)
		if err != nil {
			t.Fatal(err)
		}
		if got := bodyOf(t, ours.Body, wire.Bytes()[end:]); !bytes.Equal(got, want) {
			t.Fatalf("the body is %q, want %q", got, want)
		}
	})
}

type fataler interface {
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func bodyOf(t fataler, body h1.Body, text []byte) []byte {
	if !body.Chunked {
		return text[:body.Length]
	}
	var c h1.Chunked
	var got []byte
	for !c.Done() {
		data, n, err := c.Next(text)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			t.Fatalf("nothing was taken of %q", text)
		}
		got, text = append(got, data...), text[n:]
	}
	return got
}

func TestAnAnswerSaysHowItsBodyEnds(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		head bool
		want string
	}{
		"a length":            {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", false, "200 OK 3 false keep true"},
		"chunks":              {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, "200 OK 0 true keep true"},
		"until it ends":       {"HTTP/1.1 200 OK\r\n\r\n", false, "200 OK -1 false keep false"},
		"no body by its code": {"HTTP/1.1 204 No Content\r\n\r\n", false, "204 No Content 0 false keep true"},
		"not modified":        {"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", false, "304 Not Modified 0 false keep true"},
		"to HEAD":             {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true, "200 OK 0 false keep true"},
		"without a reason":    {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", false, "200  0 false keep true"},
		"HTTP/1.0":            {"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", false, "200 OK 3 false keep false"},
		"close":               {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n", false, "200 OK 3 false keep false"},
		"to wait":             {"HTTP/1.1 100 Continue\r\n\r\n", false, "100 Continue 0 false keep true"},
	} {
		t.Run(name, func(t *testing.T) {
			var a h1.Answer
			if err := a.Read([]byte(c.text), c.head, 20); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%d %s %d %v keep %v", a.Status, a.Reason, a.Body.Length, a.Body.Chunked, a.Keep); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
	for _, text := range []string{
		"HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 099 OK\r\n\r\n", "HTTP/1.1 600 OK\r\n\r\n", "HTTP/2 200 OK\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n", "SSH-2.0-x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\nContent-Length: 1\r\n\r\n", "HTTP/1.1 200 O\x00K\r\n\r\n",
	} {
		var a h1.Answer
		if err := a.Read([]byte(text), false, 20); err == nil {
			t.Errorf("%q was read as %d", text, a.Status)
		}
	}
}

func TestChunksAreTheSameHoweverTheyAreCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var wire, want []byte
		for _, chunk := range rapid.SliceOf(rapid.SliceOfN(rapid.Byte(), 1, 50)).Draw(t, "chunks") {
			wire = fmt.Appendf(wire, "%x%s\r\n%s\r\n", len(chunk), rapid.SampledFrom([]string{"", ";a=b", "; c"}).Draw(t, "extension"), chunk)
			want = append(want, chunk...)
		}
		wire = append(wire, "0\r\n"...)
		wire = append(wire, rapid.SampledFrom([]string{"", "X: y\r\n", "X: y\r\nZ:\r\n"}).Draw(t, "trailer")...)
		wire = append(wire, "\r\n"...)
		next := "GET / HTTP/1.1\r\n"
		text := append(wire, next...)
		var c h1.Chunked
		var got []byte
		used := 0
		for used < len(text) && !c.Done() {
			piece := text[used:min(len(text), used+rapid.IntRange(1, 20).Draw(t, "cut"))]
			for len(piece) > 0 && !c.Done() {
				data, n, err := c.Next(piece)
				if err != nil {
					t.Fatalf("%q at %d: %v", text, used, err)
				}
				got, piece, used = append(got, data...), piece[n:], used+n
			}
		}
		if !bytes.Equal(got, want) || used != len(wire) || !c.Done() {
			t.Fatalf("%q is %q and %d bytes, want %q and %d", text, got, used, want, len(wire))
		}
	})
}

func TestABadChunkIsRefused(t *testing.T) {
	for _, text := range []string{
		"x\r\n", "\r\n", "-1\r\n", "+1\r\n", "0x1\r\n", " 1\r\n", "1 \r\n", "1\n", "1\rx", "1\r\nab\r\n", "1\r\na\n", "1\r\na\rx",
		"1234567890abcdef\r\n", "1;a\nb\r\n", "1;" + strings.Repeat("a", 2000) + "\r\n", "0\r\n bad\r\n", "0\r\nno colon\r\n\r\n", "0\r\nX: a\nY: b\r\n\r\n", "0\r\nX: \x00\r\n\r\n",
		"0\r\n" + strings.Repeat("X: y\r\n", 2000) + "\r\n",
	} {
		var c h1.Chunked
		rest := []byte(text)
		var err *h1.Error
		for len(rest) > 0 && err == nil && !c.Done() {
			var n int
			_, n, err = c.Next(rest)
			rest = rest[n:]
		}
		if err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"))
	f.Add([]byte("GET http://a/b HTTP/1.0\r\nConnection: keep-alive, x\r\nX: 1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		end := h1.End(text, 0)
		if end == 0 {
			return
		}
		var r h1.Request
		if r.Read(text[:end], 50) != nil {
			return
		}
		// What we take, net/http takes too, and means the same by it: no second reading.
		theirs, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text[:end])))
		if err != nil {
			return // it knows more rules of URLs and hosts; what it refuses it does not misread
		}
		if length := theirs.ContentLength; !r.Body.Chunked && length != r.Body.Length || r.Body.Chunked && length != -1 {
			t.Errorf("%q: a body of %d, net/http says %d", text[:end], r.Body.Length, length)
		}
		if theirs.Method != string(r.Method) {
			t.Errorf("%q: %s, net/http says %s", text[:end], r.Method, theirs.Method)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"))
	f.Add([]byte("HTTP/1.0 404\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var a h1.Answer
		if end := h1.End(text, 0); end > 0 && a.Read(text[:end], false, 50) == nil && (a.Status < 100 || a.Status > 599 || a.Body.Length < -1) {
			t.Errorf("%q: %+v", text, a)
		}
	})
}

func FuzzChunked(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\n\r\n"), 3)
	f.Add([]byte("1;x=y\r\na\r\n0\r\nX: y\r\n\r\n"), 1)
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		cut = max(1, cut%64)
		var whole, cutUp h1.Chunked
		one, wrong := all(t, &whole, text, len(text)+1)
		two, alsoWrong := all(t, &cutUp, text, cut)
		if wrong != alsoWrong || !wrong && !bytes.Equal(one, two) {
			t.Errorf("%q: %q, %v in one piece and %q, %v in pieces of %d", text, one, wrong, two, alsoWrong, cut)
		}
	})
}

func all(t *testing.T, c *h1.Chunked, text []byte, cut int) (got []byte, wrong bool) {
	for len(text) > 0 && !c.Done() {
		data, n, err := c.Next(text[:min(cut, len(text))])
		if err != nil {
			return got, true
		}
		if n == 0 {
			t.Fatalf("nothing was taken of %q", text)
		}
		got, text = append(got, data...), text[n:]
	}
	return got, false
}

func BenchmarkReadRequest(b *testing.B) {
	text := []byte("POST /endpoints/digits/invocations HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\nContent-Length: 33\r\nUser-Agent: python-requests/2.31\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n\r\n")
	var r h1.Request
	b.ReportAllocs()
	for b.Loop() {
		if end := h1.End(text, 0); r.Read(text[:end], 100) != nil {
			b.Fatal("it was refused")
		}
	}
}
