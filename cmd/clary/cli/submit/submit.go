package submit

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/transfer"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/workload/jobfile"
)

// FolderOf is the folder that names in a job file are relative to.
func FolderOf(path string) string {
	if path == "-" {
		return "."
	}
	return filepath.Dir(path)
}

// ReadJobFile reads and checks a job file. Inputs may still be paths.
func (a App) ReadJobFile(path string) (cluster.Job, error) {
	var data []byte
	var err error
	if path == "-" {
		data, err = io.ReadAll(io.LimitReader(a.In, jobfile.MaxSize+1))
	} else {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return cluster.Job{}, fault.New(fault.Invalid, "read the job file: %w", err)
	}
	job, err := jobfile.Parse(data, a.LocalKinds())
	if err != nil {
		return cluster.Job{}, fault.New(fault.Invalid, "%s:\n%w", path, err)
	}
	return job, nil
}

// LocalKinds check specs whose inputs may be paths of this machine.
func (a App) LocalKinds() map[cluster.Kind]jobfile.Kind {
	kinds := map[cluster.Kind]jobfile.Kind{}
	for name, kind := range a.Kinds {
		check := kind.Check
		kind.Check = func(spec []byte) cluster.Problems {
			inputs, _ := localInputs(spec)
			for channel := range inputs {
				inputs[channel] = transfer.UploadsPrefix + "placeholder"
			}
			if replaced, err := setInputs(spec, inputs); err == nil {
				spec = replaced
			}
			if name == cluster.KindEndpoint {
				spec = placeholders(spec)
			}
			return check(spec)
		}
		kinds[name] = kind
	}
	return kinds
}

// placeholders puts addresses in place of models that are not: they get theirs before the endpoint is
// submitted.
func placeholders(spec []byte) []byte {
	replaced, err := MapModels(spec, func(model string) (string, error) {
		if model == "" || strings.Contains(model, "://") {
			return model, nil
		}
		return transfer.UploadsPrefix + "placeholder", nil
	})
	if err != nil {
		return spec
	}
	return replaced
}

// FreshName is a name that no other job has, made from a word.
func FreshName(word string) string {
	word = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, word)
	word = strings.Trim(word[:min(len(word), 48)], "-")
	if word == "" {
		word = "job"
	}
	return word + "-" + strings.ToLower(rand.Text()[:6])
}

// SubmitAndWait submits a job, says so, and waits for it unless it is detached.
func (a App) SubmitAndWait(ctx context.Context, c *client.Client, job cluster.Job, detach bool) error {
	submitted, err := c.Submit(ctx, job)
	if err != nil {
		return err
	}
	name := submitted.Job.Name
	if detach {
		return a.Print(shell.JobToJSON(client.JobView{Job: submitted.Job}), func(out io.Writer) error {
			if submitted.Existed {
				fmt.Fprintf(out, "%s was submitted before\n", name)
				return nil
			}
			fmt.Fprintf(out, "%s is submitted; follow it with clary wait %s or clary logs -f %s\n", name, name, name)
			return nil
		})
	}
	return a.Wait(ctx, c, name)
}

// DryRun says where the job's tasks would go now, or what they would wait for.
func (a App) DryRun(ctx context.Context, c *client.Client, job cluster.Job, folder string) error {
	job, err := PlaceInputs(job, folder)
	if err != nil {
		return err
	}
	answer, err := c.DryRun(ctx, job)
	if err != nil {
		return err
	}
	placed := PlacementsToJSON(answer)
	value := struct {
		Job        shell.JobJSON `json:"job"`
		Placements []PlaceJSON   `json:"placements"`
		Whys       []WhyJSON     `json:"whys"`
	}{shell.JobToJSON(client.JobView{Job: answer.Job}), placed, WhysToJSON(answer.Whys)}
	return a.Print(value, func(out io.Writer) error {
		if len(placed) > 0 {
			rows := make([][]string, len(placed))
			for i, p := range placed {
				rows[i] = []string{p.Task, p.Node, cluster.FormatCores(int64(p.Cores * 1000)), cluster.FormatBytes(p.Memory), p.devices()}
			}
			if err := shell.Table(out, []string{"task", "node", "cores", "memory", "devices"}, rows); err != nil {
				return err
			}
		}
		for _, why := range answer.Whys {
			ShowWhy(out, why)
		}
		a.Note("nothing was submitted: this was a dry run")
		return nil
	})
}

// PlaceJSON is where a task would be placed.
type PlaceJSON struct {
	Task    string           `json:"task"`
	Node    string           `json:"node"`
	Cores   float64          `json:"cores"`
	Memory  int64            `json:"memory"`
	Devices []string         `json:"devices,omitempty"`
	Shares  []shell.PartJSON `json:"shares,omitempty"`
}

// devices names the devices, and what of them is given in parts.
func (p PlaceJSON) devices() string {
	names := slices.Clone(p.Devices)
	for _, part := range p.Shares {
		names = append(names, part.Text()+" of "+part.UUID)
	}
	return strings.Join(names, " ")
}

// PlacementsToJSON names the task of each allocation: they come in the order of the
// gang's roles and their indexes.
func PlacementsToJSON(answer client.Submission) []PlaceJSON {
	out := []PlaceJSON{}
	gangs := map[string]cluster.Gang{}
	for _, gang := range answer.Gangs {
		gangs[gang.ID()] = gang
	}
	for _, placement := range answer.Placements {
		var names []string
		for _, role := range gangs[placement.Gang].Roles {
			for index := range role.Count {
				names = append(names, fmt.Sprintf("%s-%d", role.Name, index))
			}
		}
		for i, allocation := range placement.Allocations {
			place := PlaceJSON{Task: placement.Gang, Node: allocation.Node, Cores: float64(allocation.Resources.MilliCPU) / 1000, Memory: allocation.Resources.Memory, Devices: allocation.Resources.Devices, Shares: shell.PartsToJSON(allocation.Resources.Shares, "")}
			if i < len(names) {
				place.Task = names[i]
			}
			out = append(out, place)
		}
	}
	return out
}
