package bubble_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/auth/keyring"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/storage/object"
)

// snapshot takes one at a coordinator.
func (w *world) snapshot(at string) []byte {
	w.Helper()
	stream, err := claryv1.NewClusterClient(w.conn(at)).TakeSnapshot(w.admin(w.Context()), &claryv1.TakeSnapshotRequest{})
	var file bytes.Buffer
	for err == nil {
		var part *claryv1.TakeSnapshotResponse
		if part, err = stream.Recv(); err == nil {
			file.Write(part.GetData())
		}
	}
	if !errors.Is(err, io.EOF) {
		w.Fatal(err)
	}
	return file.Bytes()
}

// restoration is that of c1's folder with the keys of another.
func (w *world) restoration(keyring string) coordinator.Restoration {
	return coordinator.Restoration{
		ID: "c1", Data: w.folder("c1"), Advertise: hostOf("c1") + ":7420", Keyring: keyring, By: "ada", Now: time.Now(),
		Store: object.Config{Endpoint: "127.0.0.1:1", AccessKey: "key", SecretKey: "secret-secret", Insecure: true},
	}
}

// setAside moves a machine's folder away.
func (w *world) setAside(id string) string {
	w.Helper()
	aside := w.folder(id) + "-before"
	if err := os.Rename(w.folder(id), aside); err != nil {
		w.Fatal(err)
	}
	return aside
}

func (w *world) submit(job work) {
	w.Helper()
	if _, err := w.jobs("c1").Submit(w.admin(w.Context()), job.request()); err != nil {
		w.Fatal(err)
	}
}

func (w *world) runs(name string) {
	w.Helper()
	w.until(name+" runs", time.Minute, func() error {
		view, err := w.look("c1", name)
		if err == nil && view.GetJob().GetState() != string(cluster.JobRunning) {
			err = fmt.Errorf("it is %s", view.GetJob().GetState())
		}
		return err
	})
}

// running are the tasks whose programs run, by the floor.
func (f *floor) running() map[string]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	running := map[string]bool{}
	for _, task := range f.holders {
		if task != "" {
			running[task] = true
		}
	}
	return running
}

func (f *floor) nodeOf(task string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.started[task]
}

// forgetNames has names of tasks count anew, as in another life of the cluster. What runs keeps its devices.
func (f *floor) forgetNames() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.started)
}

func TestARestoredClusterGoesOnWithWhatItHadAndNothingOfTheFormerOneMixesWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &tally{})
		w.found()
		w.submit(work{name: "done", instances: 1, gpus: 1, length: time.Second})
		w.ends("done", time.Minute)
		w.submit(work{name: "long", instances: 2, gpus: 3, length: 5 * time.Minute})
		w.runs("long")
		w.submit(work{name: "waits", instances: 2, gpus: 6, length: time.Second})
		file := w.snapshot("c2")
		// What comes now is lost with the coordinators, and its name will be another's.
		w.submit(work{name: "later", instances: 1, gpus: 2, length: time.Hour})
		w.runs("later")
		at, other := w.floor.nodeOf("later/main/worker-0.1"), "n1"
		if at == "n1" {
			other = "n2"
		}
		w.stop(other)
		admin := w.admin(t.Context())
		w.stop("c1")
		w.stop("c2")
		w.stop("c3")
		before := w.setAside("c1")
		c3 := w.setAside("c3")
		w.setAside("c2")
		delete(w.tokens, "c2")

		made, err := coordinator.Restore(w.restoration(filepath.Join(before, "keyring.json")), bytes.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		if made.Nodes != 2 || made.Again != 2 || made.Life == "" {
			t.Errorf("restored %+v", made)
		}
		w.floor.forgetNames()
		w.coordinator("c1")
		w.leadsAlone()
		if _, err := w.look("c1", "later"); err == nil {
			t.Error("what came after the snapshot is known")
		}
		// Its name is another's, which is placed as soon as the node is there that runs the former one.
		w.submit(work{name: "later", instances: 1, gpus: 2, length: time.Second})
		w.ends("later", 2*time.Minute)
		w.agent(other)
		w.until("both nodes come back", 2*time.Minute, func() error { return w.nodesReady("c1") })
		if view, err := w.jobs("c1").Get(admin, &claryv1.GetJobRequest{Name: "done"}); err != nil || view.GetJob().GetState() != string(cluster.JobSucceeded) {
			t.Errorf("what was done, as the token of before sees it: %v, %v", view, err)
		}
		for name, attempt := range map[string]int32{"long": 10_001, "waits": 10_001, "later": 1} {
			view := w.ends(name, 10*time.Minute)
			if view.GetJob().GetState() != string(cluster.JobSucceeded) || view.GetJob().GetAttempt() != attempt {
				t.Errorf("%s: %s (%s), attempt %d", name, view.GetJob().GetState(), view.GetJob().GetReason(), view.GetJob().GetAttempt())
			}
		}
		if left := w.floor.running(); len(left) > 0 {
			t.Errorf("of the former life there runs %v", left)
		}
		w.coordinator("c2")
		w.until("two vote", time.Minute, func() error { return w.voters(2) })
		w.refusesTheFormer(c3)
		w.sound()
	})
}

