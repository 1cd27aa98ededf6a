package agent

import (
	"slices"
	"time"

	"github.com/clary-ml/clary/agent/staging"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// cachedEvery is how often a connection tells of changes in the cache, at most: each time costs an entry of the log.
const cachedEvery = 30 * time.Second

// told is what a coordinator was told last of the inputs in the cache. A beat that is not answered ends its connection,
// and the next begins with all of it: so what was sent counts as known.
type told struct {
	digests []uint32
	at      time.Time // of the last change; the first is told at once
}

// all is what the cache holds, to be told with the hello.
func (t *told) all(cache *staging.Cache) []uint32 {
	t.digests = cache.Inputs()
	return t.digests
}

// change is what the cache holds, if that is something else than was told, and that is long enough ago; else nil.
func (t *told) change(cache *staging.Cache) *claryv1.CachedInputs {
	if time.Since(t.at) < cachedEvery {
		return nil
	}
	now := cache.Inputs()
	if slices.Equal(now, t.digests) {
		return nil
	}
	t.digests, t.at = now, time.Now()
	return &claryv1.CachedInputs{Digests: now}
}
