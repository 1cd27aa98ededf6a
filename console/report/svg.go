package report

import (
	"encoding/json"
	"fmt"
	"html"
	"html/template"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/console/axes"
)

// drawing is an SVG picture in the making.
type drawing struct {
	b strings.Builder
}

// begin opens a picture of a size, with attributes for the page's script.
func (d *drawing) begin(width, height float64, label string, attributes ...string) {
	fmt.Fprintf(&d.b, `<svg viewBox="0 0 %g %g" role="img" aria-label="%s"`, width, height, html.EscapeString(label))
	for i := 0; i+1 < len(attributes); i += 2 {
		fmt.Fprintf(&d.b, ` data-%s="%s"`, attributes[i], html.EscapeString(attributes[i+1]))
	}
	d.b.WriteString(">")
}

func (d *drawing) end() template.HTML {
	d.b.WriteString("</svg>")
	return template.HTML(d.b.String()) //nolint:gosec // every text in it went through html.EscapeString
}

func (d *drawing) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(&d.b, `<line class="%s" x1="%s" y1="%s" x2="%s" y2="%s"/>`, class, px(x1), px(y1), px(x2), px(y2))
}

func (d *drawing) text(class string, x, y float64, text string) {
	fmt.Fprintf(&d.b, `<text class="%s" x="%s" y="%s">%s</text>`, class, px(x), px(y), html.EscapeString(text))
}

// clipped is a text of at most so many characters, with the whole as its title.
func (d *drawing) clipped(class string, x, y float64, text string, most int) {
	short := axes.Shorten(text, most)
	if short == text {
		d.text(class, x, y, text)
		return
	}
	fmt.Fprintf(&d.b, `<text class="%s" x="%s" y="%s">%s<title>%s</title></text>`, class, px(x), px(y), html.EscapeString(short), html.EscapeString(text))
}

func (d *drawing) path(class, path string) {
	if path != "" {
		fmt.Fprintf(&d.b, `<path class="%s" d="%s"/>`, class, path)
	}
}

func (d *drawing) circle(class string, x, y, r float64) {
	fmt.Fprintf(&d.b, `<circle class="%s" cx="%s" cy="%s" r="%s"/>`, class, px(x), px(y), px(r))
}

func (d *drawing) open(class string) { fmt.Fprintf(&d.b, `<g class="%s">`, class) }
func (d *drawing) close()            { d.b.WriteString("</g>") }

// frame draws the axes of a plot with their grid.
func (d *drawing) frame(x, y axes.Axis, xName, yName string) {
	d.open("frame")
	for _, t := range y.Ticks {
		at := y.Place(t.At)
		d.line("grid", x.From, at, x.To, at)
		d.text("tick y", x.From-8, at+3.5, t.Text)
	}
	last := x.From - 1e9
	for _, t := range x.Ticks {
		at := x.Place(t.At)
		d.line("grid", at, y.From, at, y.To)
		width := 6.5 * float64(len([]rune(t.Text)))
		if at-last < width+6 { // no room for its text
			continue
		}
		last = at
		d.text("tick x", at, y.From+16, t.Text)
	}
	d.line("axis", x.From, y.From, x.To, y.From)
	d.clipped("label x", (x.From+x.To)/2, y.From+34, xName, int((x.To-x.From)/6.5))
	if yName != "" {
		d.clipped("label y", x.From-8, y.To-12, yName, 48)
	}
	d.close()
}

// dot adds a point to a path whose line has round ends.
func dot(b *strings.Builder, x, y float64) {
	b.WriteString("M" + px(x) + " " + px(y) + "h0")
}

// shadeClass is the class of a shade.
func shadeClass(shade int) string { return "s" + strconv.Itoa(shade) }

// px is a pixel to a tenth.
func px(v float64) string {
	return strconv.FormatFloat(float64(int(v*10+0.5*sign(v)))/10, 'f', -1, 64)
}

func sign(v float64) float64 {
	if v < 0 {
		return -1
	}
	return 1
}

func asJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil { // no figure of an axis is infinite
		panic(err)
	}
	return string(text)
}