// leadsAlone waits until c1 has begun its life.
func (w *world) leadsAlone() {
	w.Helper()
	w.until("c1 leads", time.Minute, func() error {
		_, err := os.Stat(filepath.Join(w.folder("c1"), coordinator.AdminTokenFile))
		return err
	})
}

func (w *world) voters(want int) error {
	info, err := claryv1.NewAdminClient(w.conn("c1")).Info(w.admin(w.Context()), &claryv1.InfoRequest{})
	voters := 0
	for _, member := range info.GetCoordinators() {
		if member.GetVoter() && member.GetAlive() {
			voters++
		}
	}
	if err == nil && voters != want {
		err = fmt.Errorf("%d voters: %v", voters, info)
	}
	return err
}

// refusesTheFormer starts a coordinator of the former life, which has voted for two others, again.
func (w *world) refusesTheFormer(folder string) {
	w.Helper()
	if err := os.Rename(folder, w.folder("c3")); err != nil {
		w.Fatal(err)
	}
	w.tokens["c3"] = "not needed"
	w.coordinator("c3")
	w.mu.Lock()
	p := w.processes["c3"]
	delete(w.processes, "c3")
	w.mu.Unlock()
	select {
	case err := <-p.ended:
		if !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "this life has no leader any more") {
			w.Errorf("the former c3 ends with %v", err)
		}
	case <-time.After(time.Minute):
		w.Error("a coordinator of the former life goes on")
		p.stop()
		<-p.ended
	}
	if err := w.voters(2); err != nil {
		w.Error(err)
	}
}

func TestARestoreThatIsRefusedChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &tally{})
		w.found()
		file := w.snapshot("c1")
		w.stop("n1")
		w.stop("n2")
		for _, id := range coordinators {
			w.stop(id)
		}
		before := w.setAside("c1")
		good := filepath.Join(before, "keyring.json")
		foreign := filepath.Join(w.dir, "foreign.json")
		w.keyring(foreign, "")
		later := filepath.Join(w.dir, "later.json")
		w.keyring(later, good)
		flipped := bytes.Clone(file)
		flipped[len(file)/2] ^= 1
		for name, c := range map[string]struct {
			file    []byte
			keyring string
			kind    fault.Kind
			says    string
		}{
			"damaged":              {flipped, good, fault.Invalid, "checksum is wrong"},
			"cut short":            {file[:len(file)/2], good, fault.Invalid, "checksum is wrong"},
			"empty":                {nil, good, fault.Invalid, "this is no snapshot"},
			"another file":         {[]byte(strings.Repeat("diary ", 100)), good, fault.Invalid, "this is no snapshot"},
			"no keyring":           {file, "", fault.Invalid, "--keyring: is not given"},
			"keyring is not there": {file, good + "x", fault.NotFound, "does not exist"},
			"another's keyring":    {file, foreign, fault.Denied, "that of another cluster"},
			"a later keyring":      {file, later, fault.Denied, "keys were replaced in between"},
		} {
			r := w.restoration(c.keyring)
			if _, err := coordinator.Restore(r, bytes.NewReader(c.file)); !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := os.Stat(r.Data); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: there is %s: %v", name, r.Data, err)
			}
		}
		// Into a folder that was a coordinator's nothing is restored, and objects that are there stay.
		r := w.restoration(good)
		r.Data = before
		if _, err := coordinator.Restore(r, bytes.NewReader(file)); !fault.Is(err, fault.Conflict) {
			t.Errorf("into a coordinator's folder: %v", err)
		}
		saved := filepath.Join(w.folder("c1"), "objects", "saved")
		if err := errors.Join(os.MkdirAll(saved, 0o700), os.Mkdir(filepath.Join(w.folder("c1"), ".restoring"), 0o700)); err != nil {
			t.Fatal(err)
		}
		if _, err := coordinator.Restore(w.restoration(good), bytes.NewReader(file)); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "was cut off") {
			t.Errorf("after one that was cut off: %v", err)
		}
		w.coordinator("c1")
		w.mu.Lock()
		p := w.processes["c1"]
		delete(w.processes, "c1")
		w.mu.Unlock()
		if err := <-p.ended; !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "was cut off") {
			t.Errorf("a coordinator starts where a restore was cut off: %v", err)
		}
		if err := errors.Join(os.Remove(filepath.Join(w.folder("c1"), ".restoring")), os.Remove(filepath.Join(w.folder("c1"), "tls"))); err != nil {
			t.Fatal(err)
		}
		if _, err := coordinator.Restore(w.restoration(good), bytes.NewReader(file)); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(saved); err != nil {
			t.Error(err)
		}
	})
}

func TestANodeStaysWithALifeThatGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &tally{})
		w.found()
		w.submit(work{name: "long", instances: 2, gpus: 4, length: 10 * time.Minute})
		w.runs("long")
		file := w.snapshot("c1")
		// Somebody takes one coordinator for the cluster, and restores it beside the two others.
		w.stop("c1")
		before := w.setAside("c1")
		if _, err := coordinator.Restore(w.restoration(filepath.Join(before, "keyring.json")), bytes.NewReader(file)); err != nil {
			t.Fatal(err)
		}
		w.coordinator("c1")
		token, err := os.ReadFile(filepath.Join(before, coordinator.AdminTokenFile))
		if err != nil {
			t.Fatal(err)
		}
		w.leadsAlone()
		if err := os.WriteFile(filepath.Join(w.folder("c1"), coordinator.AdminTokenFile), token, 0o600); err != nil { // which both lives know
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		// For a moment nobody of its own life answers.
		w.stop("c2")
		w.stop("c3")
		time.Sleep(8 * time.Second)
		w.coordinator("c2")
		w.coordinator("c3")
		w.until("both nodes are back", time.Minute, func() error { return w.nodesReady("c2") })
		time.Sleep(time.Minute)
		if view, err := w.look("c2", "long"); err != nil || view.GetJob().GetState() != string(cluster.JobRunning) || view.GetJob().GetAttempt() != 1 {
			t.Errorf("%v, %v", view, err)
		}
		w.sound()
	})
}

// keyring writes one: a cluster's own of another day, or of another cluster.
func (w *world) keyring(path, of string) {
	w.Helper()
	made, err := keyring.New("other", time.Now())
	if err == nil && of != "" {
		if made, err = keyring.Load(of); err == nil {
			made, err = made.Step(cluster.RotateGossip, cluster.PhaseAdd, time.Now())
		}
	}
	if err == nil {
		err = made.Save(path)
	}
	if err != nil {
		w.Fatal(err)
	}
}

func TestTheOneThatIsLeftOfThreeBeginsAgainWithAllThatItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &tally{})
		w.found()
		w.submit(work{name: "done", instances: 1, gpus: 1, length: time.Second})
		w.ends("done", time.Minute)
		w.submit(work{name: "long", instances: 1, gpus: 1, length: 3 * time.Minute})
		w.runs("long")
		if _, err := coordinator.Survey(w.folder("c1")); !fault.Is(err, fault.Unready) {
			t.Errorf("while it runs: %v", err)
		}
		for _, id := range coordinators {
			w.stop(id)
		}
		w.setAside("c2")
		w.setAside("c3")
		delete(w.tokens, "c2")
		before, err := os.ReadFile(filepath.Join(w.folder("c1"), "member.json"))
		if err != nil {
			t.Fatal(err)
		}
		found, err := coordinator.Survey(w.folder("c1"))
		if err != nil {
			t.Fatal(err)
		}
		if len(found.Members) != 3 || found.Advertise != hostOf("c1")+":7420" || found.Last == 0 || time.Since(found.At) > time.Minute {
			t.Errorf("found %+v", found)
		}
		if after, err := os.ReadFile(filepath.Join(w.folder("c1"), "member.json")); err != nil || !bytes.Equal(before, after) {
			t.Errorf("a look has changed something: %v", err)
		}
		made, aside, err := found.Recover("", "ada", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(aside, "keyring.json")); err != nil || made.Again != 1 {
			t.Errorf("%+v, %v", made, err)
		}
		if err := found.Close(); err != nil {
			t.Error(err)
		}
		w.floor.forgetNames()
		w.coordinator("c1")
		w.leadsAlone()
		w.until("both nodes come back", 2*time.Minute, func() error { return w.nodesReady("c1") })
		for name, attempt := range map[string]int32{"done": 1, "long": 10_001} {
			view := w.ends(name, 10*time.Minute)
			if view.GetJob().GetState() != string(cluster.JobSucceeded) || view.GetJob().GetAttempt() != attempt {
				t.Errorf("%s: %s (%s), attempt %d", name, view.GetJob().GetState(), view.GetJob().GetReason(), view.GetJob().GetAttempt())
			}
		}
		w.coordinator("c2")
		w.until("two vote", time.Minute, func() error { return w.voters(2) })
		w.sound()
	})
}

