package router_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/serving/router"
)

func TestARequestReachesAReplicaAndItsAnswerTheClient(t *testing.T) {
	at := server(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Answer", "yes")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "%s %s %s %q auth=%q hop=%q own=%q", r.Method, r.RequestURI, r.Header.Get("Content-Type"), body, r.Header.Get("Authorization"), r.Header.Get("Te"), r.Header.Get("X-Own"))
	})
	r := start(t, router.Options{}, table(at))
	answer, body := r.ask(t, client(t), "hello", "Content-Type", "text/csv", "X-Own", "kept", "TE", "trailers", "X-Request-Id", "mine")
	want := `POST /invocations text/csv "hello" auth="" hop="" own="kept"`
	if answer.StatusCode != 201 || body != want {
		t.Errorf("%d %s, want 201 %s", answer.StatusCode, body, want)
	}
	for name, value := range map[string]string{"X-Answer": "yes", "X-Request-Id": "mine", "X-Amzn-Invoked-Production-Variant": "v"} {
		if got := answer.Header.Get(name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
}

func TestBodiesOfAnySizeAndFormArriveWhole(t *testing.T) {
	at := server(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("X-Chunks") != "" { // more than is buffered, or flushed: it has chunks
			w.(http.Flusher).Flush()
		}
		_, _ = w.Write(body)
	})
	r := start(t, router.Options{}, table(at))
	c := client(t)
	for _, size := range []int{0, 1, 100, 16<<10 - 1, 16 << 10, 64 << 10, 64<<10 + 1, 1 << 20, 5 << 20} {
		want := make([]byte, size)
		_, _ = rand.Read(want)
		for _, chunked := range []bool{false, true} {
			for _, chunks := range []string{"", "yes"} {
				body := io.Reader(bytes.NewReader(want))
				if chunked {
					body = io.MultiReader(body) // its length is not known
				}
				request, _ := http.NewRequest(http.MethodPost, r.url("invocations"), body)
				request.Header.Set("X-Chunks", chunks)
				answer, err := c.Do(request)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(answer.Body)
				_ = answer.Body.Close()
				if err != nil || answer.StatusCode != 200 || !bytes.Equal(got, want) {
					t.Fatalf("%d bytes, chunked %v, answered in chunks %q: %d with %d bytes, %v", size, chunked, chunks, answer.StatusCode, len(got), err)
				}
			}
		}
	}
}

func TestEventsArriveAsTheyAreSent(t *testing.T) {
	next := make(chan struct{})
	at := server(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			<-next
		}
	})
	r := start(t, router.Options{}, table(at))
	answer, err := client(t).Post(r.url("invocations-response-stream"), "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	events := bufio.NewReader(answer.Body)
	for i := range 3 { // the server waits for us: what is held back would never come
		for _, want := range []string{fmt.Sprintf("data: %d\n", i), "\n"} {
			if line, err := events.ReadString('\n'); line != want {
				t.Fatalf("%q, %v, want %q", line, err, want)
			}
		}
		next <- struct{}{}
	}
	if rest, err := io.ReadAll(events); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v after the end", rest, err)
	}
}

func TestRequestsInOnePieceAreAnsweredInTurn(t *testing.T) {
	at := server(t, echo)
	r := start(t, router.Options{}, table(at))
	conn, answers := r.dial(t)
	text := ""
	for i := range 20 {
		if i%2 == 0 {
			text += fmt.Sprintf("POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n%02d", i)
		} else {
			text += fmt.Sprintf("POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n%02d\r\n0\r\n\r\n", i)
		}
	}
	send(t, conn, text)
	for i := range 20 {
		if answer, body := receive(t, answers); answer.StatusCode != 200 || body != fmt.Sprintf("%02d", i) {
			t.Fatalf("answer %d is %d %q", i, answer.StatusCode, body)
		}
	}
}

func TestAClientOfHTTP10GetsWhatItUnderstands(t *testing.T) {
	at := server(t, func(w http.ResponseWriter, _ *http.Request) {
		for range 3 {
			_, _ = io.WriteString(w, "part ")
			w.(http.Flusher).Flush()
		}
	})
	r := start(t, router.Options{}, table(at))
	conn, answers := r.dial(t)
	send(t, conn, "POST /endpoints/e/invocations HTTP/1.0\r\nContent-Length: 1\r\n\r\nx")
	text, err := io.ReadAll(answers)
	if err != nil || bytes.Contains(bytes.ToLower(text), []byte("chunked")) || !bytes.HasSuffix(text, []byte("\r\n\r\npart part part ")) {
		t.Errorf("%q, %v", text, err)
	}
}

