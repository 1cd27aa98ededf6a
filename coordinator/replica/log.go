package replica

import (
	"context"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"

	"github.com/clary-ml/clary/internal/sparing"
)

// hclogTo sends raft's log to ours, with its fields. What raft calls informative is for
// whoever debugs an election.
func hclogTo(log *slog.Logger) hclog.Logger {
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{
		Name: "raft", Level: hclog.Info, Output: io.Discard,
	})
	logger.RegisterSink(sink{sparing.New(log)})
	return logger
}

type sink struct{ log *slog.Logger }

// Accept implements hclog.SinkAdapter.
func (s sink) Accept(name string, level hclog.Level, message string, fields ...any) {
	to := slog.LevelDebug
	switch {
	case level >= hclog.Error:
		to = slog.LevelWarn // raft calls every unreachable peer an error
	case level == hclog.Warn:
		to = slog.LevelInfo
	}
	s.log.Log(context.Background(), to, message, append(fields, "from", name)...)
}
