// Package warden keeps a coordinator's keys as the cluster has agreed on them. The log says which keyring is in force
// and whom nobody believes any more (cluster.Trust), and holds no secret; the keyrings themselves go from coordinator to
// coordinator, before the log says so. Whoever was away asks the others. See ../DESIGN.md.
package warden

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/auth/keyring"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// The files of a coordinator's keyrings.
const (
	File   = "keyring.json"
	staged = "keyring.next-" // and its ID: of a change that is not agreed on yet
)

// stagedFile is where a keyring is that may be agreed on. Each has a file of its own: of two steps whose outcome is not
// known yet either may be.
func (w *Warden) stagedFile(id string) string {
	return filepath.Join(w.config.Dir, staged+id+".json")
}

// Replica is the replicated state as the warden uses it.
type Replica interface {
	Propose(ctx context.Context, commands ...command.Command) ([]command.Result, error)
	Read(ctx context.Context, stale bool) (*state.Snapshot, error)
	Events() *state.Bus
}

// Quorum is what a coordinator leaves that is revoked.
type Quorum interface {
	// Weigh decides whether a coordinator may be removed: NotFound is that it is none.
	Weigh(ctx context.Context, id string, force bool) (means []string, err error)
	Remove(ctx context.Context, id string, force bool) (accepted []string, elsewhere bool, err error)
}

// Conns gives connections to members by id.
type Conns interface {
	Conn(id string) (*grpc.ClientConn, error)
}

// Config is what a warden stands on.
type Config struct {
	ID          string // of this coordinator
	Dir         string // where the keyrings are
	TLS         string // where the credentials are
	Keyring     *keyring.Current
	Credentials *pki.Current
	Replica     Replica
	// Coordinators lists all members of the quorum, this one included.
	Coordinators func() ([]string, error)
	Quorum       Quorum
	Peers        Conns // to coordinators
	Agents       Conns
	// Applied is told after each change what is in force, to pass it on: to gossip, to agents, to what stands.
	Applied func(cluster.Trust, pki.Trust, *keyring.Keyring)
	Log     *slog.Logger
}

// Warden keeps one coordinator's keys.
type Warden struct {
	config Config

	mu      sync.Mutex
	trust   cluster.Trust // as it was applied here last
	applied bool
	told    chan struct{} // closed and replaced whenever it is
}

// New makes a warden; Run has it keep to what is agreed on.
func New(config Config) *Warden {
	return &Warden{config: config, told: make(chan struct{})}
}

// retryEvery is how long a warden waits before it asks again for a keyring that nobody had.
const retryEvery = 2 * time.Second

// Run applies what the cluster agrees on, as it comes, until ctx ends.
func (w *Warden) Run(ctx context.Context) error {
	events := w.config.Replica.Events().Subscribe(func(c state.Change) bool { return c.Kind == state.KindTrust })
	defer events.Close()
	for {
		var again <-chan time.Time
		if err := w.look(ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			w.config.Log.Error("this coordinator does not have the cluster's keys of today: it asks the others", "error", err)
			again = time.After(retryEvery)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again:
		case _, open := <-events.C:
			if !open {
				return cmp.Or(ctx.Err(), fault.New(fault.Unready, "the state is closed"))
			}
		}
	}
}

// look applies the trust of the state, unless that was done.
func (w *Warden) look(ctx context.Context) error {
	snapshot, err := w.config.Replica.Read(ctx, true)
	if err != nil {
		return err
	}
	trust := snapshot.Trust()
	_ = snapshot.Close() // only read from
	w.mu.Lock()
	done := w.applied && w.trust.Generation == trust.Generation
	w.mu.Unlock()
	if done {
		return nil
	}
	return w.apply(ctx, trust)
}

func (w *Warden) apply(ctx context.Context, trust cluster.Trust) error {
	keys := w.config.Keyring.Get()
	if trust.Keyring != "" && trust.Keyring != keys.ID {
		text, err := w.find(ctx, trust.Keyring)
		if err != nil {
			return err
		}
		if keys, err = keyring.Unmarshal(text); err != nil {
			return err
		}
		if err := keys.Save(filepath.Join(w.config.Dir, File)); err != nil {
			return err
		}
		w.config.Keyring.Set(keys)
		w.clear()
	}
	believed := keys.Trust(trust.Revoked)
	err := w.config.Credentials.Update(func(now pki.Credentials) (pki.Credentials, error) {
		now.Trust = believed
		return now, now.Save(w.config.TLS)
	})
	if err != nil {
		return err
	}
	w.config.Applied(trust, believed, keys)
	w.mu.Lock()
	defer w.mu.Unlock()
	if trust.Generation > 0 {
		w.config.Log.Info("the cluster's keys are those of today", "generation", trust.Generation, "rotates", trust.Rotates, "phase", trust.Phase, "revoked", len(trust.Revoked))
	}
	w.trust, w.applied = trust, true
	close(w.told)
	w.told = make(chan struct{})
	return nil
}

