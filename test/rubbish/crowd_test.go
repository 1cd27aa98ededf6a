package rubbish

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/clary-ml/clary/auth/pki"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// crowd is how many connect at a time and say nothing. A process may have 20,000 descriptors where these tests run.
const crowd = 10_000

func TestTenThousandWhoSayNothingKeepNobodyFromBeingServed(t *testing.T) {
	g := start(t, 1, 1)
	for _, at := range g.doors() {
		if at.udp {
			continue
		}
		g.during(t, fmt.Sprintf("%d connections to %s", crowd, at.what), func() {
			conns := make([]net.Conn, 0, crowd)
			for range crowd {
				conn, err := net.DialTimeout("tcp", at.address, 5*time.Second)
				if err != nil {
					break // it takes no more: that is its right
				}
				conns = append(conns, conn)
			}
			if len(conns) < crowd/2 {
				t.Errorf("%s took %d connections", at.what, len(conns))
			}
			held := time.Now()
			buffer := make([]byte, 1)
			ended := 0
			for _, conn := range conns {
				_ = conn.SetReadDeadline(held.Add(2 * time.Second))
				if _, err := conn.Read(buffer); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					ended++
				}
			}
			t.Logf("%s: %d of %d connections were ended after %s", at.what, ended, len(conns), time.Since(held).Round(time.Millisecond))
			for _, conn := range conns {
				_ = conn.Close()
			}
		})
	}
}

// Of those who show no certificate 4,096 stand at a time, wherever they come from, and none at an agent's port; it is measured what
// these cost, which their number bounds.
func TestTenThousandWhoShakeHandsAndSayNothing(t *testing.T) {
	const guests, each = 4096, 128 << 10
	g := start(t, 1, 1)
	g.allowed = guests * each
	for _, at := range g.doors() {
		if at.udp || strings.Contains(at.what, "gossip") { // which speaks no TLS
			continue
		}
		first, err := secured(at.address, "", nil)
		if err != nil {
			t.Logf("%s speaks no TLS: %v", at.what, err)
			continue
		}
		_ = first.Close()
		g.during(t, fmt.Sprintf("%d idle connections by TLS to %s", crowd, at.what), func() {
			conns := shakeHands(t, at.address)
			if len(conns) < crowd/2 {
				t.Errorf("%s shook hands with %d", at.what, len(conns))
			}
			g.settle(at.what)
			standing := stand(conns)
			t.Logf("%s: of %d who shook hands %d stood", at.what, len(conns), standing)
			var wrong bool
			switch at.what {
			case "an agent's port": // which is for who has a certificate
				wrong = standing > 0
			case "a router": // whose bounds are its own
				wrong = standing == 0
			default:
				wrong = standing == 0 || standing > guests
			}
			if wrong {
				t.Errorf("%s let %d of %d in", at.what, standing, len(conns))
			}
		})
	}
}

// stand counts those that the other side has not ended, and ends all.
func stand(conns []*tls.Conn) int {
	var standing atomic.Int64
	var looking sync.WaitGroup
	until := time.Now().Add(3 * time.Second)
	for _, conn := range conns {
		looking.Go(func() {
			defer conn.Close()
			_ = conn.SetReadDeadline(until)
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				standing.Add(1)
			}
		})
	}
	looking.Wait()
	return int(standing.Load())
}

// shakeHands makes a crowd of connections by TLS, from ten addresses. All but the first of an address go on from a session, which costs
// this machine less.
func shakeHands(t *testing.T, address string) []*tls.Conn {
	t.Helper()
	var mu sync.Mutex
	var conns []*tls.Conn
	var dialing sync.WaitGroup
	for from := range 10 {
		dialing.Go(func() {
			config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}, ClientSessionCache: tls.NewLRUClientSessionCache(1)} //nolint:gosec // it is the server that is tried
			dialer := &net.Dialer{Timeout: 20 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(from+1))}}
			for range crowd / 10 {
				conn, err := tls.DialWithDialer(dialer, "tcp", address, config)
				if err != nil {
					continue // it takes no more: that is its right
				}
				if conn.ConnectionState().NegotiatedProtocol == "h2" {
					_, _ = io.WriteString(conn, preface)
				}
				_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
				_, _ = conn.Read(make([]byte, 1)) // the ticket of the session
				mu.Lock()
				conns = append(conns, conn)
				mu.Unlock()
			}
		})
	}
	dialing.Wait()
	return conns
}

func TestSlowAndSilentClientsHoldNobodyUp(t *testing.T) {
	g := start(t, 1, 1)
	for _, at := range g.doors() {
		if at.udp {
			continue
		}
		g.during(t, "clients that send a byte now and then to "+at.what, func() {
			var slow sync.WaitGroup
			for i := range 200 {
				slow.Go(func() {
					text := "POST /endpoints/x/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
					conn := net.Conn(nil)
					var err error
					if i%2 == 0 {
						conn, err = secured(at.address, "http/1.1", nil)
					} else {
						conn, err = net.DialTimeout("tcp", at.address, 5*time.Second)
					}
					if err != nil {
						return
					}
					defer conn.Close()
					for letter := range 20 {
						if _, err := io.WriteString(conn, text[letter:letter+1]); err != nil {
							return
						}
						time.Sleep(100 * time.Millisecond) // the slowness is what is tested
					}
				})
			}
			slow.Wait()
		})
	}
}

// A stream that nobody reads fills its window, and then whoever writes has to wait, or to give up: nothing may pile up behind it.
func TestStreamsThatNobodyReadsDoNotPileUp(t *testing.T) {
	g := start(t, 1, 1)
	g.Clary("run", "--detach", "--name", "talks", "--", "sh", "-c", "i=0; while [ $i -lt 60000 ]; do echo $i aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; i=$((i+1)); done; sleep 600")
	token, err := os.ReadFile(filepath.Join(g.Path("s1"), "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	g.WaitFor("it to talk", 30*time.Second, func() bool { out, _ := g.Try("logs", "talks", "--tail", "1"); return strings.Contains(out, "59999") })
	g.during(t, "logs that nobody reads", func() {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		conn, err := grpc.NewClient("passthrough:///"+g.flag("s1", "--listen"), grpc.WithTransportCredentials(credentials.NewTLS(pki.PinnedTLS(g.Context().CAPin))), grpc.WithPerRPCCredentials(bearer(strings.TrimSpace(string(token)))))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for range 100 {
			if _, err := claryv1.NewJobsClient(conn).Logs(ctx, &claryv1.LogsRequest{Job: "talks", Follow: true}); err != nil {
				t.Error(err)
			}
			if _, err := claryv1.NewJobsClient(conn).Watch(ctx, &claryv1.WatchJobRequest{Name: "talks"}); err != nil {
				t.Error(err)
			}
		}
		for range 50 { // jobs come and go meanwhile, of which the watchers are not interested
			g.Clary("run", "--hold", "--detach", "--", "true")
		}
	})
	g.Clary("cancel", "talks")
	_, _ = g.Try("wait", "talks", "--timeout", "1m")
}

type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }
