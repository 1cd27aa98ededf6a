package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/rpc"
)

// Clocks that differ by more: tokens and certificates are judged by each machine's own.
const skewWarn, skewFail = time.Second, time.Minute

func members(ctx context.Context, m Machine) []Finding {
	answers, err := m.Cluster(ctx)
	if err != nil {
		return finding("cluster", Fail, err.Error(), "see clary context and clary login")
	}
	if answers == nil {
		return well("cluster", "none is known here: clary login names one")
	}
	found := coordinators(answers.Coordinators)
	found = append(found, quorum(answers.Coordinators)...)
	found = append(found, versions(*answers)...)
	found = append(found, nodes(*answers)...)
	if answers.Backups == nil {
		return found
	}
	return append(found, backups(*answers.Backups, m.Now())...)
}

// coordinators says of each whether it answers, and how its clock goes.
func coordinators(all []CoordinatorAnswer) []Finding {
	var found []Finding
	for _, c := range all {
		name := fmt.Sprintf("coordinator %s at %s", c.ID, c.Address)
		if c.Err != nil {
			found = append(found, finding("coordinators", Warn, name+" does not answer: "+c.Err.Error(), "start it, or see that "+c.Address+" can be reached from here")...)
			continue
		}
		found = append(found, well("coordinators", "%s answers in %s", name, c.Round.Round(100*time.Microsecond))...)
		if !c.Clock { // of an earlier version
			continue
		}
		skew := max(c.Skew.Abs()-c.Round, 0)
		switch text := fmt.Sprintf("that of %s differs by %s from this machine's", c.ID, c.Skew.Round(time.Millisecond)); {
		case skew > skewFail:
			found = append(found, finding("clocks", Fail, text+": tokens and certificates are judged wrongly", "run chrony or systemd-timesyncd on both")...)
		case skew > skewWarn:
			found = append(found, finding("clocks", Warn, text, "run chrony or systemd-timesyncd on both")...)
		default:
			found = append(found, well("clocks", "%s", text)...)
		}
	}
	return found
}

// quorum judges whether the cluster can go on, and what it can lose.
func quorum(all []CoordinatorAnswer) []Finding {
	voters, there, leaders := 0, 0, map[string]bool{}
	for _, c := range all {
		if c.Voter {
			voters++
		}
		if c.Voter && c.Err == nil {
			there++
		}
		if c.Err == nil && c.Leader != "" {
			leaders[c.Leader] = true
		}
	}
	need := voters/2 + 1
	text := fmt.Sprintf("%d of %d voting coordinators answer, %d are needed", there, voters, need)
	switch {
	case there < need:
		return finding("quorum", Fail, text, "bring the others back; if they are lost for good, go on with one that is left (clary cluster recover) or with a backup (clary cluster restore): the newer of them")
	case len(leaders) == 0:
		return finding("quorum", Fail, text+", and nobody leads", "see that the coordinators reach one another, and their logs")
	case len(leaders) > 1:
		return finding("quorum", Warn, text+"; they do not agree on who leads", "an election may be going on: ask again; else see that they reach one another")
	case there == need && voters > 1:
		return finding("quorum", Warn, text+": none may fail now", "bring the others back")
	case voters == 1:
		return finding("quorum", Warn, "there is one coordinator: if it fails everything waits", "add two with clary cluster add")
	}
	leader := ""
	for id := range leaders {
		leader = id
	}
	return well("quorum", "%s; %s leads", text, leader)
}

func versions(a ClusterAnswers) []Finding {
	of := map[string][]string{}
	for _, c := range a.Coordinators {
		if c.Err == nil && c.Version != "" {
			of[c.Version] = append(of[c.Version], "coordinator "+c.ID)
		}
	}
	for _, n := range a.Nodes {
		if n.State != cluster.NodeLost && n.Version != "" {
			of[n.Version] = append(of[n.Version], "node "+n.ID)
		}
	}
	var texts []string
	for version, who := range of {
		text := fmt.Sprintf("%s (%s", version, strings.Join(who[:min(len(who), 3)], ", "))
		if more := len(who) - 3; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		texts = append(texts, text+")")
	}
	slices.Sort(texts)
	switch len(texts) {
	case 0:
		return nil
	case 1:
		return well("versions", "%s", texts[0])
	}
	return finding("versions", Warn, "they differ: "+strings.Join(texts, "; "), "finish the upgrade: coordinators first, then agents")
}

func nodes(a ClusterAnswers) []Finding {
	if a.NodesErr != nil {
		return finding("nodes", Warn, a.NodesErr.Error(), "")
	}
	var lost, low []string
	for _, n := range a.Nodes {
		switch {
		case n.State == cluster.NodeLost:
			lost = append(lost, n.ID)
		case slices.Contains(n.Taints, rpc.LowDisk):
			low = append(low, n.ID)
		}
	}
	var found []Finding
	if len(lost) > 0 {
		found = finding("nodes", Warn, "lost: "+strings.Join(lost, ", "), "start their agents, or clary nodes remove those that will not come back")
	}
	if len(low) > 0 {
		found = append(found, finding("nodes", Warn, "their disks are low, and nothing new is placed there: "+strings.Join(low, ", "), "free some, or give --cache, --images and --task-disk of their agents less")...)
	}
	if len(found) > 0 {
		return found
	}
	return well("nodes", "%d, none is lost", len(a.Nodes))
}

// backups judges whether the cluster could be brought back. One may be late by as much as lies between two.
func backups(b BackupsAnswer, now time.Time) []Finding {
	age := now.Sub(b.Newest).Round(time.Second)
	text := fmt.Sprintf("the newest is of %s, %s ago", b.Newest.UTC().Format(time.RFC3339), age)
	if b.Newest.IsZero() {
		text = "there is none"
	}
	const make = "clary settings set backup.to=s3://… backup.recipients=age1… backup.every=6h; see docs/operations.md"
	switch {
	case b.Failed != "":
		return finding("backups", Fail, text+", and the last that was tried was not made: "+b.Failed, "mend that; clary cluster backup now tries again")
	case b.Every == 0 && b.Newest.IsZero():
		return finding("backups", Warn, "there is none, and none is made by itself: if the coordinators' disks are lost, so is the cluster", make)
	case b.Every == 0:
		return finding("backups", Warn, text+", and none is made by itself", make)
	case b.Newest.IsZero(), age > 2*b.Every:
		return finding("backups", Fail, fmt.Sprintf("%s, and one is due every %s", text, b.Every), "see the leader's log; clary cluster backup now tries again")
	}
	return well("backups", "%s", text)
}