// find returns the keyring of an ID: the one that was handed over before, or another coordinator's.
func (w *Warden) find(ctx context.Context, id string) ([]byte, error) {
	text, err := os.ReadFile(w.stagedFile(id))
	if err == nil {
		if next, err := keyring.Unmarshal(text); err == nil && next.ID == id {
			return text, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	others, err := w.config.Coordinators()
	if err != nil {
		return nil, err
	}
	failed := []error{fault.New(fault.Unready, "no coordinator has the keyring %s", id)}
	for _, other := range others {
		if other == w.config.ID {
			continue
		}
		text, err := w.ask(ctx, other, id)
		if err == nil {
			return text, nil
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}

// askTime bounds one question to one member.
const askTime = 5 * time.Second

func (w *Warden) ask(ctx context.Context, other, id string) ([]byte, error) {
	conn, err := w.config.Peers.Conn(other)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	answer, err := claryv1.NewPeerClient(conn).FetchKeyring(ctx, &claryv1.FetchKeyringRequest{Id: id})
	if err != nil {
		return nil, wire.FromStatus(err)
	}
	if got, err := keyring.Unmarshal(answer.GetKeyring()); err != nil || got.ID != id {
		return nil, fault.New(fault.Internal, "coordinator %s gave another keyring than %s", other, id)
	}
	return answer.GetKeyring(), nil
}

// Stage keeps a keyring for when the cluster has agreed on it.
func (w *Warden) Stage(text []byte) error {
	next, err := keyring.Unmarshal(text)
	if err != nil {
		return err
	}
	if !isID(next.ID) {
		return fault.New(fault.Invalid, "keyring: id: %q is none", cluster.Clip(next.ID))
	}
	return next.Save(w.stagedFile(next.ID))
}

// isID reports whether a text is the ID of a keyring, and can be in a file's name.
func isID(id string) bool {
	_, err := hex.DecodeString(id)
	return err == nil && id != ""
}

// clear removes the keyrings that were not agreed on: each was for the trust as it was before. Whoever needs one all the
// same asks the leader that made it.
func (w *Warden) clear() {
	files, _ := fs.Glob(os.DirFS(w.config.Dir), filepath.Base(w.stagedFile("*"))) // the pattern is good
	for _, file := range files {
		if err := os.Remove(filepath.Join(w.config.Dir, file)); err != nil {
			w.config.Log.Warn("a keyring that is not in force is still there", "file", file, "error", err)
		}
	}
}

// Fetch gives the keyring in force, to another coordinator.
func (w *Warden) Fetch(id string) ([]byte, error) {
	keys := w.config.Keyring.Get()
	if keys.ID != id {
		return nil, fault.New(fault.NotFound, "coordinator %s has not the keyring %s", w.config.ID, cluster.Clip(id))
	}
	return keys.Marshal()
}

// Status tells which keys this coordinator goes by.
func (w *Warden) Status() *claryv1.KeyStatusResponse {
	now := w.config.Credentials.Get()
	w.mu.Lock()
	defer w.mu.Unlock()
	return &claryv1.KeyStatusResponse{
		Generation: w.trust.Generation, Keyring: w.config.Keyring.Get().ID, CaPin: pki.PinOf(now.CA), NotAfter: now.Cert.NotAfter.UnixNano(), Key: pki.PinOf(now.Cert),
	}
}

// Bundle is what agents are told.
func (w *Warden) Bundle() *claryv1.TrustBundle {
	w.mu.Lock()
	defer w.mu.Unlock()
	keys := w.config.Keyring.Get()
	shown := keys.Tell(w.trust)
	bundle := &claryv1.TrustBundle{Generation: w.trust.Generation, Cas: shown.CAs, Links: shown.Links, GossipKeys: keys.GossipKeys}
	for _, revoked := range w.trust.Revoked {
		bundle.Revoked = append(bundle.Revoked, wire.RevocationToProto(revoked))
	}
	return bundle
}

// Changed returns a channel that is closed when what agents are told changes.
func (w *Warden) Changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.told
}

// outdated finds secrets that are not sealed with the newest key.
func (w *Warden) outdated(snapshot *state.Snapshot) []cluster.Secret {
	keys := w.config.Keyring.Get()
	var list []cluster.Secret
	for secret := range snapshot.SecretsOf("") {
		if !keys.Newest(secret.Sealed, secret.SealContext()) {
			list = append(list, secret)
		}
		if len(list) == resealAtOnce {
			break
		}
	}
	return list
}

// resealAtOnce is how many secrets are sealed anew in one record.
const resealAtOnce = 256

// reseal seals every secret with the newest key that is sealed with an older one.
func (w *Warden) reseal(ctx context.Context) error {
	for {
		snapshot, err := w.config.Replica.Read(ctx, false)
		if err != nil {
			return err
		}
		list := w.outdated(snapshot)
		_ = snapshot.Close() // only read from
		if len(list) == 0 {
			return nil
		}
		var changes []command.Change
		for _, secret := range list {
			value, err := w.config.Keyring.Open(secret.Sealed, secret.SealContext())
			if err != nil {
				return fault.New(fault.Internal, "secret %s opens with no key: set it anew with clary secret set, or delete it: %w", secret.ID(), err)
			}
			expect := secret.Revision
			if secret.Sealed, err = w.config.Keyring.Seal(value, secret.SealContext()); err != nil {
				return err
			}
			clear(value)
			changes = append(changes, command.Change{Expect: expect, Secret: &secret})
		}
		_, err = w.config.Replica.Propose(ctx, command.Record{Changes: changes})
		if err != nil && (!fault.Is(err, fault.Conflict) || ctx.Err() != nil) {
			return err
		}
	}
}
