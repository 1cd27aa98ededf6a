package coordinator

import (
	"context"
	"path/filepath"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/headroom"
	"github.com/clary-ml/clary/coordinator/quorum"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/ops"
)

// openHeadroom begins to watch the disk, before anything is written.
func (n *coordinator) openHeadroom() error {
	var err error
	n.headroom, err = headroom.Open(headroom.Config{
		Dir: n.config.Data, State: filepath.Join(n.config.path("raft"), "state.db"), Asked: n.askedFree, Look: ops.Room, Log: n.log,
	})
	return err
}

// askedFree is what the disk is to have free by the settings, as far as this coordinator knows them.
func (n *coordinator) askedFree() int64 {
	if n.replica == nil {
		return cluster.DefaultSettings().Limits.DiskFree
	}
	snapshot, err := n.replica.Read(context.Background(), true)
	if err != nil {
		return cluster.DefaultSettings().Limits.DiskFree
	}
	defer snapshot.Close()
	return snapshot.Settings().Limits.DiskFree
}

// disk is how this coordinator's disk is, as the others are told.
func (n *coordinator) disk() quorum.Disk {
	disk := n.headroom.Disk()
	return quorum.Disk{Free: disk.Free, Low: disk.Low}
}

// hasRoom says that the disk is low.
func (n *coordinator) hasRoom(context.Context) error {
	if disk := n.headroom.Disk(); disk.Low != "" {
		return fault.New(fault.Exhausted, "%s", disk.Low)
	}
	return nil
}
