package raftlog

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"

	"github.com/clary-ml/clary/internal/fault"
)

// checked is a raft-wal whose entries carry a CRC-32C at the end of their extensions.
// raft-wal has checksums too, but reads them only to find the end of the newest file:
// without this, a byte that flips in an older entry would be applied as it is. (A codec
// would be the place, but raft-wal v0.4.0 cannot reopen a log with a codec not its own.)
type checked struct {
	*wal.WAL
	stored func(time.Duration) // nil: nobody measures
	broken func(error)         // nil: nobody asks
	// starved: see Options. An append asks it once: raft tries again by itself.
	starved func(error) bool
}

// DeleteRange cuts the log at one of its ends.
func (c checked) DeleteRange(from, to uint64) error {
	err := c.WAL.DeleteRange(from, to)
	if err != nil {
		err = fault.New(fault.Internal, "cut the raft log from entry %d to %d: %w", from, to, err)
		if c.broken != nil {
			c.broken(err)
		}
	}
	return err
}

// StoreLog stores one entry.
func (c checked) StoreLog(l *raft.Log) error { return c.StoreLogs([]*raft.Log{l}) }

// StoreLogs stores entries; the caller's are not changed.
func (c checked) StoreLogs(logs []*raft.Log) error {
	copies := make([]raft.Log, len(logs))
	sealed := make([]*raft.Log, len(logs))
	for i, l := range logs {
		copies[i] = *l
		copies[i].Extensions = binary.LittleEndian.AppendUint32(slices.Clone(l.Extensions), sum(l))
		sealed[i] = &copies[i]
	}
	begun := time.Now()
	err := c.WAL.StoreLogs(sealed)
	if err != nil && c.starved != nil && c.starved(err) {
		err = c.WAL.StoreLogs(sealed)
	}
	if c.stored != nil {
		c.stored(time.Since(begun))
	}
	return err
}

// GetLog reads an entry and compares its checksum.
func (c checked) GetLog(index uint64, l *raft.Log) error {
	if err := c.WAL.GetLog(index, l); err != nil {
		return err
	}
	at := len(l.Extensions) - crc32.Size
	if at < 0 {
		return fault.New(fault.Internal, "entry %d has no checksum", index)
	}
	want := binary.LittleEndian.Uint32(l.Extensions[at:])
	if l.Extensions = l.Extensions[:at]; at == 0 {
		l.Extensions = nil
	}
	if l.Index != index || sum(l) != want {
		return fault.New(fault.Internal, "entry %d is damaged: its checksum is wrong", index)
	}
	return nil
}

func sum(l *raft.Log) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	var head [25]byte
	binary.LittleEndian.PutUint64(head[0:], l.Index)
	binary.LittleEndian.PutUint64(head[8:], l.Term)
	binary.LittleEndian.PutUint64(head[16:], uint64(len(l.Data)))
	head[24] = byte(l.Type)
	return crc32.Update(crc32.Update(crc32.Checksum(head[:], table), table, l.Data), table, l.Extensions)
}
