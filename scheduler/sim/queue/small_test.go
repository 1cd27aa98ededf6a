package queue_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/scheduler/sim/queue"
)

const small = `job_id,num_gpu,submit_time,duration
a,2,0,10
b,4,1,5
c,1,2,3
d,2,2,4
`

func TestEachPolicyByHand(t *testing.T) {
	jobs, err := queue.Read("small.csv", strings.NewReader(small), 4)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		policy   queue.Policy
		spans    []queue.Span
		restarts int
	}{
		{queue.FIFO, []queue.Span{{0, 10}, {10, 15}, {15, 18}, {15, 19}}, 0},
		{queue.FIFOSkip, []queue.Span{{0, 10}, {10, 15}, {2, 5}, {5, 9}}, 0},
		{queue.SRTF, []queue.Span{{0, 18}, {1, 10}, {2, 5}, {2, 6}}, 3},
		{queue.SRSF, []queue.Span{{0, 13}, {13, 18}, {2, 5}, {2, 6}}, 1},
	} {
		t.Run(string(test.policy), func(t *testing.T) {
			result, err := queue.Run(jobs, 4, test.policy, 0)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(result.Spans, test.spans) || result.Restarts != test.restarts {
				t.Errorf("spans %v, %d restarts; by hand %v, %d", result.Spans, result.Restarts, test.spans, test.restarts)
			}
		})
	}
}

func TestABrokenTraceIsNamedByItsLine(t *testing.T) {
	const heading = "job_id,num_gpu,submit_time,duration\n"
	for _, test := range []struct{ text, says string }{
		{"", "empty: its first line names the columns"},
		{heading, "no jobs"},
		{"job_id,num_gpu,duration\n1,1,1\n", `line 1: no column "submit_time"`},
		{"job_id,job_id,num_gpu,submit_time,duration\n1,1,1,1,1\n", `line 1: column "job_id" is there twice`},
		{heading + "1,1,0,5\n2,-1,0,5\n", "line 3: num_gpu: -1 is out of range: from 1"},
		{heading + "1,0,0,5\n", "line 2: num_gpu: 0 is out of range"},
		{heading + "1,1,-3,5\n", "line 2: submit_time: -3 is out of range"},
		{heading + "1,1,0,0\n", "line 2: duration: 0 is out of range: from 1"},
		{heading + "1,1,0,99999999999999999999\n", "line 2: duration: 99999999999999999999 is out of range"},
		{heading + "1,1,0,NaN\n", `line 2: duration: "NaN" is not a whole number`},
		{heading + "1,1,0,1.5\n", `line 2: duration: "1.5" is not a whole number`},
		{heading + "1,1,0\n", "line 2: 3 fields, the heading has 4"},
		{heading + ",1,0,5\n", "line 2: job_id: empty"},
		{heading + "1,1,0,5\n\n\n1,1,0,5\n", `line 5: job_id: "1" is on line 2 already`},
		{heading + "1,5,0,5\n", "line 2: num_gpu: 5, but there are 4 GPUs"},
		{heading + "1,\"1,0,5\n", "line 2: "},
	} {
		_, err := queue.Read("jobs.csv", strings.NewReader(test.text), 4)
		if err == nil || !strings.HasPrefix(err.Error(), "jobs.csv: ") || !strings.Contains(err.Error(), test.says) || !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v, want %q", test.text, err, test.says)
		}
	}
	if _, err := queue.Read("jobs.csv", strings.NewReader(small), 0); err == nil || !strings.Contains(err.Error(), "gpus: 0") {
		t.Errorf("no GPUs: %v", err)
	}
	if _, err := queue.Run(nil, 4, "lottery", 0); err == nil || !strings.Contains(err.Error(), `"lottery"`) {
		t.Errorf("an unknown policy: %v", err)
	}
}

// Whatever is read can be played to its end by every policy, and no job ends before its
// work can be done or runs where there is no room.
func FuzzRead(f *testing.F) {
	f.Add(small)
	f.Add("job_id,num_gpu,submit_time,duration,model_name\n1,4,68719476736,68719476736,x\n2,4,0,68719476736,\n")
	f.Add("\ufeffjob_id,num_gpu,submit_time,duration\r\n\"1\",1,0,1\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		jobs, err := queue.Read("f", strings.NewReader(text), 4)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("%v is no mistake of the file", err)
			}
			return
		}
		if len(jobs) > 200 {
			return
		}
		for _, policy := range queue.Policies() {
			if policy == queue.Clary && slices.ContainsFunc(jobs, func(j queue.Job) bool { return j.Submit > 1<<20 || j.Duration > 1<<16 }) {
				continue // asked every minute that something waits
			}
			result, err := queue.Run(jobs, 4, policy, 0)
			if err != nil {
				t.Fatal(err)
			}
			for i, job := range jobs {
				span := result.Spans[i]
				if span.Start < job.Submit || span.End-span.Start < job.Duration {
					t.Fatalf("%s: %+v has the span %+v", policy, job, span)
				}
			}
		}
	})
}
