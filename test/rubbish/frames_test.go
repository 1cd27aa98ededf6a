package rubbish

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clary-ml/clary/auth/pki"
)

// rounds of each kind of rubbish at each door.
const rounds = 60

// shove sends bytes and reads what comes, for a moment.
func shove(conn net.Conn, what []byte) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := conn.Write(what); err != nil {
		return
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, conn, 1<<16)
}

// hello is the first message of a TLS handshake.
func hello() []byte {
	ours, theirs := net.Pipe()
	go func() { // ends when the pipe does
		_ = tls.Client(ours, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}).Handshake()
	}()
	buffer := make([]byte, 4096)
	n, _ := theirs.Read(buffer)
	_ = theirs.Close()
	_ = ours.Close()
	return buffer[:n]
}

// secured is a connection by TLS that asks for a protocol, with a member's certificate or none.
func secured(address, protocol string, as *pki.Credentials) (net.Conn, error) {
	config := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // it is the server that is tried
	if protocol != "" {
		config.NextProtos = []string{protocol}
	}
	if as != nil {
		config.Certificates = []tls.Certificate{{Certificate: [][]byte{as.Cert.Raw}, PrivateKey: as.Key}}
	}
	return tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", address, config)
}

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// frames are what no peer sends, by what they are.
func frames(round int) map[string][]byte {
	seed := uint64(round)
	size := []int{1, 7, 64, 1000, 20_000}[round%5]
	settings := []byte{0, 0, 0, 4, 0, 0, 0, 0, 0}
	// A call of the method that everybody may make, whose message says that it has 4 GiB.
	headers := append([]byte{0x83, 0x87, 0x44, 20}, "/clary.v1.Admin/Join"...)
	headers = append(append(headers, 0x5f, 16), "application/grpc"...)
	call := append([]byte{0, 0, byte(len(headers)), 1, 4, 0, 0, 0, 1}, headers...)
	call = append(call, 0, 0, 5, 0, 0, 0, 0, 0, 1, 0, 0xff, 0xff, 0xff, 0xff)
	var pack bytes.Buffer // what raft speaks: a kind of call, then a map; this one says it has 4 G entries, and an array, and a string
	pack.WriteByte(byte(round % 6))
	pack.Write([][]byte{{0xdf, 0xff, 0xff, 0xff, 0xff}, {0xdd, 0xff, 0xff, 0xff, 0xff}, {0xdb, 0xff, 0xff, 0xff, 0xff}, {0xc6, 0xff, 0xff, 0xff, 0xff}}[round%4])
	pack.Write(noise(seed, size))
	entries := append([]byte{0, 0x81, 0xa7}, "Entries"...) // AppendEntries with 4 G entries
	entries = append(entries, 0xdd, 0xff, 0xff, 0xff, 0xff)
	return map[string][]byte{
		"noise":                       noise(seed, size),
		"half a handshake":            hello()[:50+round],
		"a record of 64 KiB":          append([]byte{22, 3, 1, 0xff, 0xff}, noise(seed, size)...),
		"a header line of 2 MiB":      []byte("GET / HTTP/1.1\r\nHost: " + strings.Repeat("x", 2<<20)),
		"ten thousand headers":        []byte("GET / HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", 10_000) + "\r\n"),
		"a body that is no chunk":     []byte("POST /endpoints/x/invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n" + string(noise(seed, size))),
		"a length that is none":       []byte("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n"),
		"a gossip message of 4 GiB":   append(binary.BigEndian.AppendUint32([]byte{10}, 0xffffffff), noise(seed, size)...),
		"an HTTP/2 frame of 16 MiB":   append([]byte(preface), append([]byte{0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1}, noise(seed, size)...)...),
		"HTTP/2 frames of noise":      append(append([]byte(preface), settings...), noise(seed, size)...),
		"a message of 4 GiB":          append(append([]byte(preface), settings...), call...),
		"a call of raft":              pack.Bytes(),
		"raft entries without number": entries,
	}
}

func TestBadFramesAtEveryDoorAreContained(t *testing.T) {
	g := start(t, 1, 1)
	known := map[string]*pki.Credentials{"nobody": nil}
	for _, name := range []string{"s1", "n1"} {
		c, err := pki.LoadCredentials(filepath.Join(g.Path(name), "tls"))
		if err != nil {
			t.Fatal(err)
		}
		known[name] = &c
	}
	protocols := []string{"", "h2", "http/1.1", "clary-raft/1", "clary-serve/1", "nonsense"}
	for _, at := range g.doors() {
		g.during(t, at.what, func() {
			var throwing sync.WaitGroup
			for worker := range 4 {
				throwing.Go(func() {
					for round := worker; round < rounds; round += 4 {
						throw(at, round, known, protocols)
					}
				})
			}
			throwing.Wait()
		})
	}
	// What it was all for still works.
	g.Clary("run", "--name", "after", "--", "true")
}

// throw sends one round of everything to a door.
func throw(at door, round int, known map[string]*pki.Credentials, protocols []string) {
	for _, frame := range frames(round) {
		if at.udp {
			if conn, err := net.Dial("udp", at.address); err == nil {
				for begin := 0; begin < len(frame) && begin < 1<<16; begin += 1400 {
					_, _ = conn.Write(frame[begin:min(begin+1400, len(frame))])
				}
				_ = conn.Close()
			}
			continue
		}
		if conn, err := net.DialTimeout("tcp", at.address, 5*time.Second); err == nil {
			shove(conn, frame)
		}
	}
	if at.udp {
		return
	}
	// Inside of TLS, one protocol a round, with whatever certificate.
	protocol := protocols[round%len(protocols)]
	for _, as := range known {
		for _, frame := range frames(round) {
			if conn, err := secured(at.address, protocol, as); err == nil {
				shove(conn, frame)
			}
		}
	}
}

func TestHalfAHandshakeIsWhatItIsCalled(t *testing.T) {
	whole := hello()
	if len(whole) < 150 || whole[0] != 22 {
		t.Errorf("a hello of %d bytes: %x", len(whole), whole[:min(len(whole), 8)])
	}
	if n := len(frames(0)); n < 13 {
		t.Error(fmt.Sprint(n), " kinds of frame")
	}
}
