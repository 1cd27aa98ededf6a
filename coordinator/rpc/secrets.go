package rpc

import (
	"context"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// secrets serves what tasks may be given. Values come in, and go out to agents only.
type secrets struct {
	claryv1.UnimplementedSecretsServer
	replica Replica
	sealer  Sealer
}

// Set stores a value, or a new one in place of an old. It is sealed before it is proposed:
// the log never holds it in the clear.
func (s *secrets) Set(ctx context.Context, request *claryv1.SetSecretRequest) (*claryv1.SecretInfo, error) {
	if size := len(request.GetValue()); size == 0 || size > cluster.MaxSecretValue {
		return nil, fault.New(fault.Invalid, "value: %d bytes: a secret has 1 to %d", size, cluster.MaxSecretValue)
	}
	secret := cluster.Secret{Queue: queueOf(request.GetQueue()), Name: request.GetName(), Owner: caller(ctx).Name}
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	old, existed := snapshot.Secret(secret.ID())
	snapshot.Close()
	secret.Version, secret.Updated = old.Version+1, time.Now().UnixNano()
	if secret.Created = old.Created; !existed {
		secret.Created = secret.Updated
	}
	if secret.Sealed, err = s.sealer.Seal(request.GetValue(), secret.SealContext()); err != nil {
		return nil, err
	}
	change := command.Change{Expect: old.Revision, Secret: &secret}
	if _, err := s.replica.Propose(ctx, command.Record{Changes: []command.Change{change}}); err != nil {
		return nil, err
	}
	return secretInfo(secret), nil
}

// List tells which secrets there are.
func (s *secrets) List(ctx context.Context, request *claryv1.ListSecretsRequest) (*claryv1.ListSecretsResponse, error) {
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	answer := &claryv1.ListSecretsResponse{}
	for secret := range snapshot.SecretsOf(request.GetQueue()) {
		answer.Secrets = append(answer.Secrets, secretInfo(secret))
	}
	return answer, nil
}

// Delete forgets one. Tasks that were given it keep what they have.
func (s *secrets) Delete(ctx context.Context, request *claryv1.DeleteSecretRequest) (*claryv1.DeleteSecretResponse, error) {
	secret := cluster.Secret{Queue: queueOf(request.GetQueue()), Name: request.GetName()}
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	old, ok := snapshot.Secret(secret.ID())
	snapshot.Close()
	if !ok {
		return nil, fault.New(fault.NotFound, "there is no secret %q in queue %s", cluster.Clip(secret.Name), cluster.Clip(secret.Queue))
	}
	change := command.Change{Expect: old.Revision, Delete: &command.Key{Kind: state.KindSecret, ID: secret.ID()}}
	_, err = s.replica.Propose(ctx, command.Record{Changes: []command.Change{change}})
	return &claryv1.DeleteSecretResponse{}, err
}

func queueOf(name string) string {
	if name == "" {
		return cluster.DefaultQueue
	}
	return name
}

func secretInfo(s cluster.Secret) *claryv1.SecretInfo {
	return &claryv1.SecretInfo{Queue: s.Queue, Name: s.Name, Owner: s.Owner, Created: s.Created, Updated: s.Updated, Version: s.Version}
}

// Secrets gives the values that a task of the calling node asks for, of its own queue, while
// it has not ended.
func (s *link) Secrets(ctx context.Context, request *claryv1.TaskSecretsRequest) (*claryv1.TaskSecretsResponse, error) {
	snapshot, err := s.replica.Read(ctx, false) // one that was deleted is not given any more
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	node := caller(ctx).Name
	task, ok := snapshot.Task(request.GetTask())
	if !ok || task.Allocation.Node != node || task.Status.State.Ended() {
		return nil, fault.New(fault.Denied, "task: %q does not run on node %s", cluster.Clip(request.GetTask()), node)
	}
	gang, ok := snapshot.Gang(task.Gang)
	if !ok || gang.Attempt != task.Attempt {
		return nil, fault.New(fault.Denied, "task: %q is of an attempt that is over", cluster.Clip(request.GetTask()))
	}
	answer := &claryv1.TaskSecretsResponse{Values: map[string][]byte{}}
	for _, role := range gang.Roles {
		if role.Name != task.Role {
			continue
		}
		for _, reference := range role.Program.Secrets {
			secret, ok := snapshot.Secret(gang.Queue + "/" + reference.Name)
			if !ok {
				return nil, fault.New(fault.Invalid, "there is no secret %q in queue %s any more", reference.Name, gang.Queue)
			}
			if answer.Values[reference.Name], err = s.sealer.Open(secret.Sealed, secret.SealContext()); err != nil {
				return nil, err
			}
		}
	}
	return answer, nil
}

// missingSecret is a mistake of a job that asks for a secret that its queue has not.
func missingSecret(snapshot *state.Snapshot, gangs []cluster.Gang) error {
	for _, gang := range gangs {
		for _, role := range gang.Roles {
			for i, reference := range role.Program.Secrets {
				if _, ok := snapshot.Secret(gang.Queue + "/" + reference.Name); !ok {
					return fault.New(fault.Invalid, "spec.secrets[%d].name: there is no secret %q in queue %s: set it with clary secret set %s --queue %s",
						i, reference.Name, gang.Queue, reference.Name, gang.Queue)
				}
			}
		}
	}
	return nil
}
