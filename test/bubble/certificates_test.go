package bubble_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

const (
	taskLife = time.Minute
	nodeLife = 4 * time.Minute
)

// A gang that runs for many lives of a certificate, through a change of CAs and a restart of an agent, can always talk
// to itself, and so can the members.
func TestCertificatesAreRenewedForAsLongAsTheirHoldersRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &tally{})
		w.found()
		w.set("certificates.task", taskLife)
		w.set("certificates.node", nodeLife)
		w.rotate(cluster.RotateCA, cluster.PhaseAdd) // every member gets a certificate of today's life
		w.rotate(cluster.RotateCA, cluster.PhaseUse)
		w.rotate(cluster.RotateCA, cluster.StepDrop)
		if _, err := w.jobs("c2").Submit(w.admin(t.Context()), work{name: "long", instances: 2, gpus: 5, length: 12 * time.Minute}.request()); err != nil {
			t.Fatal(err)
		}
		var folders []string
		w.until("both run", time.Minute, func() error {
			view, err := w.look("c1", "long")
			if err != nil {
				return err
			}
			folders = nil
			for _, task := range view.GetTasks() {
				name, err := runtime.FolderName(task.GetId())
				if err != nil || task.GetStatus().GetState() != string(cluster.TaskRunning) {
					return fmt.Errorf("%s is %s: %v", task.GetId(), task.GetStatus().GetState(), err)
				}
				folders = append(folders, filepath.Join(w.folder(task.GetAllocation().GetNode()), "tasks", name, "tls"))
			}
			if len(folders) != 2 {
				return errors.New("not placed yet")
			}
			return nil
		})
		seen := &renewals{w: w, certificates: map[string]int{}, last: map[string]*x509.Certificate{}, keys: map[string]*x509.Certificate{}}
		steps := []cluster.Phase{cluster.PhaseAdd, cluster.PhaseUse, cluster.StepDrop}
		for minute := range 10 {
			switch {
			case minute%2 == 0 && minute/2 < len(steps):
				w.rotate(cluster.RotateCA, steps[minute/2])
			case minute == 7: // the next agent goes on with its tasks' certificates
				w.stop("n1")
				w.agent("n1")
			}
			for range 60 {
				time.Sleep(time.Second) // of the bubble
				seen.look(folders)
			}
		}
		for _, folder := range folders {
			if n := seen.certificates[folder]; n < 12 || n > 40 {
				t.Errorf("the task of %s had %d certificates in ten lives of one", folder, n)
			}
		}
		for _, id := range append(coordinators, "n1", "n2") {
			if n := seen.certificates[filepath.Join(w.folder(id), "tls")]; n < 4 || n > 12 {
				t.Errorf("%s had %d certificates in ten minutes, of four minutes each", id, n)
			}
		}
		if view := w.ends("long", 5*time.Minute); view.GetJob().GetState() != string(cluster.JobSucceeded) || view.GetJob().GetAttempt() != 1 {
			t.Errorf("%v", view.GetJob())
		}
		w.sound()
	})
}

// renewals looks at certificates as they are on disk, where their holders read them.
type renewals struct {
	w            *world
	certificates map[string]int // how many different ones a folder had
	last, keys   map[string]*x509.Certificate
}

func (r *renewals) look(tasks []string) {
	r.w.Helper()
	shown := make([]pki.Credentials, len(tasks))
	for i, folder := range tasks {
		shown[i] = r.read(folder)
	}
	for i, one := range shown {
		for j, other := range shown {
			if i != j {
				r.talk(one, other)
			}
		}
	}
	for _, id := range append(coordinators, "n1", "n2") {
		r.read(filepath.Join(r.w.folder(id), "tls"))
	}
}

// talk sees that one task would take the other's certificate, as the data plane checks it.
func (r *renewals) talk(one, other pki.Credentials) {
	r.w.Helper()
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, ca := range one.Trust.CAs {
		roots.AddCert(ca)
	}
	chain, err := pki.ParseCertificates(other.CertPEM())
	if err != nil {
		r.w.Fatal(err)
	}
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	if _, err := other.Cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		r.w.Fatalf("at %s a task of the gang cannot talk to another: %v", time.Now(), err)
	}
}

func (r *renewals) read(folder string) pki.Credentials {
	r.w.Helper()
	now, err := pki.LoadCredentials(folder)
	if err != nil {
		r.w.Fatal(err)
	}
	if left := time.Until(now.Cert.NotAfter); left <= 0 {
		r.w.Fatalf("the certificate of %s has ended, %s ago", folder, -left)
	}
	if first := r.keys[folder]; first == nil {
		r.keys[folder] = now.Cert
	} else if pki.PinOf(first) != pki.PinOf(now.Cert) {
		r.w.Fatalf("the key of %s has changed", folder)
	}
	if last := r.last[folder]; last == nil || !last.Equal(now.Cert) {
		r.certificates[folder]++
		r.last[folder] = now.Cert
	}
	return now
}

// set changes a setting of the cluster.
func (w *world) set(path string, to time.Duration) {
	w.Helper()
	_, err := claryv1.NewSettingsClient(w.conn("c1")).Edit(w.admin(w.Context()), &claryv1.EditSettingsRequest{Put: []*claryv1.Setting{{Path: path, Value: to.String()}}})
	if err != nil {
		w.Fatal(err)
	}
}

// rotate takes a step of a rotation, once all members are through with the one before.
func (w *world) rotate(what cluster.Rotation, step cluster.Phase) {
	w.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		_, err := claryv1.NewKeysClient(w.conn("c1")).Rotate(w.admin(w.Context()), &claryv1.RotateKeysRequest{What: string(what), Step: string(step)})
		if err == nil {
			return
		}
		if err = wire.FromStatus(err); !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.Unready) || time.Now().After(deadline) {
			w.Fatalf("the rotation of %s, %s: %v", what, step, err)
		}
		time.Sleep(2 * time.Second) // of the bubble
	}
}
