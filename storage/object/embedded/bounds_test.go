package embedded_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/ops"
	"github.com/clary-ml/clary/storage/object"
	"github.com/clary-ml/clary/storage/object/embedded"
)

// connect shakes hands with the store, from some address of this machine.
func (s *store) connect(from string, sessions tls.ClientSessionCache) (*tls.Conn, error) {
	dialer := &net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	return tls.DialWithDialer(dialer, "tcp", s.address, &tls.Config{InsecureSkipVerify: true, ClientSessionCache: sessions}) //nolint:gosec // it is the server that is tried
}

// refused reports whether a store has ended a connection, rather than waits for a request.
func refused(conn net.Conn) bool {
	_ = conn.SetReadDeadline(time.Now().Add(time.Second))
	_, err := conn.Read(make([]byte, 1))
	return err != nil && !os.IsTimeout(err)
}

func TestConnectionsOfOneAddressAreBoundedAndOthersAreServed(t *testing.T) {
	s := start(t)
	const most = 1024
	sessions := tls.NewLRUClientSessionCache(1) // a handshake that goes on from another costs little
	var conns []*tls.Conn
	defer func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}()
	for range most + 20 {
		conn, err := s.connect("127.0.0.2", sessions)
		if err != nil {
			t.Fatal(err)
		}
		if len(conns) == 0 {
			_ = refused(conn) // which reads the session's ticket
		}
		conns = append(conns, conn)
	}
	if !refused(conns[most+19]) {
		t.Errorf("%d connections of one address stand", len(conns))
	}
	if refused(conns[most/2]) {
		t.Error("one that came before is ended")
	}
	if err := s.as(t, embedded.RoleUser).EnsureBucket(t.Context(), "data"); err != nil {
		t.Errorf("others are not served: %v", err)
	}
	if !strings.Contains(s.log.String(), "too many without a certificate") {
		t.Errorf("it is not said:\n%s", s.log)
	}
}

// reserve has the store leave so much free, and waits until it heeds that.
func (s *store) reserve(t *testing.T, least int64, says string) {
	t.Helper()
	before := strings.Count(s.log.String(), says)
	if err := embedded.WriteReserve(filepath.Join(s.dir, "reserve"), least); err != nil {
		t.Fatal(err)
	}
	for late := time.Now().Add(20 * time.Second); strings.Count(s.log.String(), says) == before; time.Sleep(10 * time.Millisecond) { // it looks ten times a second
		if time.Now().After(late) {
			t.Fatalf("the store does not say %q:\n%s", says, s.log)
		}
	}
}

// room is what the store's disk has free.
func (s *store) room(t *testing.T) int64 {
	t.Helper()
	free, _, err := ops.Room(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	return free
}

func TestUploadsAreHeldBackWhileTheDiskIsLow(t *testing.T) {
	s := start(t)
	user, member := s.as(t, embedded.RoleUser), s.open(t, embedded.RootAccess, s.keys.ObjectSecret)
	at := func(key string) object.URI { return object.URI{Bucket: "data", Key: key} }
	put := func(c *object.Client, key string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // members are told to try again, and do
		defer cancel()
		_, err := c.Put(ctx, at(key), strings.NewReader("v"), 1)
		return err
	}
	if err := user.EnsureBucket(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	if err := put(user, "a"); err != nil {
		t.Fatal(err)
	}
	s.reserve(t, s.room(t)*3/2, "uploads of users are refused")
	if err := put(user, "b"); !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "are the coordinator's") || !strings.Contains(err.Error(), "delete objects") {
		t.Errorf("a user is told: %v", err)
	}
	if err := put(member, "c"); err != nil {
		t.Errorf("what runs cannot end: %v", err)
	}
	s.reserve(t, s.room(t)*3, "all uploads are refused")
	if err := put(member, "d"); !fault.Is(err, fault.Unready) {
		t.Errorf("a member is told: %v", err)
	}
	if got := read(t, user, at("a"), 0, -1); got != "v" {
		t.Errorf("what is there reads %q", got)
	}
	if err := user.Delete(t.Context(), at("a")); err != nil {
		t.Errorf("what makes room: %v", err)
	}
	s.reserve(t, 1, "uploads are taken again")
	if err := put(user, "e"); err != nil {
		t.Errorf("with room: %v", err)
	}
}

// An upload that had begun when the disk became low is stopped, and leaves nothing.
func TestAnUploadIsStoppedWhenTheDiskBecomesLow(t *testing.T) {
	s := start(t)
	user := s.as(t, embedded.RoleUser)
	if err := user.EnsureBucket(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	const size = 12 << 20 // one request
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := user.Put(t.Context(), object.URI{Bucket: "data", Key: "long"}, reader, size)
		_ = reader.CloseWithError(io.ErrClosedPipe)
		ended <- err
	}()
	piece := make([]byte, 1<<20)
	for range 4 {
		if _, err := writer.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	s.reserve(t, s.room(t)*3/2, "uploads of users are refused")
	for sent := 4 << 20; sent < size; sent += len(piece) {
		if _, err := writer.Write(piece); err != nil {
			break
		}
	}
	_ = writer.Close()
	if err := <-ended; !fault.Is(err, fault.Exhausted) && !fault.Is(err, fault.Unready) {
		t.Errorf("it ended with %v", err)
	}
	if _, err := user.Stat(t.Context(), object.URI{Bucket: "data", Key: "long"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("there is something: %v", err)
	}
}

// What is uploaded in parts and stops midway takes room that no listing shows, until it is given up.
func TestAnUploadThatNobodyGoesOnWithIsFoundAndGivenUp(t *testing.T) {
	s := start(t)
	c, at := s.open(t, embedded.RootAccess, s.keys.ObjectSecret), object.URI{Bucket: "data", Key: "a/long"}
	if err := c.EnsureBucket(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := c.Put(ctx, at, reader, -1)
		ended <- err
	}()
	if _, err := writer.Write(make([]byte, 17<<20)); err != nil { // one part, and some more
		t.Fatal(err)
	}
	var found []object.Unfinished
	for late := time.Now().Add(20 * time.Second); len(found) == 0 || found[0].Objects == 0; time.Sleep(20 * time.Millisecond) { // the part is on its way
		if time.Now().After(late) {
			t.Fatalf("unfinished are %+v", found)
		}
		var err error
		if found, err = c.Unfinished(t.Context(), object.URI{Bucket: "data", Key: "a/"}); err != nil {
			t.Fatal(err)
		}
	}
	if u := found[0]; u.URI != at || u.Bytes != 16<<20 || time.Since(u.Newest).Abs() > time.Minute {
		t.Errorf("unfinished is %+v", u)
	}
	if other, err := c.Unfinished(t.Context(), object.URI{Bucket: "data", Key: "b/"}); err != nil || len(other) > 0 {
		t.Errorf("elsewhere: %v, %v", other, err)
	}
	if err := errors.Join(c.GiveUp(t.Context(), found[0]), c.GiveUp(t.Context(), found[0])); err != nil {
		t.Error(err)
	}
	if left, err := c.Unfinished(t.Context(), object.URI{Bucket: "data"}); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
	_ = writer.Close()
	if err := <-ended; err == nil {
		t.Error("an upload that was given up is completed")
	}
	cancel()
}
