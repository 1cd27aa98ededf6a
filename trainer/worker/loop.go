package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/checkpoint"
	"github.com/clary-ml/clary/trainer/data"
	"github.com/clary-ml/clary/trainer/network"
	"github.com/clary-ml/clary/trainer/paramserver"
	"github.com/clary-ml/clary/trainer/spec"
)

// errInterrupted marks the end of a training that was told to stop.
var errInterrupted = errors.New("told to stop")

// total is the number of rounds of the whole training.
func (t *training) total() uint64 { return t.course.total(t.Epochs) }

// train does the rounds that are left. A training whose checkpoint says that it is
// finished still has the model to write, before anything can change the weights.
func (t *training) train(ctx context.Context) error {
	saved := false
	if t.Index == 0 && (t.finished || t.step >= t.total()) {
		if err := t.saveModel(); err != nil {
			return err
		}
		saved = true
	}
	batch := batchOf(t)
	for t.step < t.total() {
		epoch, _ := t.course.at(t.step)
		ended, err := t.epoch(ctx, epoch, batch)
		if err != nil || ended {
			return err
		}
		if t.Index != 0 {
			continue
		}
		if saved = t.finished || t.step >= t.total(); saved {
			if err := t.saveModel(); err != nil {
				return err
			}
		}
	}
	return nil
}

// batchOf is room for one step's rows.
func batchOf(t *training) *network.Batch {
	rows := data.NewRounds(t.shard.TrainRows, t.Batch, t.Workers).BatchOf(t.Index)
	return &network.Batch{
		Features: make([]float32, 0, rows*t.shard.Train.Width), Labels: make([]float32, 0, rows),
		Mask: network.Key{Seed: t.Seed, Worker: t.Index},
	}
}

// epoch does the rounds that an epoch has left. ended is true when worker 0 said that it
// has seen enough.
func (t *training) epoch(ctx context.Context, epoch int, batch *network.Batch) (ended bool, err error) {
	began := time.Now()
	order, rounds := t.left(t.course, epoch)
	_, within := t.course.at(t.step)
	for s := within; s < rounds.Steps(); s++ {
		from, to := rounds.Part(t.Index, s)
		batch.Features, batch.Labels = batch.Features[:0], batch.Labels[:0]
		for _, row := range order[from:to] {
			batch.Features = append(batch.Features, t.shard.Train.Row(row)...)
			batch.Labels = append(batch.Labels, t.shard.Train.Labels[row])
		}
		sum, err := t.round(ctx, batch, 1/float64(rounds.Total(s)))
		if err != nil {
			return false, fmt.Errorf("epoch %d, step %d: %w", epoch+1, s+1, err)
		}
		if sum.Finish > 0 {
			return true, nil
		}
		t.partial.Loss += sum.Loss
		t.partial.Correct += sum.Correct
		t.partial.Rows += sum.Rows
		whole := s+1 == rounds.Steps()
		if whole {
			if err := t.finishEpoch(ctx, epoch, time.Since(began)); err != nil {
				return false, err
			}
		} else if t.Index == 0 {
			t.journal.progress(epoch, t.step, t.total(), t.partialMetrics())
		}
		if sum.Interrupt > 0 && t.step < t.total() {
			return true, t.interrupted(ctx, whole)
		}
	}
	return false, nil
}

// round computes one gradient and exchanges it for new weights. Being told to stop does
// not break it off: it is said to the others with it.
func (t *training) round(ctx context.Context, batch *network.Batch, share float64) (paramserver.Stats, error) {
	batch.Share, batch.Mask.Step = share, int64(t.step)
	loss, correct, err := t.graph.Step(*batch)
	if err != nil {
		return paramserver.Stats{}, err
	}
	mine := paramserver.Stats{Loss: loss, Correct: float64(correct), Rows: float64(len(batch.Labels))}
	if ctx.Err() != nil {
		mine.Interrupt = 1
	}
	if t.finished {
		mine.Finish = 1
	}
	sum, err := t.client.PushPull(context.WithoutCancel(ctx), t.step, t.graph.Gradient, t.graph.Weights, mine)
	if err == nil {
		t.step++
	}
	return sum, err
}

