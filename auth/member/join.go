package member

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// joinTime is how long a machine tries to join before it gives up.
const joinTime = time.Minute

// Join asks the member at an address to certify a key. The token says which cluster to
// trust, by its CA's pin. A cluster that is electing is asked again for a minute; a
// refusal is final.
func Join(ctx context.Context, network Network, address, token string, key *ecdsa.PrivateKey, request *claryv1.JoinRequest) (*claryv1.JoinResponse, error) {
	if token == "" {
		return nil, fault.New(fault.Invalid, "--token: is empty: make one with clary token create --join %s", request.GetRole())
	}
	presented, err := auth.ParseToken(token)
	if err != nil {
		return nil, err
	}
	if presented.Kind != cluster.TokenJoin {
		return nil, fault.New(fault.Invalid, "--token: is a user's token: make one with clary token create --join %s", request.GetRole())
	}
	if request.Csr, err = pki.NewCSR(key); err != nil {
		return nil, err
	}
	request.Token = token
	pinned, refused := pki.PinnedTLS(presented.Pin, grpcProtocol), atomic.Pointer[error]{}
	verify := pinned.VerifyConnection
	pinned.VerifyConnection = func(state tls.ConnectionState) error {
		err := verify(state)
		if err != nil {
			refused.Store(&err) // to gRPC it is one more reason why a connection failed
		}
		return err
	}
	conn, err := dial(network, address, credentials.NewTLS(pinned))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	for {
		answer, err := claryv1.NewAdminClient(conn).Join(ctx, request)
		if err == nil {
			return answer, nil
		}
		err = wire.FromStatus(err)
		if other := refused.Load(); other != nil {
			err = *other
		}
		if !fault.Is(err, fault.Unready) {
			return nil, fmt.Errorf("join at %s: %w", address, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("join at %s: %w", address, err)
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// JoiningKey returns the key that a machine joins with. It is kept in a file from the
// first try on, since a token is bound to the first key that used it.
func JoiningKey(path string) (*ecdsa.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if err == nil {
		return pki.ParseKey(text)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := pki.NewKey()
	if err != nil {
		return nil, err
	}
	if text, err = pki.KeyPEM(key); err != nil {
		return nil, err
	}
	return key, atomicfile.Write(path, text, 0o600)
}

// Credentials puts together what a member shows: the certificate it was given, its key,
// and whom it trusts.
func Credentials(certificate []byte, key *ecdsa.PrivateKey, ca []byte) (pki.Credentials, error) {
	text, err := pki.KeyPEM(key)
	if err != nil {
		return pki.Credentials{}, err
	}
	return pki.ParseCredentials(certificate, text, ca)
}
