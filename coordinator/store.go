package coordinator

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"path"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/headroom"
	"github.com/clary-ml/clary/coordinator/registry"
	"github.com/clary-ml/clary/coordinator/replica"
	"github.com/clary-ml/clary/coordinator/rpc"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/gossip"
	"github.com/clary-ml/clary/internal/ops"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/storage/object"
	"github.com/clary-ml/clary/storage/object/embedded"
)

// objectStore knows where objects are: in an S3 that the operator named, or in the
// embedded store, whose address gossip tells.
type objectStore struct {
	self   membership
	gossip *gossip.Gossip

	mu     sync.Mutex
	client *object.Client // of the endpoint it was opened for
	opened object.Config
}

// settings say where the store is now, with the cluster's own keys.
func (s *objectStore) settings() (object.Config, error) {
	if named := s.self.notes.Store; named.Endpoint != "" {
		return object.Config{
			Endpoint: named.Endpoint, Region: named.Region, AccessKey: named.AccessKey, SecretKey: named.SecretKey, CA: named.CA, Insecure: named.Insecure,
		}, nil
	}
	for _, member := range s.gossip.Members() {
		if member.Store != "" {
			return object.Config{
				Endpoint: member.Store, AccessKey: embedded.RootAccess, SecretKey: s.self.keyring.Get().ObjectSecret, CA: pki.CertsPEM(s.self.keyring.Get().CAs()...),
			}, nil
		}
	}
	return object.Config{}, fault.New(fault.Unready, "the embedded object store cannot be found: is the coordinator that founded the cluster running?")
}

// open returns a client of the store as it is now.
func (s *objectStore) open() (*object.Client, error) {
	settings, err := s.settings()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil || settings.Endpoint != s.opened.Endpoint || !bytes.Equal(settings.CA, s.opened.CA) {
		if s.client, err = object.Open(settings); err != nil {
			return nil, err
		}
		s.opened = settings
	}
	return s.client, nil
}

// Copy copies an object to where its owner asked for it.
func (s *objectStore) Copy(ctx context.Context, from, to string) error {
	source, err := object.ParseURI(from)
	if err != nil {
		return err
	}
	client, target, err := s.target(ctx, to)
	if err != nil {
		return err
	}
	return client.Copy(ctx, target, source)
}

// Merge makes one archive of those of several tasks, each below a folder with its task's name.
func (s *objectStore) Merge(ctx context.Context, from []string, to string) ([]string, error) {
	client, target, err := s.target(ctx, to)
	if err != nil {
		return nil, err
	}
	var parts []object.Part
	for _, text := range from {
		source, err := object.ParseURI(text)
		if err != nil {
			return nil, err
		}
		parts = append(parts, object.Part{
			Name: path.Base(path.Dir(source.Key)),
			Open: func() (io.ReadCloser, error) { return client.Get(ctx, source, 0, -1) },
		})
	}
	var clashes []object.Clash
	var failed error
	reader, writer := io.Pipe()
	merged := make(chan struct{})
	go func() {
		defer close(merged)
		clashes, failed = object.Merge(writer, parts)
		_ = writer.CloseWithError(failed) // never fails
	}()
	_, err = client.Put(ctx, target, reader, -1)
	_ = reader.CloseWithError(err) // never fails; ends the merging if it goes on
	<-merged
	if failed != nil { // it knows better whose fault it was
		return nil, failed
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, clash := range clashes {
		names = append(names, clash.String())
	}
	return names, nil
}

// Version makes a version of a model of what a job has published.
func (s *objectStore) Version(ctx context.Context, model string, made registry.Made) (cluster.ModelVersion, error) {
	client, err := s.open()
	if err != nil {
		return cluster.ModelVersion{}, err
	}
	return registry.FromJob(ctx, client, model, registry.Key(made.Job), made)
}

// target finds where an object is to go, and makes its bucket.
func (s *objectStore) target(ctx context.Context, uri string) (*object.Client, object.URI, error) {
	target, err := object.ParseURI(uri)
	if err != nil {
		return nil, target, err
	}
	client, err := s.open()
	if err != nil {
		return nil, target, err
	}
	return client, target, client.EnsureBucket(ctx, target.Bucket)
}

// forMembers is the store as agents are told of it.
func (s *objectStore) forMembers() *claryv1.ObjectStore {
	settings, err := s.settings()
	if err != nil {
		return nil
	}
	return &claryv1.ObjectStore{
		Endpoint: settings.Endpoint, Region: settings.Region, AccessKey: settings.AccessKey, SecretKey: settings.SecretKey,
		CaPem: settings.CA, Plaintext: settings.Insecure,
	}
}

// external is the store that the operator named, for coordinators that join; nil for
// the embedded one, which gossip finds.
func (s *objectStore) external() *claryv1.ObjectStore {
	if s.self.notes.Store.Endpoint == "" {
		return nil
	}
	return s.forMembers()
}

// readStore reads what notes have of a store; nothing is the embedded one.
func readStore(text []byte) (store, error) {
	var named store
	if len(text) == 0 {
		return named, nil
	}
	if err := json.Unmarshal(text, &named); err != nil {
		return named, fault.New(fault.Invalid, "the object store of the backup cannot be read: %w", err)
	}
	return named, nil
}

func storeOf(named *claryv1.ObjectStore) store {
	return store{
		Endpoint: named.GetEndpoint(), Region: named.GetRegion(), AccessKey: named.GetAccessKey(), SecretKey: named.GetSecretKey(),
		CA: named.GetCaPem(), Insecure: named.GetPlaintext(),
	}
}

// credentials are a user's own keys to the embedded store. Keys of another S3 are its
// administrator's to give.
func (s *objectStore) credentials(who rpc.Identity) (*claryv1.CredentialsResponse, error) {
	if s.self.notes.Store.Endpoint != "" {
		return nil, fault.New(fault.Invalid, "objects are in the S3 at %s: ask its administrator for keys", s.self.notes.Store.Endpoint)
	}
	settings, err := s.settings()
	if err != nil {
		return nil, err
	}
	access, secret, err := embedded.Keys(s.self.keyring.Get().DataKey, who.Role, who.TokenID)
	if err != nil {
		return nil, err
	}
	return &claryv1.CredentialsResponse{
		Endpoint: "https://" + settings.Endpoint, Region: "us-east-1", AccessKey: access, SecretKey: secret, CaPem: settings.CA,
	}, nil
}

// holdersFile tells the embedded store whose keys are good.
const holdersFile = "objects.holders"

// reserveFile tells the embedded store how much of the disk is the coordinator's.
const reserveFile = "objects.reserve"

// serveStore runs the embedded store on the coordinator that founded the cluster, and tells
// it of tokens as they come and go, and of how much room it leaves.
func serveStore(ctx context.Context, c Config, self membership, tokens *replica.Replica, disk *headroom.Watch, reload <-chan struct{}, tally *embedded.Tally, log *slog.Logger) error {
	if err := os.MkdirAll(c.path("objects"), 0o700); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return tellHolders(ctx, tokens, c.path(holdersFile), log) })
	group.Go(func() error { return tellReserve(ctx, c, disk, log) })
	group.Go(func() error { return superviseStore(ctx, c, self, reload, tally, log) })
	return group.Wait()
}

