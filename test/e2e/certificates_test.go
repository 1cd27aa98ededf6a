package e2e

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/clary-ml/clary/auth/pki"
)

// Members' and tasks' certificates of half a minute are renewed while a training, an endpoint and somebody's program in a task
// go on: nothing is broken by it, and who connects when the first certificates have long ended is let in.
func TestWorkOutlivesItsCertificates(t *testing.T) {
	m := none(t)
	m.Bridged()
	m.Server("s1")
	m.Login("s1")
	m.Clary("settings", "set", "certificates.node=30s", "certificates.task=30s")
	m.Agent("n1")
	m.WaitFor("the agent to be ready", 30*time.Second, func() bool { return m.Ready() == 1 })
	m.Clary("keys", "rotate", "ca", "--wait", "--yes") // the coordinator's certificate was of before

	m.digits("steady", "--epochs", "100000")
	m.Clary("deploy", m.sides(), "--name", "sides", "--replicas", "1", "--cores", "0.2", "--memory", "128MiB", "--timeout", "2m")
	m.waitHealthy("sides", 1)
	asker := m.asker(m.Serve["s1"])
	asker.answers(m, "sides")
	asked := asker.load("sides", 1)
	defer asked.stop()
	m.WaitFor("the third epoch", time.Minute, func() bool { return m.Epoch("steady") >= 3 })

	var said bytes.Buffer
	hand := exec.Command(m.Binary, "exec", "steady", "--", "sh", "-c", "sleep 40; echo still here")
	hand.Env, hand.Stdout, hand.Stderr = m.Env, &said, &said
	if err := hand.Start(); err != nil {
		t.Fatal(err)
	}
	folders := map[string]string{"the coordinator": filepath.Join(m.Path("s1"), "tls"), "the agent": filepath.Join(m.Path("n1"), "tls")}
	tasks, err := filepath.Glob(filepath.Join(m.Path("n1"), "tasks", "steady*", "tls"))
	if err != nil || len(tasks) != 3 {
		t.Fatalf("certificates of tasks are in %v: %v", tasks, err)
	}
	for _, folder := range tasks {
		folders["the task of "+filepath.Base(filepath.Dir(folder))] = folder
	}
	ends := func(folder string) time.Time {
		now, err := pki.LoadCredentials(folder)
		if err != nil {
			return time.Time{} // between two files
		}
		return now.Cert.NotAfter
	}
	first := map[string]time.Time{}
	for name, folder := range folders {
		first[name] = ends(folder)
	}
	asked.during(m, "the renewal of all certificates", 0, func() {
		for name, folder := range folders {
			m.WaitFor("the first certificate of "+name+" to be over", time.Minute, func() bool {
				return time.Now().After(first[name]) && ends(folder).After(time.Now())
			})
		}
		if err := hand.Wait(); err != nil || said.String() != "still here\n" {
			t.Errorf("a program in a task: %v: %s", err, &said)
		}
	})
	asked.stop()

	// Connections of the data plane break, and are made anew.
	server := m.Job("steady").Tasks[0]
	for _, task := range m.Job("steady").Tasks {
		if len(task.Ports) > 0 {
			server = task
		}
	}
	at := 0
	m.Reset("n1", server.Ports[0], func() {
		m.WaitFor("the training to stand still", 20*time.Second, func() bool {
			before := m.Epoch("steady")
			time.Sleep(500 * time.Millisecond) // of standing still
			at = m.Epoch("steady")
			return at == before
		})
	})
	m.WaitFor("the training to go on", time.Minute, func() bool { return m.Epoch("steady") > at+2 })
	if job := m.Job("steady"); job.Attempt != 1 || job.State != "running" {
		t.Errorf("it is %s, attempt %d", job.State, job.Attempt)
	}
	if log := m.log("n1"); bytes.Contains([]byte(log), []byte("is not renewed")) {
		t.Error(log)
	}
	m.Clary("exec", "steady", "--", "true")
	m.Clary("cancel", "steady")
	m.Clary("endpoint", "delete", "sides")
	m.WaitFor("the training to end", 30*time.Second, func() bool { return m.Job("steady").State != "running" })
}
