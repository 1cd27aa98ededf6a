package data

import (
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/workload/processing"
)

func (f *processFlags) applyInputs(s *processing.Spec) error {
	named, err := submit.Addresses("--input", processing.OnlyInput, f.inputs)
	if err != nil {
		return err
	}
	for name, uri := range named {
		if s.Inputs == nil {
			s.Inputs = map[string]processing.Input{}
		}
		input := s.Inputs[name]
		input.URI = uri
		if uri == "" {
			return fault.New(fault.Invalid, "--input: %s has no address: write %s=s3://... or %s=PATH", name, name, name)
		}
		s.Inputs[name] = input
	}
	return submit.Options("--input-option", f.inputOptions, func(name, key, value string) error {
		input, known := s.Inputs[name]
		switch {
		case !known:
			return fault.New(fault.Invalid, "there is no input %q: name its data first", cluster.Clip(name))
		case key == "path" && value != "":
			input.Path = value
		case value != "":
			return submit.ErrUnknownOption
		case key == "sharded":
			input.Sharded = true
		case key == "gzip":
			input.Gzip = true
		case key == string(cluster.InputFastFile):
			input.Mode = cluster.InputFastFile
		case key == string(cluster.InputManifest):
			input.Type = cluster.InputManifest
		default:
			return submit.ErrUnknownOption
		}
		s.Inputs[name] = input
		return nil
	})
}

func (f *processFlags) applyOutputs(s *processing.Spec) error {
	named, err := submit.Addresses("--output", processing.OnlyOutput, f.outputs)
	if err != nil {
		return err
	}
	for name, uri := range named {
		if s.Outputs == nil {
			s.Outputs = map[string]processing.Output{}
		}
		if uri != "" && !strings.HasPrefix(uri, "s3://") {
			return fault.New(fault.Invalid, "--output: %q is not s3://bucket/prefix/ (the format of what clary prints is -o or --format)", cluster.Clip(uri))
		}
		output := s.Outputs[name]
		output.URI = uri
		s.Outputs[name] = output
	}
	if f.continuous {
		for name, output := range s.Outputs {
			output.Continuous = true
			s.Outputs[name] = output
		}
	}
	return submit.Options("--output-option", f.outputOptions, func(name, key, value string) error {
		output, known := s.Outputs[name]
		switch {
		case !known:
			return fault.New(fault.Invalid, "there is no output %q: name its address first, with --output %s=ADDRESS", cluster.Clip(name), cluster.Clip(name))
		case key == "path" && value != "":
			output.Path = value
		case key == "continuous" && value == "":
			output.Continuous = true
		default:
			return submit.ErrUnknownOption
		}
		s.Outputs[name] = output
		return nil
	})
}
