package tuning_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload/tuning"
)

const (
	network = `"network": {"input": [64], "layers": [{"dense": {"units": 32, "activation": "relu"}}, {"dense": {"units": 10}}], "loss": "cross_entropy"},
		"optimizer": {"adam": {"rate": 0.001}}, "data": {"format": "csv", "validation_fraction": 0.1}, "epochs": 9, "batch": 64, "inputs": {"train": "s3://ann/digits.csv"}`
	rate    = `{"name": "optimizer.adam.rate", "type": "float", "low": 1e-4, "high": 0.1, "scale": "log"}`
	loss    = `"objectives": [{"name": "validation_loss"}]`
	program = `"trial": {"program": {"command": ["train", "--rate", "${rate}"]}}`
	byName  = `{"name": "rate", "type": "float", "low": 0.1, "high": 1}`
)

func sweep(space, rest, trial string) string {
	return `{"space": {"parameters": [` + space + `]}, ` + rest + `, "trial": {` + trial + `}}`
}

func TestASweepOfANetworkNamesFieldsByPath(t *testing.T) {
	text := sweep(rate+`, {"name": "units", "type": "int", "low": 8, "high": 64, "path": "network.layers[0].dense.units"},
		{"name": "activation", "type": "categorical", "choices": ["relu", "tanh"], "path": "network.layers[0].dense.activation"}, {"name": "batch", "type": "ordered", "choices": [32, 64]}`,
		loss+`, "budget": {"trials": 60, "time": "10m"}, "parallel": 4, "initial": [{"optimizer.adam.rate": 0.01, "units": 16, "activation": "tanh", "batch": 32}]`, network)
	if problems := (tuning.Kind{}).Check([]byte(text)); problems != nil {
		t.Fatal(problems)
	}
	gangs := tuning.Kind{}.Foresee(cluster.Job{Name: "sweep", Queue: "default", Owner: "ann", Spec: []byte(text)}, 1)
	if len(gangs) != 1 || len(gangs[0].Roles) != 2 {
		t.Errorf("foresees %+v", gangs)
	}
}

