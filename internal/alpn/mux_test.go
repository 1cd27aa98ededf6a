package alpn_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/clary-ml/clary/internal/alpn"
)

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	made, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{made}, PrivateKey: key}
}

// open runs a mux of one protocol that says one word to each connection.
func open(t *testing.T) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := alpn.New(listener, &tls.Config{Certificates: []tls.Certificate{certificate(t)}}, slog.New(slog.DiscardHandler), "word")
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := mux.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	running.Go(func() {
		for {
			conn, err := mux.On("word").Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("welcome"))
			_ = conn.Close()
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return listener.Addr().String()
}

func TestWhoMeansItIsServedBesideAThousandWhoSayNothing(t *testing.T) {
	address := open(t)
	const silent = 1000 // more than may greet at once
	for range silent {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	began := time.Now()
	for range 20 {
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"word"}})
		if err != nil {
			t.Fatalf("after %s: %v", time.Since(began), err)
		}
		word := make([]byte, 7)
		if _, err := conn.Read(word); err != nil || string(word) != "welcome" {
			t.Errorf("%q, %v", word, err)
		}
		_ = conn.Close()
	}
}
