package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/checkpoint"
	"github.com/clary-ml/clary/trainer/data"
	"github.com/clary-ml/clary/trainer/inference"
	"github.com/clary-ml/clary/trainer/network"
	"github.com/clary-ml/clary/trainer/paramserver"
	"github.com/clary-ml/clary/trainer/prepare"
	"github.com/clary-ml/clary/trainer/spec"
)

// RunServer holds one block of the parameters until every worker is done. When ctx ends
// it asks the workers to stop and waits for them.
func RunServer(ctx context.Context, o Options) (err error) {
	defer func() { o.explain(err) }()
	plan, err := o.complete()
	if err != nil {
		return err
	}
	id, err := o.identity()
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", o.Listen)
	if err != nil {
		return fault.New(fault.Unready, "parameter server %d: %w", o.Index, err)
	}
	from, to := paramserver.Block(plan.Parameters, o.Servers, o.Index)
	o.printf("parameter server %d of %d at %s: parameters %d to %d, %d workers", o.Index, o.Servers, listener.Addr(), from, to, o.Workers)
	err = paramserver.Serve(ctx, listener, paramserver.ServerOptions{
		Index: o.Index, Servers: o.Servers, Workers: o.Workers, Parameters: plan.Parameters, Optimizer: o.Optimizer,
		Digest: o.Digest(o.Workers), Identity: id, JoinWithin: o.JoinWithin, Grace: o.Grace, Log: o.logger(),
	})
	if err == nil {
		o.printf("all workers are done")
	}
	return err
}

// RunWorker trains until the epochs are done, the target is reached, or ctx ends. In the
// last case it finishes its step, worker 0 writes a checkpoint, and the error is of kind
// Unready.
func RunWorker(ctx context.Context, o Options) (err error) {
	defer func() { o.explain(err) }()
	plan, err := o.complete()
	if err != nil {
		return err
	}
	id, err := o.identity()
	if err != nil {
		return err
	}
	client, err := paramserver.Dial(ctx, paramserver.ClientOptions{
		Addresses: o.Addresses, Worker: o.Index, Workers: o.Workers, Parameters: plan.Parameters,
		Slots: o.Optimizer.Slots(), Digest: o.Digest(o.Workers), Identity: id, JoinWithin: o.JoinWithin, Grace: o.Grace,
	})
	if err != nil {
		return err
	}
	defer client.Close()
	t, err := newTraining(ctx, o, plan, client)
	if err == nil {
		err = errors.Join(t.train(ctx), t.close())
	}
	if err != nil && !errors.Is(err, errInterrupted) {
		client.Fail(fmt.Errorf("worker %d: %w", o.Index, err))
		return err
	}
	// Told to stop or not, the servers should hear that this worker is done.
	return errors.Join(err, client.Done(context.WithoutCancel(ctx)))
}

// training is a worker at its work.
type training struct {
	Options
	plan    spec.Plan
	client  *paramserver.Client
	shard   data.Shard
	course  course
	graph   *network.Graph
	blas    network.BLAS
	journal journal

	step     uint64 // rounds done
	partial  checkpoint.Partial
	history  []checkpoint.Epoch
	finished bool // nothing is left to learn: the weights in the servers may go on, the model not

	// For worker 0 alone.
	scorer     *inference.Scorer
	validation data.Table
	transform  *prepare.Transform
}

