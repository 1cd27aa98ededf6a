package tiresias_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/clary-ml/clary/scheduler/sim/tiresias"
)

// traces is the folder of published traces, or the test is skipped and says so.
func traces(t *testing.T) string {
	folder := os.Getenv("CLARY_TRACES")
	if folder == "" {
		t.Skip("skipped: CLARY_TRACES names no folder with the published traces")
	}
	return filepath.Join(folder, "pollux")
}

func readWorkload(t *testing.T, path string, profiles tiresias.Profiles) []tiresias.Job {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	jobs, err := tiresias.Read(path, file, profiles)
	if err != nil {
		t.Fatal(err)
	}
	return jobs
}

func TestTiresiasGivesThePublishedTimes(t *testing.T) {
	folder := traces(t)
	profiles, err := tiresias.ReadProfiles(os.DirFS(folder))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(folder, "published_tiresias_jct_seconds.json"))
	if err != nil {
		t.Fatal(err)
	}
	var published struct {
		JCTs map[string]map[string]int64 `json:"jcts"`
	}
	if err := json.Unmarshal(text, &published); err != nil {
		t.Fatal(err)
	}
	if len(published.JCTs) == 0 {
		t.Fatal("nothing is published")
	}
	for name, want := range published.JCTs {
		t.Run(name, func(t *testing.T) {
			jobs := readWorkload(t, filepath.Join(folder, "workloads", name+".csv"), profiles)
			result, err := tiresias.Run(jobs, profiles, tiresias.Tiresias)
			if err != nil {
				t.Fatal(err)
			}
			wrong := 0
			for i, job := range jobs {
				if result.JCT[i] != want[job.Name] {
					if wrong++; wrong < 6 {
						t.Errorf("%s: %d s, published %d", job.Name, result.JCT[i], want[job.Name])
					}
				}
			}
			if wrong > 0 || len(want) != len(jobs) {
				t.Errorf("%d of %d jobs differ (published: %d)", wrong, len(jobs), len(want))
			}
			t.Log(result.Summary, result.Restarts)
		})
	}
}
