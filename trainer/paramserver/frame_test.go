package paramserver

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/spec"
)

func TestHeadersComeBackAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := header{
			Kind: kind(rapid.IntRange(1, int(kindEnd)-1).Draw(t, "kind")), Slot: rapid.Byte().Draw(t, "slot"),
			Worker: rapid.Uint16().Draw(t, "worker"), Step: rapid.Uint64().Draw(t, "step"), Offset: rapid.Uint32().Draw(t, "offset"),
			Count: rapid.Uint32Range(0, maxText).Draw(t, "count"),
			Stats: Stats{Loss: rapid.Float64().Draw(t, "loss"), Finish: 1},
		}
		var b [headerSize]byte
		h.encode(&b)
		if got, err := decode(&b); err != nil || got != h {
			t.Fatalf("%+v, %v, want %+v", got, err, h)
		}
	})
}

func TestBlocksCoverTheArena(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, servers, at := rapid.IntRange(1, spec.MaxParameters).Draw(t, "n"), rapid.IntRange(1, MaxServers).Draw(t, "servers"), 0
		for i := range servers {
			from, to := Block(n, servers, i)
			if from != at || to < from || to-from > n/servers+1 {
				t.Fatalf("block %d is %d to %d after %d", i, from, to, at)
			}
			at = to
		}
		if at != n {
			t.Fatalf("the blocks end at %d of %d", at, n)
		}
	})
}

// pipe is a connection that reads what it was given.
type pipe struct {
	io.Reader
	bytes.Buffer
}

func (p *pipe) Read(b []byte) (int, error) { return p.Reader.Read(b) }
func (p *pipe) Close() error               { return nil }

func FuzzFrames(f *testing.F) {
	var b [headerSize]byte
	header{Kind: kindPush, Count: 1}.encode(&b)
	f.Add(append(b[:], 1, 2, 3, 4))
	header{Kind: kindHello, Count: 2}.encode(&b)
	f.Add(append(b[:], 'h', 'i'))
	f.Fuzz(func(t *testing.T, input []byte) {
		w := newWire(&pipe{Reader: iotest.HalfReader(bytes.NewReader(input))})
		for read := 0; ; {
			h, err := w.next()
			if err != nil {
				return
			}
			if h.payload() > 4*chunkLen {
				t.Fatalf("a payload of %d bytes", h.payload())
			}
			if h.text() {
				_, err = w.readText(h)
			} else {
				err = w.readValues(make([]float32, h.Count))
			}
			if read += headerSize + h.payload(); err == nil && read > len(input) {
				t.Fatalf("read %d of %d bytes", read, len(input))
			}
		}
	})
}

// A greeted worker that then sends rubbish is answered with the reason, and the run ends
// with it; a stranger that never greets changes nothing.
func TestRubbishFramesEndTheRun(t *testing.T) {
	push := header{Kind: kindPush}
	for _, row := range []struct {
		name   string
		frame  header
		values int
		want   string
	}{
		{"a push before there are weights", push, 10, "before there are weights"},
		{"a chunk that is none", push, 9, "is no chunk"},
		{"an offset beyond the block", header{Kind: kindPush, Offset: 1 << 30}, 10, "is no chunk"},
		{"a slot that is none", header{Kind: kindState, Slot: 9}, 10, "slot 9"},
		{"a server's frame", header{Kind: kindWeights}, 0, "not for a server"},
		{"an unknown kind", header{Kind: 200}, 0, "kind 200 is unknown"},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			ended <- Serve(context.Background(), l, ServerOptions{Servers: 1, Workers: 1, Parameters: 10, Optimizer: spec.Optimizer{SGD: &spec.SGD{Rate: 1}}})
		}()
		stranger, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stranger.Write(bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 8)); err != nil {
			t.Fatal(err)
		}
		k := &link{options: ClientOptions{Addresses: []string{l.Addr().String()}, Workers: 1, Parameters: 10}, address: l.Addr().String(), to: 10}
		if err := k.dial(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := k.wire.write(row.frame, make([]float32, row.values)); err != nil {
			t.Fatal(err)
		}
		if err := k.wire.out.Flush(); err != nil {
			t.Fatal(err)
		}
		a := &attempt{k, k.wire}
		if err := a.expect(kindWelcome); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: the worker heard %v, want %q", row.name, err, row.want)
		}
		k.drop()
		if err := stranger.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !strings.Contains(err.Error(), row.want) || fault.KindOf(err) == fault.Internal {
			t.Errorf("%s: the server ended with %v", row.name, err)
		}
	}
}
