package client

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"iter"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// Registration says what is to become a version of a model: a job's output, or an object.
type Registration struct {
	Model string
	Text  string // a note

	Job    string
	Output string // of the job; "" is "model"

	URI        string // of an object, in place of Job
	Source     string // where that came from
	SHA256     string // that it must have; "" takes what is there
	Parameters map[string]string
	Metrics    map[string]float64

	Framework string
	Format    string
	Parent    string // a version that it was made from
	RequestID string // made up if it is left out: the same request twice is one version
}

// RegisterModel makes a version. told, if it is not nil, hears how many bytes of an object have been
// read. existed says that the version was there: of the same output of the same job.
func (c *Client) RegisterModel(ctx context.Context, r Registration, told func(done, total int64)) (version cluster.ModelVersion, existed bool, err error) {
	if r.RequestID == "" {
		r.RequestID = rand.Text()
	}
	request := &claryv1.RegisterModelRequest{
		Model: r.Model, Text: r.Text, Job: r.Job, Output: r.Output, Uri: r.URI, Source: r.Source, Sha256: r.SHA256,
		Framework: r.Framework, Format: r.Format, Parent: r.Parent, RequestId: r.RequestID, Parameters: r.Parameters, Metrics: r.Metrics,
	}
	err = c.stream(ctx, func(ctx context.Context, p *peer) (done, heard bool, err error) {
		stream, err := claryv1.NewModelsClient(p.conn).Register(ctx, request)
		if err != nil {
			return false, false, err
		}
		for {
			response, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return false, heard, fault.New(fault.Unready, "the coordinator ended the registration")
			}
			if err != nil {
				return false, heard, err
			}
			if heard = true; told != nil && response.GetTotal() > 0 {
				told(response.GetDone(), response.GetTotal())
			}
			if response.GetVersion() != nil {
				version, existed = wire.ModelVersionFromProto(response.GetVersion()), response.GetExisted()
				return true, true, nil
			}
		}
	})
	return version, existed, err
}

// Models goes through all models, by name.
func (c *Client) Models(ctx context.Context) iter.Seq2[cluster.Model, error] {
	return func(yield func(cluster.Model, error) bool) {
		for after := ""; ; {
			response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.ListModelsResponse, error) {
				return claryv1.NewModelsClient(conn).List(ctx, &claryv1.ListModelsRequest{After: after})
			})
			if err != nil {
				yield(cluster.Model{}, err)
				return
			}
			for _, model := range response.GetModels() {
				if !yield(wire.ModelFromProto(model), nil) {
					return
				}
			}
			if after = response.GetNext(); after == "" {
				return
			}
		}
	}
}

// Model reads one model.
func (c *Client) Model(ctx context.Context, name string) (cluster.Model, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.Model, error) {
		return claryv1.NewModelsClient(conn).Get(ctx, &claryv1.GetModelRequest{Name: name})
	})
	return wire.ModelFromProto(response), err
}

// ModelVersions lists one page of a model's versions, the newest first; next, if it is not 0, is the
// before of the page that follows.
func (c *Client) ModelVersions(ctx context.Context, model string, limit int, before int64) (versions []cluster.ModelVersion, next int64, err error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.ListModelVersionsResponse, error) {
		return claryv1.NewModelsClient(conn).Versions(ctx, &claryv1.ListModelVersionsRequest{Model: model, Limit: int32(limit), Before: before})
	})
	return each(response.GetVersions(), wire.ModelVersionFromProto), response.GetNext(), err
}

// ModelVersionView is a version with who uses it.
type ModelVersionView struct {
	Version cluster.ModelVersion
	Aliases []string
	Users   []string // such as "alias champion" or "job train-7"
}

// ModelVersion resolves a reference, NAME@VERSION or NAME:ALIAS.
func (c *Client) ModelVersion(ctx context.Context, ref string) (ModelVersionView, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.ModelVersionView, error) {
		return claryv1.NewModelsClient(conn).Version(ctx, &claryv1.GetModelVersionRequest{Ref: ref})
	})
	return ModelVersionView{Version: wire.ModelVersionFromProto(response.GetVersion()), Aliases: response.GetAliases(), Users: response.GetUsers()}, err
}

// ApproveModel writes down what was decided about a version: approved or rejected, and why.
func (c *Client) ApproveModel(ctx context.Context, ref string, state cluster.ApprovalState, why string) (cluster.ModelVersion, error) {
	return versionOf(call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.ModelVersion, error) {
		return claryv1.NewModelsClient(conn).Approve(ctx, &claryv1.ApproveModelRequest{Ref: ref, State: string(state), Why: why})
	}))
}

// AliasModel has a name mean a version, and none any more if the number is 0.
func (c *Client) AliasModel(ctx context.Context, model, alias string, number int64) (cluster.Model, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, attempt int) (*claryv1.Model, error) {
		response, err := claryv1.NewModelsClient(conn).Alias(ctx, &claryv1.AliasModelRequest{Model: model, Alias: alias, Number: number})
		if attempt > 1 && number == 0 && fault.Is(wire.FromStatus(err), fault.NotFound) { // an earlier attempt did it, and its answer was lost
			return claryv1.NewModelsClient(conn).Get(ctx, &claryv1.GetModelRequest{Name: model})
		}
		return response, err
	})
	return wire.ModelFromProto(response), err
}

// EvaluateModel puts a report beside a version, in place of one of the same name. Its pages are in
// the version's folder.
func (c *Client) EvaluateModel(ctx context.Context, ref string, evaluation cluster.Evaluation) (cluster.ModelVersion, error) {
	return versionOf(call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.ModelVersion, error) {
		return claryv1.NewModelsClient(conn).Evaluate(ctx, &claryv1.EvaluateModelRequest{Ref: ref, Evaluation: wire.EvaluationToProto(evaluation)})
	}))
}

// RemoveEvaluation takes a report away from a version.
func (c *Client) RemoveEvaluation(ctx context.Context, ref, name string) (cluster.ModelVersion, error) {
	return versionOf(call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.ModelVersion, error) {
		request := &claryv1.EvaluateModelRequest{Ref: ref, Evaluation: &claryv1.Evaluation{Name: name}, Remove: true}
		return claryv1.NewModelsClient(conn).Evaluate(ctx, request)
	}))
}

// DeleteModel deletes a version that nothing uses, or by its name alone a model without versions.
func (c *Client) DeleteModel(ctx context.Context, ref string) error {
	_, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, attempt int) (*claryv1.DeleteModelResponse, error) {
		response, err := claryv1.NewModelsClient(conn).Delete(ctx, &claryv1.DeleteModelRequest{Ref: ref})
		if attempt > 1 && fault.Is(wire.FromStatus(err), fault.NotFound) {
			return nil, nil // an earlier attempt did it, and its answer was lost
		}
		return response, err
	})
	return err
}

func versionOf(response *claryv1.ModelVersion, err error) (cluster.ModelVersion, error) {
	return wire.ModelVersionFromProto(response), err
}
