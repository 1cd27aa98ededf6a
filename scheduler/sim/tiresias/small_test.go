package tiresias_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/scheduler/sim/tiresias"
)

// profile is an application "app" of two epochs of 100, at batch 10 (gain 1): one unit
// of progress a second on one node, half on more, so that times are easily worked out.
func profile() fstest.MapFS {
	table := "application,batch_size,num_replicas,accum_steps,atomic_bsz,placement,num_nodes,step_time,sync_time\n"
	for replicas := 1; replicas <= 64; replicas++ {
		for nodes := 1; nodes <= 16; nodes++ {
			step := 2
			if nodes == 1 {
				step = 1
			}
			table += fmt.Sprintf("app,10,%d,0,10,,%d,%d,0.5\n", replicas, nodes, step)
		}
	}
	return fstest.MapFS{
		"throughput_table.csv":          {Data: []byte(table)},
		"traces/app/placements.csv":     {Data: []byte("placement,local_bsz,step_time,sync_time\n1,5,1,0.5\n1,15,3,0.5\n")},
		"traces/app/validation-10.csv":  {Data: []byte("progress,iteration,metric,grad_sqr,grad_var\n100,1,0,1,0\n200,2,0,1,0\n")},
		"traces/app/validation-640.csv": {Data: []byte("progress,iteration,metric,grad_sqr,grad_var\n110,1,0,1,0\n210,2,0,1,0\n")},
	}
}

const heading = "name,time,application,num_replicas,batch_size\n"

func play(t *testing.T, folder fstest.MapFS, workload string) (map[string]int64, tiresias.Result, error) {
	t.Helper()
	profiles, err := tiresias.ReadProfiles(folder)
	if err != nil {
		return nil, tiresias.Result{}, err
	}
	jobs, err := tiresias.Read("w.csv", strings.NewReader(workload), profiles)
	if err != nil {
		return nil, tiresias.Result{}, err
	}
	result, err := tiresias.Run(jobs, profiles, tiresias.Tiresias)
	times := map[string]int64{}
	for i := range result.JCT {
		times[jobs[i].Name] = result.JCT[i]
	}
	return times, result, err
}

func TestTiresiasByHand(t *testing.T) {
	// a is seen at 60, loads until 90 and works 200 s on one node. b wants all GPUs and
	// waits for a's end, c passes it.
	times, result, err := play(t, profile(), heading+"a,0,app,4,10\nb,70,app,64,10\nc,119,app,1,10\n")
	if err != nil {
		t.Fatal(err)
	}
	// c is seen at 120, loads until 150 and works until 300, when b, which came first, takes
	// all; on many nodes b works 400 s, until 730. c goes on at 780 and has 50 s left.
	want := map[string]int64{"a": 290, "b": 730 - 70, "c": 780 + 30 + 50 - 119}
	if !maps.Equal(times, want) || result.Restarts != 1 {
		t.Errorf("%v, %d restarts; by hand %v, 1 restart", times, result.Restarts, want)
	}
}

func TestTiresiasDemotesByAttainedService(t *testing.T) {
	folder := profile()
	folder["traces/app/validation-10.csv"] = &fstest.MapFile{Data: []byte("progress,grad_sqr,grad_var\n2000,1,0\n")}
	folder["traces/app/validation-640.csv"] = &fstest.MapFile{Data: []byte("progress,grad_sqr,grad_var\n2000,1,0\n")}
	// a holds all 64 GPUs from 60 on: 57,600 GPU-seconds are 900 s, seen at 960. Then b goes
	// first: from 960 to 960+30+2000. a did (900-30)/2 of 2000; it starts again at 3000 and
	// needs 30 + 3130.
	times, result, err := play(t, folder, heading+"a,0,app,64,10\nb,100,app,1,10\n")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{"a": 3000 + 30 + 3130, "b": 2990 - 100}
	if !maps.Equal(times, want) || result.Restarts != 1 {
		t.Errorf("%v, %d restarts; by hand %v, 1 restart", times, result.Restarts, want)
	}
}

func TestABrokenWorkloadIsNamedByItsLine(t *testing.T) {
	for _, test := range []struct{ text, says string }{
		{heading, "w.csv: no jobs"},
		{"name,time,application,batch_size\n", `w.csv: line 1: no column "num_replicas"`},
		{heading + "a,0,app,1,10\na,5,app,1,10\n", `w.csv: line 3: name: "a" is on line 2 already`},
		{heading + "a,-1,app,1,10\n", "w.csv: line 2: time: -1 is out of range"},
		{heading + "a,0,app,65,10\n", "w.csv: line 2: num_replicas: 65, but there are 64 GPUs"},
		{heading + "a,0,gpt,1,10\n", `w.csv: line 2: application: "gpt" has no profile`},
		{heading + "a,0,app,1,1e9\n", `w.csv: line 2: batch_size: "1e9" is not a whole number`},
		{heading + "a,0,app,4,999\n", "throughput_table.csv: no row for application app, batch_size 999, num_replicas 4, and placement 4 or num_nodes 1"},
	} {
		if _, _, err := play(t, profile(), test.text); err == nil || !strings.Contains(err.Error(), test.says) || !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v, want %q", test.text, err, test.says)
		}
	}
}

