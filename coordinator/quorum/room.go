package quorum

import (
	"context"
	"strings"
	"time"

	"github.com/clary-ml/clary/internal/fault"
)

// roomEvery is how often coordinators look whose disk has room.
const roomEvery = time.Second

// Disk is how much room a coordinator's disk has.
type Disk struct {
	Free int64  // bytes
	Low  string // why that is too little, and what to do; empty: it is enough
}

// scarce decides whether the disks of the coordinators have too little room for the cluster to take changes: a majority must store
// each, and too few that answer have room. It returns what is wrong with which disks, or nothing.
func scarce(members []Member) string {
	voters, roomy := 0, 0
	var low []string
	for _, m := range members {
		if !m.Voter {
			continue
		}
		voters++
		switch {
		case m.Alive && m.Disk.Low == "":
			roomy++
		case m.Alive:
			low = append(low, "coordinator "+m.ID+": "+m.Disk.Low)
		}
	}
	if roomy >= Majority(voters) {
		return ""
	}
	return strings.Join(low, "; ")
}

// roomier decides who should lead instead of a leader whose disk is low: who votes, has room, and is not behind; of several who is furthest.
func roomier(members []Member) (Member, bool) {
	var candidates []Member
	low := false
	for _, m := range members {
		low = low || m.Leader && m.Disk.Low != ""
		if m.Disk.Low == "" && m.Behind <= voteBehind {
			candidates = append(candidates, m)
		}
	}
	next, err := heir(candidates, "")
	return next, low && err == nil
}

// WatchRoom sees that whoever leads has room on its disk, and finds out whether the cluster takes changes. It runs on every coordinator.
func (d *Desk) WatchRoom(ctx context.Context) error {
	clock := time.NewTicker(roomEvery)
	defer clock.Stop()
	for {
		if err := d.lookForRoom(ctx); err != nil && ctx.Err() == nil {
			d.Log.Debug("who has room on its disk is not known", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-clock.C:
		}
	}
}

func (d *Desk) lookForRoom(ctx context.Context) error {
	leader := d.Replica.Leader()
	if leader == "" {
		return nil // what was known last is as good as any
	}
	if leader != d.ID {
		standing, err := d.standing(ctx, leader)
		if err == nil && standing.GetLeads() {
			d.refuse(standing.GetRefuses())
		}
		return err
	}
	members, err := d.Members(ctx)
	if err != nil {
		return err
	}
	d.refuse(scarce(members))
	next, better := roomier(members)
	if !better {
		return nil
	}
	d.Log.Warn("the disk of this coordinator is low: another leads", "to", next.ID)
	_, err = d.Transfer(ctx, next.ID)
	return err
}

// refuse notes why the cluster takes no changes, or that it does.
func (d *Desk) refuse(why string) {
	if was := d.refuses.Swap(&why); why != "" && (was == nil || *was == "") {
		d.Log.Error("the cluster takes nothing new: the disks of its coordinators are full", "problem", why)
	} else if why == "" && was != nil && *was != "" {
		d.Log.Info("the cluster takes what is new again")
	}
}

// Refuses says why the cluster takes no changes; nil: it does.
func (d *Desk) Refuses() error {
	why := d.refuses.Load()
	if why == nil || *why == "" {
		return nil
	}
	return fault.New(fault.Exhausted, "the cluster takes nothing new until its coordinators have room: %s. What runs goes on, and what makes room is taken: clary delete, clary cancel, clary settings set", *why)
}