// newTraining reads the data, builds the graphs and fetches the weights to begin with.
func newTraining(ctx context.Context, o Options, plan spec.Plan, client *paramserver.Client) (t *training, err error) {
	t = &training{Options: o, plan: plan, client: client}
	t.blas = network.Gonum()
	line := "matrix library: gonum"
	if !o.Plain {
		t.blas, line = network.FindBLAS(o.Threads)
	}
	o.printf("%s", line)
	if t.transform, err = o.readTransform(plan); err != nil {
		return t, err
	}
	if err := t.read(ctx); err != nil {
		return t, err
	}
	rounds := data.NewRounds(t.shard.TrainRows, t.Batch, t.Workers)
	if t.graph, err = network.Training(plan, rounds.BatchOf(o.Index), t.blas); err != nil {
		return t, err
	}
	t.course = course{steps: rounds.Steps(), rest: rounds.Steps()}
	o.printf("worker %d of %d: %d of %d training rows, %d steps an epoch, %d parameters on %d servers",
		o.Index, o.Workers, t.shard.Train.Rows(), t.shard.TrainRows, t.course.steps, plan.Parameters, len(o.Addresses))
	if o.Index == 0 {
		if t.scorer, err = inference.NewScorer(plan, o.Data.Classes, t.blas); err != nil {
			return t, err
		}
		if t.journal, err = openJournal(o.Metrics); err != nil {
			return t, err
		}
		if err := t.begin(ctx); err != nil {
			return t, err
		}
	}
	if t.step, err = client.Pull(ctx, t.graph.Weights); err != nil || o.Index == 0 {
		return t, err
	}
	return t, t.follow()
}

// read loads this worker's rows, and for worker 0 those of the validation.
func (t *training) read(ctx context.Context) error {
	layout := data.LayoutFor(t.Data, t.plan)
	own := false // a validation channel of its own
	if _, err := os.Stat(t.Validation); t.Validation != "" && err == nil {
		own = true
	}
	split := data.Split{Seed: t.Seed, Fraction: t.Data.ValidationFraction, Worker: t.Index, Workers: t.Workers, KeepValidation: t.Index == 0}
	if own {
		split.Fraction = 0
	}
	began := time.Now()
	var err error
	if t.shard, err = data.ReadShard(ctx, t.Train, layout, split); err != nil {
		return fmt.Errorf("training data: %w", err)
	}
	if t.shard.TrainRows == 0 {
		return fault.New(fault.Invalid, "training data: all rows were held out for validation: give a smaller validation_fraction")
	}
	t.validation = t.shard.Validation
	if own && t.Index == 0 {
		if t.validation, err = data.ReadTable(ctx, t.Validation, layout); err != nil {
			return fmt.Errorf("validation data: %w", err)
		}
	}
	t.printf("read %d rows in %v", t.shard.Train.Rows()+t.validation.Rows(), time.Since(began).Round(time.Millisecond))
	return nil
}

// begin gives the servers the newest checkpoint, or a new network.
func (t *training) begin(ctx context.Context) error {
	state := paramserver.State{Weights: make([]float32, t.plan.Parameters)}
	c, found, refused, err := checkpoint.Latest(t.Checkpoints, t.own)
	if err != nil {
		return err
	}
	for _, r := range refused {
		t.printf("not used: %v", r)
	}
	if found {
		if err := t.goOn(c.Header); err != nil {
			return err
		}
		state = paramserver.State{Step: c.Step, Weights: c.Weights, Slots: c.State}
		t.partial, t.history = c.Partial, c.History
		t.finished = c.Finished
		t.printf("going on from the checkpoint of epoch %d, step %d", c.Epoch, c.Step)
		if err := t.recall(c.Header); err != nil {
			return err
		}
	} else {
		network.Initialize(t.plan, t.Seed, state.Weights)
		for range t.Optimizer.Slots() {
			state.Slots = append(state.Slots, make([]float32, t.plan.Parameters))
		}
	}
	return t.client.Initialize(ctx, state)
}

// recall says again what the last whole epoch came to. The attempt that did it may have been cut off from all who listen, and not from where
// its checkpoints are kept; and a run whose epochs are all done has nothing else to say.
func (t *training) recall(c checkpoint.Header) error {
	if len(t.history) == 0 {
		return nil
	}
	last, step := t.history[len(t.history)-1], c.Step-uint64(c.EpochStep)
	for _, part := range c.Parts {
		step -= uint64(part.Steps)
	}
	return t.journal.epoch(last.Epoch, step, t.total(), last.Metrics)
}

func (t *training) close() error {
	var err error
	if t.scorer != nil {
		err = t.scorer.Close()
	}
	return errors.Join(err, t.graph.Close(), t.journal.close())
}
