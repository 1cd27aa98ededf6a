// Package report is what pages that show results have in common: a head with facts and tiles,
// pictures drawn as SVG that stands in the page, one style, and figures as text. Each kind of
// page is a package of its own. A page is one file that needs nothing else: no network, no other
// file, and no script to be read.
package report

import (
	"bytes"
	_ "embed" // the pages' parts
	"fmt"
	"html/template"
	"io"
	"strconv"
	"strings"
)

//go:embed parts.html
var parts string

//go:embed page.css
var style string

// Head is what every page begins with. A page's data embeds it.
type Head struct {
	Name  string
	Kind  string // of page, in the window's title
	Facts []string
	Tiles []Tile
	Style template.CSS
	// Script is the page's; without one its content security policy allows none.
	Script template.JS
}

// Tile is one figure in large letters.
type Tile struct{ Label, Value, Note, Class string }

// NewHead makes a head in the style of all pages.
func NewHead(name, kind string, facts []string, tiles []Tile) Head {
	return Head{Name: name, Kind: kind, Facts: facts, Tiles: tiles, Style: template.CSS(style)} //nolint:gosec // it is ours
}

// Write fills a page's template, which may use the parts "head", "facts" and "tiles". Nothing is
// written if it cannot be filled.
func Write(w io.Writer, page string, data any) error {
	parsed, err := template.New("parts").Parse(parts)
	if err != nil {
		return err
	}
	if parsed, err = parsed.New("page").Parse(page); err != nil {
		return err
	}
	var b bytes.Buffer
	if err := parsed.Execute(&b, data); err != nil {
		return err
	}
	_, err = w.Write(b.Bytes())
	return err
}

// Number5 is a number in five digits.
func Number5(v float64) string {
	return strings.Replace(strconv.FormatFloat(v, 'g', 5, 64), "e+", "e", 1)
}

// Percent is a share in whole percent.
func Percent(share float64) string {
	if share > 0 && share < 0.01 {
		return "<1 %"
	}
	return fmt.Sprintf("%.0f %%", 100*share)
}

// Plural is a number of things.
func Plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return strconv.Itoa(n) + " " + word + "s"
}
