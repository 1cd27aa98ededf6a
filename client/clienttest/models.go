package clienttest

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// models is a registry that keeps what a real one does, for one caller at a time.
type models struct {
	claryv1.UnimplementedModelsServer
	c *Cluster
}

func (s *models) Register(request *claryv1.RegisterModelRequest, stream grpc.ServerStreamingServer[claryv1.RegisterModelResponse]) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	caller, _ := s.c.caller(stream.Context())
	v := cluster.ModelVersion{
		Model: request.GetModel(), Text: request.GetText(), Owner: caller.Name, RequestID: request.GetRequestId(), Framework: request.GetFramework(), Format: request.GetFormat(),
		Lineage:  cluster.Lineage{Job: request.GetJob(), Source: request.GetSource(), Parameters: request.GetParameters(), Metrics: request.GetMetrics()},
		Approval: cluster.Approval{State: cluster.ApprovalPending},
	}
	if err := s.find(request, &v); err != nil {
		return err
	}
	if request.GetSha256() != "" && request.GetSha256() != v.Artifact.SHA256 {
		return fault.New(fault.Invalid, "sha256: it has %s", v.Artifact.SHA256)
	}
	for _, old := range s.c.versions {
		if old.Model == v.Model && v.Lineage.Job != "" && old.Lineage.Job == v.Lineage.Job {
			return stream.Send(&claryv1.RegisterModelResponse{Version: wire.ModelVersionToProto(old), Existed: true})
		}
	}
	now := time.Now().UnixNano()
	model, exists := s.c.models[v.Model]
	if !exists {
		model = cluster.Model{Name: v.Model, Owner: caller.Name, Created: now, Next: 1}
	}
	v.Number, v.Created = model.Next, now
	model.Next++
	model.Count++
	if err := v.Validate().Err(); err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	s.put(model, v)
	return stream.Send(&claryv1.RegisterModelResponse{Done: v.Artifact.Size, Total: v.Artifact.Size, Version: wire.ModelVersionToProto(v)})
}

// find is the artifact that a registration means.
func (s *models) find(request *claryv1.RegisterModelRequest, v *cluster.ModelVersion) error {
	uri := request.GetUri()
	if job := request.GetJob(); job != "" {
		view, exists := s.c.jobs[job]
		if !exists {
			return noJob(job)
		}
		if view.Publication == nil {
			return fault.New(fault.NotFound, "job %s is %s and has published no \"model\"", job, view.Job.State)
		}
		uri, v.Lineage.Kind, v.Lineage.Attempt = view.Publication.Outputs[0].URI, view.Job.Kind, view.Job.Attempt
	}
	data, found := s.c.objects[uri]
	if !found {
		return noObject(uri)
	}
	name := path.Base(uri)
	to := cluster.ModelFolder(v.Model, fmt.Sprintf("k%d", len(s.c.objects))) + name
	if strings.HasPrefix(uri, cluster.ModelPrefix(v.Model)) {
		to = uri
	}
	s.c.objects[to] = data
	known := info(to, data)
	v.Artifact = cluster.Output{Name: name, URI: to, SHA256: known.GetSha256(), Size: known.GetSize()}
	return nil
}

func (s *models) put(model cluster.Model, v cluster.ModelVersion) {
	s.c.revised++
	model.Revision, v.Revision = s.c.revised, s.c.revised
	s.c.models[model.Name], s.c.versions[v.ID()] = model, v
}

func (s *models) List(context.Context, *claryv1.ListModelsRequest) (*claryv1.ListModelsResponse, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	response := &claryv1.ListModelsResponse{}
	for _, name := range slices.Sorted(maps.Keys(s.c.models)) {
		response.Models = append(response.Models, wire.ModelToProto(s.c.models[name]))
	}
	return response, nil
}

func (s *models) model(name string) (cluster.Model, error) {
	model, exists := s.c.models[name]
	if !exists {
		return model, fault.New(fault.NotFound, "there is no model %q: see clary models", name)
	}
	return model, nil
}

func (s *models) Get(_ context.Context, request *claryv1.GetModelRequest) (*claryv1.Model, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	model, err := s.model(request.GetName())
	return wire.ModelToProto(model), err
}

func (s *models) Versions(_ context.Context, request *claryv1.ListModelVersionsRequest) (*claryv1.ListModelVersionsResponse, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	response := &claryv1.ListModelVersionsResponse{}
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(s.c.versions))) {
		if v := s.c.versions[id]; v.Model == request.GetModel() {
			response.Versions = append(response.Versions, wire.ModelVersionToProto(v))
		}
	}
	return response, nil
}

// resolve finds what a reference means, and its model.
func (s *models) resolve(text string) (cluster.ModelVersion, cluster.Model, error) {
	ref, err := cluster.ParseModelRef(text)
	if err != nil {
		return cluster.ModelVersion{}, cluster.Model{}, fault.New(fault.Invalid, "%w", err)
	}
	model, err := s.model(ref.Model)
	if err != nil {
		return cluster.ModelVersion{}, model, err
	}
	if ref.Alias != "" {
		ref.Number = model.Aliases[ref.Alias]
	}
	version, exists := s.c.versions[cluster.ModelVersionID(ref.Model, ref.Number)]
	if !exists {
		return version, model, fault.New(fault.NotFound, "there is no version %s: see clary models show %s", text, ref.Model)
	}
	return version, model, nil
}

