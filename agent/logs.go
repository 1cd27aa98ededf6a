package agent

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// maxTail is the most last lines that one request may ask for.
const maxTail = 1 << 20

// logsAddress is where coordinators reach this agent.
func (a *agent) logsAddress() string {
	host, _, _ := net.SplitHostPort(a.config.Listen)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = a.config.Address
	}
	_, port, _ := net.SplitHostPort(a.logs.Addr().String()) // the real one, if port 0 was asked for
	return net.JoinHostPort(host, port)
}

// serveLogs answers coordinators, and nobody else, until ctx ends.
func (a *agent) serveLogs(ctx context.Context) error {
	secured := pki.MutualTLS(a.self.credentials.Get, pki.ExpectNode(pki.Coordinator), "h2")
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(secured)),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	claryv1.RegisterTaskLogsServer(server, &taskLogs{agent: a})
	claryv1.RegisterTaskHandsServer(server, newTaskHands(a))
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	return server.Serve(a.logs)
}

// taskLogs shows what tasks wrote.
type taskLogs struct {
	claryv1.UnimplementedTaskLogsServer
	agent *agent
}

func (s *taskLogs) Read(request *claryv1.ReadLogsRequest, stream grpc.ServerStreamingServer[claryv1.LogData]) error {
	which := runtime.Stream(request.GetStream())
	if which != runtime.Stdout && which != runtime.Stderr {
		return wire.ToStatus(fault.New(fault.Invalid, "stream: %q is unknown: stdout or stderr", cluster.Clip(request.GetStream())))
	}
	if request.GetTail() < 0 || request.GetTail() > maxTail {
		return wire.ToStatus(fault.New(fault.Invalid, "tail: %d is out of range: from 0 to %d", request.GetTail(), maxTail))
	}
	query := runtime.LogQuery{Stream: which, Tail: int(request.GetTail()), Follow: request.GetFollow()}
	return wire.ToStatus(s.agent.tasks.Logs(stream.Context(), request.GetTask(), query, logWriter{stream}))
}

// logWriter sends what is written to it.
type logWriter struct {
	stream grpc.ServerStreamingServer[claryv1.LogData]
}

func (w logWriter) Write(p []byte) (int, error) {
	if err := w.stream.Send(&claryv1.LogData{Data: append([]byte(nil), p...)}); err != nil {
		return 0, err
	}
	return len(p), nil
}
