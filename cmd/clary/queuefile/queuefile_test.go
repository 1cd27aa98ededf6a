package queuefile_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/queuefile"
	"github.com/clary-ml/clary/scheduler/share"
)

func quotas(t *rapid.T, name string) cluster.Quota {
	var q cluster.Quota
	for _, resource := range []string{"cores", "memory", "gpus", "gpus/NVIDIA A100-SXM4-80GB", "gpus/a: b"} {
		if rapid.Bool().Draw(t, name+" of "+resource) {
			q = q.With(resource, rapid.OneOf(rapid.Int64Range(0, 5000), rapid.Int64Range(0, 1e12)).Draw(t, resource))
		}
	}
	return q
}

func TestWhatIsWrittenIsReadAgainAsItWas(t *testing.T) {
	exercised := 0
	rapid.Check(t, func(t *rapid.T) {
		q := cluster.Queue{
			Name: "a", Parent: rapid.SampledFrom([]string{"", "lab"}).Draw(t, "parent"), Weight: rapid.Int32Range(1, 9).Draw(t, "weight"),
			Guarantee: quotas(t, "guarantee"), Borrow: quotas(t, "borrow"),
			MaxRunning: rapid.Int32Range(0, 9).Draw(t, "running"), MaxWaiting: rapid.Int32Range(0, 9).Draw(t, "waiting"),
			User:    cluster.UserLimit{Most: quotas(t, "user"), MaxRunning: rapid.Int32Range(0, 9).Draw(t, "of a user")},
			Order:   rapid.SampledFrom([]cluster.QueueOrder{"", cluster.OrderFIFO, cluster.OrderShortest}).Draw(t, "order"),
			Preempt: cluster.Preempt{Reclaim: rapid.SampledFrom([]cluster.PreemptRule{"", cluster.PreemptAny}).Draw(t, "reclaim")},
		}
		q.MinRuntime = time.Duration(rapid.IntRange(0, 5000).Draw(t, "min runtime")) * time.Second
		if len(q.Guarantee) > 0 {
			q.Lend = q.Lend.With(q.Guarantee[0].Resource, 0)
		}
		text, err := queuefile.Format([]cluster.Queue{q})
		if err != nil {
			t.Fatal(err)
		}
		back, err := queuefile.Parse(text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if !reflect.DeepEqual(back[0], q) {
			t.Fatalf("%+v\nbecame\n%+v\n%s", q, back[0], text)
		}
		if lines := queuefile.Differences(q, back[0]); len(lines) > 0 {
			t.Fatal(lines)
		}
		exercised += len(q.Guarantee) + len(q.User.Most)
	})
	if exercised == 0 {
		t.Fatal("nothing was exercised")
	}
}

func TestMistakesAreToldWithTheirPlace(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "the file is empty"},
		{"none", "queues: []", "names none"},
		{"a list", "- a", "cannot unmarshal"},
		{"unknown field", "queues:\n  - name: a\n    wait: 3", "line 3: field wait not found"},
		{"two documents", "queues: [{name: a}]\n---\nqueues: [{name: b}]", "more than one document"},
		{"overflow", "queues: [{name: a, max_running: 99999999999}]", "cannot unmarshal"},
		{"negative", "queues: [{name: a, guarantee: {gpus: -1}}]", `guarantee.gpus: "-1" is out of range`},
		{"not a number", "queues: [{name: a, guarantee: {gpus: NaN}}]", `"NaN" is no number`},
		{"infinite", "queues: [{name: a, guarantee: {cores: 1e400}}]", `"1e400" is no number`},
		{"too fine", "queues: [{name: a, guarantee: {gpus: 0.0001}}]", "more than three decimals"},
		{"memory", "queues: [{name: a, borrow: {memory: 9EiB}}]", "borrow.memory"},
		{"huge memory", "queues: [{name: a, borrow: {memory: 2000PiB}}]", "borrow.memory: 2 EiB is out of range"},
		{"negative memory", "queues: [{name: a, borrow: {memory: -1GiB}}]", "less than nothing"},
		{"resource", "queues: [{name: a, borrow: {disks: 1}}]", "no such resource"},
		{"duration", "queues: [{name: a, half_life: soon}]", "half_life"},
		{"name", "queues: [{name: A B}]", "is not a name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := queuefile.Parse([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// FuzzParse: whatever the file says, it is refused or gives queues that can be written, read again, and asked
// for their place in a tree.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"queues:\n  - {name: a, guarantee: {gpus: 8, memory: 1TiB}, lend: {gpus: 0}}\n  - {name: b, parent: a, weight: 3}",
		"queues: [{name: a, parent: b}, {name: b, parent: a}]",
		"a: &a [*a]", "queues: [{name: a, borrow: {gpus: 1e9}}]", "{", "queues: [{name: a, user: {most: {cores: .5}}}]",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		queues, err := queuefile.Parse(data)
		if err != nil {
			return
		}
		text, err := queuefile.Format(queues)
		if err != nil {
			t.Fatal(err)
		}
		back, err := queuefile.Parse(text)
		if err != nil || !reflect.DeepEqual(queues, back) {
			t.Fatalf("%+v\nbecame\n%+v (%v)\n%s", queues, back, err, text)
		}
		tree := share.New()
		if err := tree.Set(queues); err == nil && len(tree.Queues()) != len(queues) {
			t.Fatalf("%d queues of %d are in the tree", len(tree.Queues()), len(queues))
		}
	})
}
