package embedded

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/auth/pki"
)

// connection is one whose other end a test plays.
func connection(t *testing.T) (*patientConn, net.Conn) {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return newPatientConn(tls.Server(ours, &tls.Config{Certificates: []tls.Certificate{certificate}})), theirs //nolint:gosec // of a test
}

func TestAConnectionThatNeverAsksEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, _ := connection(t)
		_ = conn.SetDeadline(time.Time{}) // as the server does at its start
		began := time.Now()
		_, err := conn.Read(make([]byte, 1))
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != headTime {
			t.Errorf("it ends after %s: %v", time.Since(began), err)
		}
	})
}

func TestAnUploadMayTakeLongAndMayNotStandStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, theirs := connection(t)
		conn.began.Store(true) // the head of its request has come
		const minutes = 10
		go func() {
			client := tls.Client(theirs, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // it is the server that is tried
			for range minutes {
				time.Sleep(time.Minute)
				_, _ = client.Write([]byte("x"))
			}
		}()
		began, got := time.Now(), 0
		for {
			_, err := conn.Read(make([]byte, 1))
			if err == nil {
				got++
				continue
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) || got != minutes || time.Since(began) != minutes*time.Minute+idleTime {
				t.Errorf("after %d bytes in %s: %v", got, time.Since(began), err)
			}
			return
		}
	})
}

func TestHowMuchRoomIsLeftDoesNotWaver(t *testing.T) {
	was, passed := ample, map[level]int{}
	for _, step := range []struct {
		free int64
		want level
	}{{100, ample}, {99, low}, {124, low}, {125, ample}, {49, out}, {61, out}, {62, low}, {99, low}, {200, ample}, {0, out}, {1000, ample}} {
		if was = turn(was, step.free, 100); was != step.want {
			t.Errorf("with %d free of 100 that are wanted: %d, want %d", step.free, was, step.want)
		}
		passed[was]++
	}
	if len(passed) != 3 {
		t.Errorf("it passed %v", passed)
	}
	if turn(ample, 0, 0) != ample {
		t.Error("where nothing is to be left something is refused")
	}
}

func TestWhatPutsSomethingOntoTheDiskIsAnUpload(t *testing.T) {
	for _, c := range []struct {
		method, query string
		want          bool
	}{
		{"PUT", "", true},
		{"PUT", "partNumber", true},
		{"POST", "uploads", true},
		{"POST", "delete", false},
		{"POST", "uploadId", false},
		{"GET", "", false},
		{"HEAD", "", false},
		{"DELETE", "", false},
		{"DELETE", "uploadId", false},
	} {
		if got := uploads(c.method, func(name string) bool { return name == c.query }); got != c.want {
			t.Errorf("%s ?%s: %v", c.method, c.query, got)
		}
	}
}
