package operate

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
)

// topState is what a person has chosen.
type topState struct {
	pane    int
	sort    int // the column
	reverse bool
	first   int // the row at the top
}

// press changes the state as a key says.
func (s *topState) press(key byte) {
	switch key {
	case '1', '2', '3':
		*s = topState{pane: int(key - '1')}
	case '\t':
		*s = topState{pane: (s.pane + 1) % len(panes)}
	case 's':
		s.sort, s.first = (s.sort+1)%len(panes[s.pane].columns), 0
	case 'r':
		s.reverse, s.first = !s.reverse, 0
	case 'j':
		s.first++
	case 'k':
		s.first = max(s.first-1, 0)
	}
}

// within keeps the row at the top one that there is, so that k turns round at once where j has come to the end.
func (s *topState) within(rows int) { s.first = min(s.first, max(rows-1, 0)) }

// cell is a text, and the number that it is sorted by if it has one.
type cell struct {
	text   string
	number float64
	counts bool
}

func words(text string) cell { return cell{text: shell.OneLine(text)} }

func counted(text string, number float64) cell { return cell{text, number, true} }

// column is a heading with its width at 80 columns, in which there is room for the mark of the one that is sorted by; what
// is left of a wider terminal is the last one's.
type column struct {
	title string
	width int
}

// pane is a table of a view.
type pane struct {
	name    string
	columns []column
	rows    func(topView, time.Time) [][]cell
}

var panes = [...]pane{
	{"nodes", []column{{"node", 18}, {"state", 11}, {"cores", 11}, {"memory", 14}, {"gpus", 8}, {"tasks", 7}, {"reason", 10}}, nodeCells},
	{"queues", []column{{"queue", 20}, {"running", 9}, {"waiting", 9}, {"cores", 9}, {"memory", 10}, {"gpus", 8}, {"share", 8}}, queueCells},
	{"jobs", []column{{"job", 24}, {"state", 10}, {"kind", 10}, {"owner", 9}, {"queue", 9}, {"age", 7}, {"reason", 5}}, jobCells},
}

func nodeCells(v topView, _ time.Time) [][]cell {
	var rows [][]cell
	for _, view := range v.nodes {
		n := view.Node
		gpus := words("")
		if len(n.Devices) > 0 {
			gpus = counted(decimal(view.Used.GPUs())+"/"+strconv.Itoa(len(n.Devices)), view.Used.GPUs())
		}
		rows = append(rows, []cell{
			words(n.ID), words(nodeState(n)), counted(thousandths(view.Used.MilliCPU)+"/"+thousandths(n.MilliCPU), float64(view.Used.MilliCPU)),
			counted(portion(view.Used.Memory, n.Memory)+" of "+compact(n.Memory), float64(view.Used.Memory)), gpus, counted(strconv.Itoa(len(view.Tasks)), float64(len(view.Tasks))), words(n.Reason),
		})
	}
	return rows
}

func queueCells(v topView, _ time.Time) [][]cell {
	var rows [][]cell
	for _, q := range v.queues {
		rows = append(rows, []cell{
			words(q.Queue.Name), counted(strconv.Itoa(int(q.Running)), float64(q.Running)), counted(strconv.FormatInt(q.Waiting, 10), float64(q.Waiting)),
			counted(thousandths(q.Used.MilliCPU), float64(q.Used.MilliCPU)), counted(compact(q.Used.Memory), float64(q.Used.Memory)),
			counted(thousandths(q.Used.MilliGPU), float64(q.Used.MilliGPU)), counted(fmt.Sprintf("%.0f%%", 100*q.Share), q.Share),
		})
	}
	return rows
}

func jobCells(v topView, now time.Time) [][]cell {
	var rows [][]cell
	for _, j := range v.jobs {
		age := now.Sub(time.Unix(0, j.Submitted))
		rows = append(rows, []cell{words(j.Name), words(string(j.State)), words(string(j.Kind)), words(j.Owner), words(j.Queue), counted(shell.Span(age), age.Seconds()), words(j.Reason)})
	}
	return rows
}

func portion(used, total int64) string {
	if total == 0 {
		return "0%"
	}
	return fmt.Sprintf("%.0f%%", 100*float64(used)/float64(total))
}

// decimal has two decimals at most, and never an exponent.
func decimal(x float64) string { return strconv.FormatFloat(math.Round(100*x)/100, 'f', -1, 64) }

