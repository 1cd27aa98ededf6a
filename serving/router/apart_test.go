package router_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/serving/router"
)

func TestAnAnswerThatBreaksOffOverTLSIsNotTakenForWhole(t *testing.T) {
	certified := httptest.NewTLSServer(nil)
	defer certified.Close()
	at := script(t, func(conn net.Conn, in *bufio.Reader) {
		if head(t, in) != nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
		}
	})
	r := start(t, router.Options{TLS: &tls.Config{Certificates: certified.TLS.Certificates}}, table(at))
	conn, err := tls.Dial("tcp", r.address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(wait))
	send(t, conn, "GET /endpoints/e/v2/x HTTP/1.0\r\nHost: a\r\n\r\n") // the end of the connection is that of the answer
	if text, err := io.ReadAll(conn); err == nil {
		t.Errorf("it was taken for whole: %q", text)
	}
}

func TestARefusedHeadIsAnsweredWithNothingOfAnotherClient(t *testing.T) {
	r := start(t, router.Options{Loops: 1}, table(server(t, said("x"))))
	for name, second := range map[string]string{"that cannot be read": "RUBBISH\r\n\r\n", "that is too long": "GET / HTTP/1.1\r\nPad: " + strings.Repeat("p", 40<<10)} {
		t.Run(name, func(t *testing.T) {
			a, answers := r.dial(t)
			send(t, a, "POST /endpoints/e/invocations HTTP/1.1\r\nHost: a\r\nPad: "+strings.Repeat("p", 40)+"\r\nX-Request-Id: "+strings.Repeat("i", 128)+"\r\nContent-Length: 1\r\n\r\nx")
			receive(t, answers)
			for range 10 { // one of them has the buffer that the first had
				b, in := r.dial(t)
				send(t, b, "POST /endpoints/e/invocations HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer "+strings.Repeat("SECRET", 40)+"\r\nContent-Length: 1\r\n\r\nx")
				receive(t, in)
			}
			send(t, a, second)
			answer, text := receive(t, answers)
			if id := answer.Header.Get("X-Request-Id"); id != "" || answer.StatusCode/100 != 4 {
				t.Errorf("%d with the id %q: %s", answer.StatusCode, id, text)
			}
		})
	}
}

func TestEmptyLinesBeforeAHeadStopNobody(t *testing.T) {
	r := start(t, router.Options{Loops: 1}, table(server(t, echo)))
	request := "POST /endpoints/e/invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n" + strings.Repeat("b", 60000)
	a, answers := r.dial(t)
	send(t, a, "\r\n"+request)
	if answer, body := receive(t, answers); answer.StatusCode != 200 || len(body) != 60000 {
		t.Errorf("after one empty line: %d with %d bytes", answer.StatusCode, len(body))
	}
	b, answers := r.dial(t)
	go func() { _, _ = io.WriteString(b, strings.Repeat("\r\n", 40000)+request) }()
	if answer, _ := receive(t, answers); answer.StatusCode != 400 {
		t.Errorf("after many: %d", answer.StatusCode)
	}
	if answer, body := r.ask(t, client(t), "x"); answer.StatusCode != 200 || body != "x" {
		t.Errorf("another client has %d %s", answer.StatusCode, body)
	}
}

func TestAHeadThatFillsItsBufferLeavesRoomForABody(t *testing.T) {
	handlers := map[string]http.Handler{"rewards": http.HandlerFunc(echo)}
	r := start(t, router.Options{Loops: 1, Handlers: handlers}, table(server(t, echo)))
	for _, action := range []string{"rewards", "invocations"} {
		for _, size := range []int{16<<10 - 1, 16 << 10, 16<<10 + 1} {
			a, answers := r.dial(t)
			head := "POST /endpoints/e/" + action + " HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX-Request-Id: mine\r\nPad: "
			send(t, a, head+strings.Repeat("p", size-len(head)-4)+"\r\n\r\n")
			send(t, a, "1\r\nx\r\n0\r\n\r\n")
			if answer, body := receive(t, answers); answer.StatusCode != 200 || body != "x" || answer.Header.Get("X-Request-Id") != "mine" {
				t.Errorf("%s with a head of %d bytes: %d %s", action, size, answer.StatusCode, body)
			}
		}
	}
}

func TestTokensOfTheClusterReachNoReplica(t *testing.T) {
	at := server(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Header.Get("Authorization")) })
	r := start(t, router.Options{}, table(at)) // public: nobody asks for a token
	for sent, want := range map[string]string{"Bearer clary_u_ab_cd": "", "bearer  clary_u_ab_cd": "", "clary_j_ab_cd": "", "Bearer of-the-model": "Bearer of-the-model"} {
		if _, got := r.ask(t, client(t), "x", "Authorization", sent); got != want {
			t.Errorf("of %q the replica sees %q, want %q", sent, got, want)
		}
	}
}

func TestAnObserverThatBreaksEndsNoExchange(t *testing.T) {
	breaks := func() { panic("it broke") }
	for name, o := range map[string]observer{
		"when it begins": func(*router.Exchange) *router.Watch { breaks(); return nil },
		"at the replica's": func(*router.Exchange) *router.Watch {
			return &router.Watch{AppendRequest: func([]byte, *router.Exchange) []byte { breaks(); return nil }, Instead: func([]byte) bool { return false }}
		},
		"at what is instead": func(*router.Exchange) *router.Watch {
			return &router.Watch{AppendRequest: func(h []byte, _ *router.Exchange) []byte { return h }, Instead: func([]byte) bool { breaks(); return true }}
		},
		"at the head": func(*router.Exchange) *router.Watch {
			return &router.Watch{AppendHead: func([]byte, *router.Exchange) []byte { breaks(); return nil }}
		},
		"at the end": func(*router.Exchange) *router.Watch { return &router.Watch{Done: func(*router.Exchange) { breaks() }} },
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, router.Options{Loops: 1, Observer: o}, tableWith(route.Limits{Concurrency: 1}, server(t, echo)))
			c := client(t)
			for range 3 {
				if answer, body := r.ask(t, c, "x"); answer.StatusCode != 200 || body != "x" {
					t.Errorf("%d %s", answer.StatusCode, body)
				}
			}
		})
	}
}
