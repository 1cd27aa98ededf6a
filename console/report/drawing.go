package report

import (
	"fmt"
	"html"
	"html/template"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/console/axes"
)

// Sizes of plots in pixels of a page of full width, and of what stands around them.
const (
	Wide, Half, Third = 1140, 560, 366
	Left, Right, Top  = 62, 14, 30
	Bottom            = 42
)

// Drawing is an SVG picture in the making. Classes are those of the style sheet; every text is
// escaped.
type Drawing struct {
	b strings.Builder
}

// Begin opens a picture of a size, with attributes for the page's script.
func (d *Drawing) Begin(width, height float64, label string, attributes ...string) {
	fmt.Fprintf(&d.b, `<svg viewBox="0 0 %g %g" role="img" aria-label="%s"`, width, height, html.EscapeString(label))
	for i := 0; i+1 < len(attributes); i += 2 {
		fmt.Fprintf(&d.b, ` data-%s="%s"`, attributes[i], html.EscapeString(attributes[i+1]))
	}
	d.b.WriteString(">")
}

// End closes the picture.
func (d *Drawing) End() template.HTML {
	d.b.WriteString("</svg>")
	return template.HTML(d.b.String()) //nolint:gosec // every text in it went through html.EscapeString
}

// Line draws a straight line.
func (d *Drawing) Line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(&d.b, `<line class="%s" x1="%s" y1="%s" x2="%s" y2="%s"/>`, class, Px(x1), Px(y1), Px(x2), Px(y2))
}

// Text writes at a place.
func (d *Drawing) Text(class string, x, y float64, text string) {
	fmt.Fprintf(&d.b, `<text class="%s" x="%s" y="%s">%s</text>`, class, Px(x), Px(y), html.EscapeString(text))
}

// Clipped is a text of at most so many characters, with the whole as its title.
func (d *Drawing) Clipped(class string, x, y float64, text string, most int) {
	short := axes.Shorten(text, most)
	if short == text {
		d.Text(class, x, y, text)
		return
	}
	fmt.Fprintf(&d.b, `<text class="%s" x="%s" y="%s">%s<title>%s</title></text>`, class, Px(x), Px(y), html.EscapeString(short), html.EscapeString(text))
}

// Path draws SVG path commands; none for an empty path.
func (d *Drawing) Path(class, path string) {
	if path != "" {
		fmt.Fprintf(&d.b, `<path class="%s" d="%s"/>`, class, path)
	}
}

// Circle draws a circle of a radius.
func (d *Drawing) Circle(class string, x, y, r float64) {
	fmt.Fprintf(&d.b, `<circle class="%s" cx="%s" cy="%s" r="%s"/>`, class, Px(x), Px(y), Px(r))
}

// Bar draws a rectangle with round corners, that tells a title when it is pointed at.
func (d *Drawing) Bar(class string, x, y, width, height float64, title string) {
	d.rectangle(class, x, y, width, height, min(3, width/4), title)
}

// Block is a Bar with sharp corners, for those that touch.
func (d *Drawing) Block(class string, x, y, width, height float64, title string) {
	d.rectangle(class, x, y, width, height, 0, title)
}

func (d *Drawing) rectangle(class string, x, y, width, height, round float64, title string) {
	fmt.Fprintf(&d.b, `<rect class="%s" x="%s" y="%s" width="%s" height="%s"`, class, Px(x), Px(y), Px(width), Px(height))
	if round > 0 {
		fmt.Fprintf(&d.b, ` rx="%s"`, Px(round))
	}
	if title == "" {
		d.b.WriteString("/>")
		return
	}
	fmt.Fprintf(&d.b, "><title>%s</title></rect>", html.EscapeString(title))
}

// Open begins a group of a class, Close ends it.
func (d *Drawing) Open(class string) { fmt.Fprintf(&d.b, `<g class="%s">`, class) }

// Close ends the group that was opened last.
func (d *Drawing) Close() { d.b.WriteString("</g>") }

// Frame draws the axes of a plot with their grid.
func (d *Drawing) Frame(x, y axes.Axis, xName, yName string) {
	d.Open("frame")
	d.yTicks(x, y)
	last := x.From - 1e9
	for _, t := range x.Ticks {
		at := x.Place(t.At)
		d.Line("grid", at, y.From, at, y.To)
		width := 6.5 * float64(len([]rune(t.Text)))
		if at-last < width+6 { // no room for its text
			continue
		}
		last = at
		d.Text("tick x", at, y.From+16, t.Text)
	}
	d.Line("axis", x.From, y.From, x.To, y.From)
	d.Clipped("label x", (x.From+x.To)/2, y.From+34, xName, int((x.To-x.From)/6.5))
	if yName != "" {
		d.Clipped("label y", x.From-8, y.To-12, yName, 48)
	}
	d.Close()
}

// YTicks draws the values of an axis that is shorter than its frame.
func (d *Drawing) YTicks(x, y axes.Axis, name string) {
	d.Open("frame")
	d.yTicks(x, y)
	d.Clipped("label y", x.From-8, y.To-12, name, 48)
	d.Close()
}

func (d *Drawing) yTicks(x, y axes.Axis) {
	for _, t := range y.Ticks {
		at := y.Place(t.At)
		d.Line("grid", x.From, at, x.To, at)
		d.Text("tick y", x.From-8, at+3.5, t.Text)
	}
}

// Dot adds a point to a path whose line has round ends.
func Dot(b *strings.Builder, x, y float64) {
	b.WriteString("M" + Px(x) + " " + Px(y) + "h0")
}

// Polyline is the path through points.
func Polyline(xs, ys []float64) string {
	var b strings.Builder
	for i, x := range xs {
		command := "L"
		if i == 0 {
			command = "M"
		}
		b.WriteString(command + Px(x) + " " + Px(ys[i]))
	}
	return b.String()
}

// Px is a pixel to a tenth.
func Px(v float64) string {
	return strconv.FormatFloat(float64(int(v*10+0.5*sign(v)))/10, 'f', -1, 64)
}

func sign(v float64) float64 {
	if v < 0 {
		return -1
	}
	return 1
}
