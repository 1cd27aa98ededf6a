package worker

import (
	"fmt"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/checkpoint"
	"github.com/clary-ml/clary/trainer/data"
)

// course says which epoch a step belongs to. A run that goes on in the middle of an epoch with
// another number of workers has another number of steps left of it.
type course struct {
	first int         // the epoch that it begins in
	begun uint64      // the step at which this number of workers began with it
	done  []data.Done // what others did of it before
	rest  int         // steps that are, or were, left of it then
	steps int         // of every later epoch
}

// at is where a step is: its epoch, and how many steps this number of workers has done of that.
func (c course) at(step uint64) (epoch, within int) {
	since := int(step - c.begun)
	if since < c.rest {
		return c.first, since
	}
	since -= c.rest
	return c.first + 1 + since/c.steps, since % c.steps
}

// total is the number of steps when so many epochs are done.
func (c course) total(epochs int) uint64 {
	if epochs <= c.first {
		return c.begun
	}
	return c.begun + uint64(c.rest) + uint64(epochs-c.first-1)*uint64(c.steps)
}

// parts are what others did of an epoch.
func (c course) parts(epoch int) []data.Done {
	if epoch == c.first {
		return c.done
	}
	return nil
}

// digest is what this run's checkpoints say they are of.
func (t *training) digest() string {
	if t.Elastic {
		return t.Digest(0)
	}
	return t.Digest(t.Workers)
}

// own reports whether a checkpoint is of this run. One that is elastic also goes on from one that was
// not.
func (t *training) own(c checkpoint.Header) bool {
	return c.Digest == t.digest() || t.Elastic && c.Workers > 0 && c.Digest == t.Digest(c.Workers)
}

// goOn sets the course from where a checkpoint stands.
func (t *training) goOn(c checkpoint.Header) error {
	steps := t.course.steps
	fits := c.Rows == t.shard.TrainRows
	if !t.Elastic {
		fits = c.Step == uint64(c.Epoch)*uint64(steps)+uint64(c.EpochStep)
	}
	if c.Parameters != t.plan.Parameters || c.Slots != t.Optimizer.Slots() || !fits {
		return fault.New(fault.Conflict, "the checkpoint of step %d (epoch %d and %d steps, %d rows) does not fit the training data, which has %d rows and %d steps an epoch: were rows added or lost?",
			c.Step, c.Epoch, c.EpochStep, c.Rows, t.shard.TrainRows, steps)
	}
	next := course{first: c.Epoch, begun: c.Step - uint64(c.EpochStep), done: c.Parts, steps: steps}
	if t.Elastic && c.Workers != t.Workers {
		t.printf("going on with %d workers: there were %d", t.Workers, c.Workers)
		if c.EpochStep > 0 {
			next.done = append(append([]data.Done(nil), c.Parts...), data.Done{Workers: c.Workers, Steps: c.EpochStep})
		}
		next.begun = c.Step
	}
	_, rounds := t.left(next, c.Epoch)
	if next.rest = rounds.Steps(); next.rest == 0 { // the others did all of it
		return fault.New(fault.Conflict, "the checkpoint of step %d says that all rows of epoch %d are done, and not that it is", c.Step, c.Epoch+1)
	}
	t.course = next
	return nil
}

// left are the rows that this worker takes in an epoch, in their order.
func (t *training) left(c course, epoch int) ([]int, data.Rounds) {
	return data.Left(t.shard.TrainRows, t.Batch, t.Workers, t.Seed, epoch, t.Index, c.parts(epoch))
}

// follow sets the course of a worker that did not begin the run, but came to weights that have steps
// behind them. Who may have had another number of workers needs the checkpoint that they are of.
func (t *training) follow() error {
	if t.step == 0 || !t.Elastic {
		t.course.first, _ = t.course.at(t.step)
		t.course.begun = uint64(t.course.first) * uint64(t.course.steps)
		return nil
	}
	c, err := checkpoint.At(t.Checkpoints, t.step, t.own)
	if err != nil {
		return fmt.Errorf("the run goes on from step %d, and this worker does not know how far others came in its epoch: %w", t.step, err)
	}
	return t.goOn(c.Header)
}
