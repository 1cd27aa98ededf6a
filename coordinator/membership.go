package coordinator

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/auth/keyring"
	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/warden"
	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/gossip"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// membership is what makes this process a member: its certificate, the cluster's
// secrets, and where it first heard of the others.
type membership struct {
	credentials *pki.Current
	keyring     *keyring.Current
	notes       notes
	founded     bool // by this very start
}

// notes is the file that tells a coordinator on its next start what it was.
type notes struct {
	ID      string   `json:"id"`
	Founder bool     `json:"founder"` // serves the embedded object store, unless another is named
	Gossip  []string `json:"gossip"`  // addresses to look for the others at
	Store   store    `json:"store"`   // the S3 that exists already, if one is used
}

// store is an S3 outside of Clary.
type store struct {
	Endpoint  string `json:"endpoint,omitempty"`
	Region    string `json:"region,omitempty"`
	AccessKey string `json:"access_key,omitempty"`
	SecretKey string `json:"secret_key,omitempty"`
	CA        []byte `json:"ca,omitempty"`
	Insecure  bool   `json:"insecure,omitempty"`
}

const (
	notesFile   = "member.json"
	keyringFile = warden.File
	tlsFolder   = "tls"
	beganFile   = "raft.began" // is there once this coordinator has a log
	removedFile = "removed"    // is there in the folder of a coordinator that was removed, and says why
)

// enter makes this process a member: one that was here before, one that joins with a
// token, or, in an empty folder with nobody to join, the founder of a cluster.
func enter(ctx context.Context, c Config) (membership, error) {
	if err := os.MkdirAll(c.path(tlsFolder), 0o700); err != nil {
		return membership{}, fmt.Errorf("--data: %w", err)
	}
	if reason, err := os.ReadFile(c.path(removedFile)); err == nil { // it says what to do, too
		return membership{}, fault.New(fault.Denied, "--data: %s belongs to a coordinator that was removed from its cluster: %s", c.Data, strings.TrimSpace(string(reason)))
	}
	if _, err := os.Lstat(c.path(restoringFolder)); err == nil {
		return membership{}, wasCutOff(c)
	}
	_, err := os.Lstat(c.path(notesFile))
	_, began := os.Lstat(c.path(beganFile))
	switch {
	case err == nil:
		return comeBack(c)
	case !errors.Is(err, fs.ErrNotExist):
		return membership{}, fmt.Errorf("--data: %w", err)
	case began == nil: // whoever founds or joins writes a keyring, and this is the folder of a member
		return membership{}, c.lost(fault.New(fault.Invalid, "--data: %s is gone", c.path(notesFile)))
	case c.Join != "":
		return join(ctx, c)
	default:
		return found(c)
	}
}

func comeBack(c Config) (membership, error) {
	text, err := os.ReadFile(c.path(notesFile))
	if err != nil {
		return membership{}, err
	}
	var m membership
	if err := json.Unmarshal(text, &m.notes); err != nil {
		return m, c.lost(fault.New(fault.Invalid, "%s is damaged: %w", c.path(notesFile), err))
	}
	if m.notes.ID != c.ID {
		return m, fault.New(fault.Invalid, "--id: %q, but the folder %s belongs to coordinator %q", c.ID, c.Data, m.notes.ID)
	}
	kept, err := keyring.Load(c.path(keyringFile))
	if err != nil {
		return m, c.lost(err)
	}
	m.keyring = keyring.NewCurrent(kept)
	saved, err := pki.LoadCredentials(c.path(tlsFolder))
	if err != nil {
		return m, c.lost(err)
	}
	saved.Trust = kept.Trust(saved.Trust.Revoked)
	if time.Now().After(pki.RenewAt(saved.Cert)) || saved.Outdated() || saved.Cert.VerifyHostname(c.advertisedHost()) != nil { // it moved
		return m, m.certify(c, saved.Key, saved.Trust.Revoked)
	}
	m.credentials = pki.NewCurrent(saved)
	return m, nil
}

// lost says what helps a member whose keys are gone or damaged: what is refused for who may read it says so itself.
func (c Config) lost(err error) error {
	if fault.Is(err, fault.Denied) || errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w; if the other coordinators are well, remove this one with clary cluster remove %s, delete the folder and join it again; if it is the only one, put the file back from a backup", err, c.ID)
}

// found makes the cluster's secrets and this coordinator's certificate. The notes come
// last: a start that was cut off founds anew.
func found(c Config) (membership, error) {
	m := membership{founded: true, notes: notes{ID: c.ID, Founder: true, Store: store(c.storeNotes())}}
	made, err := keyring.New("clary", time.Now())
	if err != nil {
		return m, err
	}
	if err := made.Save(c.path(keyringFile)); err != nil {
		return m, err
	}
	m.keyring = keyring.NewCurrent(made)
	key, err := pki.NewKey()
	if err != nil {
		return m, err
	}
	if err := m.certify(c, key, nil); err != nil {
		return m, err
	}
	return m, m.note(c)
}

