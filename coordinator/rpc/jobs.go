package rpc

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/disposal"
	"github.com/clary-ml/clary/coordinator/reconciler"
	"github.com/clary-ml/clary/coordinator/registry"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/scheduler"
	"github.com/clary-ml/clary/storage/journal/archive"
	"github.com/clary-ml/clary/storage/object"
	"github.com/clary-ml/clary/workload"
)

// jobs serves what users do with jobs.
type jobs struct {
	claryv1.UnimplementedJobsServer
	replica Replica
	leader  leaderConns
	kinds   map[cluster.Kind]workload.Kind
	planner Planner
	nodes   *NodeCache
	agents  Conns
	store   func() (*object.Client, error)
	archive func(object.URI) (archive.Store, error)
	records func() (disposal.Store, error)
	showing atomic.Int64 // Logs requests under way
	reading atomic.Int64 // tasks' logs that they read
}

// archives is the part of the object store below an address, for logs.
func (s *jobs) archives(prefix string) (archive.Store, error) {
	uri, err := object.ParseURI(prefix)
	if err != nil {
		return nil, err
	}
	if s.archive != nil {
		return s.archive(uri)
	}
	store, err := s.store()
	if err != nil {
		return nil, err
	}
	return archive.In(store, uri), nil
}

func (s *jobs) Submit(ctx context.Context, request *claryv1.SubmitRequest) (*claryv1.SubmitResponse, error) {
	job, err := s.accept(ctx, wire.JobFromProto(request.GetJob()))
	if err != nil {
		return nil, err
	}
	if err := s.checkCrowd(ctx, job); err != nil {
		return nil, err
	}
	if err := s.checkEarlier(ctx, job); err != nil {
		return nil, err
	}
	if err := s.checkName(ctx, job.Name); err != nil {
		return nil, err
	}
	if job.Models, err = s.pin(ctx, job); err != nil {
		if request.GetDryRun() {
			return nil, err
		}
		return s.existing(ctx, job, err) // it may have been submitted while the model was there
	}
	if request.GetDryRun() {
		return s.dryRun(ctx, request, job)
	}
	record, gangs := reconciler.First(job, s.kinds[job.Kind], job.Submitted)
	gangs = append(gangs, s.foresee(job)...)
	if err := s.couldFit(gangs); err != nil {
		return nil, err
	}
	if err := s.haveSecrets(ctx, gangs); err != nil {
		return nil, err
	}
	results, err := s.replica.Propose(ctx, record)
	if err == nil {
		job.Revision = results[0].Revision
		return &claryv1.SubmitResponse{Job: wire.JobToProto(job)}, nil
	}
	if !fault.Is(err, fault.Conflict) {
		return nil, err
	}
	return s.existing(ctx, job, err)
}

// checkCrowd refuses early what the command would refuse, so that a flood costs no entries of the log. What this coordinator knows
// is looked at first, and before anyone is refused, what is certain: a job that ended a moment ago makes room for the next. A job that
// is there already is told as such.
func (s *jobs) checkCrowd(ctx context.Context, job cluster.Job) error {
	var refusal error
	for _, stale := range []bool{true, false} {
		snapshot, err := s.replica.Read(ctx, stale)
		if err != nil {
			return err
		}
		refusal = command.CheckCrowd(snapshot, job)
		_, there := snapshot.Job(job.Name)
		snapshot.Close()
		if refusal == nil || there {
			return nil
		}
	}
	return refusal
}

// accept fills in what a submission leaves open and reports every mistake in it.
func (s *jobs) accept(ctx context.Context, job cluster.Job) (cluster.Job, error) {
	who := caller(ctx)
	accepted := cluster.Job{
		Name: job.Name, Kind: job.Kind, Owner: who.Name, Queue: job.Queue, Priority: job.Priority, Labels: job.Labels,
		Spec: job.Spec, RequestID: job.RequestID, MaxRuntime: job.MaxRuntime, Retry: job.Retry, Held: job.Held, Register: job.Register, NonPreemptible: job.NonPreemptible,
		State: cluster.JobQueued, Attempt: 1, Submitted: time.Now().UnixNano(),
	}
	if accepted.Queue == "" {
		accepted.Queue = cluster.DefaultQueue
	}
	if accepted.Name == "" {
		if job.RequestID == "" {
			return job, fault.New(fault.Invalid, "name: a job without a name needs a request_id, from which one is made")
		}
		accepted.Name = generatedName(job.Kind, who.Name, job.RequestID)
	}
	problems := accepted.Validate()
	if job.Register != "" && job.Kind == cluster.KindTuning {
		problems.Add("register", "is for a job that publishes a model, and a sweep has many: train its best again with clary train --best-of %s --register %s", accepted.Name, cluster.Clip(job.Register))
	}
	kind, known := s.kinds[job.Kind]
	if !known {
		problems.Add("kind", "%q is unknown: this build knows %s", cluster.Clip(string(job.Kind)), strings.Join(kindNames(s.kinds), ", "))
	} else {
		problems.Under("spec", kind.Check(job.Spec))
	}
	if err := problems.Err(); err != nil {
		return job, fault.New(fault.Invalid, "%w", err)
	}
	return accepted, nil
}

