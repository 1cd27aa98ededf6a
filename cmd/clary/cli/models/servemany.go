package models

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/cmd/clary/cli/transfer"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/serving/modelserver"
	"github.com/clary-ml/clary/serving/modelserver/many"
)

// serveMany answers for all models of a folder, each of which is loaded when it is asked for.
func (a app) serveMany(ctx context.Context, command *cobra.Command, s *transfer.Scratch, f serveFlags, payload int64) error {
	bytes, err := quantity.ParseBytes(f.maxModelBytes)
	if err != nil {
		return shell.Usage(command, "--max-model-bytes: %v", err)
	}
	folder, err := filepath.Abs(f.models)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(a.Err, nil))
	set, err := many.New(many.Options{
		Folder: folder, MaxModels: f.maxModels, MaxBytes: int64(bytes), LoadWithin: f.startWithin,
		MaxRequests: f.maxRequests, MaxPayload: payload, Timeout: f.timeout, Drain: f.drain, Log: log,
		Unpack: func(_ context.Context, archive string, most int64) (string, error) { return s.Unpack(archive, most) },
		Open: func(ctx context.Context, name, path string) (many.Model, error) {
			return a.oneOfMany(ctx, f, path, modelserver.Options{
				Name: submit.NotInNames.ReplaceAllString(name, "-"), Version: f.version, MaxBatch: f.maxBatch, MaxDelay: f.maxDelay, MaxPayload: payload,
				MaxRequests: f.maxRequests, Timeout: f.timeout, Log: log.With("model", name),
			})
		},
	})
	if err != nil {
		return err
	}
	return a.listen(ctx, f, "the models of "+folder, set.Serve)
}

// oneOfMany loads a model that is served beside others.
func (a app) oneOfMany(ctx context.Context, f serveFlags, path string, options modelserver.Options) (many.Model, error) {
	_, closer, err := a.openModel(ctx, f, path, &options)
	if err != nil {
		return many.Model{}, err
	}
	server, err := modelserver.New(options)
	if err != nil {
		return many.Model{}, errors.Join(err, closer())
	}
	return many.Model{Name: options.Name, Handler: server.Handler(), Run: server.Run, Close: closer}, nil
}
