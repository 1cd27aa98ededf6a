package submit

import (
	"fmt"
	"io"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
)

// ShowWhy says what a gang waits for.
func ShowWhy(out io.Writer, why cluster.Why) {
	fmt.Fprintf(out, "%s: %s\n", why.Gang, shell.OneLine(why.Summary))
	for _, block := range why.Blocks {
		text := block.Text
		if text == "" {
			text = fmt.Sprintf("rules out %d nodes", block.Nodes)
		}
		if block.Only > 0 && len(why.Blocks) > 1 {
			text += fmt.Sprintf(" (%d would do but for this)", block.Only)
		}
		fmt.Fprintf(out, "  %s: %s\n", block.Constraint, shell.OneLine(text))
	}
}

// WhyJSON is what a gang waits for.
type WhyJSON struct {
	Gang     string      `json:"gang"`
	Summary  string      `json:"summary"`
	Queue    string      `json:"queue,omitempty"`
	Place    int32       `json:"place,omitempty"`
	Of       int32       `json:"of,omitempty"`
	Expected string      `json:"expected,omitempty"`
	Blocks   []blockJSON `json:"blocks,omitempty"`
}

type blockJSON struct {
	Constraint string   `json:"constraint"`
	Nodes      int32    `json:"nodes"`
	Only       int32    `json:"only,omitempty"`
	Missing    int64    `json:"missing,omitempty"`
	Nearest    string   `json:"nearest,omitempty"`
	Text       string   `json:"text,omitempty"`
	Gangs      []string `json:"gangs,omitempty"`
	Until      string   `json:"until,omitempty"`
}

// WhysToJSON are what gangs wait for.
func WhysToJSON(whys []cluster.Why) []WhyJSON {
	out := []WhyJSON{}
	for _, why := range whys {
		out = append(out, whyToJSON(why))
	}
	return out
}

func whyToJSON(why cluster.Why) WhyJSON {
	w := WhyJSON{Gang: why.Gang, Summary: why.Summary, Queue: why.Queue, Place: why.Place, Of: why.Of, Expected: shell.Moment(why.Expected)}
	for _, b := range why.Blocks {
		w.Blocks = append(w.Blocks, blockJSON{
			Constraint: b.Constraint, Nodes: b.Nodes, Only: b.Only, Missing: b.Missing, Nearest: b.Nearest,
			Text: b.Text, Gangs: b.Gangs, Until: shell.Moment(b.Until),
		})
	}
	return w
}
