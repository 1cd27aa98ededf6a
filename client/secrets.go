package client

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// Secret is what the cluster tells of a secret: all but its value.
type Secret struct {
	Queue   string    `json:"queue"`
	Name    string    `json:"name"`
	Owner   string    `json:"owner"` // who set it last
	Version int64     `json:"version"`
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
}

func secretFromProto(s *claryv1.SecretInfo) Secret {
	return Secret{
		Queue: s.GetQueue(), Name: s.GetName(), Owner: s.GetOwner(), Version: s.GetVersion(),
		Created: time.Unix(0, s.GetCreated()), Updated: time.Unix(0, s.GetUpdated()),
	}
}

// SetSecret stores a value under a name in a queue, "" being the default one. Done twice it
// is two versions of the same value.
func (c *Client) SetSecret(ctx context.Context, queue, name string, value []byte) (Secret, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.SecretInfo, error) {
		return claryv1.NewSecretsClient(conn).Set(ctx, &claryv1.SetSecretRequest{Queue: queue, Name: name, Value: value})
	})
	return secretFromProto(response), err
}

// Secrets lists the secrets of a queue, or of all if it is "".
func (c *Client) Secrets(ctx context.Context, queue string) ([]Secret, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.ListSecretsResponse, error) {
		return claryv1.NewSecretsClient(conn).List(ctx, &claryv1.ListSecretsRequest{Queue: queue})
	})
	return each(response.GetSecrets(), secretFromProto), err
}

// DeleteSecret forgets a secret.
func (c *Client) DeleteSecret(ctx context.Context, queue, name string) error {
	_, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, attempt int) (*claryv1.DeleteSecretResponse, error) {
		response, err := claryv1.NewSecretsClient(conn).Delete(ctx, &claryv1.DeleteSecretRequest{Queue: queue, Name: name})
		if attempt > 1 && fault.Is(wire.FromStatus(err), fault.NotFound) {
			return nil, nil // an earlier attempt did it, and its answer was lost
		}
		return response, err
	})
	return err
}