func thousandths(n int64) string { return decimal(float64(n) / 1000) }

// compact is an amount of bytes in few characters: 62G.
func compact(bytes int64) string {
	value, unit := float64(bytes), 0
	for value >= 999.5 && unit < 5 { // which is 1000 to three digits
		value, unit = value/1024, unit+1
	}
	return strconv.FormatFloat(value, 'g', 3, 64) + []string{"", "K", "M", "G", "T", "P"}[unit]
}

// frame draws a pane as lines of at most width characters: what the cluster is at, the heading, and as many rows as fit.
func (v topView) frame(s topState, width, height int, now time.Time) []string {
	p := panes[s.pane]
	lines := []string{shell.Cut(v.summary(), width), shell.Cut(p.heading(s, width), width)}
	rows := p.rows(v, now)
	slices.SortStableFunc(rows, func(a, b []cell) int {
		x, y := a[s.sort], b[s.sort]
		order := strings.Compare(x.text, y.text)
		if x.counts || y.counts {
			order = -cmp.Compare(x.number, y.number) // the most first
		}
		if s.reverse {
			order = -order
		}
		return cmp.Or(order, strings.Compare(a[0].text, b[0].text))
	})
	s.within(len(rows))
	rows = rows[s.first:]
	for _, row := range rows {
		if len(lines) >= height {
			break
		}
		texts := make([]string, len(row))
		for i, c := range row {
			texts[i] = c.text
		}
		lines = append(lines, shell.Cut(p.line(texts, width), width))
	}
	return lines
}

// heading names the columns, and marks the one that is sorted by.
func (p pane) heading(s topState, width int) string {
	titles := make([]string, len(p.columns))
	for i, c := range p.columns {
		titles[i] = strings.ToUpper(c.title)
		if i == s.sort {
			titles[i] += map[bool]string{false: "↓", true: "↑"}[s.reverse]
		}
	}
	return p.line(titles, width)
}

// line puts texts into columns, each cut to its width.
func (p pane) line(texts []string, width int) string {
	var b strings.Builder
	left := width
	for i, c := range p.columns {
		room := c.width
		if i == len(p.columns)-1 {
			room = max(left, 0)
		}
		text := ""
		if room > 1 { // a space stays between columns
			text = shell.Cut(texts[i], room-1)
		}
		b.WriteString(text)
		b.WriteString(strings.Repeat(" ", max(room-utf8.RuneCountInString(text), 0)))
		left -= room
	}
	return strings.TrimRight(b.String(), " ")
}

// summary is the cluster in one line.
func (v topView) summary() string {
	var used cluster.Resources
	var cores, gpus int64
	var busy float64
	states := map[cluster.NodeState]int{}
	for _, view := range v.nodes {
		states[view.Node.State]++
		if view.Node.State == cluster.NodeLost {
			continue
		}
		used.MilliCPU += view.Used.MilliCPU
		cores += view.Node.MilliCPU
		busy += view.Used.GPUs()
		gpus += int64(len(view.Node.Devices))
	}
	running, waiting := 0, 0
	for _, job := range v.jobs {
		if job.State == cluster.JobRunning {
			running++
		} else {
			waiting++
		}
	}
	text := fmt.Sprintf("%s leads %s  %d nodes", cmp.Or(v.info.Leader, "nobody"), coordinatorsText(v.info), len(v.nodes))
	if lost := states[cluster.NodeLost]; lost > 0 {
		text += fmt.Sprintf(" (%d lost)", lost)
	}
	if cores >= 100_000 {
		used.MilliCPU = (used.MilliCPU + 500) / 1000 * 1000 // of so many a fraction says nothing
	}
	text += fmt.Sprintf("  cores %s/%s", thousandths(used.MilliCPU), thousandths(cores))
	if gpus > 0 {
		text += fmt.Sprintf("  gpus %s/%d", decimal(busy), gpus)
	}
	more := shell.Word(v.more, "+", "")
	return text + fmt.Sprintf("  %d%s run %d%s wait", running, more, waiting, more)
}

// coordinatorsText says how many are seen.
func coordinatorsText(info client.Info) string {
	alive := 0
	for _, m := range info.Coordinators {
		if m.Alive {
			alive++
		}
	}
	return fmt.Sprintf("(%d of %d)", alive, len(info.Coordinators))
}
