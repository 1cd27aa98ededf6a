package chaos_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/test/chaos"
)

// leader is who leads, or any if nobody says who.
func (d *field) leader(fault chaos.Fault) string {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	c, err := client.Dial(d.Context(), client.WithPatience(2*time.Second))
	if err != nil {
		d.t.Fatal(err)
	}
	defer c.Close()
	if info, err := c.Info(ctx); err == nil && slices.Contains(members, info.Leader) {
		return info.Leader
	}
	return members[fault.Pick%uint64(len(members))]
}

// ruin lets one fault happen and undoes it.
func (d *field) ruin(fault chaos.Fault) {
	all := slices.Concat(members, nodes)
	member := members[fault.Pick%uint64(len(members))]
	machine := all[fault.Pick%uint64(len(all))]
	other := all[(fault.Pick+1+fault.Pick/8%4)%uint64(len(all))]
	node := nodes[fault.Pick%uint64(len(nodes))]
	wait := func() { time.Sleep(fault.Length) }
	switch fault.Kind {
	case chaos.KillLeader, chaos.FreezeLeader, chaos.IsolateLead, chaos.SplitLead, chaos.StepLead:
		member = d.leader(fault)
		if fault.Kind == chaos.StepLead {
			machine = member
		}
	}
	d.counts[fault.Kind]++
	switch fault.Kind {
	case chaos.KillMember, chaos.KillLeader:
		d.Kill(member)
		wait()
		d.Again(member)
	case chaos.FreezeMember, chaos.FreezeLeader:
		d.Stop(member)
		wait()
		d.Resume(member)
	case chaos.LoseMajority:
		for _, name := range members {
			if name != member {
				d.Kill(name)
			}
		}
		wait()
		for _, name := range members {
			if name != member {
				d.Again(name)
			}
		}
	case chaos.Isolate, chaos.IsolateLead:
		d.parted([]string{member}, all, true, true, wait)
	case chaos.PartAgent:
		d.parted([]string{node}, all, true, true, wait)
	case chaos.Deafen:
		d.parted([]string{machine}, all, true, false, wait)
	case chaos.Mute:
		d.parted([]string{machine}, all, false, true, wait)
	case chaos.PartTwo:
		d.parted([]string{machine}, []string{other}, true, true, wait)
	case chaos.PartOneWay:
		d.parted([]string{machine}, []string{other}, true, false, wait)
	case chaos.SplitLead:
		here := []string{member, node}
		d.parted(here, slices.DeleteFunc(slices.Clone(all), func(name string) bool { return slices.Contains(here, name) }), true, true, wait)
	case chaos.FillMember:
		d.fill(d.Path(member), fault.Length)
	case chaos.StepClock, chaos.StepLead:
		d.Step(machine, fault.Step())
		wait()
		d.Step(machine, 0)
	default:
		d.counts[fault.Kind]--
		d.strike(fault)
	}
}

// parted cuts some machines off from others, in one way or both, for a while.
func (d *field) parted(these, others []string, deaf, mute bool, meanwhile func()) {
	for _, one := range these {
		for _, other := range others {
			if one == other {
				continue
			}
			if deaf {
				d.Part(other, one)
			}
			if mute {
				d.Part(one, other)
			}
		}
	}
	meanwhile()
	for _, name := range slices.Concat(members, nodes) {
		d.Rejoin(name)
	}
}

// model is the digest of the weights that a training published.
func (d *field) model(c *client.Client, job string) (string, error) {
	view, err := c.Job(context.Background(), job)
	if err != nil {
		return "", err
	}
	if view.Publication == nil || len(view.Publication.Outputs) == 0 {
		return "nothing", nil
	}
	var packed bytes.Buffer
	if _, err := c.GetObject(context.Background(), view.Publication.Outputs[0].URI, 0, &packed, nil); err != nil {
		return "", err
	}
	unzipped, err := gzip.NewReader(&packed)
	if err != nil {
		return "", err
	}
	for entries := tar.NewReader(unzipped); ; {
		entry, err := entries.Next()
		if err != nil {
			return "", fmt.Errorf("no weights in the model of %s: %w", job, err)
		}
		if path.Base(entry.Name) != "weights.bin" {
			continue
		}
		digest := sha256.New()
		if _, err := io.Copy(digest, entries); err != nil {
			return "", err
		}
		return fmt.Sprintf("weights %x", digest.Sum(nil)), nil
	}
}

// trials are what the trials of a sweep were and came to.
func (d *field) trials(c *client.Client, sweep string) (string, error) {
	var all strings.Builder
	for trial, err := range c.AllTrials(context.Background(), sweep, client.TrialFilter{}) {
		if err != nil {
			return "", err
		}
		fmt.Fprintln(&all, trial.Trial.Number, trial.Trial.Config, trial.Trial.State, trial.Trial.Values)
	}
	return all.String(), nil
}