// What the former life has agreed on of keys after the snapshot is nothing to the new one: agents go by the keys that it has, and believe whom it believes.
func TestAgentsGoByTheKeysOfARestoredLifeThatIsOlderThanARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &tally{})
		w.found()
		file := w.snapshot("c1")
		keys := w.keep(filepath.Join(w.folder("c1"), "keyring.json"))
		for _, step := range []cluster.Phase{cluster.PhaseAdd, cluster.PhaseUse, cluster.StepDrop} {
			w.rotate(cluster.RotateGossip, step)
		}
		stolen := "c2"
		if w.leader() == stolen {
			stolen = "c3"
		}
		if _, err := claryv1.NewKeysClient(w.conn("c1")).Revoke(w.admin(t.Context()), &claryv1.RevokeRequest{Role: cluster.RoleCoordinator, Id: stolen, Reason: "stolen"}); err != nil {
			t.Fatal(err)
		}
		w.settled("any") // agents know of it
		w.restored(keys, file)
		w.until("both nodes come back", 2*time.Minute, func() error { return w.nodesReady("c1") })
		w.coordinator(stolen) // is believed: that it was revoked was agreed on in the former life alone
		w.until("two vote", time.Minute, func() error { return w.voters(2) })
		time.Sleep(time.Minute) // in which they hear of it by gossip
		w.part(between([]string{"c1"}, []string{"n1", "n2"}))
		time.Sleep(30 * time.Second) // more than a lease
		w.until("both nodes have gone to "+stolen, time.Minute, func() error { return w.nodesReady(stolen) })
		w.remain("both nodes stay", time.Minute, func() error { return w.nodesReady(stolen) })
		w.sound()
	})
}

// With the CA of the snapshot nobody vouches for certificates of a later one: such an agent joins anew, in its own folder.
func TestAgentsOfALaterCAJoinARestoredLifeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &tally{})
		w.found()
		file := w.snapshot("c1")
		keys := w.keep(filepath.Join(w.folder("c1"), "keyring.json"))
		for _, step := range []cluster.Phase{cluster.PhaseAdd, cluster.PhaseUse, cluster.StepDrop} {
			w.rotate(cluster.RotateCA, step)
		}
		w.settled(cluster.Phase(""))
		w.restored(keys, file)
		time.Sleep(2 * time.Minute)
		if err := w.nodesReady("c1"); err == nil || !strings.Contains(err.Error(), "0 ready") {
			t.Errorf("nodes that nobody vouches for: %v", err)
		}
		for _, id := range []string{"n1", "n2"} {
			w.stop(id)
			if err := os.RemoveAll(filepath.Join(w.folder(id), "tls")); err != nil {
				t.Fatal(err)
			}
			delete(w.tokens, id)
			w.agent(id)
		}
		w.until("both nodes come back", 2*time.Minute, func() error { return w.nodesReady("c1") })
		w.submit(work{name: "work", instances: 2, gpus: 5, length: time.Second})
		w.ends("work", time.Minute)
		w.sound()
	})
}

// keep copies a file to where nobody changes it.
func (w *world) keep(file string) string {
	w.Helper()
	kept := filepath.Join(w.dir, "kept-"+filepath.Base(file))
	text, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(kept, text, 0o600)
	}
	if err != nil {
		w.Fatal(err)
	}
	return kept
}

// restored begins a new life at c1, with all coordinators of the former one gone for good.
func (w *world) restored(keyring string, file []byte) {
	w.Helper()
	for _, id := range coordinators {
		w.mu.Lock()
		p := w.processes[id]
		delete(w.processes, id)
		w.mu.Unlock()
		p.stop()
		if err := <-p.ended; err != nil && !errors.Is(err, context.Canceled) && !fault.Is(err, fault.Denied) { // as one that was revoked
			w.Errorf("%s ended: %v", id, err)
		}
		w.setAside(id)
		if id != "c1" {
			delete(w.tokens, id)
		}
	}
	if _, err := coordinator.Restore(w.restoration(keyring), bytes.NewReader(file)); err != nil {
		w.Fatal(err)
	}
	w.floor.forgetNames()
	for _, conn := range w.conns { // which go by the CA of before
		_ = conn.Close()
	}
	clear(w.conns)
	w.coordinator("c1")
	w.leadsAlone()
}
