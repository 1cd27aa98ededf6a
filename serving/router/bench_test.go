package router_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http/httptest"
	"testing"

	"github.com/clary-ml/clary/serving/router"
)

// BenchmarkExchange is a short request through the router, and its answer, from one client at a time. What is
// allocated is the router's: neither the client nor the replica of this benchmark does.
func BenchmarkExchange(b *testing.B) {
	certified := httptest.NewTLSServer(nil)
	defer certified.Close()
	for name, secure := range map[string]*tls.Config{"plain": nil, "tls": {Certificates: certified.TLS.Certificates, MinVersion: tls.VersionTLS13}} {
		b.Run(name, func(b *testing.B) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = listener.Close() }()
			go func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					go func() {
						buffer, answer := make([]byte, 4096), []byte(okay)
						for {
							if _, err := conn.Read(buffer); err != nil {
								return
							}
							_, _ = conn.Write(answer)
						}
					}()
				}
			}()
			r, err := router.New(router.Options{TLS: secure, Loops: 1})
			if err != nil {
				b.Fatal(err)
			}
			if err := r.SetTable(table(listener.Addr().String())); err != nil {
				b.Fatal(err)
			}
			front, err := router.Listen(b.Context(), "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- r.Run(ctx, front) }()
			conn, err := net.Dial("tcp", front.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			if secure != nil {
				conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
			}
			request, buffer := []byte("POST /endpoints/e/invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nhello"), make([]byte, 4096)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := conn.Write(request); err != nil {
					b.Fatal(err)
				}
				if _, err := conn.Read(buffer); err != nil {
					b.Fatal(err)
				}
			}
			_ = conn.Close()
			cancel()
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		})
	}
}