// pin resolves what references to models among a job's inputs mean now.
func (s *jobs) pin(ctx context.Context, job cluster.Job) ([]cluster.ModelPin, error) {
	_, gangs := reconciler.First(job, s.kinds[job.Kind], job.Submitted)
	refs := cluster.ModelRefs(append(gangs, s.foresee(job)...))
	if len(refs) == 0 {
		return nil, nil
	}
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	return registry.Pin(snapshot, refs)
}

// generatedName is a function of the request, so that the same request has the same
// name and the name alone makes submission idempotent.
func generatedName(kind cluster.Kind, owner, requestID string) string {
	sum := sha256.Sum256([]byte(owner + "\x00" + requestID))
	return string(kind) + "-" + strings.ToLower(base32.HexEncoding.EncodeToString(sum[:]))[:10]
}

func kindNames(kinds map[cluster.Kind]workload.Kind) []string {
	var names []string
	for kind := range kinds {
		names = append(names, string(kind))
	}
	slices.Sort(names)
	return names
}

// existing answers a submission whose name is taken: it is the same request again, or
// a conflict.
func (s *jobs) existing(ctx context.Context, job cluster.Job, conflict error) (*claryv1.SubmitResponse, error) {
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	old, ok := snapshot.Job(job.Name)
	if !ok {
		return nil, conflict
	}
	sameRequest := job.RequestID != "" && old.RequestID == job.RequestID
	sameContent := old.Kind == job.Kind && string(old.Spec) == string(job.Spec) && old.Queue == job.Queue
	if old.Owner == job.Owner && (sameRequest || job.RequestID == "" && sameContent) {
		return &claryv1.SubmitResponse{Job: wire.JobToProto(old), Existed: true}, nil
	}
	return nil, fault.New(fault.Conflict, "name: a job %q exists already (%s, submitted by %s): choose another name, or delete it first", old.Name, old.State, old.Owner)
}

// haveSecrets refuses gangs that ask for secrets that are not there.
func (s *jobs) haveSecrets(ctx context.Context, gangs []cluster.Gang) error {
	if !slices.ContainsFunc(gangs, func(gang cluster.Gang) bool {
		return slices.ContainsFunc(gang.Roles, func(role cluster.Role) bool { return len(role.Program.Secrets) > 0 })
	}) {
		return nil
	}
	snapshot, err := s.replica.Read(ctx, false) // it may have been set a moment ago
	if err != nil {
		return err
	}
	defer snapshot.Close()
	return missingSecret(snapshot, gangs)
}

// foresee are gangs like those that jobs will have which this one makes later.
func (s *jobs) foresee(job cluster.Job) []cluster.Gang {
	if kind, does := s.kinds[job.Kind].(workload.Foreseer); does {
		return kind.Foresee(job, job.Submitted)
	}
	return nil
}

// couldFit refuses gangs for which the nodes of this cluster would be too small even
// when empty. A cluster without nodes accepts everything: nodes may yet join.
func (s *jobs) couldFit(gangs []cluster.Gang) error {
	nodes := s.nodes.List()
	if len(nodes) == 0 {
		return nil
	}
	for _, gang := range gangs {
		if why, fits := scheduler.CouldEverFit(nodes, gang.AtLeast()); !fits {
			return fault.New(fault.Exhausted, "spec: could never run on this cluster's nodes: %s", why.Summary)
		}
	}
	return nil
}

