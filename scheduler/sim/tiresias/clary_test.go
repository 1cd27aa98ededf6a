package tiresias_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clary-ml/clary/scheduler/sim/tiresias"
)

// On the published workloads together jobs are done on average in less than nine tenths of Tiresias' time.
func TestClaryIsAheadOfTiresias(t *testing.T) {
	folder := traces(t)
	profiles, err := tiresias.ReadProfiles(os.DirFS(folder))
	if err != nil {
		t.Fatal(err)
	}
	workloads, err := filepath.Glob(filepath.Join(folder, "workloads", "*.csv"))
	if err != nil || len(workloads) == 0 {
		t.Fatalf("no workloads: %v", err)
	}
	var clary, published float64
	for _, path := range workloads {
		jobs := readWorkload(t, path, profiles)
		averages := map[tiresias.Policy]float64{}
		for _, policy := range tiresias.Policies() {
			result, err := tiresias.Run(jobs, profiles, policy)
			if err != nil {
				t.Fatal(err)
			}
			averages[policy] = result.Summary.Average
		}
		clary, published = clary+averages[tiresias.Clary], published+averages[tiresias.Tiresias]
		t.Logf("%s: %v, %.3f of Tiresias", filepath.Base(path), averages, averages[tiresias.Clary]/averages[tiresias.Tiresias])
	}
	if clary > 0.9*published {
		t.Errorf("%.3f of Tiresias", clary/published)
	}
}

// One that says it has most of its work before it makes room for a short one of a class that is known.
func TestClaryLetsShortJobsGoFirst(t *testing.T) {
	profiles, err := tiresias.ReadProfiles(profile())
	if err != nil {
		t.Fatal(err)
	}
	text := heading + "s-1,0,app,1,10\ns-2,10,app,1,10\ns-3,20,app,1,10\nwide-1,1000,app,64,10\ns-4,1110,app,1,10\n"
	jobs, err := tiresias.Read("w.csv", strings.NewReader(text), profiles)
	if err != nil {
		t.Fatal(err)
	}
	result, err := tiresias.Run(jobs, profiles, tiresias.Clary)
	if err != nil {
		t.Fatal(err)
	}
	// s-4 is seen at 1140, when wide-1 has worked from 1050 on and a quarter of its 400 s is done.
	if got, want := result.JCT[4], int64(1140+30+200-1110); got != want || result.Restarts != 1 {
		t.Errorf("the short one took %d s with %d restarts, want %d with 1", got, result.Restarts, want)
	}
}
