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

// JobView is a job with all that belongs to it.
type JobView struct {
	Job         cluster.Job
	Gangs       []cluster.Gang
	Tasks       []cluster.Task
	Publication *cluster.Publication // nil until its outputs are committed
	Archived    int64                // when it was archived; 0 while it is at hand
}

// Submission is the answer to Submit.
type Submission struct {
	Job     cluster.Job
	Existed bool // the very same job was submitted before

	// Of a dry run only: what would be placed where, or why it would wait.
	Gangs      []cluster.Gang
	Placements []cluster.Placement
	Whys       []cluster.Why
}

// Submit stores a job durably: when it returns without an error, the cluster will not
// forget the job. A job without a RequestID gets one, so that trying again at another
// coordinator cannot make two.
func (c *Client) Submit(ctx context.Context, job cluster.Job) (Submission, error) {
	return c.submit(ctx, job, false)
}

// DryRun answers what Submit would do, and stores nothing.
func (c *Client) DryRun(ctx context.Context, job cluster.Job) (Submission, error) {
	return c.submit(ctx, job, true)
}

func (c *Client) submit(ctx context.Context, job cluster.Job, dry bool) (Submission, error) {
	if job.RequestID == "" {
		job.RequestID = rand.Text()
	}
	request := &claryv1.SubmitRequest{Job: wire.JobToProto(job), DryRun: dry}
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.SubmitResponse, error) {
		return claryv1.NewJobsClient(conn).Submit(ctx, request)
	})
	if err != nil {
		return Submission{}, err
	}
	return Submission{
		Job: wire.JobFromProto(response.GetJob()), Existed: response.GetExisted(),
		Gangs:      each(response.GetGangs(), wire.GangFromProto),
		Placements: each(response.GetPlacements(), wire.PlacementFromProto),
		Whys:       each(response.GetWhys(), wire.WhyFromProto),
	}, nil
}

// Job reads a job with its gangs and tasks.
func (c *Client) Job(ctx context.Context, name string, options ...ReadOption) (JobView, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.JobView, error) {
		return claryv1.NewJobsClient(conn).Get(ctx, &claryv1.GetJobRequest{Name: name, Stale: stale(options)})
	})
	return viewOf(response), err
}

// Filter says which jobs to list: those that match all that is set.
type Filter struct {
	Queue  string
	Owner  string
	Kind   cluster.Kind
	States []cluster.JobState
	Labels map[string]string
	Parent string // only the jobs that this one made, as a sweep makes its trials
	// Children is with the jobs that other jobs made, which are left out otherwise.
	Children bool
	// Archived lists those that are archived instead; of these there are no labels.
	Archived bool
	Limit    int    // of one page; 0 is as many as the server gives
	After    string // the Next of the page before
	Stale    bool   // any coordinator's view will do: cheaper, and perhaps a moment old
}

// Jobs lists one page of jobs in the order of their names; next, if it is not empty,
// is the After of the page that follows.
func (c *Client) Jobs(ctx context.Context, filter Filter) (jobs []cluster.Job, next string, err error) {
	request := &claryv1.ListJobsRequest{
		Queue: filter.Queue, Owner: filter.Owner, Kind: string(filter.Kind), Labels: filter.Labels,
		Limit: int32(filter.Limit), After: filter.After, Stale: filter.Stale, Parent: filter.Parent, Children: filter.Children, Archived: filter.Archived,
	}
	for _, state := range filter.States {
		request.States = append(request.States, string(state))
	}
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.ListJobsResponse, error) {
		return claryv1.NewJobsClient(conn).List(ctx, request)
	})
	return each(response.GetJobs(), wire.JobFromProto), response.GetNext(), err
}