func (s *jobs) dryRun(ctx context.Context, request *claryv1.SubmitRequest, job cluster.Job) (*claryv1.SubmitResponse, error) {
	if conn, err := s.leader.elsewhere(); err != nil || conn != nil {
		if err != nil {
			return nil, err
		}
		return claryv1.NewJobsClient(conn).Submit(forwarded(ctx), request)
	}
	_, gangs := reconciler.First(job, s.kinds[job.Kind], job.Submitted)
	gangs = append(gangs, s.foresee(job)...)
	if err := s.haveSecrets(ctx, gangs); err != nil {
		return nil, err
	}
	plan, err := s.planner.DryRun(ctx, gangs)
	if err != nil {
		return nil, err
	}
	answer := wire.PlanToProto(plan)
	response := &claryv1.SubmitResponse{Job: wire.JobToProto(job), Placements: answer.GetPlacements(), Whys: answer.GetWhys()}
	for _, gang := range gangs {
		response.Gangs = append(response.Gangs, wire.GangToProto(gang))
	}
	return response, nil
}

func (s *jobs) Get(ctx context.Context, request *claryv1.GetJobRequest) (*claryv1.JobView, error) {
	snapshot, err := s.replica.Read(ctx, request.GetStale())
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	return s.onRecord(ctx, snapshot, request.GetName())
}

func noJob(name string) error {
	return fault.New(fault.NotFound, "name: there is no job %q: see clary jobs", cluster.Clip(name))
}

const (
	defaultPage = 1000
	maxPage     = 10_000
)

func (s *jobs) List(ctx context.Context, request *claryv1.ListJobsRequest) (*claryv1.ListJobsResponse, error) {
	limit := int(request.GetLimit())
	if limit < 0 || limit > maxPage {
		return nil, fault.New(fault.Invalid, "limit: %d is out of range: from 0 (the default, %d) to %d", limit, defaultPage, maxPage)
	}
	if limit == 0 {
		limit = defaultPage
	}
	snapshot, err := s.replica.Read(ctx, request.GetStale())
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	if request.GetArchived() {
		return listArchived(snapshot, request, limit)
	}
	answer := &claryv1.ListJobsResponse{}
	for job := range snapshot.Jobs(request.GetAfter()) {
		if !matches(job, request) {
			continue
		}
		if len(answer.Jobs) == limit {
			answer.Next = answer.Jobs[limit-1].GetName()
			break
		}
		answer.Jobs = append(answer.Jobs, wire.JobToProto(job))
	}
	return answer, nil
}

func matches(job cluster.Job, request *claryv1.ListJobsRequest) bool {
	if parent := request.GetParent(); parent != "" && job.Parent != parent || parent == "" && job.Parent != "" && !request.GetChildren() {
		return false
	}
	for key, value := range request.GetLabels() {
		if job.Labels[key] != value {
			return false
		}
	}
	is := func(wanted, value string) bool { return wanted == "" || wanted == value }
	return is(request.GetQueue(), job.Queue) && is(request.GetOwner(), job.Owner) && is(request.GetKind(), string(job.Kind)) &&
		(len(request.GetStates()) == 0 || slices.Contains(request.GetStates(), string(job.State)))
}

// Watch sends the job's view now and after every change. What changes faster than the
// client reads is sent once, as it then is.
func (s *jobs) Watch(request *claryv1.WatchJobRequest, stream grpc.ServerStreamingServer[claryv1.JobView]) error {
	ctx, name := stream.Context(), request.GetName()
	events := s.replica.Events().Subscribe(ofJob(name))
	defer events.Close()
	fresh, err := s.replica.Read(ctx, false) // so that the first view is not older than the caller's own submission
	if err != nil {
		return err
	}
	fresh.Close()
	for {
		snapshot, err := s.replica.Read(ctx, true)
		if err != nil {
			return err
		}
		current, err := s.onRecord(ctx, snapshot, name)
		snapshot.Close()
		if err != nil {
			return err
		}
		if err := stream.Send(current); err != nil {
			return err
		}
		if cluster.JobState(current.GetJob().GetState()).Ended() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, open := <-events.C:
			if !open {
				return fault.New(fault.Unready, "this coordinator is stopping: watch at another")
			}
		}
	}
}

// ofJob selects the events of one job, its gangs, tasks and publication.
func ofJob(name string) func(state.Change) bool {
	return func(change state.Change) bool {
		return change.ID == name || strings.HasPrefix(change.ID, name+"/")
	}
}

func (s *jobs) Cancel(ctx context.Context, request *claryv1.CancelJobRequest) (*claryv1.Job, error) {
	return s.change(ctx, request.GetName(), func(job *cluster.Job) error {
		if job.State.Ended() {
			return fault.New(fault.Conflict, "job %s has %s already", job.Name, job.State)
		}
		job.Cancel = true
		if job.Reason = request.GetReason(); job.Reason == "" {
			job.Reason = "cancelled by " + caller(ctx).Name
		}
		return nil
	})
}