// tellHolders keeps the file of tokens whose keys open the store like the ledger.
func tellHolders(ctx context.Context, tokens *replica.Replica, path string, log *slog.Logger) error {
	events := tokens.Events().Subscribe(func(change state.Change) bool { return change.Kind == state.KindToken })
	defer events.Close()
	for {
		snapshot, err := tokens.Read(ctx, true)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		var list []embedded.Holder
		for token := range snapshot.Tokens() {
			if token.Kind != cluster.TokenUser || token.Revoked {
				continue
			}
			holder := embedded.Holder{Token: token.ID}
			if token.Expires != 0 {
				holder.Expires = time.Unix(0, token.Expires)
			}
			list = append(list, holder)
		}
		snapshot.Close()
		if err := embedded.WriteHolders(path, list); err != nil {
			log.Error("the object store is not told whose keys are good", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case _, open := <-events.C:
			if !open {
				return nil
			}
		}
	}
}

// tellReserve keeps the file of how much of the disk the store leaves free: as much as makes the coordinator's disk low, and nothing if
// objects have a disk of their own.
func tellReserve(ctx context.Context, c Config, disk *headroom.Watch, log *slog.Logger) error {
	clock := time.NewTicker(time.Second)
	defer clock.Stop()
	told := int64(-1)
	for {
		var least int64
		if ops.SameDisk(c.Data, c.path("objects")) {
			least = disk.Disk().Least
		}
		// It grows with the state, a little with every job: the store need not hear of each.
		if told < 0 || least > told+told/16 || least < told-told/16 {
			if err := embedded.WriteReserve(c.path(reserveFile), least); err != nil {
				log.Error("the object store is not told how much of the disk it leaves", "error", err)
			} else {
				told = least
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-clock.C:
		}
	}
}

func superviseStore(ctx context.Context, c Config, self membership, reload <-chan struct{}, tally *embedded.Tally, log *slog.Logger) error {
	supervisor := embedded.Supervisor{
		Config: embedded.Config{
			Dir: c.path("objects"), Address: c.StoreListen, CertFile: c.path(tlsFolder, pki.CertFile), KeyFile: c.path(tlsFolder, pki.KeyFile),
			RootSecret: self.keyring.Get().ObjectSecret, DataKey: self.keyring.Get().DataKey, Holders: c.path(holdersFile), Reserve: c.path(reserveFile),
		},
		CAs: func() []*x509.Certificate { return self.keyring.Get().CAs() }, Log: log, Executable: c.Executable, Args: []string{"objectstore"}, Reload: reload, Tally: tally,
	}
	return supervisor.Run(ctx)
}

// servesStore reports whether this coordinator runs the embedded store.
func (m membership) servesStore() bool { return m.notes.Founder && m.notes.Store.Endpoint == "" }

// storeAddress is where others reach the embedded store that this coordinator runs.
func (c Config) storeAddress() string {
	host, port, _ := net.SplitHostPort(c.StoreListen)
	if host == "" || net.ParseIP(host).IsUnspecified() {
		host = c.advertisedHost()
	}
	return net.JoinHostPort(host, port)
}

func hostOf(address string) string {
	host, _, _ := net.SplitHostPort(address)
	return host
}