// AllJobs goes through all jobs that match, page by page.
func (c *Client) AllJobs(ctx context.Context, filter Filter) iter.Seq2[cluster.Job, error] {
	return func(yield func(cluster.Job, error) bool) {
		for {
			jobs, next, err := c.Jobs(ctx, filter)
			if err != nil {
				yield(cluster.Job{}, err)
				return
			}
			for _, job := range jobs {
				if !yield(job, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			filter.After = next
		}
	}
}

// Watch yields the job as it is now, and again after each change, until it has ended.
// When a coordinator goes away it goes on at another: the same view may come twice.
// An error is the last thing it yields.
func (c *Client) Watch(ctx context.Context, name string) iter.Seq2[JobView, error] {
	return func(yield func(JobView, error) bool) {
		err := c.stream(ctx, func(ctx context.Context, p *peer) (bool, bool, error) { return watchOnce(ctx, p, name, yield) })
		if err != nil {
			yield(JobView{}, err)
		}
	}
}

// watchOnce passes one stream on. done: nothing is to follow; heard: there was a view.
func watchOnce(ctx context.Context, p *peer, name string, yield func(JobView, error) bool) (done, heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := claryv1.NewJobsClient(p.conn).Watch(ctx, &claryv1.WatchJobRequest{Name: name})
	if err != nil {
		return false, false, err
	}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) { // the coordinator stops: the job had not ended
			return false, heard, fault.New(fault.Unready, "the coordinator ended the watch")
		}
		if err != nil {
			return false, heard, err
		}
		heard = true
		view := viewOf(response)
		if !yield(view, nil) || view.Job.State.Ended() {
			return true, true, nil
		}
	}
}

// Cancel asks a job to end; it answers before the job has.
func (c *Client) Cancel(ctx context.Context, name, reason string) (cluster.Job, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.Job, error) {
		return claryv1.NewJobsClient(conn).Cancel(ctx, &claryv1.CancelJobRequest{Name: name, Reason: reason})
	})
	return jobOf(response, err)
}

// Release lets a held job go.
func (c *Client) Release(ctx context.Context, name string) (cluster.Job, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.Job, error) {
		return claryv1.NewJobsClient(conn).Release(ctx, &claryv1.ReleaseJobRequest{Name: name})
	})
	return jobOf(response, err)
}

// Delete forgets a job that has ended.
func (c *Client) Delete(ctx context.Context, name string) error {
	_, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, attempt int) (*claryv1.DeleteJobResponse, error) {
		response, err := claryv1.NewJobsClient(conn).Delete(ctx, &claryv1.DeleteJobRequest{Name: name})
		if attempt > 1 && fault.Is(wire.FromStatus(err), fault.NotFound) {
			return nil, nil // an earlier attempt did it, and its answer was lost
		}
		return response, err
	})
	return err
}

// Whys tells of what waits, in the order in which it goes, why: of a queue, or of all if it is "". At most limit are told
// of, as many as the server gives if it is 0; waiting is how many there are.
func (c *Client) Whys(ctx context.Context, queue string, limit int) (whys []cluster.Why, waiting int64, err error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.WhysResponse, error) {
		return claryv1.NewJobsClient(conn).Whys(ctx, &claryv1.WhysRequest{Queue: queue, Limit: int32(limit)})
	})
	if err != nil {
		return nil, 0, err
	}
	return each(response.GetWhys(), wire.WhyFromProto), response.GetWaiting(), nil
}

// Why tells what each waiting gang of the job waits for.
func (c *Client) Why(ctx context.Context, name string) (cluster.Job, []cluster.Why, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.WhyResponse, error) {
		return claryv1.NewJobsClient(conn).Why(ctx, &claryv1.WhyRequest{Job: name})
	})
	if err != nil {
		return cluster.Job{}, nil, err
	}
	return wire.JobFromProto(response.GetJob()), each(response.GetWhys(), wire.WhyFromProto), nil
}

func jobOf(response *claryv1.Job, err error) (cluster.Job, error) {
	if err != nil {
		return cluster.Job{}, err
	}
	return wire.JobFromProto(response), nil
}

func viewOf(response *claryv1.JobView) JobView {
	if response == nil {
		return JobView{}
	}
	view := JobView{
		Job:   wire.JobFromProto(response.GetJob()),
		Gangs: each(response.GetGangs(), wire.GangFromProto),
		Tasks: each(response.GetTasks(), wire.TaskFromProto), Archived: response.GetArchived(),
	}
	if response.GetPublication() != nil {
		publication := wire.PublicationFromProto(response.GetPublication())
		view.Publication = &publication
	}
	return view
}

// each converts a list.
func each[P, N any](items []P, convert func(P) N) []N {
	if len(items) == 0 {
		return nil
	}
	converted := make([]N, len(items))
	for i, item := range items {
		converted[i] = convert(item)
	}
	return converted
}