func (s *jobs) Release(ctx context.Context, request *claryv1.ReleaseJobRequest) (*claryv1.Job, error) {
	return s.change(ctx, request.GetName(), func(job *cluster.Job) error {
		if !job.Held {
			return fault.New(fault.Conflict, "job %s is not held", job.Name)
		}
		job.Held = false
		return nil
	})
}

// change rewrites a job that the caller owns; when it changed meanwhile, it tries again.
func (s *jobs) change(ctx context.Context, name string, edit func(*cluster.Job) error) (*claryv1.Job, error) {
	for {
		job, err := s.owned(ctx, name)
		if err != nil {
			return nil, err
		}
		if err := edit(&job); err != nil {
			return nil, err
		}
		results, err := s.replica.Propose(ctx, command.Record{Changes: []command.Change{{Expect: job.Revision, Job: &job}}})
		if err == nil {
			job.Revision = results[0].Revision
			return wire.JobToProto(job), nil
		}
		if !fault.Is(err, fault.Conflict) || ctx.Err() != nil {
			return nil, err
		}
	}
}

func (s *jobs) owned(ctx context.Context, name string) (cluster.Job, error) {
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return cluster.Job{}, err
	}
	defer snapshot.Close()
	job, ok := snapshot.Job(name)
	if !ok {
		return job, missing(snapshot, name)
	}
	return job, caller(ctx).owns(job)
}

func (s *jobs) Delete(ctx context.Context, request *claryv1.DeleteJobRequest) (*claryv1.DeleteJobResponse, error) {
	for {
		if deleted, err := s.deleteArchived(ctx, request.GetName()); deleted || err != nil {
			return &claryv1.DeleteJobResponse{}, err
		}
		job, err := s.owned(ctx, request.GetName())
		if err != nil {
			return nil, err
		}
		if !job.State.Ended() {
			return nil, fault.New(fault.Conflict, "job %s is %s: cancel it first, then delete it", job.Name, job.State)
		}
		_, err = s.disposal().Job(ctx, job)
		if err == nil {
			return &claryv1.DeleteJobResponse{}, nil
		}
		if !fault.Is(err, fault.Conflict) || ctx.Err() != nil {
			return nil, err
		}
	}
}

func (s *jobs) disposal() *disposal.Disposal {
	return disposal.New(s.replica, s.records)
}

func (s *jobs) Why(ctx context.Context, request *claryv1.WhyRequest) (*claryv1.WhyResponse, error) {
	if conn, err := s.leader.elsewhere(); err != nil || conn != nil {
		if err != nil {
			return nil, err
		}
		return claryv1.NewJobsClient(conn).Why(forwarded(ctx), request)
	}
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	job, ok := snapshot.Job(request.GetJob())
	if !ok {
		return nil, missing(snapshot, request.GetJob())
	}
	whys, err := s.planner.Why(ctx, job.Name)
	if err != nil {
		return nil, err
	}
	plan := wire.PlanToProto(cluster.Plan{Whys: whys})
	return &claryv1.WhyResponse{Job: wire.JobToProto(job), Whys: plan.GetWhys()}, nil
}

const (
	whysPage = 100
	mostWhys = 1000
)

// Whys says for all that waits why.
func (s *jobs) Whys(ctx context.Context, request *claryv1.WhysRequest) (*claryv1.WhysResponse, error) {
	limit := int(request.GetLimit())
	if limit == 0 {
		limit = whysPage
	}
	if limit < 1 || limit > mostWhys {
		return nil, fault.New(fault.Invalid, "limit: %d: from 1 to %d", limit, mostWhys)
	}
	if conn, err := s.leader.elsewhere(); err != nil || conn != nil {
		if err != nil {
			return nil, err
		}
		return claryv1.NewJobsClient(conn).Whys(forwarded(ctx), request)
	}
	if name := request.GetQueue(); name != "" {
		snapshot, err := s.replica.Read(ctx, false)
		if err != nil {
			return nil, err
		}
		_, known := snapshot.Queue(name)
		snapshot.Close()
		if !known {
			return nil, fault.New(fault.NotFound, "queue: there is no queue %q", cluster.Clip(name))
		}
	}
	whys, waiting, err := s.planner.Whys(ctx, request.GetQueue(), limit)
	if err != nil {
		return nil, err
	}
	plan := wire.PlanToProto(cluster.Plan{Whys: whys})
	return &claryv1.WhysResponse{Whys: plan.GetWhys(), Waiting: int64(waiting)}, nil
}