func (t *training) partialMetrics() map[string]float64 {
	p := t.partial
	m := map[string]float64{"train_loss": p.Loss / p.Rows}
	if t.Network.Loss != spec.MeanSquaredError {
		m["train_accuracy"] = p.Correct / p.Rows
	}
	return m
}

// finishEpoch measures, reports and saves what an epoch came to.
func (t *training) finishEpoch(ctx context.Context, epoch int, took time.Duration) error {
	metrics := t.partialMetrics()
	t.partial = checkpoint.Partial{}
	if t.Index != 0 {
		return nil
	}
	line := fmt.Sprintf("epoch %d/%d  %s", epoch+1, t.Epochs, numbers(metrics, "train_"))
	if t.validation.Rows() > 0 {
		t.scorer.Use(t.graph.Weights)
		report, err := t.scorer.Score(t.validation)
		if err != nil {
			return err
		}
		measured := report.Metrics("validation_")
		line += "  validation " + numbers(measured, "validation_")
		maps.Copy(metrics, measured)
		if t.TargetAccuracy > 0 && report.Accuracy >= t.TargetAccuracy {
			t.finished = true
		}
	}
	t.history = append(t.history, checkpoint.Epoch{Epoch: epoch + 1, Metrics: metrics})
	t.printf("%s  %.1fs", line, took.Seconds())
	if err := t.journal.epoch(epoch+1, t.step, t.total(), metrics); err != nil {
		return err
	}
	if t.finished {
		t.printf("the target accuracy of %v is reached", t.TargetAccuracy)
	}
	if (epoch+1)%t.CheckpointEvery == 0 || t.finished || t.step >= t.total() {
		return t.save(ctx)
	}
	return nil
}

func numbers(metrics map[string]float64, prefix string) string {
	text := ""
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(metrics))) {
		text += fmt.Sprintf("  %s %.4f", name[len(prefix):], metrics[name])
	}
	return text[2:]
}

// save writes a checkpoint of the step just done. The servers' state cannot move on
// before this worker pushes again.
func (t *training) save(ctx context.Context) error {
	if t.Checkpoints == "" {
		return nil
	}
	slots, err := t.client.Slots(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	epoch, within := t.course.at(t.step)
	_, err = checkpoint.Save(t.Checkpoints, checkpoint.Checkpoint{
		Header: checkpoint.Header{
			Digest: t.digest(), Seed: t.Seed, Step: t.step, Rows: t.shard.TrainRows, Workers: t.Workers,
			Epoch: epoch, EpochStep: within, Parts: t.course.parts(epoch),
			Partial: t.partial, History: t.history, Finished: t.finished,
		},
		Weights: t.graph.Weights, State: slots,
	})
	return err
}

// interrupted ends a training that was told to stop, with a checkpoint.
func (t *training) interrupted(ctx context.Context, whole bool) error {
	epoch, _ := t.course.at(t.step)
	if t.Index == 0 && !(whole && epoch%t.CheckpointEvery == 0) {
		if err := t.save(ctx); err != nil {
			return err
		}
	}
	return fault.New(fault.Unready, "%w after step %d of %d: start it again to go on from the checkpoint", errInterrupted, t.step, t.total())
}

// saveModel writes the model as the weights are now.
func (t *training) saveModel() error {
	if t.Model == "" {
		return nil
	}
	m := checkpoint.Manifest{
		Job: t.Job, Network: t.Network, Data: t.Data, Seed: t.Seed, Epochs: len(t.history), Step: t.step,
		Matrices: t.blas.String(),
	}
	if t.transform != nil {
		m.Transform = &checkpoint.Transformed{Transform: t.transform}
	}
	if n := len(t.history); n > 0 {
		m.Metrics = t.history[n-1].Metrics
	}
	if err := checkpoint.SaveModel(t.Model, m, t.graph.Weights); err != nil {
		return err
	}
	t.printf("model written: %d parameters, %d epochs", t.plan.Parameters, len(t.history))
	return nil
}
