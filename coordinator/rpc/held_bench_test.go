package rpc_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/rpc"
	"github.com/clary-ml/clary/coordinator/solo"
	"github.com/clary-ml/clary/internal/memnet"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// BenchmarkHeld measures what a coordinator holds for each connection that says nothing, and for each watcher who reads nothing of a job that has changed
// 2,000 times. The other end keeps nothing, and is counted with what little it has.
func BenchmarkHeld(b *testing.B) {
	for _, c := range []struct {
		name              string
		connections, each int // watchers of each connection
	}{{"connections", 1000, 0}, {"watchers", 10, 100}} {
		b.Run(c.name, func(b *testing.B) {
			ledger, err := solo.Open(filepath.Join(b.TempDir(), "state.db"))
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = ledger.Close() }()
			token, secret, err := auth.NewUserToken("ada", cluster.RoleUser, 0, time.Now())
			if err != nil {
				b.Fatal(err)
			}
			job := cluster.Job{Name: "one", Kind: cluster.KindTraining, Owner: "ada", Queue: cluster.DefaultQueue, State: cluster.JobQueued, Attempt: 1, Spec: make([]byte, 4000)}
			if _, err := ledger.Propose(b.Context(), command.Record{Changes: []command.Change{{Token: &token}, {Job: &job}}}); err != nil {
				b.Fatal(err)
			}
			replica := alone{Ledger: ledger}
			guard := &rpc.Guard{Replica: replica, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
			server := grpc.NewServer(append(guard.Options(), grpc.StaticStreamWindowSize(member.Window), grpc.StaticConnWindowSize(4*member.Window))...)
			rpc.Register(server, rpc.Config{Replica: replica, Nodes: rpc.NewNodeCache(replica), Log: guard.Log})
			var net memnet.Network
			listener, err := net.Host("10.0.0.1").Listen("10.0.0.1:1")
			if err != nil {
				b.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- server.Serve(listener) }()
			defer func() { server.Stop(); <-ended }()
			for b.Loop() {
				before := inUse()
				for range c.connections {
					conn, err := net.Host("10.0.0.2").Dial(b.Context(), "10.0.0.1:1")
					for ; err != nil; conn, err = net.Host("10.0.0.2").Dial(b.Context(), "10.0.0.1:1") {
						runtime.Gosched() // the server is to accept those before
					}
					defer func() { _ = conn.Close() }()
					watch(b, conn, secret, c.each)
				}
				for i := range 2000 {
					snapshot, _ := ledger.Read(b.Context(), true)
					job, _ := snapshot.Job("one")
					_ = snapshot.Close()
					job.Reason = fmt.Sprint("change ", i)
					if _, err := ledger.Propose(b.Context(), command.Record{Changes: []command.Change{{Expect: job.Revision, Job: &job}}}); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(inUse()-before)/float64(c.connections*max(c.each, 1)), "B/each")
			}
		})
	}
}

// watch begins watches of the job on a connection, takes what comes, and never says that it has room for more.
func watch(b *testing.B, conn io.ReadWriter, secret string, watches int) {
	b.Helper()
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		b.Fatal(err)
	}
	framer := http2.NewFramer(conn, nil)
	_ = framer.WriteSettings()
	go func() { _, _ = io.Copy(io.Discard, conn) }() // ends with the connection
	text, _ := proto.Marshal(&claryv1.WatchJobRequest{Name: "one"})
	request := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text))), text...)
	var head bytes.Buffer
	encoder := hpack.NewEncoder(&head)
	for i := range watches {
		head.Reset()
		for _, field := range [][2]string{
			{":method", "POST"}, {":scheme", "http"}, {":path", "/clary.v1.Jobs/Watch"}, {":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"}, {"authorization", "Bearer " + secret},
		} {
			_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
		}
		stream := uint32(2*i + 1)
		if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: head.Bytes(), EndHeaders: true}); err != nil {
			b.Fatal(err)
		}
		if err := framer.WriteData(stream, true, request); err != nil {
			b.Fatal(err)
		}
	}
}

func inUse() int64 {
	time.Sleep(500 * time.Millisecond) // what is on its way arrives
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
