package rpc

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/registry"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/storage/object"
)

// tellEvery is how often a registration says how far it has come.
const tellEvery = time.Second

// Register makes a version: it copies the artifact, looks up where it came from, and adds the
// version to its model. A crash in between leaves a copy that no version names.
func (s *models) Register(request *claryv1.RegisterModelRequest, stream grpc.ServerStreamingServer[claryv1.RegisterModelResponse]) error {
	if err := checkRegister(request); err != nil {
		return err
	}
	ctx := stream.Context()
	draft, made, err := s.draft(ctx, request)
	if err != nil {
		return err
	}
	if draft.Number != 0 {
		return stream.Send(&claryv1.RegisterModelResponse{Version: wire.ModelVersionToProto(draft), Existed: true})
	}
	last := time.Now()
	version, err := s.make(ctx, request, draft, made, func(done, total int64) {
		if now := time.Now(); now.Sub(last) >= tellEvery {
			last = now
			_ = stream.Send(&claryv1.RegisterModelResponse{Done: done, Total: total}) // the end of ctx tells
		}
	})
	if err != nil {
		return err
	}
	copied := version.Artifact.URI
	version, existed, err := s.add(ctx, version)
	if existed && version.Artifact.URI != copied || refused(err) {
		s.forget(ctx, request, copied)
	}
	if err != nil {
		return err
	}
	return stream.Send(&claryv1.RegisterModelResponse{Done: version.Artifact.Size, Total: version.Artifact.Size, Version: wire.ModelVersionToProto(version), Existed: existed})
}

func checkRegister(request *claryv1.RegisterModelRequest) error {
	var p cluster.Problems
	cluster.CheckName(&p, "model", request.GetModel())
	switch job, uri := request.GetJob(), request.GetUri(); {
	case job == "" && uri == "":
		p.Add("job", "is empty, and so is uri: name the job that made the model, or the object that it is")
	case job != "" && uri != "":
		p.Add("uri", "stands beside job: remove one of the two")
	case job != "" && (request.GetSha256() != "" || request.GetSource() != "" || len(request.GetParameters()) > 0 || len(request.GetMetrics()) > 0):
		p.Add("job", "says source, digest, parameters and metrics itself: leave them out")
	}
	if len(request.GetText()) > cluster.MaxModelText {
		p.Add("text", "%d bytes: at most %d", len(request.GetText()), cluster.MaxModelText)
	}
	for field, word := range map[string]string{"framework": request.GetFramework(), "format": request.GetFormat()} {
		if word != "" {
			cluster.CheckModelWord(&p, field, word)
		}
	}
	if err := p.Err(); err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	return nil
}

// draft is what is known of a version before anything is copied, or the version that is there
// already, which has a number.
func (s *models) draft(ctx context.Context, request *claryv1.RegisterModelRequest) (cluster.ModelVersion, registry.Made, error) {
	draft := cluster.ModelVersion{Model: request.GetModel(), Owner: caller(ctx).Name, RequestID: request.GetRequestId()}
	made := registry.Made{Output: request.GetOutput()}
	if made.Output == "" {
		made.Output = registry.DefaultOutput
	}
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return draft, made, err
	}
	defer snapshot.Close()
	if name := request.GetJob(); name != "" {
		job, ok := snapshot.Job(name)
		if !ok {
			return draft, made, fault.New(fault.NotFound, "job: there is no job %q: see clary jobs", cluster.Clip(name))
		}
		made.Job = job
		for gang := range snapshot.GangsOf(name) {
			made.Gangs = append(made.Gangs, gang)
		}
		for task := range snapshot.TasksOf(name) {
			made.Tasks = append(made.Tasks, task)
		}
		if publication, ok := snapshot.Publication(name); ok {
			made.Publication = &publication
		}
		draft.Lineage = cluster.Lineage{Job: name, Submitted: job.Submitted, Output: made.Output}
		if _, err := made.Published(); err != nil {
			return draft, made, err
		}
	}
	if there, ok := registry.Existing(snapshot, draft); ok {
		return there, made, nil
	}
	if parent := request.GetParent(); parent != "" {
		version, err := registry.Resolve(snapshot, parent)
		if err != nil {
			return draft, made, fault.New(fault.KindOf(err), "parent: %w", err)
		}
		draft.Lineage.Models = []cluster.ModelPin{version.Pin(parent)}
	}
	if registry.InFolder(draft.Model, request.GetUri()) {
		for version := range snapshot.VersionsOf(draft.Model, 0) {
			if strings.HasPrefix(request.GetUri(), version.Folder()) {
				return draft, made, fault.New(fault.Conflict, "uri: %s belongs to version %s: name that with clary models alias", request.GetUri(), version.Ref())
			}
		}
	}
	return draft, made, nil
}

