package cluster

import (
	"fmt"
	"slices"
	"strings"
)

// Problem is one mistake in a noun: where it is, and what would be right.
type Problem struct {
	Field string // path from the noun's root, e.g. "roles[1].ask.memory"
	Text  string // the offending value and the remedy
}

// Problems are all the mistakes found in one noun. A nil Problems is no mistake.
type Problems []Problem

// Add records one mistake.
func (p *Problems) Add(field, format string, args ...any) {
	*p = append(*p, Problem{Field: field, Text: fmt.Sprintf(format, args...)})
}

// Under adds the mistakes of a part of the noun, its fields prefixed with the part's.
func (p *Problems) Under(prefix string, part Problems) {
	for _, problem := range part {
		field := prefix
		switch {
		case problem.Field == "":
		case prefix == "" || strings.HasPrefix(problem.Field, "["):
			field = prefix + problem.Field
		default:
			field = prefix + "." + problem.Field
		}
		*p = append(*p, Problem{Field: field, Text: problem.Text})
	}
}

// Err returns nil for no mistakes, else an error that lists them all, a line each.
func (p Problems) Err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

// Error lists the mistakes in the order they were found, a line each.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// String is "field: text", or the text alone for a mistake of the whole noun.
func (p Problem) String() string {
	if p.Field == "" {
		return p.Text
	}
	return p.Field + ": " + p.Text
}

// MaxName is the longest name, in bytes, of a job, queue, node, role or gang.
const MaxName = 63

// CheckName reports a name that is not 1 to 63 of a-z, 0-9 and '-', beginning and
// ending with a letter or digit (the DNS label of RFC 1123, so that names can be
// host names and object keys).
func CheckName(p *Problems, field, name string) {
	letterOrDigit := func(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
	ok := len(name) >= 1 && len(name) <= MaxName
	for i := 0; ok && i < len(name); i++ {
		edge := i == 0 || i == len(name)-1
		ok = letterOrDigit(name[i]) || name[i] == '-' && !edge
	}
	if !ok {
		p.Add(field, "%q is not a name: use 1 to %d of a-z, 0-9 and '-', beginning and ending with a letter or digit", Clip(name), MaxName)
	}
}

// Clip shortens a text that a stranger sent to at most 80 bytes for an error message.
func Clip(text string) string {
	if len(text) <= 80 {
		return text
	}
	return strings.ToValidUTF8(text[:77], "") + "..."
}

func checkLabels(p *Problems, field string, labels map[string]string) {
	if len(labels) > 64 {
		p.Add(field, "%d labels: at most 64", len(labels))
	}
	for _, key := range sortedKeys(labels) {
		if key == "" || len(key) > 128 || len(labels[key]) > 256 {
			p.Add(field, "label %q: keys take 1 to 128 bytes, values up to 256", Clip(key))
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
