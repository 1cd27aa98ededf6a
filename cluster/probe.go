package cluster

import (
	"net/url"
	"strings"
	"time"
)

// Probe is how a task's node finds out whether the task serves: a GET that is answered with 200. It
// goes to the first port that the task was given, or if it has none to its program's own.
type Probe struct {
	Path     string        // "/ping" if empty
	Startup  time.Duration // a task that has not served by then has failed; 0 is DefaultProbeStartup
	Every    time.Duration // between two probes once it has served; 0 is DefaultProbeEvery
	Timeout  time.Duration // of one probe; 0 is DefaultProbeTimeout
	Failures int32         // a task that has served fails after so many in a row; 0 is never
}

// What a probe has where it does not say.
const (
	DefaultProbePath    = "/ping"
	DefaultProbeStartup = 4 * time.Minute
	DefaultProbeEvery   = time.Second
	DefaultProbeTimeout = 2 * time.Second
)

// WithDefaults is the probe with everything said.
func (b Probe) WithDefaults() Probe {
	if b.Path == "" {
		b.Path = DefaultProbePath
	}
	if b.Startup == 0 {
		b.Startup = DefaultProbeStartup
	}
	if b.Every == 0 {
		b.Every = DefaultProbeEvery
	}
	if b.Timeout == 0 {
		b.Timeout = DefaultProbeTimeout
	}
	return b
}

// Validate reports every mistake in the probe.
func (b Probe) Validate() Problems {
	var p Problems
	if parsed, err := url.ParseRequestURI(b.Path); b.Path != "" && (err != nil || parsed.Host != "" || !strings.HasPrefix(b.Path, "/") || len(b.Path) > 1024) {
		p.Add("path", "%q is no path of at most 1024 bytes like /ping", Clip(b.Path))
	}
	checkDuration(&p, "startup", b.Startup, 0, 24*time.Hour)
	for _, one := range []struct {
		field string
		value time.Duration
	}{{"every", b.Every}, {"timeout", b.Timeout}} {
		if one.value != 0 {
			checkDuration(&p, one.field, one.value, 10*time.Millisecond, time.Hour)
		}
	}
	checkRange(&p, "failures", int64(b.Failures), 0, 1000)
	return p
}
