package cluster

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Settings are how the whole cluster behaves, where an operator may have other wishes than we had. There is one row of them;
// nothing that changes by itself lives in it. AllSettings is the table of all, with their defaults and what they mean.
type Settings struct {
	Limits       Limits
	Retention    Retention
	Backup       Backup
	Certificates Certificates

	Revision uint64
}

// Limits are what the cluster lets in. What is beyond is refused, and changes nothing.
type Limits struct {
	Jobs           int64 // that have not ended
	UserJobs       int64 // of these, of one owner
	QueuedJobs     int64 // that wait
	UserQueuedJobs int64 // of these, of one owner

	// At each coordinator:
	UserRequests int64 // of one user, in a second
	UserBurst    int64 // that a user who was silent may make at once
	UserStreams  int64 // of one user, open at a time: what watches and follows
	RequestBytes int64 // of one request
	DiskFree     int64 // that a coordinator's disk is to have; with less it takes nothing new
}

// Retention is how long the cluster remembers what is over.
type Retention struct {
	// Jobs and JobsMost are how long ended jobs are at hand, and how many. Then they are archived: their records go to
	// the object store, beside what they left there, which stays.
	Jobs     time.Duration // 0: for ever
	JobsMost int64         // 0: any number
	// Outputs is how long what ended jobs left in the object store is kept: their outputs, logs, checkpoints and records.
	Outputs time.Duration // 0: for ever
	// Checkpoints is of how many attempts, the last ones, the checkpoints of each task are kept while its job is.
	Checkpoints int64         // 0: of all
	Tokens      time.Duration // tokens, after they have expired
	Orphans     time.Duration // objects below the cluster's own prefixes that nothing names
	Uploads     time.Duration // what commands have sent along, since it was last used, if nothing at hand names it
	Audit       time.Duration // what people did
	AuditMost   int64         // and of these at most so many
}

// Backup is where backups of the cluster go by themselves, and how often. All of it empty: nowhere.
type Backup struct {
	Every time.Duration // 0: never
	To    string        // s3://bucket/prefix
	Keep  int64         // how many; the oldest go first
	// Recipients are the public keys of age that backups are encrypted for, separated by commas.
	Recipients string
}

// Certificates are how long certificates last that the cluster makes from now on. Each is renewed when a third is left, so
// that a holder that reaches no coordinator for longer than that third may be cut off: a node has to join anew then.
type Certificates struct {
	Node, Task time.Duration
}

// Unit says how a setting is written.
type Unit string

// The units.
const (
	UnitCount    Unit = "count"    // 1000
	UnitBytes    Unit = "bytes"    // 64MiB
	UnitDuration Unit = "duration" // 90d, 36h
	UnitPercent  Unit = "percent"  // 5
	UnitText     Unit = "text"
)

// Setting is a row of the table: one thing that can be set.
type Setting struct {
	Path    string // like "retention.audit"
	Unit    Unit
	Default int64
	// Least and Most bound a number; 0 is allowed beside them if Zero says what it means.
	Least, Most int64
	Zero        string
	Means       string

	number func(*Settings) int64
	put    func(*Settings, int64)
	text   func(*Settings) *string
}

// LongestCertificate is the most that certificates can be set to last.
const LongestCertificate = 365 * 24 * time.Hour

const (
	day = int64(24 * time.Hour)
	// With less there is no time to ask twice before the end.
	shortestCertificate = int64(30 * time.Second)
)

