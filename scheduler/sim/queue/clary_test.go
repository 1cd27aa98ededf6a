package queue_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/clary-ml/clary/scheduler/sim/queue"
)

// Without knowing how long any job will take, Clary is ahead of FIFO with skip by more than a fifth, and within three
// tenths of SRTF, which is told.
func TestClaryComesNearThoseThatKnow(t *testing.T) {
	folder := filepath.Join(traces(t), "tiresias")
	for _, trace := range []struct {
		name string
		gpus int64
	}{{"ef06", 128}, {"philly_ee9e8c", 160}} {
		jobs := readJobs(t, filepath.Join(folder, trace.name+"_job.csv"), trace.gpus)
		average := map[queue.Policy]float64{}
		for _, policy := range []queue.Policy{queue.FIFOSkip, queue.SRTF, queue.Clary} {
			result, err := queue.Run(jobs, trace.gpus, policy, 0)
			if err != nil {
				t.Fatal(err)
			}
			average[policy] = result.Summary.Average
		}
		t.Logf("%s: %v", trace.name, average)
		if average[queue.Clary] > 0.8*average[queue.FIFOSkip] || average[queue.Clary] > 1.3*average[queue.SRTF] {
			t.Errorf("%s: %v", trace.name, average)
		}
	}
}

// Of two classes Clary learns which is the short one: it then goes first, and has the long ones make room.
func TestClaryLearnsWhichJobsAreShort(t *testing.T) {
	var text strings.Builder
	text.WriteString("job_id,num_gpu,submit_time,duration,model_name\n")
	row := func(id, at, lasts, model string) {
		text.WriteString(id + ",4," + at + "," + lasts + "," + model + "\n")
	}
	row("l1", "0", "20000", "long")
	row("s1", "30000", "60", "short")
	row("s2", "31000", "60", "short")
	row("s3", "32000", "60", "short")
	row("l2", "40000", "20000", "long")
	row("s4", "45000", "60", "short")
	jobs, err := queue.Read("learn.csv", strings.NewReader(text.String()), 4)
	if err != nil {
		t.Fatal(err)
	}
	result, err := queue.Run(jobs, 4, queue.Clary, 30)
	if err != nil {
		t.Fatal(err)
	}
	if s4 := result.Spans[5]; s4.Start != 45000 || s4.End != 45090 || result.Restarts != 1 {
		t.Errorf("the short job has the span %v, with %d restarts: it is to start at once, in place of the long one", s4, result.Restarts)
	}
	if l2 := result.Spans[4]; l2.End != 40000+30+20000+90+30 {
		t.Errorf("the long one ends at %d: it waits for 90 s and starts twice", l2.End)
	}
}

func TestClaryDoesTheSameTwice(t *testing.T) {
	jobs, err := queue.Read("small.csv", strings.NewReader(small), 4)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := queue.Run(jobs, 4, queue.Clary, 30)
	b, _ := queue.Run(jobs, 4, queue.Clary, 30)
	if !slices.Equal(a.Spans, b.Spans) || a.Restarts != b.Restarts {
		t.Errorf("%v and %v", a, b)
	}
}
