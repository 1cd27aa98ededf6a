package shell

import (
	"fmt"
	"math"
	"strings"

	"github.com/clary-ml/clary/console/axes"
)

// chart is a plot of points and lines, of characters.
type chart struct {
	title string
	x, y  axes.Axis
	Cells [][]rune // by line, from the top
	dots  [][]int  // how many points stand in a cell
}

// Margin is the room for the numbers at the left.
const Margin = 10

// NewChart makes a plot of so many columns and lines, its axes and their texts included.
// Where the axes begin and end is set here.
func NewChart(title string, x, y axes.Axis, width, height int) *chart {
	columns, lines := max(width-Margin-2, 10), max(height-3, 3)
	c := &chart{title: title, x: x, y: y, Cells: make([][]rune, lines), dots: make([][]int, lines)}
	c.x.From, c.x.To = 0, float64(columns-1)
	c.y.From, c.y.To = float64(lines-1), 0
	for i := range c.Cells {
		c.Cells[i] = []rune(strings.Repeat(" ", columns))
		c.dots[i] = make([]int, columns)
	}
	return c
}

func (c *chart) cell(x, y float64) (column, line int, ok bool) {
	if math.IsNaN(x) || math.IsNaN(y) {
		return 0, 0, false
	}
	return int(math.Round(c.x.Place(x))), int(math.Round(c.y.Place(y))), true
}

// densities are signs of one point, of some, and of many.
var densities = []rune("·∘●")

// Dot adds a point; where there are several, the sign is stronger.
func (c *chart) Dot(x, y float64) {
	column, line, ok := c.cell(x, y)
	if !ok {
		return
	}
	c.dots[line][column]++
	c.Cells[line][column] = densities[min(c.dots[line][column]/2, len(densities)-1)]
}

// Mark puts a sign at a point, over whatever stands there.
func (c *chart) Mark(x, y float64, sign rune) {
	if column, line, ok := c.cell(x, y); ok {
		c.Cells[line][column] = sign
	}
}

// Stairs draws a line that keeps its value until the next point's.
func (c *chart) Stairs(xs, ys []float64) {
	column, line := -1, -1
	for i := range xs {
		nextColumn, nextLine, ok := c.cell(xs[i], ys[i])
		if !ok {
			continue
		}
		if column >= 0 {
			for at := column + 1; at <= nextColumn; at++ {
				c.Cells[line][at] = '─'
			}
			if nextLine != line {
				for at := min(line, nextLine); at <= max(line, nextLine); at++ {
					c.Cells[at][nextColumn] = '│'
				}
				c.Cells[line][nextColumn], c.Cells[nextLine][nextColumn] = '┐', '└'
				if nextLine < line {
					c.Cells[line][nextColumn], c.Cells[nextLine][nextColumn] = '┘', '┌'
				}
			}
		}
		column, line = nextColumn, nextLine
	}
}

// Stroke draws a straight line between two cells of places that are no axis' (see parallel).
func (c *chart) Stroke(fromColumn, toColumn int, fromLine, toLine float64, sign rune) {
	for column := fromColumn; column <= toColumn; column++ {
		share := 0.0
		if toColumn > fromColumn {
			share = float64(column-fromColumn) / float64(toColumn-fromColumn)
		}
		c.Cells[int(math.Round(fromLine+(toLine-fromLine)*share))][column] = sign
	}
}

// Lines are the plot as text.
func (c *chart) Lines() []string {
	labels := make(map[int]string)
	for _, t := range c.y.Ticks {
		labels[int(math.Round(c.y.Place(t.At)))] = t.Text
	}
	out := []string{c.title}
	for i, cells := range c.Cells {
		side := "│"
		if labels[i] != "" {
			side = "┤"
		}
		out = append(out, fmt.Sprintf("%*s %s%s", Margin-1, labels[i], side, strings.TrimRight(string(cells), " ")))
	}
	foot := []rune(strings.Repeat("─", len(c.Cells[0])))
	texts := []rune(strings.Repeat(" ", len(foot)+Margin+2))
	end := -1
	for _, t := range c.x.Ticks {
		at := int(math.Round(c.x.Place(t.At)))
		text := []rune(t.Text)
		from := max(at+Margin+1-len(text)/2, 0)
		if from <= end || from+len(text) > len(texts) {
			continue
		}
		foot[at] = '┬'
		copy(texts[from:], text)
		end = from + len(text)
	}
	return append(out, strings.Repeat(" ", Margin)+"└"+string(foot), strings.TrimRight(string(texts), " "))
}

// Beside puts plots next to each other, as many as fit into the width, with an empty line
// between rows of them.
func Beside(plots [][]string, each, width int) []string {
	var out []string
	columns := max((width+2)/(each+2), 1)
	for from := 0; from < len(plots); from += columns {
		row := plots[from:min(from+columns, len(plots))]
		height := 0
		for _, plot := range row {
			height = max(height, len(plot))
		}
		for line := range height {
			var b strings.Builder
			for i, plot := range row {
				text := ""
				if line < len(plot) {
					text = plot[line]
				}
				if i < len(row)-1 {
					text += strings.Repeat(" ", max(each+2-len([]rune(text)), 1))
				}
				b.WriteString(text)
			}
			out = append(out, strings.TrimRight(b.String(), " "))
		}
		if from+columns < len(plots) {
			out = append(out, "")
		}
	}
	return out
}
