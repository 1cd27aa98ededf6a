package backup

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"

	"github.com/clary-ml/clary/internal/fault"
)

// sealedMark is the first line inside a backup.
const sealedMark = "clary backup 1\n"

// ageMark is how an age file begins.
const ageMark = "age-encryption.org/"

// Secrets are what a cluster has beside its state.
type Secrets struct {
	Keyring json.RawMessage `json:"keyring"`         // see auth/keyring
	Store   json.RawMessage `json:"store,omitempty"` // the S3 that the operator named, if one was
}

// Recipients reads who may decrypt: public keys like age1….
func Recipients(keys []string) ([]age.Recipient, error) {
	if len(keys) == 0 {
		return nil, fault.New(fault.Invalid, "recipients: a backup is encrypted: name at least one public key (age1…)")
	}
	var recipients []age.Recipient
	for i, key := range keys {
		recipient, err := age.ParseX25519Recipient(strings.TrimSpace(key))
		if err != nil { // it is not repeated: it may be a secret key that was given by mistake
			return nil, fault.New(fault.Invalid, "recipients[%d]: is no public key of age, which looks like age1…; the one of a secret key stands above it in its file", i)
		}
		recipients = append(recipients, recipient)
	}
	return recipients, nil
}

// Seal encrypts a backup: the secrets, then the snapshot that body writes.
func Seal(to io.Writer, recipients []age.Recipient, secrets Secrets, body func(io.Writer) error) error {
	sealed, err := age.Encrypt(to, recipients...)
	if err != nil {
		return fault.New(fault.Invalid, "encrypt the backup: %w", err)
	}
	line, err := json.Marshal(secrets)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(sealed, "%s%s\n", sealedMark, line); err != nil {
		return err
	}
	return errors.Join(body(sealed), sealed.Close())
}

// Sealed reports whether a file begins as a backup, and returns a reader of all of it.
func Sealed(from io.Reader) (io.Reader, bool, error) {
	in := bufio.NewReaderSize(from, 64<<10)
	start, err := in.Peek(len(ageMark))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, err
	}
	return in, bytes.Equal(start, []byte(ageMark)), nil
}

// Open decrypts a backup, and returns its secrets and a reader of its snapshot.
func Open(from io.Reader, identities ...age.Identity) (Secrets, io.Reader, error) {
	var secrets Secrets
	open, err := age.Decrypt(from, identities...)
	if wrong := new(age.NoIdentityMatchError); errors.As(err, &wrong) {
		return secrets, nil, fault.New(fault.Denied, "the backup is encrypted for another key or passphrase than was given")
	}
	if err != nil {
		return secrets, nil, fault.New(fault.Invalid, "the backup cannot be decrypted: %w", err)
	}
	in := bufio.NewReaderSize(open, 64<<10)
	mark := make([]byte, len(sealedMark))
	if _, err := io.ReadFull(in, mark); err != nil || string(mark) != sealedMark {
		return secrets, nil, fault.New(fault.Invalid, "the file is encrypted, and is no backup of Clary that this version can read: it begins with %q", mark)
	}
	line, err := io.ReadAll(io.LimitReader(lineReader{in}, 16*maxHeader))
	if err == nil {
		err = json.Unmarshal(line, &secrets)
	}
	if err != nil {
		return secrets, nil, fault.New(fault.Invalid, "the backup's secrets cannot be read: %w", err)
	}
	return secrets, in, nil
}