func (c Config) storeNotes() store {
	s := c.Store
	return store{Endpoint: s.Endpoint, Region: s.Region, AccessKey: s.AccessKey, SecretKey: s.SecretKey, CA: s.CA, Insecure: s.Insecure}
}

// certify gives this coordinator a new certificate for its key: it holds the CA itself.
func (m *membership) certify(c Config, key *ecdsa.PrivateKey, revoked []cluster.Revocation) error {
	certificate, err := m.keyring.Get().Authority.Issue(key.Public(), c.certificate(), time.Now())
	if err != nil {
		return err
	}
	return m.adopt(c, certificate, key, revoked)
}

// certificate is what this coordinator's certificate says.
func (c Config) certificate() pki.Request {
	return pki.Request{
		Identity: pki.Node{Role: pki.Coordinator, ID: c.ID},
		Hosts:    hosts(c.advertisedHost()), Validity: pki.NodeValidity,
	}
}

// adopt saves a first certificate, or one of another address, and takes it up.
func (m *membership) adopt(c Config, certificate []byte, key *ecdsa.PrivateKey, revoked []cluster.Revocation) error {
	keys := m.keyring.Get()
	credentials, err := member.Credentials(certificate, key, pki.CertsPEM(keys.CAs()...))
	if err != nil {
		return err
	}
	credentials.Trust = keys.Trust(revoked)
	if err := credentials.Save(c.path(tlsFolder)); err != nil {
		return err
	}
	m.credentials = pki.NewCurrent(credentials)
	return nil
}

// renew keeps this coordinator's certificate fresh, and tells renewed of each.
func (m membership) renew(ctx context.Context, c Config, lives func() cluster.Certificates, renewed func()) error {
	renewal := member.Renewal{
		Current: m.credentials, Renewed: renewed, Log: c.Log,
		Save: func(now pki.Credentials) error { return now.Save(c.path(tlsFolder)) },
		Certify: func(_ context.Context, csr []byte) ([]byte, error) {
			request := c.certificate()
			request.Validity = lives().Node
			return m.keyring.Get().Authority.IssueCSR(csr, request, time.Now())
		},
	}
	return renewal.Run(ctx)
}

// logIsThere refuses a folder whose log was deleted: this coordinator has voted, and would not know for what; a founder would
// even begin another cluster under the same keys. A folder that has a log is noted as such.
func logIsThere(c Config) error {
	logs, err := fs.Glob(os.DirFS(c.path("raft", "raft", "log")), "*.wal")
	if err != nil {
		return err
	}
	_, err = os.Stat(c.path(beganFile))
	switch {
	case len(logs) == 0 && err == nil:
		return fault.New(fault.Internal, "--data: %s: its log is gone, and this coordinator does not know any more what it voted for: remove it with clary cluster remove %s, "+
			"delete the folder and join it again; if it is the only one, restore a backup", c.path("raft"), c.ID)
	case len(logs) > 0 && errors.Is(err, fs.ErrNotExist):
		return atomicfile.Write(c.path(beganFile), nil, 0o600)
	}
	return nil
}

// hosts are the names under which outside clients reach a server of this machine.
func hosts(advertised string) []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if advertised != "" && advertised != "localhost" && advertised != "127.0.0.1" && advertised != "::1" {
		names = append(names, advertised)
	}
	return names
}

// join asks a member for a certificate and the cluster's secrets.
func join(ctx context.Context, c Config) (membership, error) {
	key, err := member.JoiningKey(c.path(tlsFolder, "joining.pem"))
	if err != nil {
		return membership{}, err
	}
	answer, err := member.Join(ctx, c.network(), c.Join, c.Token, key, &claryv1.JoinRequest{
		Id: c.ID, Role: pki.Coordinator, Address: c.advertised(), Version: c.Version,
	})
	if err != nil {
		return membership{}, err
	}
	m := membership{notes: notes{ID: c.ID, Gossip: answer.GetGossip(), Store: storeOf(answer.GetObjectStore())}}
	given, err := keyring.Unmarshal(answer.GetKeyring())
	if err != nil {
		return m, err
	}
	if err := given.Save(c.path(keyringFile)); err != nil {
		return m, err
	}
	m.keyring = keyring.NewCurrent(given)
	if err := m.adopt(c, answer.GetCertificatePem(), key, wire.Revocations(answer.GetTrust().GetRevoked())); err != nil {
		return m, err
	}
	return m, m.note(c)
}

// note writes down what this coordinator is.
func (m *membership) note(c Config) error { return m.notes.save(c) }

func (n notes) save(c Config) error {
	text, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(c.path(notesFile), text, 0o600)
}

// remember notes where the others are, for the next start.
func (n *coordinator) remember(ctx context.Context) error {
	noted := n.self.notes
	return n.gossip.Remember(ctx, func(coordinators []gossip.Member) error {
		now := gossip.Note(noted.Gossip, coordinators, func(m gossip.Member) string { return m.Gossip })
		if slices.Equal(now, noted.Gossip) {
			return nil
		}
		noted.Gossip = now
		return noted.save(n.config)
	})
}