// make copies the artifact and completes the draft.
func (s *models) make(ctx context.Context, request *claryv1.RegisterModelRequest, draft cluster.ModelVersion, made registry.Made, told func(done, total int64)) (cluster.ModelVersion, error) {
	store, err := s.store()
	if err != nil {
		return draft, err
	}
	key, parents := strings.ToLower(rand.Text()[:20]), draft.Lineage.Models
	version := draft
	if made.Job.Name != "" {
		version, err = registry.FromJob(ctx, store, draft.Model, key, made)
		version.Owner = draft.Owner
		version.Lineage.Models = append(version.Lineage.Models, parents...)
	} else {
		version.Artifact, err = registry.FromObject(ctx, store, draft.Model, key, registry.Given{URI: request.GetUri(), SHA256: request.GetSha256()}, told)
		version.Format = registry.FormatOf(version.Artifact.Name)
		version.Lineage.Source, version.Lineage.Parameters, version.Lineage.Metrics = request.GetSource(), request.GetParameters(), request.GetMetrics()
		if version.Lineage.Source == "" {
			version.Lineage.Source = request.GetUri()
		}
	}
	version.Text, version.RequestID = request.GetText(), request.GetRequestId()
	if request.GetFramework() != "" {
		version.Framework = request.GetFramework()
	}
	if request.GetFormat() != "" {
		version.Format = request.GetFormat()
	}
	if err != nil {
		s.forget(ctx, request, version.Artifact.URI)
	}
	return version, err
}

// refused reports whether a version was certainly not added.
func refused(err error) bool {
	return fault.Is(err, fault.Invalid) || fault.Is(err, fault.Exhausted) || fault.Is(err, fault.Denied)
}

// forget deletes a copy that no version names. If it cannot, the copy stays and does no harm.
func (s *models) forget(ctx context.Context, request *claryv1.RegisterModelRequest, copied string) {
	if copied == "" || copied == request.GetUri() {
		return // what the caller put there is the caller's
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	store, err := s.store()
	if err != nil {
		return
	}
	if at, err := object.ParseURI(copied); err == nil {
		_ = store.Delete(ctx, at)
	}
}

// add makes the version the next of its model, or finds that it is there.
func (s *models) add(ctx context.Context, version cluster.ModelVersion) (cluster.ModelVersion, bool, error) {
	for try := 1; ; try++ {
		snapshot, err := s.replica.Read(ctx, false)
		if err != nil {
			return version, false, err
		}
		changes, next, err := registry.Add(snapshot, version, time.Now().UnixNano())
		snapshot.Close()
		if err != nil {
			return version, false, err
		}
		if len(changes) == 0 {
			return next, true, nil
		}
		results, err := s.replica.Propose(ctx, command.Record{Changes: changes})
		if err == nil {
			next.Revision = results[0].Revision
			return next, false, nil
		}
		if !fault.Is(err, fault.Conflict) || ctx.Err() != nil || try == changeTries {
			return version, false, err
		}
	}
}
