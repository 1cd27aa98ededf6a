package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/journal"
)

// logClaims hold for what tasks write.
var logClaims = []claim{
	{"keeps what a task writes as it is, by stream", logs},
	{"keeps the order of both streams, at times that increase", order},
	{"follows a log until the task has ended", follow},
	{"gives only the last lines when asked", tail},
	{"gives what was written between two instants", between},
	{"gives the lines in which a text is found", match},
	{"goes on after any entry, losing and doubling nothing", resume},
	{PartialClaim, partial},
	{"bounds a flood and keeps its end", flood},
	{"keeps a log over a restart of the agent", logRestart},
}

// entries collects what a query wants, and sees that times increase.
func (b *bench) entries(id string, query journal.Query) []journal.Entry {
	b.Helper()
	var all []journal.Entry
	b.must(b.driver.Logs(b.ctx, id, query, collect(&all)))
	for i := 1; i < len(all); i++ {
		if all[i].Time <= all[i-1].Time {
			b.Fatalf("entry %d at %d follows one at %d", i, all[i].Time, all[i-1].Time)
		}
	}
	return all
}

func collect(to *[]journal.Entry) journal.Sink {
	return func(batch []journal.Entry) error {
		for _, e := range batch {
			e.Text = bytes.Clone(e.Text)
			*to = append(*to, e)
		}
		return nil
	}
}

// raw is what the entries' streams wrote.
func raw(entries []journal.Entry) string {
	var text []byte
	for _, e := range entries {
		text = e.AppendRaw(text)
	}
	return string(text)
}

func logs(b *bench) {
	id := b.start(`echo to stdout; echo to stderr >&2; printf 'a\000b\r\n\n'; printf unfinished`)
	b.wait(id)
	for stream, want := range map[string]string{runtime.Stdout: "to stdout\na\x00b\r\n\nunfinished", runtime.Stderr: "to stderr\n", "other": ""} {
		if got := b.log(id, stream); got != want {
			b.Errorf("%s is %q, want %q", stream, got, want)
		}
	}
	long := strings.Repeat("0123456789", 5000)
	other := b.spec("i=0; while [ $i -lt 5000 ]; do printf 0123456789; i=$((i+1)); done; echo; echo after", func(s *runtime.Spec) { s.ID = "job/main/worker-1.1" })
	_, err := b.driver.Start(b.ctx, other)
	b.must(err)
	b.wait(other.ID)
	if got := b.log(other.ID, runtime.Stdout); got != long+"\nafter\n" {
		b.Errorf("a line of %d bytes is one of %d", len(long), len(got))
	}
}

func order(b *bench) {
	began := time.Now()
	id := b.start("for i in 1 2 3 4 5; do echo out $i; sleep 0.05; echo err $i >&2; sleep 0.05; done")
	b.wait(id)
	var want strings.Builder
	for i := range 5 {
		fmt.Fprintf(&want, "out %d\nerr %d\n", i+1, i+1)
	}
	all := b.entries(id, journal.Query{})
	if got := raw(all); got != want.String() {
		b.Errorf("it wrote %q", got)
	}
	const slack = int64(2 * time.Second) // an engine may cut times to seconds
	if first, last := all[0].Time, all[len(all)-1].Time; first < began.UnixNano()-slack || last > time.Now().UnixNano()+slack {
		b.Errorf("it wrote from %s to %s; it ran from %s to %s", time.Unix(0, first), time.Unix(0, last), began, time.Now())
	}
}

func follow(b *bench) {
	id := b.start("for i in 1 2 3; do echo $i; sleep 0.05; done")
	if got := raw(b.entries(id, journal.Query{Follow: true})); got != "1\n2\n3\n" {
		b.Errorf("followed %q", got)
	}
}

func tail(b *bench) {
	id := b.start("seq 1 1000; sleep 0.1; echo complaint >&2")
	b.wait(id)
	out := []string{runtime.Stdout}
	for _, c := range []struct {
		query journal.Query
		want  string
	}{
		{journal.Query{Tail: 1}, "complaint\n"},
		{journal.Query{Tail: 1, Streams: out}, "1000\n"},
		{journal.Query{Tail: 3, Streams: out}, "998\n999\n1000\n"},
		{journal.Query{Tail: 2, Match: regexp.MustCompile("^7")}, "798\n799\n"},
	} {
		if got := raw(b.entries(id, c.query)); got != c.want {
			b.Errorf("%+v gives %q", c.query, got)
		}
		c.query.Follow = true
		if got := raw(b.entries(id, c.query)); got != c.want {
			b.Errorf("%+v, followed, gives %q", c.query, got)
		}
	}
	if got := b.entries(id, journal.Query{Streams: out, Tail: 5000}); len(got) != 1000 {
		b.Errorf("asking for more lines than there are gives %d", len(got))
	}
}

