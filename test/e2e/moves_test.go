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
)

// move stops a coordinator and starts it at other addresses with the same data.
func (m *machines) move(name string, stop func(string)) {
	m.t.Helper()
	stop(name)
	args := slices.Clone(m.args[name])
	for _, flag := range []string{"--listen", "--gossip", "--object-store-listen"} {
		args[slices.Index(args, flag)+1] = freeAddress(m.t)
	}
	m.address[name] = args[slices.Index(args, "--listen")+1]
	m.run(name, args...)
}

// only is a client of one coordinator.
func (m *machines) only(name string, patience time.Duration) *client.Client {
	m.t.Helper()
	to := m.context()
	to.Addresses = []string{m.address[name]}
	c, err := client.Dial(to, client.WithPatience(patience))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = c.Close() })
	return c
}

// followers are the coordinators that do not lead.
func (m *machines) followers() []string {
	m.t.Helper()
	leader := m.leader()
	return slices.DeleteFunc([]string{"s1", "s2", "s3"}, func(name string) bool { return name == leader })
}

// seeAll waits until a coordinator by itself knows all three to be alive, where they are.
func (m *machines) seeAll(at string) {
	m.t.Helper()
	began := time.Now()
	c := m.only(at, 2*time.Second)
	m.waitFor("all three to be seen by "+at, 30*time.Second, func() bool {
		info, err := c.Info(context.Background())
		count := 0
		for _, member := range info.Coordinators {
			if member.Alive && member.Address == m.address[member.ID] {
				count++
			}
		}
		return err == nil && count == 3 && info.Leader != ""
	})
	m.t.Logf("%s sees all three after %s", at, time.Since(began).Round(10*time.Millisecond))
}

func TestACoordinatorThatMovesIsFoundAgain(t *testing.T) {
	m := start(t, 3, 1)
	m.move("s2", m.end)
	m.seeAll("s3")
	m.seeAll("s2")
	m.move("s1", m.kill) // it crashed, and it serves the objects
	m.seeAll("s3")
	m.seeAll("s1")
	m.kill("s3") // what is left are those that moved
	m.login("s1")
	m.waitFor("the agent at a coordinator that moved", 30*time.Second, func() bool {
		return m.ready() == 1 && (logged(m, "s1", "agent connected") || logged(m, "s2", "agent connected"))
	})
	if out := m.exits(0, "run", "--name", "after", "--", "sh", "-c", "echo found; echo it > $SAGEMAKER_BASE_DIR/model/file"); out != "found\n" {
		t.Errorf("said %q", out)
	}
	if len(m.job("after").Outputs) != 1 {
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
	follower, all := m.followers()[0], m.client()
	made := hold(t, all, "before", 10)
	m.kill(follower)
	made = append(made, hold(t, all, "while-down", 30)...)
	m.again(follower)
	slices.Sort(made)
	own := m.only(follower, time.Second)
	ctx := context.Background()
	m.waitFor("the follower to have caught up", 20*time.Second, func() bool {
		jobs, _, err := own.Jobs(ctx, client.Filter{Stale: true})
		return err == nil && slices.Equal(listed(jobs), made)
	})
	for _, name := range []string{"s1", "s2", "s3"} {
		if name != follower {
			m.kill(name)
		}
	}
	if jobs, _, err := own.Jobs(ctx, client.Filter{Stale: true}); err != nil || !slices.Equal(listed(jobs), made) {
		t.Errorf("a stale read without a leader: %d jobs, %v", len(jobs), err)
	}
	m.waitFor("linearizable reads to be refused", 20*time.Second, func() bool {
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
	made := hold(t, m.client(), "held", 20)
	path := m.path("go")
	m.clary("run", "-d", "--name", "steady", "--", "sh", "-c", "echo begins; while [ ! -e "+path+" ]; do sleep 0.1; done; echo ends")
	m.waitFor("the program", 20*time.Second, func() bool { return len(m.taskPids("steady")) > 0 && m.job("steady").State == "running" })
	before := m.taskPids("steady")[0]
	for _, name := range []string{"s1", "s2", "s3"} {
		m.kill(name)
	}
	for _, name := range []string{"s3", "s2", "s1"} {
		m.again(name)
	}
	m.waitFor("a leader", 20*time.Second, func() bool { return m.voters() == 3 })
	jobs, _, err := m.client().Jobs(context.Background(), client.Filter{})
	if want := append(slices.Clone(made), "steady"); err != nil || !slices.Equal(listed(jobs), want) {
		t.Errorf("the cluster has %v: %v", listed(jobs), err)
	}
	if after := m.taskPids("steady"); len(after) == 0 || after[0] != before {
		t.Errorf("pids %v, before %d", after, before)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m.waits(0, "steady")
	if view := m.job("steady"); view.Attempt != 1 || view.Tasks[0].Attempt != 1 {
		t.Errorf("it ended as %+v", view)
	}
	if out := m.clary("logs", "steady"); strings.Count(out, "begins") != 1 || !strings.Contains(out, "ends") {
		t.Errorf("logs %q", out)
	}
}