func TestAClientThatWaitsIsToldToGoOn(t *testing.T) {
	at := server(t, echo)
	r := start(t, router.Options{}, tableWith(route.Limits{Body: 1 << 20}, at))
	for _, size := range []int{10, 100 << 10} {
		conn, answers := r.dial(t)
		send(t, conn, fmt.Sprintf("POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", size))
		if lines := head(t, answers); len(lines) != 1 || lines[0] != "HTTP/1.1 100 Continue" {
			t.Fatalf("it said %q", lines)
		}
		body := strings.Repeat("x", size)
		send(t, conn, body)
		if answer, got := receive(t, answers); answer.StatusCode != 200 || got != body {
			t.Errorf("%d, %d bytes", answer.StatusCode, len(got))
		}
	}
	conn, answers := r.dial(t)
	send(t, conn, "POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2000000\r\n\r\n")
	if answer, _ := receive(t, answers); answer.StatusCode != 413 {
		t.Errorf("a body that is too long was told %d, want 413 at once", answer.StatusCode)
	}
}

func TestOnlyWhatIsForReplicasReachesThem(t *testing.T) {
	at := server(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RequestURI) })
	r := start(t, router.Options{}, table(at))
	c := client(t)
	for path, want := range map[string]string{
		"/endpoints/e/v2/models/m/infer?x=1": "200 /v2/models/m/infer?x=1",
		"/endpoints/e/v2/health/ready":       "200 /v2/health/ready",
		"/endpoints/e/invocations":           "405",
		"/endpoints/e/ping":                  "404", "/endpoints/e/": "404", "/endpoints/e": "404", "/endpoints//invocations": "404", "/": "404", "/metrics": "404",
		"/endpoints/e/v2/../metrics": "404", "/endpoints/e/v2/%2e%2e/metrics": "404", "/endpoints/e/v2//x": "404",
		"/ping": "200 ",
	} {
		request, _ := http.NewRequest(http.MethodGet, "http://"+r.address, nil)
		request.URL.Opaque = path
		answer, err := c.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		got := fmt.Sprint(answer.StatusCode)
		if answer.StatusCode == 200 {
			got += " " + string(body)
		} else if !strings.Contains(string(body), `{"error":"`) {
			t.Errorf("%s: %d says %q", path, answer.StatusCode, body)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func TestAReplicaCannotSayWhatIsTheRoutersToSay(t *testing.T) {
	r := start(t, router.Options{}, table(server(t, func(w http.ResponseWriter, _ *http.Request) {
		for _, name := range []string{"X-Amzn-Invoked-Production-Variant", "X-Clary-Inference-Id", "X-Request-Id"} {
			w.Header().Set(name, "lie")
		}
		w.Header().Set("X-Own", "kept")
	})))
	answer, _ := r.ask(t, client(t), "x", "X-Request-Id", "mine")
	for name, want := range map[string]string{"X-Amzn-Invoked-Production-Variant": "v", "X-Clary-Inference-Id": "", "X-Request-Id": "mine", "X-Own": "kept"} {
		if got := strings.Join(answer.Header.Values(name), ","); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestAnAnswerToHEADHasNoBody(t *testing.T) {
	at := server(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "5") })
	r := start(t, router.Options{}, table(at))
	conn, answers := r.dial(t)
	for range 2 {
		send(t, conn, "HEAD /endpoints/e/v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
		lines := head(t, answers)
		if len(lines) == 0 || !strings.HasPrefix(lines[0], "HTTP/1.1 200") || !strings.Contains(strings.Join(lines, "\n"), "Content-Length: 5") {
			t.Fatalf("%q", lines)
		}
	}
}

func TestOverTLSItIsTheSame(t *testing.T) {
	at := server(t, echo)
	certified := httptest.NewTLSServer(nil)
	defer certified.Close()
	r := start(t, router.Options{TLS: &tls.Config{Certificates: certified.TLS.Certificates, MinVersion: tls.VersionTLS12}}, table(at))
	roots := x509.NewCertPool()
	roots.AddCert(certified.Certificate())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "example.com"}}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport, Timeout: wait}
	for _, size := range []int{1, 20 << 10, 3 << 20} {
		for range 3 {
			want := strings.Repeat("x", size)
			answer, err := c.Post("https://"+r.address+"/endpoints/e/invocations", "text/plain", strings.NewReader(want))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(answer.Body)
			_ = answer.Body.Close()
			if err != nil || string(got) != want {
				t.Fatalf("%d bytes of %d, %v", len(got), size, err)
			}
		}
	}
	if err := r.stop(); err != nil { // idle TLS connections end too
		t.Error(err)
	}
}

func TestConnectionsOfAnotherKindServeToo(t *testing.T) {
	at := server(t, echo)
	r := start(t, router.Options{Dial: func(ctx context.Context, to route.Replica) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", to.Address)
		return struct{ net.Conn }{conn}, err // no socket can be taken from this
	}}, table(at))
	c := client(t)
	for _, size := range []int{1, 100, 1 << 20} {
		want := strings.Repeat("x", size)
		if answer, got := r.ask(t, c, want); answer.StatusCode != 200 || got != want {
			t.Errorf("%d, %d bytes of %d", answer.StatusCode, len(got), size)
		}
	}
}