func TestMistakesAreToldBeforeTheFirstTrial(t *testing.T) {
	for name, c := range map[string]struct{ text, field, want string }{
		"no parameters":         {`{"space": {}, ` + loss + `}`, "space.parameters", "give 1 to"},
		"reversed bounds":       {sweep(`{"name": "batch", "type": "int", "low": 9, "high": 2}`, loss, network), "space.parameters[0].high", "9"},
		"log of zero":           {sweep(`{"name": "optimizer.adam.rate", "type": "float", "low": 0, "high": 1, "scale": "log"}`, loss, network), "space.parameters[0].low", "above 0"},
		"no objective":          {sweep(rate, `"objectives": []`, network), "objectives", "give 1 to"},
		"unknown sampler":       {sweep(rate, loss+`, "sampler": "oracle"`, network), "sampler", `"oracle"`},
		"unknown stopper":       {sweep(rate, loss+`, "stopper": {"name": "axe"}`, network), "stopper.name", `"axe"`},
		"a stopper without end": {`{"space": {"parameters": [` + byName + `]}, ` + loss + `, "stopper": "asha"}`, "stopper.max", "fidelity.max too"},
		"a stopper's mistake":   {sweep(rate, loss+`, "stopper": {"name": "asha", "eta": 1}`, network), "stopper.eta", "above 1"},
		"another's parameter":   {sweep(rate, loss+`, "stopper": {"name": "median", "eta": 3}`, network), "stopper", "for asha and hyperband"},
		"nothing to go on from": {`{"space": {"parameters": [` + byName + `]}, ` + loss + `, "fidelity": {"max": 9}, "stopper": {"name": "asha", "promote": true}, ` + program + `}`, "stopper.promote", "trial.checkpoints: true"},
		"no patience":           {sweep(rate, loss+`, "patience": -1`, network), "patience", "-1"},
		"unknown field":         {sweep(rate, loss+`, "paralel": 3`, network), "paralel", "parallel"},
		"a path not there":      {sweep(`{"name": "optimizer.adm.rate", "type": "float", "low": 0.1, "high": 1}`, loss, network), "trial.optimizer.adm", "unknown field"},
		"an index too high":     {sweep(`{"name": "units", "type": "int", "low": 1, "high": 8, "path": "network.layers[7].dense.units"}`, loss, network), "trial.network.layers[7].dense.units", "2 elements"},
		"a wrong type":          {sweep(`{"name": "batch", "type": "float", "low": 1.5, "high": 8}`, loss, network), "trial.batch", "whole number"},
		"refused at a corner":   {sweep(`{"name": "batch", "type": "int", "low": 0, "high": 64}`, loss, network), "trial.batch", "(with batch = 0)"},
		"under a condition": {
			sweep(`{"name": "act", "type": "categorical", "choices": ["relu", "own"], "path": "network.layers[0].dense.activation"}`, loss, network),
			"trial.network.layers[0].dense.activation", `"own"`,
		},
		"no such metric":  {sweep(rate, `"objectives": [{"name": "val_loss"}]`, network), "objectives[0].name", "it has train_loss, train_accuracy, validation_loss, validation_accuracy"},
		"not validated":   {sweep(rate, loss, strings.Replace(network, `, "validation_fraction": 0.1`, "", 1)), "objectives[0].name", "set data.validation_fraction"},
		"a bad start":     {sweep(rate, loss+`, "initial": [{"optimizer.adam.rate": 7}]`, network), "initial[0].optimizer.adam.rate", "7"},
		"too parallel":    {sweep(rate, loss+`, "parallel": 100000`, network), "parallel", "out of range"},
		"target of many":  {sweep(rate, `"objectives": [{"name": "train_loss"}, {"name": "validation_loss"}], "target": 0.1`, network), "target", "one objective"},
		"a study's path":  {`{"space": {"parameters": [{"name": "a", "type": "float", "low": 0, "high": 1, "path": "b"}]}, ` + loss + `}`, "space.parameters[0].path", "no trial"},
		"a study's price": {`{"space": {"parameters": [` + byName + `]}, ` + loss + `, "prices": {"core_hour": 1}}`, "prices", "no trial"},
		"itself twice":    {`{"space": {"parameters": [` + byName + `]}, ` + loss + `, "warm_start": ["a", "a"]}`, "warm_start[1]", "twice"},
		"sometimes in a text": {`{"space": {"parameters": [{"name": "kind", "type": "categorical", "choices": ["x", "y"]},
			{"name": "rate", "type": "float", "low": 0.1, "high": 1, "when": {"parameter": "kind", "in": ["x"]}}]}, ` + loss + `, ` + program + `}`, "space.parameters[1].when", "not always there"},
		"cost without end": {sweep(rate, loss+`, "budget": {"cost": -1}`, network), "budget.cost", "-1"},
	} {
		t.Run(name, func(t *testing.T) {
			problems := tuning.Kind{}.Check([]byte(c.text))
			found := slices.ContainsFunc(problems, func(p cluster.Problem) bool {
				return p.Field == c.field && strings.Contains(p.Text, c.want)
			})
			if !found {
				t.Errorf("want %s: …%s…; got\n%v", c.field, c.want, problems)
			}
		})
	}
}

func TestTheSpecIsWrittenAsItIsRead(t *testing.T) {
	text := sweep(byName, loss+`, "fidelity": {"name": "step", "max": 100}, "prices": {"gpu_hour": 2}, "trial_runtime": "1h0m0s"`, `"program": {"command": ["train", "${rate}"]}`)
	spec, problems := tuning.Parse([]byte(text))
	if problems != nil {
		t.Fatal(problems)
	}
	written, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, problems := tuning.Parse(written); problems != nil {
		t.Fatalf("%s: %v", written, problems)
	}
}
