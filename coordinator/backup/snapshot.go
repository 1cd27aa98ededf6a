// Package backup is what a cluster is kept in outside of itself: snapshots, which are its state, and backups,
// which are a snapshot and the keyring, encrypted.
//
// A snapshot says what it is in its first lines, and ends in a SHA-256 over all of it. It holds no secret that
// works without the keyring: tokens are there as hashes, secrets as they were sealed. A backup is an age file
// (age-encryption.org/v1): whoever can decrypt it has the cluster.
package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/internal/fault"
)

// snapshotMark is the first line of a snapshot. The number is raised when older builds could not
// read what follows.
const snapshotMark = "clary snapshot 1\n"

// Header says what a snapshot is of.
type Header struct {
	Cluster  string    `json:"cluster"`           // the pin of its CA
	Life     string    `json:"life,omitempty"`    // of the cluster: see cluster.NewLife
	Keyring  string    `json:"keyring,omitempty"` // ID of the keyring that it belongs to
	Format   int       `json:"format"`            // in force in the state: a build must know it
	Revision uint64    `json:"revision"`          // of the last change
	Index    uint64    `json:"index"`             // of the last log entry
	Made     time.Time `json:"made"`
	Version  string    `json:"version"` // of the build that made it
}

// maxHeader bounds what is read before it is known what it is.
const maxHeader = 64 << 10

// WriteSnapshot writes a snapshot of the state that body writes.
func WriteSnapshot(to io.Writer, header Header, body func(io.Writer) error) error {
	sum := sha256.New()
	out := io.MultiWriter(to, sum)
	line, err := json.Marshal(header)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "%s%s\n", snapshotMark, line); err != nil {
		return err
	}
	packed, err := zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	if err := errors.Join(body(packed), packed.Close()); err != nil {
		return err
	}
	_, err = to.Write(sum.Sum(nil))
	return err
}

// ReadSnapshot reads a whole snapshot, and hands on its state only if all of it is as it was written.
// The state is kept in an unnamed file in dir meanwhile.
func ReadSnapshot(from io.Reader, dir string, state func(Header, io.Reader) error) (Header, error) {
	part, err := os.CreateTemp(dir, "snapshot-*")
	if err != nil {
		return Header{}, err
	}
	defer part.Close()
	if err := os.Remove(part.Name()); err != nil {
		return Header{}, err
	}
	size, err := checked(from, part)
	if err != nil {
		return Header{}, err
	}
	if _, err := part.Seek(0, io.SeekStart); err != nil {
		return Header{}, err
	}
	in := bufio.NewReader(io.LimitReader(part, size))
	header, err := readHeader(in)
	if err != nil {
		return header, err
	}
	unpacked, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return header, err
	}
	defer unpacked.Close()
	return header, state(header, unpacked)
}

// checked copies a snapshot without its checksum, which must be right, and returns its length.
func checked(from io.Reader, part io.Writer) (int64, error) {
	in := bufio.NewReaderSize(from, 64<<10)
	start, err := in.Peek(len(snapshotMark))
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, unreadable(err)
	}
	if !bytes.Equal(start, []byte(snapshotMark)) {
		return 0, fault.New(fault.Invalid, "this is no snapshot of Clary that this version can read: it begins with %q, not with %q", start, snapshotMark)
	}
	held := &tail{to: part, sum: sha256.New()}
	if _, err := io.Copy(held, in); err != nil {
		return 0, unreadable(err)
	}
	if len(held.last) < sha256.Size {
		return 0, fault.New(fault.Invalid, "the snapshot is cut short: it has %d bytes", len(held.last))
	}
	if !bytes.Equal(held.last, held.sum.Sum(nil)) {
		return 0, fault.New(fault.Invalid, "the snapshot is damaged or cut short: its checksum is wrong; take it from another copy")
	}
	return held.size, nil
}

func unreadable(err error) error {
	if fault.Is(err, fault.Invalid) {
		return err
	}
	return fault.New(fault.Invalid, "the snapshot cannot be read: %w", err)
}

// tail passes on and sums all but the last bytes, which are the checksum.
type tail struct {
	to   io.Writer
	sum  hash.Hash
	last []byte
	size int64
}

func (t *tail) Write(data []byte) (int, error) {
	t.last = append(t.last, data...)
	if ready := len(t.last) - sha256.Size; ready > 0 {
		t.sum.Write(t.last[:ready]) // never fails
		if _, err := t.to.Write(t.last[:ready]); err != nil {
			return 0, err
		}
		t.size += int64(ready)
		t.last = append(t.last[:0], t.last[ready:]...)
	}
	return len(data), nil
}

func readHeader(in *bufio.Reader) (Header, error) {
	var header Header
	if _, err := in.Discard(len(snapshotMark)); err != nil {
		return header, unreadable(err)
	}
	line, err := io.ReadAll(io.LimitReader(lineReader{in}, maxHeader))
	if err == nil {
		err = json.Unmarshal(line, &header)
	}
	if err != nil {
		return header, fault.New(fault.Invalid, "the snapshot's second line is not its header: %w", err)
	}
	if header.Format > command.Format {
		return header, fault.New(fault.Invalid, "the snapshot is of format %d, made by version %s, and this version knows %d: use that version, or a newer one",
			header.Format, header.Version, command.Format)
	}
	return header, nil
}

// lineReader reads up to the end of a line.
type lineReader struct{ from *bufio.Reader }

func (r lineReader) Read(into []byte) (int, error) {
	for n := range into {
		b, err := r.from.ReadByte()
		if err != nil {
			return n, io.ErrUnexpectedEOF
		}
		if b == '\n' {
			return n, io.EOF
		}
		into[n] = b
	}
	return len(into), nil
}
