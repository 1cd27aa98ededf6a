package cluster

import (
	"fmt"
	"strings"
	"time"
)

// NewLife names the life of a cluster that begins when it is restored from a snapshot. Lives are compared as texts: the
// one that began later is greater, and "" is the first, which every cluster begins with. Members of two lives share keys and
// names, and may have agreed on different things since: they do not take part in one another's.
func NewLife(now time.Time, before, random string) string {
	began := uint64(max(now.Unix(), 0))
	if at, _, ok := strings.Cut(before, "-"); ok {
		var earlier uint64
		if _, err := fmt.Sscanf(at, "%x", &earlier); err == nil && earlier >= began {
			began = earlier + 1 // by a clock that goes wrong
		}
	}
	return fmt.Sprintf("%010x-%s", began, random)
}

// LifeText says which life it is, as people read it.
func LifeText(life string) string {
	at, _, ok := strings.Cut(life, "-")
	var began int64
	if _, err := fmt.Sscanf(at, "%x", &began); !ok || err != nil {
		return "the first life of the cluster"
	}
	return "the life that began when the cluster was restored at " + time.Unix(began, 0).UTC().Format(time.RFC3339)
}
