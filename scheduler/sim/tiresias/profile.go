package tiresias

import (
	"cmp"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/scheduler/sim/sheet"
)

// Bounds of what a profile may hold.
const (
	maxBatch    = 1 << 30
	maxReplicas = 1 << 20
	maxSeconds  = 1e6 // of a step
	maxProgress = 1e12
	maxGradient = 1e300
)

// App is a profiled application: how fast it steps, and what a step is worth.
type App struct {
	Name   string
	Epochs int // after which a job is done: as many as were measured

	validation []validation       // by batch size
	placements map[string][]point // by placement, sorted by batch
	table      map[setting]config
}

// validation is what training at one batch size measured, epoch by epoch.
type validation struct {
	batch    int64
	progress []float64
	sqr, dev []float64 // of the gradient: squared norm, variance
}

// point is a measured step of one replica's batch.
type point struct {
	batch int64
	pace
}

// pace is what one step takes, and how much of that goes into talking.
type pace struct{ step, sync float64 }

// setting is what decides a job's pace. Placements that were not measured are known by
// their number of nodes alone.
type setting struct {
	batch, replicas int64
	placement       string
	nodes           int64
}

// config is how a job steps in a setting: so many times the atomic batch, then a step.
type config struct {
	pace
	accumulate, atomic int64
}

// Profiles are the applications of a folder, by name.
type Profiles map[string]*App

// ReadProfiles reads throughput_table.csv and traces/APPLICATION/{placements,validation-BATCH}.csv.
func ReadProfiles(folder fs.FS) (Profiles, error) {
	entries, err := fs.ReadDir(folder, "traces")
	if err != nil {
		return nil, fault.New(fault.Invalid, "traces: %v: the folder holds throughput_table.csv and traces/APPLICATION", err)
	}
	profiles := Profiles{}
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		app, err := readApp(folder, entry.Name())
		if err != nil {
			return nil, err
		}
		profiles[app.Name] = app
	}
	if len(profiles) == 0 {
		return nil, fault.New(fault.Invalid, "traces: no application's folder in it")
	}
	return profiles, profiles.readTable(folder)
}

