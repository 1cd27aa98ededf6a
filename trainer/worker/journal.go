package worker

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// journal appends a line of JSON for each epoch, and between them at most one a second.
type journal struct {
	file *os.File
	last time.Time
}

// entry is one line.
type entry struct {
	Epoch   int                `json:"epoch"`
	Step    uint64             `json:"step"`
	Total   uint64             `json:"total"`
	Metrics map[string]float64 `json:"metrics"`
}

// progressEvery is the least time between two lines within an epoch.
const progressEvery = time.Second

func openJournal(path string) (journal, error) {
	if path == "" {
		return journal{}, nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return journal{}, fmt.Errorf("open the metrics file: %w", err)
	}
	return journal{file: f, last: time.Now()}, nil
}

func (j *journal) epoch(epoch int, step, total uint64, metrics map[string]float64) error {
	if j.file == nil {
		return nil
	}
	j.last = time.Now()
	line, err := json.Marshal(entry{epoch, step, total, metrics})
	if err == nil {
		_, err = j.file.Write(append(line, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write metrics: %w", err)
	}
	return nil
}

// progress may fail in silence: the next epoch's line will say so.
func (j *journal) progress(epoch int, step, total uint64, metrics map[string]float64) {
	if j.file != nil && time.Since(j.last) >= progressEvery {
		_ = j.epoch(epoch, step, total, metrics)
	}
}

func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}
