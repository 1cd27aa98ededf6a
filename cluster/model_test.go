package cluster_test

import (
	"math"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
)

func TestAReferenceToAModelIsReadStrictly(t *testing.T) {
	for text, want := range map[string]cluster.ModelRef{
		"digits":                    {Model: "digits"},
		"model://digits":            {Model: "digits"},
		"digits@3":                  {Model: "digits", Number: 3},
		"model://digits@999999999":  {Model: "digits", Number: 999_999_999},
		"model://digits:champion":   {Model: "digits", Alias: "champion"},
		"a:b-2":                     {Model: "a", Alias: "b-2"},
		"":                          {},
		"model://":                  {},
		"digits@":                   {},
		"digits@0":                  {},
		"digits@-1":                 {},
		"digits@03":                 {},
		"digits@+3":                 {},
		"digits@3 ":                 {},
		"digits@1000000000":         {},
		"digits@99999999999999999":  {},
		"digits@3:champion":         {},
		"digits:champion@3":         {},
		"digits:":                   {},
		"digits:Champion":           {},
		"Digits@1":                  {},
		"../digits@1":               {},
		"model://model://digits@1":  {},
		"s3://digits@1":             {},
		strings.Repeat("a", 64):     {},
		"digits@1\n":                {},
		"\xff@1":                    {},
		"digits/x@1":                {},
		"model://digits@3?digest=1": {},
	} {
		got, err := cluster.ParseModelRef(text)
		if wrong := want.Model == ""; got != want || (err != nil) != wrong {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func FuzzModelRef(f *testing.F) {
	for _, seed := range []string{"digits@3", "model://digits:champion", "a", "@", ":", "a@9999999999"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ref, err := cluster.ParseModelRef(text)
		if err != nil {
			if ref != (cluster.ModelRef{}) {
				t.Fatalf("%q is refused, and is %+v", text, ref)
			}
			return
		}
		if short := strings.TrimPrefix(text, cluster.ModelScheme); ref.String() != short {
			t.Fatalf("%q reads as %+v, which is written %q", text, ref, ref.String())
		}
		again, err := cluster.ParseModelRef(cluster.ModelScheme + ref.String())
		if err != nil || again != ref {
			t.Fatalf("%+v is %+v when it is read again (%v)", ref, again, err)
		}
	})
}

func goodVersion() cluster.ModelVersion {
	return cluster.ModelVersion{
		Model: "digits", Number: 3, Owner: "ann", Format: "tar.gz", Framework: "clary",
		Artifact: cluster.Output{Name: "model.tar.gz", URI: "s3://clary/models/digits/k1/model.tar.gz", SHA256: strings.Repeat("0a", 32), Size: 9},
		Approval: cluster.Approval{State: cluster.ApprovalPending},
		Lineage:  cluster.Lineage{Job: "digits-7", Parameters: map[string]string{"epochs": "3"}, Metrics: map[string]float64{"loss": 0.1}},
		Evaluations: []cluster.Evaluation{
			{Name: "held-out", Metrics: map[string]float64{"auc": 0.9}, Against: "digits@2", Report: "s3://clary/models/digits/k1/held-out.html"},
		},
	}
}

func TestRubbishIsNoVersionOfAModel(t *testing.T) {
	if p := goodVersion().Validate(); p != nil {
		t.Fatal(p)
	}
	many := map[string]string{}
	for i := range cluster.MaxModelParameters + 1 {
		many[strings.Repeat("k", i%200+1)+string(rune('0'+i/200))] = "v"
	}
	e := func(v *cluster.ModelVersion) *cluster.Evaluation { return &v.Evaluations[0] }
	for name, c := range map[string]struct {
		change func(*cluster.ModelVersion)
		field  string
	}{
		"a name with a path":       {func(v *cluster.ModelVersion) { v.Model = "a/b" }, "model"},
		"number 0":                 {func(v *cluster.ModelVersion) { v.Number = 0 }, "number"},
		"a number too large":       {func(v *cluster.ModelVersion) { v.Number = cluster.MaxModelNumber + 1 }, "number"},
		"no owner":                 {func(v *cluster.ModelVersion) { v.Owner = "" }, "owner"},
		"a long note":              {func(v *cluster.ModelVersion) { v.Text = strings.Repeat("x", 1025) }, "text"},
		"another model's artifact": {func(v *cluster.ModelVersion) { v.Artifact.URI = "s3://clary/models/other/k1/model.tar.gz" }, "artifact.uri"},
		"a job's artifact":         {func(v *cluster.ModelVersion) { v.Artifact.URI = "s3://clary/jobs/digits/1/model.tar.gz" }, "artifact.uri"},
		"no folder of its own":     {func(v *cluster.ModelVersion) { v.Artifact.URI = "s3://clary/models/digits/model.tar.gz" }, "artifact.uri"},
		"another file":             {func(v *cluster.ModelVersion) { v.Artifact.Name = "other" }, "artifact.uri"},
		"no digest":                {func(v *cluster.ModelVersion) { v.Artifact.SHA256 = "" }, "artifact.sha256"},
		"a digest in capitals":     {func(v *cluster.ModelVersion) { v.Artifact.SHA256 = strings.Repeat("0A", 32) }, "artifact.sha256"},
		"nothing in it":            {func(v *cluster.ModelVersion) { v.Artifact.Size = 0 }, "artifact.size"},
		"a strange format":         {func(v *cluster.ModelVersion) { v.Format = "Tar" }, "format"},
		"a long framework":         {func(v *cluster.ModelVersion) { v.Framework = strings.Repeat("a", 33) }, "framework"},
		"a strange state":          {func(v *cluster.ModelVersion) { v.Approval.State = "maybe" }, "approval.state"},
		"a long reason":            {func(v *cluster.ModelVersion) { v.Approval.Why = strings.Repeat("x", 1025) }, "approval.why"},
		"many parameters":          {func(v *cluster.ModelVersion) { v.Lineage.Parameters = many }, "lineage.parameters"},
		"a long parameter": {func(v *cluster.ModelVersion) {
			v.Lineage.Parameters = map[string]string{"a": strings.Repeat("x", 1025)}
		}, "lineage.parameters"},
		"a metric that is none":    {func(v *cluster.ModelVersion) { v.Lineage.Metrics["loss"] = math.NaN() }, "lineage.metrics"},
		"a metric without end":     {func(v *cluster.ModelVersion) { v.Lineage.Metrics["loss"] = math.Inf(1) }, "lineage.metrics"},
		"a pin of another model":   {func(v *cluster.ModelVersion) { v.Lineage.Models = []cluster.ModelPin{{Model: "a", Number: 1}} }, "lineage.models[0]"},
		"an evaluation of nothing": {func(v *cluster.ModelVersion) { e(v).Metrics = nil }, "evaluations[0].metrics"},
		"an evaluation's name":     {func(v *cluster.ModelVersion) { e(v).Name = "Held Out" }, "evaluations[0].name"},
		"two of a name":            {func(v *cluster.ModelVersion) { v.Evaluations = append(v.Evaluations, v.Evaluations[0]) }, "evaluations[1].name"},
		"against an alias":         {func(v *cluster.ModelVersion) { e(v).Against = "digits:champion" }, "evaluations[0].against"},
		"against itself":           {func(v *cluster.ModelVersion) { e(v).Against = "digits@3" }, "evaluations[0].against"},
		"a page of another":        {func(v *cluster.ModelVersion) { e(v).Report = "s3://clary/models/digits/k2/a.html" }, "evaluations[0].report"},
		"the artifact as its page": {func(v *cluster.ModelVersion) { e(v).Details = v.Artifact.URI }, "evaluations[0].details"},
	} {
		v := goodVersion()
		c.change(&v)
		err := v.Validate().Err()
		if err == nil || !strings.Contains(err.Error(), c.field+": ") {
			t.Errorf("%s: %v; want a mistake in %s", name, err, c.field)
		}
	}
}

func TestApprovalsGoAlongTheDrawing(t *testing.T) {
	all := []cluster.ApprovalState{cluster.ApprovalPending, cluster.ApprovalApproved, cluster.ApprovalRejected}
	may := map[[2]cluster.ApprovalState]bool{
		{cluster.ApprovalPending, cluster.ApprovalApproved}: true, {cluster.ApprovalPending, cluster.ApprovalRejected}: true,
		{cluster.ApprovalApproved, cluster.ApprovalRejected}: true, {cluster.ApprovalRejected, cluster.ApprovalApproved}: true,
	}
	for _, from := range all {
		for _, to := range all {
			if from.CanBecome(to) != may[[2]cluster.ApprovalState{from, to}] {
				t.Errorf("%s to %s: %v", from, to, from.CanBecome(to))
			}
		}
	}
}

func TestPinsTakeThePlaceOfReferencesOnly(t *testing.T) {
	role := func() cluster.Role {
		return cluster.Role{Program: cluster.Program{Inputs: []cluster.Input{
			{Channel: "model", URI: "model://digits:champion"}, {Channel: "train", URI: "s3://data/train.csv"}, {Channel: "old", URI: "model://digits@1"},
		}}}
	}
	if got := cluster.ModelRefs([]cluster.Gang{{Roles: []cluster.Role{role(), role()}}}); len(got) != 2 || got[0] != "model://digits:champion" || got[1] != "model://digits@1" {
		t.Errorf("references: %v", got)
	}
	roles := []cluster.Role{role()}
	shared := roles[0].Program.Inputs
	cluster.PinModels(roles, []cluster.ModelPin{{Ref: "model://digits:champion", URI: "s3://clary/models/digits/k/m", SHA256: "aa"}})
	inputs := roles[0].Program.Inputs
	if inputs[0].URI != "s3://clary/models/digits/k/m" || inputs[0].SHA256 != "aa" || inputs[1].URI != "s3://data/train.csv" || inputs[2].URI != "model://digits@1" {
		t.Errorf("pinned: %+v", inputs)
	}
	if shared[0].URI != "model://digits:champion" {
		t.Error("inputs that others share were changed")
	}
}
