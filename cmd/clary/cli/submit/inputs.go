package submit

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/transfer"
	"github.com/clary-ml/clary/internal/fault"
)

// DeployedModel is the address of a model that is one of the registry's, a job's, or lies here.
func (a App) DeployedModel(ctx context.Context, c *client.Client, name, folder string, dryRun bool) (string, error) {
	if name == "" || strings.Contains(name, "://") {
		return name, nil
	}
	here := name
	if !filepath.IsAbs(here) {
		here = filepath.Join(folder, here)
	}
	if _, err := os.Stat(here); err == nil {
		return a.Address(ctx, c, here, dryRun)
	}
	if ref, err := cluster.ParseModelRef(name); err == nil && !ref.Whole() {
		return cluster.ModelScheme + name, nil
	}
	return a.ModelAddress(ctx, c, name, dryRun)
}

// MapModels rewrites the models of an endpoint's spec.
func MapModels(spec []byte, to func(string) (string, error)) ([]byte, error) {
	var whole map[string]json.RawMessage
	var variants []map[string]json.RawMessage
	if err := json.Unmarshal(spec, &whole); err != nil {
		return nil, fault.New(fault.Invalid, "spec: %w", err)
	}
	if json.Unmarshal(whole["variants"], &variants) != nil {
		return spec, nil // whoever checks it says so
	}
	for i, variant := range variants {
		var model string
		if json.Unmarshal(variant["model"], &model) != nil {
			continue
		}
		address, err := to(model)
		if err != nil {
			return nil, fault.New(fault.KindOf(err), "variants[%d].model: %w", i, err)
		}
		if variant["model"], err = json.Marshal(address); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(variants)
	if err != nil {
		return nil, err
	}
	whole["variants"] = text
	return json.Marshal(whole)
}

// inputsOf are the inputs of a spec of any kind, each an address or an object with one as uri: those
// of a sweep stand in its trial.
type inputsOf struct {
	Inputs map[string]json.RawMessage `json:"inputs"`
	Trial  *inputsOf                  `json:"trial"`
}

// addressOf is an input's address, and what else is said of it, nil for nothing.
func addressOf(input json.RawMessage) (uri string, whole map[string]json.RawMessage, err error) {
	if err = json.Unmarshal(input, &uri); err == nil {
		return uri, nil, nil
	}
	if err = json.Unmarshal(input, &whole); err == nil && whole["uri"] != nil {
		err = json.Unmarshal(whole["uri"], &uri)
	}
	return uri, whole, err
}

// localInputs are the channels of a spec whose value is a path and not an address.
func localInputs(spec []byte) (map[string]string, error) {
	var holder inputsOf
	if err := json.Unmarshal(spec, &holder); err != nil {
		return nil, fault.New(fault.Invalid, "spec: %w", err)
	}
	if holder.Trial != nil {
		holder = *holder.Trial
	}
	local := map[string]string{}
	for channel, input := range holder.Inputs {
		uri, _, err := addressOf(input)
		if err != nil {
			return nil, fault.New(fault.Invalid, "spec.inputs.%s: %w", channel, err)
		}
		if uri != "" && !strings.Contains(uri, "://") {
			local[channel] = uri
		}
	}
	return local, nil
}

// setInputs writes new values for channels of a spec.
func setInputs(spec []byte, values map[string]string) ([]byte, error) {
	if len(values) == 0 {
		return spec, nil
	}
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(spec, &whole); err != nil {
		return nil, fault.New(fault.Invalid, "spec: %w", err)
	}
	if trial := whole["trial"]; trial != nil {
		filled, err := setInputs(trial, values)
		if err != nil {
			return nil, err
		}
		whole["trial"] = filled
		return json.Marshal(whole)
	}
	inputs := map[string]json.RawMessage{}
	if err := json.Unmarshal(whole["inputs"], &inputs); err != nil {
		return nil, fault.New(fault.Invalid, "spec.inputs: %w", err)
	}
	for channel, value := range values {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		if _, fields, err := addressOf(inputs[channel]); err == nil && fields != nil {
			fields["uri"] = text
			if text, err = json.Marshal(fields); err != nil {
				return nil, err
			}
		}
		inputs[channel] = text
	}
	text, err := json.Marshal(inputs)
	if err != nil {
		return nil, err
	}
	whole["inputs"] = text
	return json.Marshal(whole)
}

// UploadInputs uploads what the job's inputs name on this machine, and puts the
// addresses in their place. Paths are relative to the folder.
func (a App) UploadInputs(ctx context.Context, c *client.Client, job cluster.Job, folder string) (cluster.Job, error) {
	inputs, err := localInputs(job.Spec)
	if err != nil {
		return job, err
	}
	for _, channel := range shell.SortedKeys(inputs) {
		path := inputs[channel]
		if !filepath.IsAbs(path) {
			path = filepath.Join(folder, path)
		}
		if inputs[channel], err = a.Upload(ctx, c, path); err != nil {
			return job, fmt.Errorf("input %s: %w", channel, err)
		}
	}
	if job.Spec, err = setInputs(job.Spec, inputs); err == nil && job.Kind == cluster.KindEndpoint {
		job.Spec, err = MapModels(job.Spec, func(model string) (string, error) { return a.DeployedModel(ctx, c, model, folder, false) })
	}
	return job, err
}

// PlaceInputs puts addresses in place of paths as uploadInputs would, and uploads nothing.
func PlaceInputs(job cluster.Job, folder string) (cluster.Job, error) {
	inputs, err := localInputs(job.Spec)
	if err != nil {
		return job, err
	}
	for channel, path := range inputs {
		if !filepath.IsAbs(path) {
			path = filepath.Join(folder, path)
		}
		if inputs[channel], err = transfer.UploadURI(path); err != nil {
			return job, err
		}
	}
	if job.Spec, err = setInputs(job.Spec, inputs); err == nil && job.Kind == cluster.KindEndpoint {
		job.Spec = placeholders(job.Spec)
	}
	return job, err
}
