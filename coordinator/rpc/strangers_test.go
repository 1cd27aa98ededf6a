package rpc_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// begin begins calls without ever ending their requests, as nobody of good will does.
func (w *world) begin(calls int) net.Conn {
	w.Helper()
	raw, err := w.net.Host("10.0.0.7").Dial(w.Context(), server+port)
	if err != nil {
		w.Fatal(err)
	}
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) // it does not care who answers
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		w.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	_ = framer.WriteSettings()
	var head bytes.Buffer
	encoder := hpack.NewEncoder(&head)
	for i := range calls {
		head.Reset()
		for _, field := range [][2]string{
			{":method", "POST"}, {":scheme", "https"}, {":path", "/clary.v1.Admin/WhoAmI"}, {":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"},
		} {
			_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
		}
		stream := uint32(2*i + 1)
		if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: head.Bytes(), EndHeaders: true}); err != nil {
			w.Fatal(err)
		}
		if err := framer.WriteData(stream, false, []byte{0, 0, 255, 255, 255, 0}); err != nil { // of 16 MiB the first byte
			w.Fatal(err)
		}
	}
	go func() { _, _ = io.Copy(io.Discard, raw) }() // ends with the connection
	w.Cleanup(func() { _ = raw.Close() })
	return raw
}

// Whoever is not known holds little, however many calls he begins, and keeps out strangers alone.
func TestStrangersWhoNeverEndTheirRequestsAreFew(t *testing.T) {
	inWorld(t, func(w *world) {
		who := func(as string) error {
			ctx, cancel := context.WithTimeout(w.Context(), 5*time.Second)
			defer cancel()
			_, err := claryv1.NewAdminClient(w.as(as)).WhoAmI(ctx, &claryv1.WhoAmIRequest{})
			return wire.FromStatus(err)
		}
		if err := who(""); !fault.Is(err, fault.Denied) {
			w.Errorf("a stranger among none hears %v", err)
		}
		conn := w.begin(100)
		synctest.Wait()
		if err := who(""); !fault.Is(err, fault.Unready) {
			w.Errorf("a stranger among many hears %v", err)
		}
		if err := who(cluster.RoleUser); err != nil {
			w.Errorf("a user is kept out by strangers: %v", err)
		}
		_ = conn.Close()
		synctest.Wait()
		if err := who(""); !fault.Is(err, fault.Denied) {
			w.Errorf("a stranger after them hears %v", err)
		}
	})
}
