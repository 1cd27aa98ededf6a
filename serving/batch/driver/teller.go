package driver

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/batch"
)

// teller tells how far the run is: in the metrics file for the cluster, and in the log.
type teller struct {
	o      Options
	began  time.Time
	told   time.Time
	logged time.Time
	begun  bool
	err    error
}

// row is a line of a task's metrics file. A step is a byte of input.
type row struct {
	Step    int64              `json:"step"`
	Total   int64              `json:"total"`
	Metrics map[string]float64 `json:"metrics"`
}

const logEvery = 30 * time.Second

// take is told of everything, and tells what is new now and then.
func (t *teller) take(p batch.Progress) {
	if !t.begun && p.ResumedBytes > 0 {
		fmt.Fprintf(t.o.Out, "an earlier run has done %d of %d bytes\n", p.ResumedBytes, p.Bytes)
	}
	t.begun = true
	if now := time.Now(); now.Sub(t.told) >= progressEvery {
		t.told = now
		t.tell(p)
	}
}

// last tells where the run ended.
func (t *teller) last(p batch.Progress) error {
	if p.Objects > 0 {
		t.tell(p)
	}
	if t.err != nil {
		return fault.New(fault.Internal, "write progress: %w", t.err)
	}
	return nil
}

func (t *teller) tell(p batch.Progress) {
	r := row{Step: p.BytesDone, Total: p.Bytes, Metrics: map[string]float64{
		"records": float64(p.Records), "objects": float64(p.ObjectsDone), "objects_failed": float64(p.ObjectsFailed), "objects_total": float64(p.Objects),
	}}
	line := fmt.Sprintf("%d of %d objects, %d records, %d of %d bytes", p.ObjectsDone, p.Objects, p.Records, p.BytesDone, p.Bytes)
	if seconds := time.Since(t.began).Seconds(); seconds > 0 && p.BytesDone > p.ResumedBytes {
		r.Metrics["records_per_second"] = float64(p.Records-p.ResumedRecords) / seconds
		bytes := float64(p.BytesDone-p.ResumedBytes) / seconds
		r.Metrics["bytes_per_second"] = bytes
		r.Metrics["seconds_left"] = float64(p.Bytes-p.BytesDone) / bytes
		line += fmt.Sprintf(", %.0f records/s, %s left", r.Metrics["records_per_second"], time.Duration(r.Metrics["seconds_left"]*float64(time.Second)).Round(time.Second))
	}
	if now := time.Now(); now.Sub(t.logged) >= logEvery || p.ObjectsDone+p.ObjectsFailed == p.Objects {
		t.logged = now
		fmt.Fprintln(t.o.Out, line)
	}
	if t.o.Metrics == "" || t.err != nil {
		return
	}
	text, err := json.Marshal(r)
	if err == nil {
		err = appendLine(t.o.Metrics, text)
	}
	t.err = err
}

func appendLine(name string, text []byte) error {
	file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err = file.Write(append(text, '\n')); err != nil {
		_ = file.Close()
		return err
	}
	return file.Close()
}