func (s *models) Version(_ context.Context, request *claryv1.GetModelVersionRequest) (*claryv1.ModelVersionView, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	version, model, err := s.resolve(request.GetRef())
	return &claryv1.ModelVersionView{Version: wire.ModelVersionToProto(version), Aliases: named(model, version), Users: s.users(model, version)}, err
}

func named(model cluster.Model, version cluster.ModelVersion) []string {
	var names []string
	for _, alias := range slices.Sorted(maps.Keys(model.Aliases)) {
		if model.Aliases[alias] == version.Number {
			names = append(names, alias)
		}
	}
	return names
}

func (s *models) users(model cluster.Model, version cluster.ModelVersion) []string {
	var users []string
	for _, alias := range named(model, version) {
		users = append(users, "alias "+alias)
	}
	for _, id := range slices.Sorted(maps.Keys(s.c.versions)) {
		for _, e := range s.c.versions[id].Evaluations {
			if e.Against == version.Ref() {
				users = append(users, "evaluation "+s.c.versions[id].Ref()+"/"+e.Name)
			}
		}
	}
	return users
}

func (s *models) Approve(ctx context.Context, request *claryv1.ApproveModelRequest) (*claryv1.ModelVersion, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	version, model, err := s.resolve(request.GetRef())
	if err != nil {
		return nil, err
	}
	caller, _ := s.c.caller(ctx)
	version.Approval = cluster.Approval{State: cluster.ApprovalState(request.GetState()), By: caller.Name, At: time.Now().UnixNano(), Why: request.GetWhy()}
	if users := named(model, version); len(users) > 0 && version.Approval.State == cluster.ApprovalRejected {
		return nil, fault.New(fault.Conflict, "alias %q names version %d, which is rejected", users[0], version.Number)
	}
	s.put(model, version)
	return wire.ModelVersionToProto(version), nil
}

func (s *models) Alias(_ context.Context, request *claryv1.AliasModelRequest) (*claryv1.Model, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	model, err := s.model(request.GetModel())
	if err != nil {
		return nil, err
	}
	model.Aliases = maps.Clone(model.Aliases)
	if model.Aliases == nil {
		model.Aliases = map[string]int64{}
	}
	version, exists := s.c.versions[cluster.ModelVersionID(model.Name, request.GetNumber())]
	switch {
	case request.GetNumber() == 0:
		delete(model.Aliases, request.GetAlias())
	case !exists:
		return nil, fault.New(fault.NotFound, "model %s has no version %d", model.Name, request.GetNumber())
	case version.Approval.State == cluster.ApprovalRejected:
		return nil, fault.New(fault.Conflict, "version %s is rejected", version.Ref())
	default:
		model.Aliases[request.GetAlias()] = request.GetNumber()
	}
	s.c.models[model.Name] = model
	return wire.ModelToProto(model), nil
}

func (s *models) Evaluate(ctx context.Context, request *claryv1.EvaluateModelRequest) (*claryv1.ModelVersion, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	version, model, err := s.resolve(request.GetRef())
	if err != nil {
		return nil, err
	}
	e := wire.EvaluationFromProto(request.GetEvaluation())
	caller, _ := s.c.caller(ctx)
	e.By, e.At = caller.Name, time.Now().UnixNano()
	if e.Against != "" {
		other, _, err := s.resolve(e.Against)
		if err != nil {
			return nil, err
		}
		e.Against = other.Ref()
	}
	version.Evaluations = slices.DeleteFunc(slices.Clone(version.Evaluations), func(old cluster.Evaluation) bool { return old.Name == e.Name })
	if !request.GetRemove() {
		version.Evaluations = append(version.Evaluations, e)
		slices.SortFunc(version.Evaluations, func(a, b cluster.Evaluation) int { return strings.Compare(a.Name, b.Name) })
	}
	if err := version.Validate().Err(); err != nil {
		return nil, fault.New(fault.Invalid, "%w", err)
	}
	s.put(model, version)
	return wire.ModelVersionToProto(version), nil
}

func (s *models) Delete(_ context.Context, request *claryv1.DeleteModelRequest) (*claryv1.DeleteModelResponse, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if model, exists := s.c.models[request.GetRef()]; exists {
		if model.Count > 0 {
			return nil, fault.New(fault.Conflict, "model %s has %d versions: delete them first", model.Name, model.Count)
		}
		delete(s.c.models, model.Name)
		return &claryv1.DeleteModelResponse{Deleted: []string{model.Name}}, nil
	}
	version, model, err := s.resolve(request.GetRef())
	if err != nil {
		return nil, err
	}
	if users := s.users(model, version); len(users) > 0 {
		return nil, fault.New(fault.Conflict, "version %s is used by %s: end that first", version.Ref(), strings.Join(users, ", "))
	}
	delete(s.c.versions, version.ID())
	maps.DeleteFunc(s.c.objects, func(uri string, _ []byte) bool { return strings.HasPrefix(uri, version.Folder()) })
	model.Count, model.Deleted = model.Count-1, model.Deleted+1
	s.c.models[model.Name] = model
	return &claryv1.DeleteModelResponse{Deleted: []string{version.Ref()}}, nil
}