func readApp(folder fs.FS, name string) (*App, error) {
	app := &App{Name: name, placements: map[string][]point{}, table: map[setting]config{}}
	files, err := fs.Glob(folder, path.Join("traces", name, "validation-*.csv"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if err := app.readValidation(folder, file); err != nil {
			return nil, err
		}
	}
	if len(app.validation) == 0 {
		return nil, fault.New(fault.Invalid, "traces/%s: no validation-BATCH.csv in it", name)
	}
	slices.SortFunc(app.validation, func(a, b validation) int { return cmp.Compare(a.batch, b.batch) })
	app.Epochs = len(app.validation[0].progress)
	for _, v := range app.validation {
		app.Epochs = min(app.Epochs, len(v.progress))
	}
	if app.Epochs == 0 {
		return nil, fault.New(fault.Invalid, "traces/%s: a validation file without epochs", name)
	}
	return app, app.readPlacements(folder)
}

// read parses one file of a folder.
func read(folder fs.FS, file string, columns []string, each func(*sheet.Row) error) error {
	in, err := folder.Open(file)
	if err != nil {
		return fault.New(fault.Invalid, "%v", err)
	}
	defer in.Close()
	return sheet.Read(file, in, columns, each)
}

func (a *App) readValidation(folder fs.FS, file string) error {
	number := strings.TrimSuffix(strings.TrimPrefix(path.Base(file), "validation-"), ".csv")
	batch, err := strconv.ParseInt(number, 10, 64)
	if err != nil || batch < 1 || batch > maxBatch {
		return fault.New(fault.Invalid, "%s: its name does not say a batch size from 1 to %d", file, maxBatch)
	}
	v := validation{batch: batch}
	err = read(folder, file, []string{"progress", "grad_sqr", "grad_var"}, func(row *sheet.Row) error {
		progress := row.Float("progress", 0, maxProgress)
		if n := len(v.progress); row.Err() == nil && n > 0 && progress <= v.progress[n-1] {
			return row.Wrong("progress", "%g is not more than the line before", progress)
		}
		v.progress = append(v.progress, progress)
		sqr, dev := row.Float("grad_sqr", 0, maxGradient), row.Float("grad_var", 0, maxGradient)
		if row.Err() == nil && sqr+dev == 0 {
			return row.Wrong("grad_var", "0, and grad_sqr too: a step would be worth nothing")
		}
		v.sqr, v.dev = append(v.sqr, sqr), append(v.dev, dev)
		return nil
	})
	a.validation = append(a.validation, v)
	return err
}

// readPace reads what a step takes. It takes time beside its talking, or training would be endless or instant.
func readPace(row *sheet.Row) (pace, error) {
	p := pace{row.Float("step_time", 1e-9, maxSeconds), row.Float("sync_time", 0, maxSeconds)}
	if row.Err() == nil && p.sync >= p.step {
		return p, row.Wrong("sync_time", "%g is not less than step_time %g", p.sync, p.step)
	}
	return p, nil
}

func (a *App) readPlacements(folder fs.FS) error {
	file := path.Join("traces", a.Name, "placements.csv")
	err := read(folder, file, []string{"placement", "local_bsz", "step_time", "sync_time"}, func(row *sheet.Row) error {
		placement := row.Text("placement")
		if strings.Trim(placement, "123456789") != "" {
			return row.Wrong("placement", "%q is not made of digits 1 to 9, one for each node", placement)
		}
		p, err := readPace(row)
		a.placements[placement] = append(a.placements[placement], point{row.Int("local_bsz", 1, maxBatch), p})
		return err
	})
	for placement, points := range a.placements {
		slices.SortStableFunc(points, func(a, b point) int { return cmp.Compare(a.batch, b.batch) })
		a.placements[placement] = slices.CompactFunc(points, func(a, b point) bool { return a.batch == b.batch })
	}
	return err
}

func (p Profiles) readTable(folder fs.FS) error {
	columns := []string{"application", "batch_size", "num_replicas", "accum_steps", "atomic_bsz", "placement", "num_nodes", "step_time", "sync_time"}
	return read(folder, "throughput_table.csv", columns, func(row *sheet.Row) error {
		name := row.Text("application")
		app := p[name]
		if app == nil && row.Err() == nil {
			return row.Wrong("application", "%q has no folder below traces", name)
		}
		at := setting{
			batch: row.Int("batch_size", 1, maxBatch), replicas: row.Int("num_replicas", 1, maxReplicas),
			placement: row.Maybe("placement"), nodes: row.Int("num_nodes", 1, maxReplicas),
		}
		c := config{accumulate: row.Int("accum_steps", 0, maxReplicas), atomic: row.Int("atomic_bsz", 1, maxBatch)}
		var err error
		if c.pace, err = readPace(row); err != nil || row.Err() != nil {
			return err
		}
		if at.placement != "" {
			at.nodes = 0
		}
		if _, twice := app.table[at]; twice {
			return row.Wrong("", "a setting that is there already: %+v", at)
		}
		app.table[at] = c
		return nil
	})
}

// maxNodes is how many nodes the artifact's measurements span.
const maxNodes = 16

// config finds how a job of a batch size steps on so many GPUs of each node.
func (a *App) config(batch int64, placement []int) (config, error) {
	replicas := int64(0)
	for _, gpus := range placement {
		replicas += int64(gpus)
	}
	at := setting{batch: batch, replicas: replicas, placement: canonical(placement)}
	if c, known := a.table[at]; known {
		return c, nil
	}
	any := setting{batch: batch, replicas: replicas, nodes: int64(min(len(placement), maxNodes))}
	if c, known := a.table[any]; known {
		return c, nil
	}
	if c, known := a.interpolate(batch, replicas, at.placement); known {
		return c, nil
	}
	return config{}, fault.New(fault.Invalid, "throughput_table.csv: no row for application %s, batch_size %d, num_replicas %d, and placement %s or num_nodes %d",
		a.Name, batch, replicas, at.placement, any.nodes)
}

// interpolate works out a setting that the table lacks from the measured placements, as
// the artifact does: linear in the batch of one replica.
func (a *App) interpolate(batch, replicas int64, placement string) (config, bool) {
	points := a.placements[placement]
	if len(points) == 0 {
		return config{}, false
	}
	most := points[len(points)-1].batch
	for _, measured := range a.placements {
		most = max(most, measured[len(measured)-1].batch)
	}
	local := ceilDiv(batch, replicas)
	accumulate := ceilDiv(local, most) - 1
	if replicas == 1 && batch > a.validation[0].batch {
		accumulate = max(1, accumulate)
	}
	largest := a.validation[len(a.validation)-1].batch
	c := config{accumulate: accumulate, atomic: min(ceilDiv(local, accumulate+1), largest/(replicas*(accumulate+1)))}
	i, exact := slices.BinarySearchFunc(points, c.atomic, func(p point, batch int64) int { return cmp.Compare(p.batch, batch) })
	switch {
	case exact:
		c.pace = points[i].pace
	case i == 0 || i == len(points):
		return config{}, false
	default:
		below, above := points[i-1], points[i]
		share := float64(c.atomic-below.batch) / float64(above.batch-below.batch)
		c.pace = pace{below.step + float64(share*(above.step-below.step)), below.sync + float64(share*(above.sync-below.sync))} // never fused
	}
	return c, true
}

func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }

// canonical writes a placement as the smallest of its rotations, a digit for each node.
func canonical(placement []int) string {
	var text strings.Builder
	for _, gpus := range placement {
		text.WriteString(strconv.Itoa(gpus))
	}
	written := text.String()
	least := written
	for i := range written {
		least = min(least, written[i:]+written[:i])
	}
	return least
}

// rate is the progress that a job in its epoch makes in a second: the gain of its batch
// size in statistical efficiency (Pollux, section 3.1) over the time of a step.
func (a *App) rate(c config, replicas int64, epoch int) float64 {
	batch := replicas * c.atomic * (c.accumulate + 1)
	sqr, dev := a.gradient(batch, epoch)
	scale := float64(batch) / float64(a.validation[0].batch)
	gain := (dev + sqr) / (dev/scale + sqr)
	return gain / (c.step + float64(float64(c.accumulate)*(c.step-c.sync)))
}

// gradient is interpolated between the batch sizes that were measured.
func (a *App) gradient(batch int64, epoch int) (sqr, dev float64) {
	i, exact := slices.BinarySearchFunc(a.validation, batch, func(v validation, batch int64) int { return cmp.Compare(v.batch, batch) })
	if i == len(a.validation) {
		i, exact = i-1, true
	}
	above := a.validation[i]
	if exact || i == 0 {
		return above.sqr[epoch], above.dev[epoch]
	}
	below := a.validation[i-1]
	share := float64(batch-below.batch) / float64(above.batch-below.batch)
	mix := func(a, b float64) float64 { return float64((1-share)*a) + float64(share*b) }
	return mix(below.sqr[epoch], above.sqr[epoch]), mix(below.dev[epoch], above.dev[epoch])
}

// endOf is the progress with which an epoch (from 0) is over, whatever the batch size.
func (a *App) endOf(epoch int) float64 {
	end := math.Inf(1)
	for _, v := range a.validation {
		end = min(end, v.progress[epoch])
	}
	return end
}
