package memnet_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"

	"github.com/clary-ml/clary/internal/memnet"
)

// pair is the two ends of a stream.
func pair(t *testing.T, n *memnet.Network) (client, server net.Conn) {
	t.Helper()
	listener, err := n.Host("10.0.0.1").Listen("10.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	if client, err = n.Host("10.0.0.2").Dial(t.Context(), listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

func TestAStreamIsAStream(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		client, server := pair(t, &memnet.Network{})
		return client, server, func() { _ = client.Close(); _ = server.Close() }, nil
	})
}

func TestWhatIsSentIntoAPartitionArrivesWhenItHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n memnet.Network
		client, server := pair(t, &n)
		n.Cut(func(string, string) bool { return true })
		if _, err := client.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		_ = client.Close()
		_ = server.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := server.Read(make([]byte, 9)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("through the partition came %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := n.Host("10.0.0.2").Dial(ctx, server.LocalAddr().String()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a connection through the partition: %v", err)
		}
		_ = server.SetReadDeadline(time.Time{})
		n.Cut(nil)
		if got, err := io.ReadAll(server); string(got) != "hello" || err != nil {
			t.Errorf("healed, it reads %q, %v", got, err)
		}
	})
}

func TestNobodyListensMeansRefused(t *testing.T) {
	var n memnet.Network
	if _, err := n.Host("10.0.0.2").Dial(t.Context(), "10.0.0.1:1"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
	if _, err := n.Host("10.0.0.2").Listen("10.0.0.1:1"); err == nil {
		t.Error("a host listens at another's address")
	}
}
