package client_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/clienttest"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// logs are what a request shows, task and line; when is called with each.
func logs(t *testing.T, c *client.Client, request client.LogRequest, when func(lines int)) []string {
	t.Helper()
	request.Job = "a"
	var lines []string
	for chunk, err := range c.Logs(t.Context(), request) {
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range chunk.Entries {
			lines = append(lines, chunk.Task+" "+string(e.Text))
			if when != nil {
				when(len(lines))
			}
		}
	}
	return lines
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestLogsGoOnWhereTheyWereWithoutRepeating(t *testing.T) {
	for name, request := range map[string]client.LogRequest{
		"all":            {Follow: true},
		"the last lines": {Follow: true, Tail: 2},
		"some lines":     {Follow: true, Tail: 1, Match: "^[oe]", Stdout: true},
	} {
		t.Run(name, func(t *testing.T) {
			fake := start(t, 2)
			c := dial(t, fake.Context())
			if _, err := c.Submit(t.Context(), cluster.Job{Name: "a", Kind: "training"}); err != nil {
				t.Fatal(err)
			}
			fake.Log("a", "w0", "stdout", "one\n")
			fake.Log("a", "w1", "stdout", "eins\n")
			got := logs(t, c, request, func(lines int) {
				if lines != 2 {
					return
				}
				fake.Kill(0)
				fake.Log("a", "w0", "stdout", "two\nother\n")
				fake.Log("a", "w1", "stderr", "elf\n")
				fake.Update("a", func(v *client.JobView) { v.Job.State = cluster.JobSucceeded })
			})
			if request.Match != "" {
				same(t, got, "w0 one", "w1 eins", "w0 other")
			} else {
				same(t, got, "w0 one", "w1 eins", "w0 two", "w0 other", "w1 elf")
			}
		})
	}
}

func TestLogsAreAskedForByTimeTaskAndText(t *testing.T) {
	fake := start(t, 1)
	c := dial(t, fake.Context())
	if _, err := c.Submit(t.Context(), cluster.Job{Name: "a", Kind: "training"}); err != nil {
		t.Fatal(err)
	}
	began := time.Date(2026, 11, 25, 17, 40, 0, 0, time.UTC)
	write(fake, began)
	same(t, logs(t, c, client.LogRequest{}, nil), "a/main/w-0.1 loss 0", "a/main/w-1.1 loss 1", "a/main/w-0.1 loss 2", "a/main/w-1.1 loss 3")
	same(t, logs(t, c, client.LogRequest{Task: "w-1"}, nil), "a/main/w-1.1 loss 1", "a/main/w-1.1 loss 3")
	same(t, logs(t, c, client.LogRequest{Since: began.Add(time.Minute), Until: began.Add(3 * time.Minute)}, nil), "a/main/w-1.1 loss 1", "a/main/w-0.1 loss 2")
	same(t, logs(t, c, client.LogRequest{Match: "[03]$"}, nil), "a/main/w-0.1 loss 0", "a/main/w-1.1 loss 3")
	same(t, logs(t, c, client.LogRequest{Tail: 1}, nil), "a/main/w-0.1 loss 2", "a/main/w-1.1 loss 3")
	for field, request := range map[string]client.LogRequest{
		"match": {Job: "a", Match: "("}, "until": {Job: "a", Since: began, Until: began}, "tail": {Job: "a", Tail: -1}, "since": {Job: "a", Since: time.Unix(-1, 0)},
	} {
		for _, err := range c.Logs(t.Context(), request) {
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), field+": ") {
				t.Errorf("%+v: %v", request, err)
			}
		}
	}
}

// write has two tasks write a line in turn, one a minute.
func write(fake *clienttest.Cluster, began time.Time) {
	for i := range 4 {
		fake.LogAt(began.Add(time.Duration(i)*time.Minute), "a", fmt.Sprintf("a/main/w-%d.1", i%2), "stdout", fmt.Sprintf("loss %d\n", i))
	}
}