// table is what can be set. Commands read these numbers while they are applied, so that a default or bound changes only together
// with the format of commands: two builds that take different ones for granted would not come to the same state.
var table = []Setting{
	amount("limits.jobs", UnitCount, 0, 1, 1<<24, "no limit", "jobs of all queues that have not ended; one more is refused", func(s *Settings) *int64 { return &s.Limits.Jobs }),
	amount("limits.user_jobs", UnitCount, 0, 1, 1<<24, "no limit", "of these, those of one user", func(s *Settings) *int64 { return &s.Limits.UserJobs }),
	amount("limits.queued_jobs", UnitCount, 0, 1, 1<<24, "no limit", "jobs of all queues that wait; one more is refused", func(s *Settings) *int64 { return &s.Limits.QueuedJobs }),
	amount("limits.user_queued_jobs", UnitCount, 0, 1, 1<<24, "no limit", "of these, those of one user", func(s *Settings) *int64 { return &s.Limits.UserQueuedJobs }),
	amount("limits.user_requests", UnitCount, 5_000, 1, 1_000_000, "no limit", "requests of one user in a second, at each coordinator; one more is refused", func(s *Settings) *int64 { return &s.Limits.UserRequests }),
	amount("limits.user_burst", UnitCount, 10_000, 1, 1_000_000, "", "requests that a user may make at once after a silence", func(s *Settings) *int64 { return &s.Limits.UserBurst }),
	amount("limits.user_streams", UnitCount, 1_000, 1, 100_000, "no limit", "streams of one user that are open at a time, at each coordinator: watching, following, connecting", func(s *Settings) *int64 { return &s.Limits.UserStreams }),
	amount("limits.request_bytes", UnitBytes, 16<<20, 64<<10, 16<<20, "", "the size of one request; larger things come in parts", func(s *Settings) *int64 { return &s.Limits.RequestBytes }),
	amount("limits.disk_free", UnitBytes, 1<<30, 1<<20, 1<<50, "as much as the log and a snapshot may need", "what a coordinator's disk is to have free, or a twentieth of it if that is less; with less another leads, and if none has more, nothing new is taken", func(s *Settings) *int64 { return &s.Limits.DiskFree }),
	amount("retention.jobs", UnitDuration, 365*day, int64(time.Minute), 3650*day, "for ever", "how long ended jobs are at hand; then they are archived, and what they left in the object store stays", func(s *Settings) *time.Duration { return &s.Retention.Jobs }),
	amount("retention.jobs_most", UnitCount, 100_000, 10, 10_000_000, "any number", "and of these at most so many; those that ended first are archived first", func(s *Settings) *int64 { return &s.Retention.JobsMost }),
	amount("retention.outputs", UnitDuration, 0, int64(time.Minute), 3650*day, "for ever", "how long ended jobs are kept at all, archived or not; then they are deleted with their outputs, logs and checkpoints", func(s *Settings) *time.Duration { return &s.Retention.Outputs }),
	amount("retention.checkpoints", UnitCount, 3, 2, 1_000_000, "all", "of how many attempts a task's checkpoints are kept while its job is: the last that left some; and of the last that came beyond what it began with", func(s *Settings) *int64 { return &s.Retention.Checkpoints }),
	amount("retention.tokens", UnitDuration, 30*day, int64(time.Hour), 3650*day, "", "how long tokens are kept after they have expired", func(s *Settings) *time.Duration { return &s.Retention.Tokens }),
	amount("retention.orphans", UnitDuration, 7*day, int64(time.Hour), 3650*day, "for ever", "how long objects are kept below jobs/ and models/ of the system's bucket that no job and no version names", func(s *Settings) *time.Duration { return &s.Retention.Orphans }),
	amount("retention.uploads", UnitDuration, 90*day, day, 3650*day, "for ever", "how long code and data that commands sent along are kept after their last use, once no job at hand, endpoint or version names them", func(s *Settings) *time.Duration { return &s.Retention.Uploads }),
	amount("retention.audit", UnitDuration, 90*day, day, 3650*day, "", "how long the audit's entries are kept", func(s *Settings) *time.Duration { return &s.Retention.Audit }),
	amount("retention.audit_most", UnitCount, 100_000, 1000, 10_000_000, "", "and of these at most so many; the oldest go first", func(s *Settings) *int64 { return &s.Retention.AuditMost }),
	amount("backup.every", UnitDuration, 0, int64(time.Minute), 366*day, "no backups by themselves", "how often the cluster is backed up", func(s *Settings) *time.Duration { return &s.Backup.Every }),
	worded("backup.to", "where backups go, an s3://bucket/prefix", func(s *Settings) *string { return &s.Backup.To }),
	worded("backup.recipients", "whom backups are encrypted for: public keys of age (age1…), separated by commas", func(s *Settings) *string { return &s.Backup.Recipients }),
	amount("backup.keep", UnitCount, 14, 1, 10_000, "", "how many backups are kept; the oldest go first", func(s *Settings) *int64 { return &s.Backup.Keep }),
	amount("certificates.node", UnitDuration, 30*day, shortestCertificate, int64(LongestCertificate), "", "how long certificates of coordinators and agents last; a third of it is how long an agent may be away", func(s *Settings) *time.Duration { return &s.Certificates.Node }),
	amount("certificates.task", UnitDuration, 7*day, shortestCertificate, int64(LongestCertificate), "", "how long certificates of tasks last that talk to one another; they are renewed while the task runs", func(s *Settings) *time.Duration { return &s.Certificates.Task }),
}

func amount[T ~int64](path string, unit Unit, open, least, most int64, zero, means string, at func(*Settings) *T) Setting {
	return Setting{
		Path: path, Unit: unit, Default: open, Least: least, Most: most, Zero: zero, Means: means,
		number: func(s *Settings) int64 { return int64(*at(s)) },
		put:    func(s *Settings, value int64) { *at(s) = T(value) },
	}
}

