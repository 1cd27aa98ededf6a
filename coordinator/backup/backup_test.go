package backup_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/clary-ml/clary/coordinator/backup"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/internal/fault"
)

var agreed = bytes.Repeat([]byte("what the coordinators have agreed on. "), 200)

func header() backup.Header {
	return backup.Header{Cluster: "sha256:ca", Format: command.Format, Revision: 7, Index: 9, Made: time.Unix(1e9, 0).UTC(), Version: "v1"}
}

func write(t *testing.T, h backup.Header) []byte {
	t.Helper()
	var file bytes.Buffer
	err := backup.WriteSnapshot(&file, h, func(w io.Writer) error { _, err := w.Write(agreed); return err })
	if err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// read returns the state in a snapshot; handed says that it was handed on at all.
func read(t *testing.T, file io.Reader) (h backup.Header, got []byte, handed bool, err error) {
	t.Helper()
	h, err = backup.ReadSnapshot(file, t.TempDir(), func(_ backup.Header, body io.Reader) error {
		handed = true
		var err error
		got, err = io.ReadAll(body)
		return err
	})
	return h, got, handed, err
}

func TestASnapshotIsReadBackAsItWasWritten(t *testing.T) {
	h, got, _, err := read(t, bytes.NewReader(write(t, header())))
	if err != nil || !bytes.Equal(got, agreed) || h != header() {
		t.Errorf("%+v, %d bytes, %v", h, len(got), err)
	}
}

func TestNothingOfADamagedSnapshotIsHandedOn(t *testing.T) {
	whole := write(t, header())
	for at := range whole {
		flipped := slices.Clone(whole)
		flipped[at] ^= 1
		if _, _, handed, err := read(t, bytes.NewReader(flipped)); !fault.Is(err, fault.Invalid) || handed {
			t.Fatalf("byte %d flipped: handed on %v, %v", at, handed, err)
		}
		if _, _, handed, err := read(t, bytes.NewReader(whole[:at])); !fault.Is(err, fault.Invalid) || handed {
			t.Fatalf("cut to %d bytes: handed on %v, %v", at, handed, err)
		}
	}
	if _, _, handed, err := read(t, io.MultiReader(bytes.NewReader(whole), strings.NewReader("x"))); !fault.Is(err, fault.Invalid) || handed {
		t.Errorf("a byte more: %v", err)
	}
}

func TestRubbishIsRefusedWithWhatIsWrong(t *testing.T) {
	newer := header()
	newer.Format, newer.Version = command.Format+1, "v9"
	for name, c := range map[string]struct {
		file []byte
		says string
	}{
		"nothing":             {nil, `begins with ""`},
		"a text":              {[]byte("PK\x03\x04 this is a zip"), "this is no snapshot of Clary"},
		"a later snapshot":    {[]byte("clary snapshot 2\n{}\n"), "this is no snapshot of Clary that this version can read"},
		"of a newer format":   {write(t, newer), "made by version v9"},
		"only its first line": {[]byte("clary snapshot 1\n"), "cut short"},
	} {
		if _, _, handed, err := read(t, bytes.NewReader(c.file)); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.says) || handed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func identity(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func seal(t *testing.T, to ...string) []byte {
	t.Helper()
	recipients, err := backup.Recipients(to)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	secrets := backup.Secrets{Keyring: json.RawMessage(`{"ca_key":"hush"}`), Store: json.RawMessage(`{"secret_key":"hush"}`)}
	err = backup.Seal(&file, recipients, secrets, func(w io.Writer) error { _, err := w.Write(write(t, header())); return err })
	if err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func TestABackupIsOpenedByWhomItIsForAndNobodyElse(t *testing.T) {
	mine, yours, theirs := identity(t), identity(t), identity(t)
	file := seal(t, mine.Recipient().String(), yours.Recipient().String())
	if bytes.Contains(file, []byte("hush")) || bytes.Contains(file, []byte("sha256:ca")) {
		t.Error("a secret, or the cluster's name, is to be read in it")
	}
	for _, id := range []age.Identity{mine, yours} {
		in, sealed, err := backup.Sealed(bytes.NewReader(file))
		if err != nil || !sealed {
			t.Fatalf("it is not seen to be a backup: %v", err)
		}
		secrets, snapshot, err := backup.Open(in, id)
		if err != nil || string(secrets.Keyring) != `{"ca_key":"hush"}` || string(secrets.Store) != `{"secret_key":"hush"}` {
			t.Fatalf("%s, %v", secrets.Keyring, err)
		}
		if h, got, _, err := read(t, snapshot); err != nil || !bytes.Equal(got, agreed) || h != header() {
			t.Errorf("%+v, %v", h, err)
		}
	}
	if _, _, err := backup.Open(bytes.NewReader(file), theirs); !fault.Is(err, fault.Denied) {
		t.Errorf("another key: %v", err)
	}
	if _, sealed, err := backup.Sealed(bytes.NewReader(write(t, header()))); err != nil || sealed {
		t.Errorf("a snapshot is taken for a backup: %v", err)
	}
}

func TestADamagedBackupIsRefused(t *testing.T) {
	mine := identity(t)
	file := seal(t, mine.Recipient().String())
	for _, at := range []int{0, 1, 20, len(file) / 3, len(file) / 2, len(file) - 40, len(file) - 1} {
		flipped := slices.Clone(file)
		flipped[at] ^= 1
		for how, damaged := range map[string][]byte{"flipped": flipped, "cut": file[:at]} {
			_, snapshot, err := backup.Open(bytes.NewReader(damaged), mine)
			handed := false
			if err == nil {
				_, _, handed, err = read(t, snapshot)
			}
			if err == nil || handed || !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Denied) {
				t.Errorf("%s at %d: handed on %v, %v", how, at, handed, err)
			}
		}
	}
	var other bytes.Buffer
	sealed, err := age.Encrypt(&other, mine.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	_, err = sealed.Write([]byte("somebody's diary, longer than a mark"))
	if err := errors.Join(err, sealed.Close()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := backup.Open(&other, mine); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "is no backup of Clary") {
		t.Errorf("another encrypted file: %v", err)
	}
	for _, keys := range [][]string{nil, {"age1nonsense"}, {identity(t).String()}} {
		_, err := backup.Recipients(keys)
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("recipients %q: %v", keys, err)
		}
		if err != nil && strings.Contains(err.Error(), "AGE-SECRET-KEY") {
			t.Errorf("a secret key that was given by mistake is repeated: %v", err)
		}
	}
}
