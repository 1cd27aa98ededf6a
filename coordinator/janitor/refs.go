package janitor

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/workload/tuning"
)

// jobsFolder finds what is in a job's folder, wherever it is mentioned, with the path below it up to what may be its end.
var jobsFolder = regexp.MustCompile(`s3://clary/jobs/([a-z0-9-]{1,63})(/[^"'\s\\,]*|\b)`)

// references says of each job that has ended what still needs what it left: a version of a model that it made or that came from its
// folder, a job or endpoint that goes on and reads it; and what reads its rows: a sweep that goes on and learns from it.
func references(snapshot *state.Snapshot) refs {
	r := refs{left: map[string]string{}, rows: map[string]string{}, paths: map[string]named{}}
	for model := range snapshot.Models("") {
		for version := range snapshot.VersionsOf(model.Name, 0) {
			r.version(version)
		}
	}
	for job := range snapshot.Unended() {
		r.job(job)
		if job.Kind == cluster.KindTuning {
			for _, earlier := range tuning.WarmStart(job.Spec) {
				r.need(earlier, "sweep "+job.Name)
				need(r.rows, earlier, "sweep "+job.Name)
			}
		}
		for gang := range snapshot.GangsOf(job.Name) {
			r.roles(gang.Roles, "job "+job.Name)
		}
		if endpoint, ok := snapshot.Endpoint(job.Name); ok {
			r.endpoint(endpoint)
		}
	}
	return r
}

// refs are who needs something, in words: by job what it left and its rows, and what of its folder is named.
type refs struct {
	left, rows map[string]string
	paths      map[string]named
}

// named says by the path below a job's folder who names it.
type named map[string]string

// by says who needs a folder: who names it, something in it, or something that it is in.
func (n named) by(folder string) string {
	for _, path := range slices.Sorted(maps.Keys(n)) {
		if strings.HasPrefix(path, folder) || strings.HasPrefix(folder, path) {
			return n[path]
		}
	}
	return ""
}

func (r refs) need(job, who string) { need(r.left, job, who) }

// need notes what needs a job, and with a trial's job its sweep.
func need(of map[string]string, job, who string) {
	if job == "" {
		return
	}
	if _, known := of[job]; !known {
		of[job] = "needed by " + who
	}
	if sweep, _, ok := tuning.TrialNamed(job); ok {
		need(of, sweep, who)
	}
}

// mentioned notes every job whose folder a text names.
func (r refs) mentioned(text []byte, who string) {
	text = bytes.ReplaceAll(text, []byte(`\/`), []byte("/")) // as JSON may have it
	for _, found := range jobsFolder.FindAllSubmatch(text, -1) {
		job, path := string(found[1]), string(found[2])
		r.need(job, who)
		if r.paths[job] == nil {
			r.paths[job] = named{}
		}
		if _, known := r.paths[job][path]; !known {
			r.paths[job][path] = "needed by " + who
		}
	}
}

func (r refs) version(v cluster.ModelVersion) {
	who := fmt.Sprintf("version %s of a model", v.Ref())
	r.need(v.Lineage.Job, who)
	for _, uri := range []string{v.Artifact.URI, v.Lineage.Source, v.Lineage.Code.What} {
		r.mentioned([]byte(uri), who)
	}
	for _, data := range v.Lineage.Data {
		r.mentioned([]byte(data.URI), who)
	}
}

func (r refs) job(job cluster.Job) {
	who := "job " + job.Name
	r.mentioned(job.Spec, who)
	r.need(job.Parent, who)
	for _, pin := range job.Models {
		r.mentioned([]byte(pin.URI), who)
	}
}

func (r refs) roles(roles []cluster.Role, who string) {
	for _, role := range roles {
		for _, input := range role.Program.Inputs {
			r.mentioned([]byte(input.URI), who)
		}
	}
}

func (r refs) endpoint(e cluster.Endpoint) {
	who := "endpoint " + e.Job
	r.mentioned(e.Spec, who)
	r.mentioned(e.Previous, who)
	for _, fleet := range e.Fleets {
		r.mentioned(fleet.Spec, who)
		r.roles([]cluster.Role{fleet.Role}, who)
	}
}
