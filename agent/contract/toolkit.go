package contract

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// toolkit are the SM_ variables, as the public training toolkit sets them for a script.
func (t Task) toolkit() map[string]string {
	values := t.training()
	values["hps"] = values["hyperparameters"]
	values["framework_params"] = values["additional_framework_parameters"]
	values["user_args"] = t.Arguments()
	values["training_env"] = maps.Clone(t.training())
	values["channels"] = channelNames(values["channel_input_dirs"].(map[string]string))
	for name, folder := range values["channel_input_dirs"].(map[string]string) {
		values["channel_"+name] = folder
	}
	for name, value := range t.hyperparameters() {
		values["hp_"+name] = value
	}
	for _, name := range []string{"hyperparameters", "additional_framework_parameters", "channel_input_dirs", "job_name", "is_master", "master_hostname"} {
		delete(values, name)
	}
	env := map[string]string{}
	for name, value := range values {
		env["SM_"+strings.ToUpper(name)] = shown(value)
	}
	return env
}

// training is what the toolkit calls the training environment.
func (t Task) training() map[string]any {
	resources, folders := t.resources(), t.Folders
	channels := map[string]string{}
	for _, input := range t.Program.Inputs {
		channels[input.Channel] = folders.Of(input)
	}
	groups := []string{}
	groupsByName := map[string]any{}
	for _, group := range resources.InstanceGroups {
		groups = append(groups, group.Name)
		groupsByName[group.Name] = group
	}
	module := strings.TrimSuffix(path.Base(t.Program.Script), ".py")
	return map[string]any{
		"additional_framework_parameters": map[string]any{},
		"channel_input_dirs":              channels,
		"current_host":                    resources.CurrentHost,
		"current_instance_group":          resources.CurrentGroupName,
		"current_instance_group_hosts":    resources.Hosts,
		"current_instance_type":           resources.CurrentInstanceType,
		"distribution_hosts":              resources.Hosts,
		"distribution_instance_groups":    []string{},
		"framework_module":                nil,
		"hosts":                           resources.Hosts,
		"hyperparameters":                 t.hyperparameters(),
		"input_config_dir":                folders.Config(),
		"input_data_config":               t.inputs(),
		"input_dir":                       path.Dir(folders.Config()),
		"instance_groups":                 groups,
		"instance_groups_dict":            groupsByName,
		"is_hetero":                       false,
		"is_master":                       resources.CurrentHost == resources.Hosts[0],
		"job_name":                        t.Task.Job,
		"log_level":                       20,
		"master_hostname":                 resources.Hosts[0],
		"model_dir":                       folders.Model(),
		"module_dir":                      t.Program.Source,
		"module_name":                     module,
		"network_interface_name":          t.Interface,
		"num_cpus":                        t.cores(),
		"num_gpus":                        t.gpus(),
		"num_neurons":                     0,
		"output_data_dir":                 folders.OutputData(),
		"output_dir":                      path.Dir(folders.OutputData()),
		"output_intermediate_dir":         folders.OutputIntermediate(),
		"resource_config":                 resources,
		"user_entry_point":                t.Program.Script,
	}
}

// hyperparameters are the values decoded: each is JSON if it can be read as such, else
// the text itself. Those by which the SDK tells the toolkit what to run are left out.
func (t Task) hyperparameters() map[string]any {
	values := map[string]any{}
	for name, text := range t.Program.Hyperparameters {
		if !strings.HasPrefix(name, "sagemaker_") {
			values[name] = decoded(text)
		}
	}
	return values
}

func decoded(text string) any {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber() // 1e-3 stays 1e-3
	var value any
	if decoder.Decode(&value) != nil || decoder.More() {
		return text
	}
	return value
}

// shown is a value as a variable: a text as it is, all else as compact JSON.
func shown(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	default:
		return string(encode(v))
	}
}

// Arguments are the hyperparameters as a script gets them: "--name value", by name; a name
// of one letter has one dash.
func (t Task) Arguments() []string {
	arguments := []string{}
	values := t.hyperparameters()
	for _, name := range slices.Sorted(maps.Keys(values)) {
		dashes := "--"
		if len(name) == 1 {
			dashes = "-"
		}
		arguments = append(arguments, dashes+name, argument(values[name]))
	}
	return arguments
}

// argument is a value on a command line, as Python's str shows it.
func argument(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		if v {
			return "True"
		}
		return "False"
	case map[string]any:
		var items []string
		for _, name := range slices.Sorted(maps.Keys(v)) {
			items = append(items, fmt.Sprintf("%s=%s", name, argument(v[name])))
		}
		return strings.Join(items, ",")
	default:
		return shown(v)
	}
}

func channelNames(channels map[string]string) []string {
	names := []string{}
	return append(names, slices.Sorted(maps.Keys(channels))...)
}
