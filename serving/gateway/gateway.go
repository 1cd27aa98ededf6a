// Package gateway brings a router's connections to servers on other machines. A server listens on its
// own node only; the node's agent takes connections on the port that it has anyway, over mutual TLS
// under the protocol name clary-serve/1, and splices each to the task that its first line names.
//
// The line is "serve TASK\n", and is answered with "ok\n", after which the bytes are the server's; or
// with "no KIND: TEXT\n", a kind of fault and why. See DESIGN.md.
package gateway

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
)

// Protocol is the ALPN name under which agents take connections to their tasks.
const Protocol = "clary-serve/1"

// MaxLine is the longest first line, and the longest answer, in bytes with their ends.
const MaxLine = 512

const (
	verb     = "serve "
	accepted = "ok"
	refused  = "no "
)

var kinds = []fault.Kind{fault.Internal, fault.Invalid, fault.NotFound, fault.Conflict, fault.Denied, fault.Unready, fault.Exhausted}

// request is the line that asks for a task.
func request(task string) ([]byte, error) {
	if !isTask(task) {
		return nil, fault.New(fault.Invalid, "replica %q: is no task's ID", task)
	}
	return []byte(verb + task + "\n"), nil
}

// parseRequest reads the line that asks for a task.
func parseRequest(line string) (task string, err error) {
	task, ok := strings.CutPrefix(line, verb)
	if !ok || !isTask(task) {
		return "", fault.New(fault.Invalid, "the first line must be \"serve TASK\"")
	}
	return task, nil
}

// isTask reports whether a name can stand in a line.
func isTask(name string) bool {
	if name == "" || len(name) > MaxLine-len(verb)-1 {
		return false
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// answer is the line that says how it went.
func answer(err error) []byte {
	if err == nil {
		return []byte(accepted + "\n")
	}
	text := refused + fault.KindOf(err).String() + ": " + strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, err.Error())
	if len(text) >= MaxLine {
		text = strings.ToValidUTF8(text[:MaxLine-1], "")
	}
	return []byte(text + "\n")
}

// parseAnswer reads the line that says how it went.
func parseAnswer(line string) error {
	if line == accepted {
		return nil
	}
	said, ok := strings.CutPrefix(line, refused)
	name, text, cut := strings.Cut(said, ": ")
	if ok && cut {
		for _, kind := range kinds {
			if kind.String() == name {
				return fault.New(kind, "%s", text)
			}
		}
	}
	return fault.New(fault.Internal, "an agent answered %q", line)
}

var errLine = errors.New("the line has no end")

// readLine reads a line without its end, and not a byte beyond it: what follows is not ours.
func readLine(from io.Reader) (string, error) {
	var line bytes.Buffer
	one := make([]byte, 1)
	for line.Len() < MaxLine {
		if _, err := io.ReadFull(from, one); err != nil {
			return "", err
		}
		if one[0] == '\n' {
			return line.String(), nil
		}
		line.WriteByte(one[0])
	}
	return "", errLine
}
