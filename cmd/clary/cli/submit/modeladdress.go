package submit

import (
	"context"
	"os"
	"strings"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/transfer"
	"github.com/clary-ml/clary/internal/fault"
)

// ModelAddress is where a model lies that is an address, a file or folder here, or a job's.
func (a App) ModelAddress(ctx context.Context, c *client.Client, name string, dryRun bool) (string, error) {
	if name == "" || strings.Contains(name, "://") {
		return name, nil
	}
	if _, err := os.Stat(name); err == nil {
		return a.Address(ctx, c, name, dryRun)
	}
	var problems cluster.Problems
	if cluster.CheckName(&problems, "", name); problems != nil {
		return "", fault.New(fault.NotFound, "there is no folder or file %q, and it is no job's name either", name)
	}
	s := transfer.Scratch{App: a.App, Client: c}
	return s.ModelOf(ctx, name)
}

// Address is that of an object; what lies here is uploaded, unless it is a dry run.
func (a App) Address(ctx context.Context, c *client.Client, name string, dryRun bool) (string, error) {
	switch {
	case strings.Contains(name, "://"):
		return name, nil
	case dryRun:
		return transfer.UploadURI(name)
	}
	return a.Upload(ctx, c, name)
}