func between(b *bench) {
	id := b.start("for i in 1 2 3 4; do echo $i; sleep 0.7; done")
	b.wait(id)
	all := b.entries(id, journal.Query{})
	if len(all) != 4 {
		b.Fatalf("it wrote %q", raw(all))
	}
	for i := range all {
		for j := i; j < len(all); j++ {
			got := raw(b.entries(id, journal.Query{Since: all[i].Time, Until: all[j].Time}))
			if want := raw(all[i:j]); got != want {
				b.Errorf("from the instant of %s to that of %s it wrote %q", all[i].Text, all[j].Text, got)
			}
		}
	}
	if got := b.entries(id, journal.Query{Since: all[3].Time + int64(time.Hour)}); len(got) != 0 {
		b.Errorf("an hour later it wrote %q", raw(got))
	}
}

func match(b *bench) {
	id := b.start("echo loss 0.5; echo loss 0.5 >&2; echo accuracy 0.5")
	b.wait(id)
	for text, want := range map[string]int{"loss": 2, "0.5$": 3, "^a": 1, "nothing": 0} {
		if got := b.entries(id, journal.Query{Match: regexp.MustCompile(text)}); len(got) != want {
			b.Errorf("%s is found in %q", text, raw(got))
		}
	}
}

func resume(b *bench) {
	id := b.start("for i in 1 2 3 4 5 6 7 8; do echo $i; echo err $i >&2; sleep 0.1; done; while [ ! -e go ]; do sleep 0.02; done; echo end")
	var seen []journal.Entry
	enough := errors.New("enough")
	for len(seen) < 16 { // as a reader that is cut off again and again
		query := journal.Query{Follow: true}
		if len(seen) > 0 {
			query.After = seen[len(seen)-1].Time
		}
		err := b.driver.Logs(b.ctx, id, query, func(batch []journal.Entry) error {
			return errors.Join(collect(&seen)(batch[:min(len(batch), 3)]), enough)
		})
		if !errors.Is(err, enough) {
			b.Fatalf("after %d entries: %v", len(seen), err)
		}
	}
	b.must(os.WriteFile(filepath.Join(b.work(), "go"), nil, 0o600))
	b.wait(id)
	all := b.entries(id, journal.Query{})
	if len(all) != 17 || !same(seen, all[:16]) {
		b.Errorf("in parts it is %q, in one %q", raw(seen), raw(all))
	}
	for i, e := range all {
		if got := b.entries(id, journal.Query{After: e.Time}); !same(got, all[i+1:]) {
			b.Errorf("after %q comes %q", e.Text, raw(got))
		}
	}
}

func same(a, b []journal.Entry) bool {
	return slices.EqualFunc(a, b, func(a, b journal.Entry) bool {
		return a.Time == b.Time && a.Stream == b.Stream && a.Partial == b.Partial && bytes.Equal(a.Text, b.Text)
	})
}

func partial(b *bench) {
	id := b.start(`printf 'go on? '; while [ ! -e go ]; do sleep 0.01; done; echo yes`)
	b.until(id, "go on? ")
	b.must(os.WriteFile(filepath.Join(b.work(), "go"), nil, 0o600))
	b.wait(id)
	if got := b.log(id, runtime.Stdout); got != "go on? yes\n" {
		b.Errorf("it wrote %q", got)
	}
}

func flood(b *bench) {
	const keep = 256 << 10
	id := b.start("seq 1 60000; sleep 0.1; echo end", func(s *runtime.Spec) { s.LogBytes = keep })
	b.wait(id)
	all := b.entries(id, journal.Query{})
	var size int64
	for _, e := range all {
		size += e.Size()
	}
	if size > keep || len(all) == 0 || string(all[len(all)-1].Text) != "end" {
		b.Errorf("%d bytes in %d entries are kept", size, len(all))
	}
	// An engine may cut a line in two, and what is kept may begin inside one.
	lines := strings.Split(strings.TrimSuffix(raw(all), "\nend\n"), "\n")
	for i := 2; i < len(lines); i++ {
		before, err := strconv.Atoi(lines[i-1])
		if now, err2 := strconv.Atoi(lines[i]); err != nil || err2 != nil || now != before+1 {
			b.Fatalf("%q follows %q", lines[i], lines[i-1])
		}
	}
}

func logRestart(b *bench) {
	id := b.start("echo before; while [ ! -e go ]; do sleep 0.01; done; echo after")
	b.until(id, "before")
	reading, cancel := context.WithCancel(b.ctx)
	defer cancel()
	over := make(chan error, 1)
	old := b.driver
	go func() {
		over <- old.Logs(reading, id, journal.Query{Follow: true}, func([]journal.Entry) error { return nil })
	}()
	b.restartAgent(func() {})
	if err := <-over; !fault.Is(err, fault.Unready) && !fault.Is(err, fault.NotFound) {
		b.Errorf("when the agent ends, a reader is told %v: it must not take the log for complete", err)
	}
	b.must(os.WriteFile(filepath.Join(b.work(), "go"), nil, 0o600))
	if got := raw(b.entries(id, journal.Query{Follow: true})); got != "before\nafter\n" {
		b.Errorf("it wrote %q", got)
	}
}
