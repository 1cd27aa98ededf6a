package queue_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/clary-ml/clary/scheduler/sim/queue"
	"github.com/clary-ml/clary/scheduler/sim/sheet"
)

// traces is the folder of published traces, or the test is skipped and says so.
func traces(t *testing.T) string {
	folder := os.Getenv("CLARY_TRACES")
	if folder == "" {
		t.Skip("skipped: CLARY_TRACES names no folder with the published traces")
	}
	return folder
}

func readJobs(t *testing.T, path string, gpus int64) []queue.Job {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	jobs, err := queue.Read(path, file, gpus)
	if err != nil {
		t.Fatal(err)
	}
	return jobs
}

func TestReferencePoliciesGiveThePublishedSpans(t *testing.T) {
	folder := filepath.Join(traces(t), "tiresias")
	for _, trace := range []struct {
		name, cluster string
		gpus          int64
	}{{"ef06", "n16g8", 128}, {"philly_ee9e8c", "n20g8", 160}} {
		jobs := readJobs(t, filepath.Join(folder, trace.name+"_job.csv"), trace.gpus)
		for policy, file := range map[queue.Policy]string{queue.FIFO: "fifo", queue.FIFOSkip: "fjf", queue.SRTF: "shortest", queue.SRSF: "shortest-gpu"} {
			t.Run(trace.name+"/"+string(policy), func(t *testing.T) {
				result, err := queue.Run(jobs, trace.gpus, policy, 0)
				if err != nil {
					t.Fatal(err)
				}
				want := published(t, filepath.Join(folder, trace.name+"_"+trace.cluster+"_"+file+".job.csv"))
				if len(want) != len(jobs) {
					t.Fatalf("%d jobs, published %d", len(jobs), len(want))
				}
				wrong := 0
				for i, job := range jobs {
					if result.Spans[i] != want[job.ID] {
						if wrong++; wrong < 6 {
							t.Errorf("job %s: %v, published %v", job.ID, result.Spans[i], want[job.ID])
						}
					}
				}
				if wrong > 0 {
					t.Errorf("%d of %d jobs differ", wrong, len(jobs))
				}
			})
		}
	}
}

func published(t *testing.T, path string) map[string]queue.Span {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	spans := map[string]queue.Span{}
	err = sheet.Read(path, file, []string{"job_id", "start_time", "end_time"}, func(row *sheet.Row) error {
		spans[row.Text("job_id")] = queue.Span{Start: row.Int("start_time", 0, queue.MaxTime), End: row.Int("end_time", 0, queue.MaxTime)}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return spans
}
