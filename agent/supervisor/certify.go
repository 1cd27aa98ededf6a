package supervisor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/clary-ml/clary/internal/fault"
)

// certify makes a key that never leaves the node and has it certified; it tries
// again for as long as no coordinator can be asked.
func certify(ctx context.Context, sign Certify, task, dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fault.New(fault.Internal, "make a key for the task: %w", err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return fault.New(fault.Internal, "make a certificate request for the task: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fault.New(fault.Internal, "encode the task's key: %w", err)
	}
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request})
	cert, ca, err := sign(ctx, task, csr)
	for pause := 50 * time.Millisecond; fault.Is(err, fault.Unready); pause = min(2*pause, 5*time.Second) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
		cert, ca, err = sign(ctx, task, csr)
	}
	if err != nil {
		return fault.New(fault.KindOf(err), "certify the task's key: %w", err)
	}
	err = os.MkdirAll(dir, 0o700)
	for name, text := range map[string][]byte{
		"key.pem":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
		"cert.pem": cert, "ca.pem": ca,
	} {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	if err != nil {
		return fault.New(fault.Internal, "write the task's certificate: %w", err)
	}
	return nil
}
