package shell

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// Word is yes or no, as the condition is.
func Word(condition bool, yes, no string) string {
	if condition {
		return yes
	}
	return no
}

// JobStates in the order of a job's life, for flags and completion.
var JobStates = []string{"queued", "running", "publishing", "stopping", "succeeded", "failed", "cancelled"}

// Pairs reads key=value flags.
func Pairs(flag string, texts []string) (map[string]string, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	values := map[string]string{}
	for _, text := range texts {
		key, value, found := strings.Cut(text, "=")
		if !found || key == "" {
			return nil, fault.New(fault.Invalid, "%s: %q is not key=value", flag, text)
		}
		values[key] = value
	}
	return values, nil
}

// StateText is a job's state, and whether it is held or about to be cancelled.
func StateText(job cluster.Job) string {
	switch {
	case job.State == cluster.JobQueued && job.Held:
		return "queued (held)"
	case job.Cancel && !job.State.Ended():
		return string(job.State) + " (cancelled)"
	}
	return string(job.State)
}

// Took is how long the job has run, or ran.
func Took(job cluster.Job) string {
	switch {
	case job.Started == 0:
		return ""
	case job.Ended == 0:
		return Ago(job.Started)
	}
	return Span(time.Duration(job.Ended - job.Started))
}

// Cut shortens text to so many characters.
func Cut(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

// Amount is how much an output is.
func Amount(output cluster.Output) string {
	size := cluster.FormatBytes(output.Size)
	if output.Files > 0 {
		size += fmt.Sprintf(" in %d file", output.Files)
		if output.Files > 1 {
			size += "s"
		}
	}
	return size
}

// NonZero is the number, or nothing.
func NonZero(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// Suffixed is text with a suffix, or nothing.
func Suffixed(text, suffix string) string {
	if text == "" {
		return ""
	}
	return text + suffix
}

// LabelText lists labels in the order of their keys.
func LabelText(labels map[string]string) string {
	var texts []string
	for _, key := range SortedKeys(labels) {
		texts = append(texts, key+"="+labels[key])
	}
	return strings.Join(texts, " ")
}

// SortedKeys are the keys of a map in order.
func SortedKeys[K ~string, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// ShortTask is "worker-0.1": a task's ID without its job and gang.
func ShortTask(task cluster.Task) string {
	return task.ID[strings.LastIndexByte(task.ID, '/')+1:]
}

// NonZeroPrefixed is the number behind a prefix, or nothing.
func NonZeroPrefixed(prefix string, n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s%d", prefix, n)
}

// Joined are the parts that are not empty, two spaces apart.
func Joined(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), "  ")
}

// Number is a measured value in six digits.
func Number(value float64) string { return strconv.FormatFloat(value, 'g', 6, 64) }

// Section is a table with an empty line before it, if it has any rows.
func Section(out io.Writer, heading []string, rows [][]string) error {
	if len(rows) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	return Table(out, heading, rows)
}

// OrNone is text, or what stands for none.
func OrNone(text, none string) string {
	if text == "" {
		return none
	}
	return text
}

// OneOf checks a flag's word.
func OneOf(command *cobra.Command, flag, value string, words ...string) error {
	if slices.Contains(words, value) {
		return nil
	}
	return Usage(command, "--%s: %q is unknown: %s", flag, value, strings.Join(words, ", "))
}

// Shortly is a duration in its largest unit.
func Shortly(left time.Duration) string {
	switch {
	case left >= 48*time.Hour:
		return fmt.Sprintf("%d days", left/(24*time.Hour))
	case left >= 2*time.Hour:
		return fmt.Sprintf("%d hours", left/time.Hour)
	}
	return fmt.Sprintf("%d minutes", max(left/time.Minute, 1))
}
