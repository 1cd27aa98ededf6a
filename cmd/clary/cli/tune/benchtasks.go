package tune

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner/bench"
	"github.com/clary-ml/clary/tuner/bench/bbob"
)

// tasks are what is searched.
func (b tuneBench) tasks() ([]bench.Task, error) {
	all, err := b.allTasks()
	if err != nil || len(b.only) == 0 {
		return all, err
	}
	var tasks []bench.Task
	for _, name := range b.only {
		at := slices.IndexFunc(all, func(t bench.Task) bool { return t.Name() == name })
		if at < 0 {
			return nil, fault.New(fault.Invalid, "--only: there is no %s: there are %s to %s", name, all[0].Name(), all[len(all)-1].Name())
		}
		tasks = append(tasks, all[at])
	}
	return tasks, nil
}

func (b tuneBench) allTasks() ([]bench.Task, error) {
	var tasks []bench.Task
	if b.curves {
		for _, dims := range []int{3, 6} {
			h, err := bench.NewHartmann(dims, hartmannSteps, 0.3, 0.1)
			if err != nil {
				return nil, err
			}
			tasks = append(tasks, h)
		}
		return tasks, nil
	}
	if b.bbob {
		for number := 1; number <= bbob.Functions; number++ {
			f, err := bench.NewFunction(number, 5)
			if err != nil {
				return nil, err
			}
			tasks = append(tasks, f)
		}
		return tasks, nil
	}
	entries, err := os.ReadDir(b.tables)
	if err != nil {
		return nil, fault.New(fault.Invalid, "--tables: %w", err)
	}
	for _, entry := range entries {
		name, ok := strings.CutSuffix(strings.TrimSuffix(entry.Name(), ".gz"), ".csv")
		if !ok {
			continue
		}
		table, err := readTable(filepath.Join(b.tables, entry.Name()), name)
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, table)
	}
	if len(tasks) == 0 {
		return nil, fault.New(fault.Invalid, "--tables %s: there is no file NAME.csv or NAME.csv.gz", b.tables)
	}
	return tasks, nil
}

func readTable(path, name string) (*bench.Table, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var text io.Reader = file
	if strings.HasSuffix(path, ".gz") {
		if text, err = gzip.NewReader(file); err != nil {
			return nil, fault.New(fault.Invalid, "read %s: %w", path, err)
		}
	}
	return bench.ReadTable(name, text)
}
