package submit

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/clary-ml/clary/cmd/clary/cli/transfer"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/checkpoint"
	"github.com/clary-ml/clary/trainer/prepare"
	"github.com/clary-ml/clary/workload/training"
)

// noTransform is what --transform says where the model is to keep none.
const noTransform = "none"

// addTransform gives the job what the rows went through, for the model to keep: as the flag says,
// or what clary prepare wrote beside local data.
func (a App) addTransform(t *TrainFlags, s *training.Spec) error {
	path := t.transform
	switch {
	case path == noTransform:
		return nil
	case transfer.IsRemote(path):
		s.Inputs["transform"] = training.Input{URI: path}
		return nil
	case path == "":
		if path = besideData(t.Data); path == "" {
			return nil
		}
		fmt.Fprintf(a.Err, "the model keeps %s, and takes raw rows (--transform none: it does not)\n", path)
	default:
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			path = filepath.Join(path, prepare.TransformFile)
		}
	}
	learned, err := prepare.Load(path)
	if err != nil {
		return fmt.Errorf("--transform: %w", err)
	}
	if filepath.Base(path) != prepare.TransformFile {
		return fault.New(fault.Invalid, "--transform %s: name the file %s, or the folder that it is in", path, prepare.TransformFile)
	}
	plan, problems := s.Network.Plan()
	if problems.Err() != nil {
		return nil // the job's own check says it better
	}
	if err := checkpoint.CheckTransform(learned, plan); err != nil {
		return fmt.Errorf("--transform %s: %w", path, err)
	}
	s.Inputs["transform"] = training.Input{URI: path}
	return nil
}

// besideData is the transform that lies beside a part that clary prepare wrote, or beside the
// folder of its file; "" is none.
func besideData(data string) string {
	if data == "" || transfer.IsRemote(data) {
		return ""
	}
	data, err := filepath.Abs(data)
	if err != nil {
		return ""
	}
	for _, folder := range []string{filepath.Dir(data), filepath.Dir(filepath.Dir(data))} {
		report := filepath.Join(folder, prepare.ReportFile)
		path := filepath.Join(folder, prepare.TransformFolder, prepare.TransformFile)
		if _, err := os.Stat(report); err != nil {
			continue // no preparation
		}
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}