func worded(path, means string, at func(*Settings) *string) Setting {
	return Setting{Path: path, Unit: UnitText, Most: maxSettingText, Means: means, text: at}
}

const maxSettingText = 1024

// SettingsID is under what name the one row of settings changes.
const SettingsID = "cluster"

// AllSettings is the table of what can be set.
func AllSettings() []Setting { return slices.Clone(table) }

// FindSetting returns a row of the table by its path.
func FindSetting(path string) (Setting, bool) {
	at := slices.IndexFunc(table, func(s Setting) bool { return s.Path == path })
	if at < 0 {
		return Setting{}, false
	}
	return table[at], true
}

// DefaultSettings are those of a cluster in which nobody has set anything.
func DefaultSettings() Settings {
	var made Settings
	for _, setting := range table {
		setting.Reset(&made)
	}
	return made
}

// Reset puts the default in.
func (s Setting) Reset(of *Settings) { s.Put(of, s.Default, "") }

// Put sets it: a text has text, all others number.
func (s Setting) Put(of *Settings, number int64, text string) {
	if s.text != nil {
		*s.text(of) = text
		return
	}
	s.put(of, number)
}

// Of is what it is set to.
func (s Setting) Of(all Settings) (number int64, text string) {
	if s.text != nil {
		return 0, *s.text(&all)
	}
	return s.number(&all), ""
}

// IsDefault reports whether it is what it would be if nobody had set it.
func (s Setting) IsDefault(of Settings) bool {
	number, text := s.Of(of)
	return number == s.Default && text == ""
}

// Validate reports every mistake in the settings.
func (s Settings) Validate() Problems {
	var p Problems
	for _, setting := range table {
		value, words := setting.Of(s)
		if setting.Unit == UnitText {
			if len(words) > maxSettingText {
				p.Add("settings."+setting.Path, "has %d bytes: at most %d", len(words), maxSettingText)
			}
			continue
		}
		if value == 0 && setting.Zero != "" || value >= setting.Least && value <= setting.Most {
			continue
		}
		p.Add("settings."+setting.Path, "%s is out of range: %s", setting.Format(value), setting.Range())
	}
	p.Under("settings.backup", s.Backup.Validate())
	return p
}

// Validate reports every mistake in how the parts of it fit.
func (b Backup) Validate() Problems {
	var p Problems
	bucket, isS3 := strings.CutPrefix(b.To, "s3://")
	switch {
	case b.To != "" && (!isS3 || bucket == "" || bucket[0] == '/'):
		p.Add("to", "%q is not s3://bucket/prefix", Clip(b.To))
	case b.Every > 0 && b.To == "":
		p.Add("to", "is empty: say where the backups go that are made every %s", b.Every)
	case b.Every > 0 && len(b.RecipientList()) == 0:
		p.Add("recipients", "is empty: backups are encrypted; name the public keys (age1…) of those who may restore them")
	}
	return p
}

// RecipientList are the recipients one by one.
func (b Backup) RecipientList() []string {
	return strings.FieldsFunc(b.Recipients, func(r rune) bool { return r == ',' || r == ' ' })
}

// Format is a number as people write it in its unit, exactly: 64MiB, 90d.
func (s Setting) Format(value int64) string {
	switch s.Unit {
	case UnitBytes:
		units := []string{"", "KiB", "MiB", "GiB", "TiB", "PiB"}
		unit := 0
		for value != 0 && value%1024 == 0 && unit < len(units)-1 {
			value, unit = value/1024, unit+1
		}
		return strconv.FormatInt(value, 10) + units[unit]
	case UnitDuration:
		if value == 0 {
			return "0"
		}
		if value%day == 0 {
			return strconv.FormatInt(value/day, 10) + "d"
		}
		text := time.Duration(value).String()
		if short, ok := strings.CutSuffix(text, "m0s"); ok {
			text = short + "m"
		}
		if short, ok := strings.CutSuffix(text, "h0m"); ok {
			text = short + "h"
		}
		return text
	}
	return strconv.FormatInt(value, 10)
}

// Text is what it is set to, as people write it.
func (s Setting) Text(of Settings) string {
	number, text := s.Of(of)
	if s.Unit == UnitText {
		return text
	}
	return s.Format(number)
}

// Range says what it may be set to; empty for a text.
func (s Setting) Range() string {
	switch {
	case s.Unit == UnitText:
		return ""
	case s.Zero != "":
		return "from " + s.Format(s.Least) + " to " + s.Format(s.Most) + ", or 0: " + s.Zero
	}
	return "from " + s.Format(s.Least) + " to " + s.Format(s.Most)
}
