package shell

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/clary-ml/clary/internal/fault"
)

// CheckFormat refuses an --output that there is not.
func (a *App) CheckFormat() error {
	switch a.Format {
	case "", "table", "json", "yaml":
		return nil
	}
	return fault.New(fault.Invalid, "--output: %q is unknown: table, json or yaml", a.Format)
}

// ForPeople reports whether the answer is to be read by a person.
func (a *App) ForPeople() bool { return a.Format == "" || a.Format == "table" }

// Print writes a value as JSON or YAML, or calls table for people.
func (a *App) Print(value any, table func(io.Writer) error) error {
	if a.ForPeople() {
		return table(a.Out)
	}
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	if a.Format == "yaml" {
		if text, err = toYAML(text); err != nil {
			return err
		}
	} else {
		text = append(text, '\n')
	}
	_, err = a.Out.Write(text)
	return err
}

// toYAML rewrites JSON as YAML, fields in the same order.
func toYAML(text []byte) ([]byte, error) {
	var node yaml.Node
	if err := yaml.Unmarshal(text, &node); err != nil {
		return nil, err
	}
	plain(&node)
	return yaml.Marshal(&node)
}

func plain(node *yaml.Node) {
	node.Style = 0
	for _, child := range node.Content {
		plain(child)
	}
}

// Table writes rows in columns, the first one in capitals as the heading.
func Table(out io.Writer, heading []string, rows [][]string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.ToUpper(strings.Join(heading, "\t")))
	for _, row := range rows {
		for i, cell := range row {
			if row[i] = OneLine(cell); row[i] == "" {
				row[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// Fields writes name and value pairs, those without a value left out.
func Fields(out io.Writer, pairs ...string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			continue
		}
		lines := strings.Split(pairs[i+1], "\n")
		for i, line := range lines {
			lines[i] = OneLine(line)
		}
		fmt.Fprintf(w, "%s\t%s\n", pairs[i], strings.Join(lines, "\n\t"))
	}
	return w.Flush()
}

// OneLine makes a stranger's text safe for a line of a terminal.
func OneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

// Span reads like "3m12s": two units at most, nothing below a second after a minute.
func Span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// Ago is the span since an instant, empty for never.
func Ago(instant int64) string {
	if instant == 0 {
		return ""
	}
	return Span(time.Since(time.Unix(0, instant)))
}

// Moment is an instant for programs, empty for never.
func Moment(instant int64) string {
	if instant == 0 {
		return ""
	}
	return time.Unix(0, instant).UTC().Format(time.RFC3339Nano)
}

// Date is an instant for people, empty for never.
func Date(instant int64) string {
	if instant == 0 {
		return ""
	}
	return time.Unix(0, instant).UTC().Format(time.RFC3339)
}

// Note says something beside the answer, on standard error.
func (a *App) Note(format string, args ...any) { fmt.Fprintf(a.Err, format+"\n", args...) }
