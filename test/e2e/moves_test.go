package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/test/testbed"
)

// move stops a coordinator and starts it at other addresses with the same data.
func (m *machines) move(name string, stop func(string)) {
	m.T.Helper()
	stop(name)
	args := slices.Clone(m.Args[name])
	for _, flag := range []string{"--listen", "--gossip", "--object-store-listen"} {
		args[slices.Index(args, flag)+1] = testbed.FreeAddress(m.T)
	}
	m.Address[name] = args[slices.Index(args, "--listen")+1]
	m.Run(name, args...)
}

// only is a client of one coordinator.
func (m *machines) only(name string, patience time.Duration) *client.Client {
	m.T.Helper()
	to := m.Context()
	to.Addresses = []string{m.Address[name]}
	c, err := client.Dial(to, client.WithPatience(patience))
	if err != nil {
		m.T.Fatal(err)
	}
	m.T.Cleanup(func() { _ = c.Close() })
	return c
}

// followers are the coordinators that do not lead.
func (m *machines) followers() []string {
	m.T.Helper()
	leader := m.Leader()
	return slices.DeleteFunc([]string{"s1", "s2", "s3"}, func(name string) bool { return name == leader })
}

// seeAll waits until a coordinator by itself knows all three to be alive, where they are.
func (m *machines) seeAll(at string) {
	m.T.Helper()
	began := time.Now()
	c := m.only(at, 2*time.Second)
	m.WaitFor("all three to be seen by "+at, 30*time.Second, func() bool {
		info, err := c.Info(context.Background())
		count := 0
		for _, member := range info.Coordinators {
			if member.Alive && member.Address == m.Address[member.ID] {
				count++
			}
		}
		return err == nil && count == 3 && info.Leader != ""
	})
	m.T.Logf("%s sees all three after %s", at, time.Since(began).Round(10*time.Millisecond))
}

func TestACoordinatorThatMovesIsFoundAgain(t *testing.T) {
	m := start(t, 3, 1)
	m.move("s2", m.End)
	m.seeAll("s3")
	m.seeAll("s2")
	m.move("s1", m.Kill) // it crashed, and it serves the objects
	m.seeAll("s3")
	m.seeAll("s1")
	m.Kill("s3") // what is left are those that moved
	m.Login("s1")
	m.WaitFor("the agent at a coordinator that moved", 30*time.Second, func() bool {
		return m.Ready() == 1 && (logged(m, "s1", "agent connected") || logged(m, "s2", "agent connected"))
	})
	if out := m.Exits(0, "run", "--name", "after", "--", "sh", "-c", "echo found; echo it > $SAGEMAKER_BASE_DIR/model/file"); out != "found\n" {
		t.Errorf("said %q", out)
	}
	if len(m.Job("after").Outputs) != 1 {
		t.Error("its output did not reach the object store that moved")
	}
}

// hold submits jobs that wait to be released.
func hold(t *testing.T, c *client.Client, prefix string, count int) []string {
	t.Helper()
	var made []string
	for i := range count {
		name := fmt.Sprintf("%s-%02d", prefix, i)
		job := cluster.Job{Name: name, Kind: cluster.KindTraining, Spec: []byte(`{"program":{"command":["true"]}}`), Held: true}
		if _, err := c.Submit(context.Background(), job); err != nil {
			t.Fatal(err)
		}
		made = append(made, name)
	}
	return made
}

func listed(jobs []cluster.Job) []string {
	var found []string
	for _, job := range jobs {
		found = append(found, job.Name)
	}
	return found
}

func TestAFollowerCatchesUpAndStaleReadsNeedNoLeader(t *testing.T) {
	m := start(t, 3, 0)
	follower, all := m.followers()[0], m.Client()
	made := hold(t, all, "before", 10)
	m.Kill(follower)
	made = append(made, hold(t, all, "while-down", 30)...)
	m.Again(follower)
	slices.Sort(made)
	own := m.only(follower, time.Second)
	ctx := context.Background()
	m.WaitFor("the follower to have caught up", 20*time.Second, func() bool {
		jobs, _, err := own.Jobs(ctx, client.Filter{Stale: true})
		return err == nil && slices.Equal(listed(jobs), made)
	})
	for _, name := range []string{"s1", "s2", "s3"} {
		if name != follower {
			m.Kill(name)
		}
	}
	if jobs, _, err := own.Jobs(ctx, client.Filter{Stale: true}); err != nil || !slices.Equal(listed(jobs), made) {
		t.Errorf("a stale read without a leader: %d jobs, %v", len(jobs), err)
	}
	m.WaitFor("linearizable reads to be refused", 20*time.Second, func() bool {
		_, _, err := own.Jobs(ctx, client.Filter{})
		if err != nil && !fault.Is(err, fault.Unready) {
			t.Fatalf("a linearizable read without a leader: %v", err)
		}
		return err != nil
	})
	if _, err := own.Submit(ctx, cluster.Job{Name: "lost", Kind: cluster.KindTraining, Spec: []byte(`{"program":{"command":["true"]}}`)}); !fault.Is(err, fault.Unready) {
		t.Errorf("a submission without a leader: %v", err)
	}
}

func TestAllCoordinatorsMayDieAndNothingIsLostNorDisturbed(t *testing.T) {
	m := start(t, 3, 1)
	made := hold(t, m.Client(), "held", 20)
	path := m.Path("n1/tasks/steady~main~worker-0.1/ml/go") // in the task's own folder
	m.Clary("run", "-d", "--name", "steady", "--", "sh", "-c", "echo begins; while [ ! -e go ]; do sleep 0.1; done; echo ends")
	m.WaitFor("the program", 20*time.Second, func() bool { return len(m.taskPids("steady")) > 0 && m.Job("steady").State == "running" })
	before := m.taskPids("steady")[0]
	for _, name := range []string{"s1", "s2", "s3"} {
		m.Kill(name)
	}
	for _, name := range []string{"s3", "s2", "s1"} {
		m.Again(name)
	}
	m.WaitFor("a leader", 20*time.Second, func() bool { return m.Voters() == 3 })
	jobs, _, err := m.Client().Jobs(context.Background(), client.Filter{})
	if want := append(slices.Clone(made), "steady"); err != nil || !slices.Equal(listed(jobs), want) {
		t.Errorf("the cluster has %v: %v", listed(jobs), err)
	}
	if after := m.taskPids("steady"); len(after) == 0 || after[0] != before {
		t.Errorf("pids %v, before %d", after, before)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m.Waits(0, "steady")
	if view := m.Job("steady"); view.Attempt != 1 || view.Tasks[0].Attempt != 1 {
		t.Errorf("it ended as %+v", view)
	}
	if out := m.Clary("logs", "steady"); strings.Count(out, "begins") != 1 || !strings.Contains(out, "ends") {
		t.Errorf("logs %q", out)
	}
}
