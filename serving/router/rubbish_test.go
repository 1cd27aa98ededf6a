package router_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/serving/router"
)

func TestWhatCouldBeReadInTwoWaysReachesNoReplica(t *testing.T) {
	var seen atomic.Int64
	at := script(t, func(_ net.Conn, r *bufio.Reader) {
		for {
			if _, err := r.ReadByte(); err != nil {
				return
			}
			seen.Add(1)
		}
	})
	r := start(t, router.Options{}, table(at))
	const start = "POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\n"
	for _, c := range []struct {
		text   string
		status int
	}{
		{start + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x", 400},
		{start + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhelloo", 400},
		{start + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501},
		{start + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
		{start + "X: 1\r\n folded\r\n\r\n", 400},
		{start + "X: \x00\r\n\r\n", 400},
		{start + "X: 1\nContent-Length: 3\r\n\r\nabc", 400},
		{start + "Transfer-Encoding: chunked\r\n\r\nnot hex\r\n", 400},
		{start + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", 400},
		{start + "Expect: nothing\r\n\r\n", 417},
		{"GARBAGE\r\n\r\n", 400},
		{"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n", 400},
		{"POST /endpoints/e/invocations HTTP/3.0\r\nHost: x\r\n\r\n", 505},
		{start + strings.Repeat("X: y\r\n", 200) + "\r\n", 431},
		{start + "X: " + strings.Repeat("y", 40<<10) + "\r\n\r\n", 431},
		{start + "X: " + strings.Repeat("y", 200<<10), 431},
		{start + "Content-Length: 100000000\r\n\r\n", 413},
	} {
		conn, answers := r.dial(t)
		send(t, conn, c.text)
		answer, body := receive(t, answers)
		if answer.StatusCode != c.status || !strings.HasPrefix(body, `{"error":"`) || !answer.Close {
			t.Errorf("%.60q is answered with %d %q, want %d and the connection's end", c.text, answer.StatusCode, body, c.status)
		}
		if rest, err := io.ReadAll(answers); len(rest) > 0 || err != nil {
			t.Errorf("%.60q: %q, %v after the answer", c.text, rest, err)
		}
	}
	if n := seen.Load(); n != 0 {
		t.Errorf("a replica got %d bytes of it", n)
	}
}

func TestWhatCannotBeReadIsAnsweredForItselfAlone(t *testing.T) {
	r := start(t, router.Options{}, table(server(t, said("ok"))))
	for _, rubbish := range []string{"X" + strings.Repeat("y", 40<<10), strings.Repeat("\r\nSet-Cookie: a=b\r\n", 3000), "NO\r\n\r\n"} {
		conn, answers := r.dial(t)
		send(t, conn, "HEAD /endpoints/e/v2/x HTTP/1.1\r\nHost: x\r\nX-Request-Id: the-first-one\r\n\r\n")
		if lines := head(t, answers); len(lines) == 0 || lines[0] != "HTTP/1.1 200 OK" {
			t.Fatalf("%q", lines)
		}
		send(t, conn, rubbish)
		answer, body := receive(t, answers)
		if id := answer.Header.Get("X-Request-Id"); answer.StatusCode < 400 || id != "" || len(answer.Cookies()) > 0 || !strings.HasPrefix(body, `{"error":"`) {
			t.Errorf("%.20q is answered with %d %v %q", rubbish, answer.StatusCode, answer.Header, body)
		}
	}
}

func TestABodyThatTurnsBadOnItsWayEndsItsRequestAlone(t *testing.T) {
	at := server(t, echo)
	r := start(t, router.Options{}, table(at))
	conn, answers := r.dial(t)
	send(t, conn, "POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
	send(t, conn, "oops\r\n")
	if answer, _ := receive(t, answers); answer.StatusCode != 400 || !answer.Close {
		t.Errorf("%d, want 400", answer.StatusCode)
	}
	if answer, body := r.ask(t, client(t), "fine"); answer.StatusCode != 200 || body != "fine" {
		t.Errorf("the next is answered with %d %q", answer.StatusCode, body)
	}
}

func TestAnEndlessBodyEndsAtTheLimit(t *testing.T) {
	at := server(t, echo)
	r := start(t, router.Options{}, tableWith(route.Limits{Body: 1 << 20}, at))
	conn, answers := r.dial(t)
	send(t, conn, "POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 32<<10, strings.Repeat("x", 32<<10))
	go func() {
		for {
			if _, err := io.WriteString(conn, chunk); err != nil {
				return
			}
		}
	}()
	if answer, body := receive(t, answers); answer.StatusCode != 413 || !strings.Contains(body, "limits.body") {
		t.Errorf("%d %s, want 413", answer.StatusCode, body)
	}
}

func TestClientsThatDawdleAreSentAway(t *testing.T) {
	at := server(t, echo)
	r := start(t, router.Options{HeadTime: 200 * time.Millisecond, BodyStall: 200 * time.Millisecond, IdleTime: 200 * time.Millisecond}, table(at))
	for name, text := range map[string]string{
		"in the head":          "POST /endpoints/e/inv",
		"in a short body":      "POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
		"in a long body":       "POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc",
		"in a body of chunks":  "POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
		"before a body at all": "POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
	} {
		conn, answers := r.dial(t)
		send(t, conn, text)
		if answer, body := receive(t, answers); answer.StatusCode != 408 {
			t.Errorf("%s: %d %s, want 408", name, answer.StatusCode, body)
		}
	}
	_, answers := r.dial(t)
	if text, err := io.ReadAll(answers); len(text) > 0 || err != nil {
		t.Errorf("who says nothing is told %q, %v", text, err)
	}
}

func TestATricklingBodyIsSentAway(t *testing.T) {
	at := server(t, echo)
	r := start(t, router.Options{BodyStall: 300 * time.Millisecond, BodyRate: 1000}, table(at))
	conn, answers := r.dial(t)
	send(t, conn, "POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
	go func() {
		for { // a byte at a time never stalls
			if _, err := io.WriteString(conn, "x"); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	if answer, body := receive(t, answers); answer.StatusCode != 408 {
		t.Errorf("%d %s, want 408", answer.StatusCode, body)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	at := server(t, echo)
	r := start(t, router.Options{MaxConnections: 3}, table(at))
	var held []net.Conn
	for range 3 {
		conn, answers := r.dial(t)
		send(t, conn, "POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
		if answer, _ := receive(t, answers); answer.StatusCode != 200 {
			t.Fatalf("%d", answer.StatusCode)
		}
		held = append(held, conn)
	}
	_, answers := r.dial(t)
	if answer, body := receive(t, answers); answer.StatusCode != 503 || !strings.Contains(body, "3 connections") {
		t.Errorf("the fourth is answered with %d %s, want 503", answer.StatusCode, body)
	}
	_ = held[0].Close()
	until(t, "there is room again", func() bool {
		conn, err := net.Dial("tcp", r.address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
		line, _ := bufio.NewReader(conn).ReadString('\n')
		return strings.HasPrefix(line, "HTTP/1.1 200")
	})
}

func TestAddressesAreBounded(t *testing.T) {
	at := server(t, echo)
	r := start(t, router.Options{PerClient: 1}, table(at))
	conn, one := r.dial(t)
	send(t, conn, "POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
	if answer, _ := receive(t, one); answer.StatusCode != 200 {
		t.Fatalf("%d", answer.StatusCode)
	}
	_, two := r.dial(t)
	if answer, body := receive(t, two); answer.StatusCode != 503 || !strings.Contains(body, "127.0.0.1") {
		t.Errorf("%d %s, want 503", answer.StatusCode, body)
	}
}

func TestAReplicaThatTalksRubbishIsTold502(t *testing.T) {
	for name, says := range map[string]string{
		"no HTTP":               "hello\r\n\r\n",
		"two lengths":           "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"length and chunks":     "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"a head without an end": "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 200<<10),
		"another protocol":      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
		"nothing":               "",
	} {
		t.Run(name, func(t *testing.T) {
			at := script(t, func(conn net.Conn, r *bufio.Reader) {
				if head(t, r) != nil {
					_, _ = io.WriteString(conn, says)
				}
			})
			r := start(t, router.Options{}, table(at))
			if answer, body := r.ask(t, client(t), ""); answer.StatusCode != 502 || !strings.Contains(body, "replica v-0") {
				t.Errorf("%d %s, want 502", answer.StatusCode, body)
			}
		})
	}
}
