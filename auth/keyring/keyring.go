// Package keyring holds a cluster's secrets in one file: the CA's key, the data key,
// gossip's key and the object store's root secret.
//
// Each coordinator has the file, handed over when it joins. None of it is ever in the
// raft log or a snapshot, so a backup is a snapshot plus this file: whoever has both
// has the cluster, and whoever loses this file must make all certificates anew.
package keyring

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/internal/fault"
)

// KeySize is the length of the data key and of gossip's key, in bytes.
const KeySize = 32

// The formats of the file: the first one has one key of each sort, and is written as long as none was rotated; the third is
// that of a cluster that was restored, so that a build which knows of no lives does not take part in it.
const (
	version        = 1
	rotatedVersion = 2
	rebornVersion  = 3
)

// Keyring is a cluster's secrets. Printing one shows the CA's pin only. Of lists the first is in use, and there is a
// second while one is rotated.
type Keyring struct {
	ID           string // of this set; "" is the first one
	Life         string // of the cluster: see cluster.NewLife
	Authority    *pki.Authority
	OtherCAs     []*pki.Authority    // trusted, but not signing
	Links        []*x509.Certificate // the successor as the old CA certifies it
	DataKey      []byte              // KeySize bytes; what users' keys to the object store are derived from
	GossipKeys   [][]byte            // KeySize bytes each; AES-256
	SealKeys     [][]byte            // likewise
	ObjectSecret string              // the embedded object store's root secret
}

// New makes the secrets of a new cluster.
func New(cluster string, now time.Time) (*Keyring, error) {
	ca, err := pki.NewAuthority(cluster, now)
	if err != nil {
		return nil, err
	}
	data := random()
	seal, err := sealKey(data)
	if err != nil {
		return nil, err
	}
	return &Keyring{
		Authority:    ca,
		DataKey:      data,
		GossipKeys:   [][]byte{random()},
		SealKeys:     [][]byte{seal},
		ObjectSecret: base64.RawURLEncoding.EncodeToString(random()),
	}, nil
}

func random() []byte {
	key := make([]byte, KeySize)
	_, _ = rand.Read(key) // never fails: it ends the process if the kernel has no randomness
	return key
}

// String hides the secrets from logs.
func (k *Keyring) String() string { return "keyring(" + k.Authority.Pin() + ")" }

// GoString hides the secrets from %#v too.
func (k *Keyring) GoString() string { return k.String() }

// form is the file's form.
type form struct {
	Version      int    `json:"version"`
	CACert       string `json:"ca_cert"`
	CAKey        string `json:"ca_key"`
	DataKey      []byte `json:"data_key"`
	GossipKey    []byte `json:"gossip_key"`
	ObjectSecret string `json:"object_secret"`

	// What version 2 has beside.
	ID           string   `json:"id,omitempty"`
	OtherCAs     []ca     `json:"other_cas,omitempty"`
	Links        string   `json:"links,omitempty"`
	OtherGossips [][]byte `json:"other_gossip_keys,omitempty"`
	SealKeys     [][]byte `json:"seal_keys,omitempty"`

	// What version 3 has beside.
	Life string `json:"life,omitempty"`
}

type ca struct {
	Cert string `json:"cert"`
	Key  string `json:"key"`
}

// Marshal encodes the secrets, to be written to a file or handed to a coordinator.
func (k *Keyring) Marshal() ([]byte, error) {
	key, err := k.Authority.KeyPEM()
	if err != nil {
		return nil, err
	}
	f := form{
		Version: version, CACert: string(k.Authority.CertPEM()), CAKey: string(key), DataKey: k.DataKey, GossipKey: k.GossipKeys[0],
		ObjectSecret: k.ObjectSecret,
	}
	if k.ID != "" || k.Life != "" {
		f.Version, f.ID, f.Links = rotatedVersion, k.ID, string(pki.CertsPEM(k.Links...))
		f.OtherGossips, f.SealKeys = k.GossipKeys[1:], k.SealKeys
		for _, other := range k.OtherCAs {
			if key, err = other.KeyPEM(); err != nil {
				return nil, err
			}
			f.OtherCAs = append(f.OtherCAs, ca{string(other.CertPEM()), string(key)})
		}
	}
	if k.Life != "" {
		f.Version, f.Life = rebornVersion, k.Life
	}
	return json.MarshalIndent(f, "", "  ")
}

// Unmarshal decodes and checks what Marshal encoded.
func Unmarshal(text []byte) (*Keyring, error) {
	var f form
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, fault.New(fault.Invalid, "keyring: %w", err)
	}
	if f.Version < version || f.Version > rebornVersion {
		return nil, fault.New(fault.Invalid, "keyring: its version is %d, and this Clary knows %d", f.Version, rebornVersion)
	}
	for name, keys := range map[string][][]byte{"data_key": {f.DataKey}, "gossip_key": append([][]byte{f.GossipKey}, f.OtherGossips...), "seal_keys": f.SealKeys} {
		for _, key := range keys {
			if len(key) != KeySize {
				return nil, fault.New(fault.Invalid, "keyring: %s has %d bytes; it must have %d", name, len(key), KeySize)
			}
		}
	}
	if f.ObjectSecret == "" {
		return nil, fault.New(fault.Invalid, "keyring: object_secret is empty")
	}
	k := &Keyring{ID: f.ID, Life: f.Life, DataKey: f.DataKey, GossipKeys: append([][]byte{f.GossipKey}, f.OtherGossips...), SealKeys: f.SealKeys, ObjectSecret: f.ObjectSecret}
	if err := k.readCAs(f); err != nil {
		return nil, fault.New(fault.Invalid, "keyring: %w", err)
	}
	if len(k.SealKeys) == 0 {
		seal, err := sealKey(k.DataKey)
		if err != nil {
			return nil, err
		}
		k.SealKeys = [][]byte{seal}
	}
	return k, nil
}

func (k *Keyring) readCAs(f form) error {
	var err error
	if k.Authority, err = pki.ParseAuthority([]byte(f.CACert), []byte(f.CAKey)); err != nil {
		return err
	}
	for _, other := range f.OtherCAs {
		authority, err := pki.ParseAuthority([]byte(other.Cert), []byte(other.Key))
		if err != nil {
			return err
		}
		k.OtherCAs = append(k.OtherCAs, authority)
	}
	if f.Links != "" {
		k.Links, err = pki.ParseCertificates([]byte(f.Links))
	}
	return err
}

// Load reads the file at path. A file that others may read is refused.
func Load(path string) (*Keyring, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "keyring: %s does not exist", path)
	}
	if err != nil {
		return nil, fault.New(fault.Internal, "keyring: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fault.New(fault.Denied, "keyring: %s has mode %04o, so others can get at the cluster's keys: run chmod 600 %s",
			path, mode, path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.Internal, "keyring: %w", err)
	}
	k, err := Unmarshal(text)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%s: %w", path, err)
	}
	return k, nil
}

// Save writes the file at path, readable by its owner only. An older file is replaced
// in one step.
func (k *Keyring) Save(path string) error {
	text, err := k.Marshal()
	if err == nil {
		err = atomicfile.Write(path, text, 0o600)
	}
	if err != nil {
		return fault.New(fault.Internal, "keyring: write %s: %w", path, err)
	}
	return nil
}
