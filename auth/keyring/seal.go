package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"

	"github.com/clary-ml/clary/internal/fault"
)

// sealPurpose separates the key of sealed values from others that the data key makes.
const sealPurpose = "clary sealed value 1"

// Seal encrypts a value for the raft log: AES-256-GCM under the newest sealing key (the first is
// derived from the data key with HKDF-SHA256), a random nonce first. What context says must be said again to open it,
// so that a sealed value put in another's place does not open.
func (k *Keyring) Seal(value []byte, context string) ([]byte, error) {
	box, err := box(k.SealKeys[0])
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, box.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return box.Seal(nonce, nonce, value, []byte(context)), nil
}

// Open decrypts what Seal made with the same context, with this keyring or one before it whose key is still kept.
func (k *Keyring) Open(sealed []byte, context string) ([]byte, error) {
	var err error
	for _, key := range k.SealKeys {
		var value []byte
		if value, err = open(key, sealed, context); err == nil {
			return value, nil
		}
	}
	return nil, err
}

func open(key, sealed []byte, context string) ([]byte, error) {
	box, err := box(key)
	if err != nil {
		return nil, err
	}
	if len(sealed) < box.NonceSize() {
		return nil, fault.New(fault.Invalid, "a sealed value is too short")
	}
	value, err := box.Open(nil, sealed[:box.NonceSize()], sealed[box.NonceSize():], []byte(context))
	if err != nil {
		return nil, fault.New(fault.Invalid, "a sealed value does not open: it was sealed by another cluster, or changed since")
	}
	return value, nil
}

// sealKey is the first key that a data key seals with.
func sealKey(dataKey []byte) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, dataKey, nil, sealPurpose, KeySize)
	if err != nil {
		return nil, fault.New(fault.Internal, "derive the sealing key: %w", err)
	}
	return key, nil
}

// ClusterName names the cluster that the secrets are of, in eight hexadecimal digits: by the data key, which stays through rotations
// and lives, and of which it tells nothing.
func (k *Keyring) ClusterName() (string, error) {
	name, err := hkdf.Key(sha256.New, k.DataKey, nil, "clary name of a cluster 1", 4)
	if err != nil {
		return "", fault.New(fault.Internal, "derive the cluster's name: %w", err)
	}
	return hex.EncodeToString(name), nil
}

func box(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fault.New(fault.Internal, "sealing key: %w", err)
	}
	return cipher.NewGCM(block)
}
