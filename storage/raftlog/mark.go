package raftlog

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"

	"github.com/hashicorp/raft"

	"github.com/clary-ml/clary/internal/fault"
)

// mark is a small file beside the log with the newest index that was acknowledged. A newest segment that
// lost its end looks to raft-wal like an append that was cut off, and is opened shorter; a server that went
// on from there would vote for leaders that lack what it has helped to commit. The mark tells the two apart.
//
// It is written after each append and not synced: the append was, so that the mark on the disk is never
// ahead of the log. After a power cut it may be behind, and then sees less.
type mark struct{ file *os.File }

// markSize is an index and its CRC-32C.
const markSize = 8 + crc32.Size

func openMark(path string) (mark, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return mark{}, fault.New(fault.Internal, "raft log: %w", err)
	}
	return mark{file}, nil
}

// read returns the index, 0 if none was written yet. One that is not whole says nothing: it was
// cut off by a power cut.
func (m mark) read() (uint64, error) {
	var text [markSize]byte
	if _, err := m.file.ReadAt(text[:], 0); errors.Is(err, io.EOF) {
		return 0, nil
	} else if err != nil {
		return 0, fault.New(fault.Internal, "raft log: read %s: %w", m.file.Name(), err)
	}
	if binary.LittleEndian.Uint32(text[8:]) != crc32.Checksum(text[:8], castagnoli()) {
		return 0, nil
	}
	return binary.LittleEndian.Uint64(text[:8]), nil
}

func (m mark) write(index uint64) error {
	text := binary.LittleEndian.AppendUint64(nil, index)
	text = binary.LittleEndian.AppendUint32(text, crc32.Checksum(text, castagnoli()))
	if _, err := m.file.WriteAt(text, 0); err != nil {
		return fault.New(fault.Internal, "raft log: write %s: %w", m.file.Name(), err)
	}
	return nil
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// marked is a log that notes how far it was acknowledged.
type marked struct {
	checked
	mark mark
}

// StoreLog stores one entry.
func (m marked) StoreLog(l *raft.Log) error { return m.StoreLogs([]*raft.Log{l}) }

// StoreLogs stores entries, and notes that they are there. If that fails they are there all the same: raft would take them for missing and store them
// again, which the log refuses for ever, so that the server is of no use until it is opened anew.
func (m marked) StoreLogs(logs []*raft.Log) error {
	if err := m.checked.StoreLogs(logs); err != nil || len(logs) == 0 {
		return err
	}
	err := m.mark.write(logs[len(logs)-1].Index)
	if err != nil && m.broken != nil {
		m.broken(err)
	}
	return err
}

// DeleteRange deletes entries at either end. If those at the end go, less is noted before.
func (m marked) DeleteRange(first, last uint64) error {
	begin, err := m.FirstIndex()
	if err != nil {
		return err
	}
	end, err := m.LastIndex()
	if err != nil {
		return err
	}
	if last >= end {
		left := uint64(0)
		if first > begin {
			left = first - 1
		}
		if err := m.mark.write(left); err != nil {
			return err
		}
	}
	return m.checked.DeleteRange(first, last)
}

// whole compares the log with its mark.
func (m marked) whole() error {
	noted, err := m.mark.read()
	if err != nil {
		return err
	}
	last, err := m.LastIndex()
	if err != nil {
		return err
	}
	if last < noted {
		return fault.New(fault.Internal, "it ends at entry %d, and entry %d was acknowledged: its end is lost", last, noted)
	}
	return nil
}