func TestABrokenProfileIsNamedByItsLine(t *testing.T) {
	const table = "application,batch_size,num_replicas,accum_steps,atomic_bsz,placement,num_nodes,step_time,sync_time\n"
	for _, test := range []struct{ file, text, says string }{
		{"throughput_table.csv", table + "app,10,1,0,10,,1,NaN,0\n", "throughput_table.csv: line 2: step_time: NaN is out of range"},
		{"throughput_table.csv", table + "app,10,1,0,10,,1,1,1\n", "throughput_table.csv: line 2: sync_time: 1 is not less than step_time 1"},
		{"throughput_table.csv", table + "app,10,1,0,10,,1,1,0\napp,10,1,0,10,,1,2,0\n", "throughput_table.csv: line 3: a setting that is there already"},
		{"throughput_table.csv", table + "gpt,10,1,0,10,,1,1,0\n", `throughput_table.csv: line 2: application: "gpt" has no folder`},
		{"traces/app/placements.csv", "placement,local_bsz,step_time,sync_time\n103,5,1,0\n", `traces/app/placements.csv: line 2: placement: "103" is not made of digits 1 to 9`},
		{"traces/app/validation-10.csv", "progress,grad_sqr,grad_var\n1,1,0\n1,1,0\n", "traces/app/validation-10.csv: line 3: progress: 1 is not more"},
		{"traces/app/validation-10.csv", "progress,grad_sqr,grad_var\n1,0,0\n", "traces/app/validation-10.csv: line 2: grad_var: 0, and grad_sqr too"},
		{"traces/app/validation-10.csv", "progress,grad_sqr,grad_var\n", "traces/app: a validation file without epochs"},
		{"traces/app/validation-x.csv", "progress,grad_sqr,grad_var\n", "its name does not say a batch size"},
		{"traces/app/validation-10.csv", "progress,grad_sqr,grad_var\n1e11,1,0\n", "is not over 10 years after"},
	} {
		folder := profile()
		folder[test.file] = &fstest.MapFile{Data: []byte(test.text)}
		if strings.Contains(test.text, "1e11") {
			folder["traces/app/validation-640.csv"] = folder[test.file]
		}
		if _, _, err := play(t, folder, heading+"a,0,app,1,10\n"); err == nil || !strings.Contains(err.Error(), test.says) || !fault.Is(err, fault.Invalid) {
			t.Errorf("%s %q: %v, want %q", test.file, test.text, err, test.says)
		}
	}
	if _, err := tiresias.ReadProfiles(fstest.MapFS{}); err == nil || !strings.Contains(err.Error(), "traces") {
		t.Errorf("an empty folder: %v", err)
	}
}

// A setting that the table lacks is worked out from the measured placements: batch 10 on
// one GPU lies midway between 5 and 15.
func TestASettingThatTheTableLacksIsInterpolated(t *testing.T) {
	folder := profile()
	folder["throughput_table.csv"] = &fstest.MapFile{Data: []byte("application,batch_size,num_replicas,accum_steps,atomic_bsz,placement,num_nodes,step_time,sync_time\n")}
	times, _, err := play(t, folder, heading+"a,0,app,1,10\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(60 + 30 + 2*200); times["a"] != want {
		t.Errorf("%d s, by hand %d", times["a"], want)
	}
}

// Whatever is read is played to its end, and no job ends before its work can be done.
func FuzzRead(f *testing.F) {
	f.Add(heading + "a,0,app,4,10\nb,70,app,62,10\n")
	f.Add(heading + "a,68719476736,app,64,10\n")
	profiles, err := tiresias.ReadProfiles(profile())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		jobs, err := tiresias.Read("f", strings.NewReader(text), profiles)
		if err == nil && len(jobs) < 200 && !slices.ContainsFunc(jobs, func(j tiresias.Job) bool { return j.Batch != 10 }) {
			var result tiresias.Result
			if result, err = tiresias.Run(jobs, profiles, tiresias.Tiresias); err == nil && slices.Min(result.JCT) < 230 {
				t.Fatalf("a job took %d s", slices.Min(result.JCT))
			}
		}
		if err != nil && !fault.Is(err, fault.Invalid) {
			t.Fatalf("%v is no mistake of the file", err)
		}
	})
}

// FuzzProfile tries profiles.
func FuzzProfile(f *testing.F) {
	for name, file := range profile() {
		f.Add(name, string(file.Data))
	}
	f.Fuzz(func(t *testing.T, name, text string) {
		folder := profile()
		if folder[name] == nil {
			return
		}
		folder[name] = &fstest.MapFile{Data: []byte(text)}
		if _, _, err := play(t, folder, heading+"a,0,app,1,10\nb,0,app,5,10\n"); err != nil && !fault.Is(err, fault.Invalid) {
			t.Fatalf("%v is no mistake of the files", err)
		}
	})
}
