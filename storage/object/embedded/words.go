package embedded

import (
	"bytes"
	"log/slog"
	"regexp"
)

// longestLine is how much of a line is kept: what a stranger sent may stand in it.
const longestLine = 512

// colour is what the gateway paints its lines with.
var colour = regexp.MustCompile("\x1b\\[[0-9;]*m")

// routine is what it says though nothing is wrong: after a SIGHUP, that it has read its certificate.
var routine = regexp.MustCompile(`^srv cert reloaded `)

// words passes what the store's process says on to our log, a line each. The gateway has a line for every connection that is no TLS, so
// the log has to be a sparing one.
type words struct {
	log  *slog.Logger
	line []byte
	over bool // the line is longer than is kept
}

// Write implements io.Writer; os/exec calls it from one goroutine.
func (w *words) Write(p []byte) (int, error) {
	n := len(p)
	for {
		end := bytes.IndexByte(p, '\n')
		part := p
		if end >= 0 {
			part = p[:end]
		}
		room := longestLine - len(w.line)
		w.line = append(w.line, part[:min(len(part), room)]...)
		w.over = w.over || len(part) > room
		if end < 0 {
			return n, nil
		}
		w.say()
		p = p[end+1:]
	}
}

func (w *words) say() {
	text := string(bytes.TrimSpace(colour.ReplaceAll(w.line, nil)))
	if w.over {
		text += " ..."
	}
	w.line, w.over = w.line[:0], false
	switch {
	case text == "":
	case routine.MatchString(text):
		w.log.Info("the object store says", "line", text)
	default:
		w.log.Warn("the object store says", "line", text)
	}
}
