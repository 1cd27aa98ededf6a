package placement_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload/placement"
)

func node() cluster.Node {
	return cluster.Node{
		ID: "n1", MilliCPU: 16_000, Memory: 64 << 30, Labels: map[string]string{cluster.LabelRack: "r1", "nvme": "yes", "generation": "7"},
		Devices: []cluster.Device{{UUID: "g", Kind: cluster.DeviceGPU, Model: "A100", Memory: 80 << 30, Speed: 1000, Healthy: true}},
	}
}

func TestConstraintsAreReadAsTheyAreWritten(t *testing.T) {
	for text, c := range map[string]struct {
		want   cluster.Constraint
		allows bool
	}{
		"rack in (r1,r2)":               {cluster.Constraint{Attribute: "rack", Operator: cluster.OpIn, Values: []string{"r1", "r2"}}, true},
		" rack  not in ( r1 , r2 ) ":    {cluster.Constraint{Attribute: "rack", Operator: cluster.OpNotIn, Values: []string{"r1", "r2"}}, false},
		"zone != a":                     {cluster.Constraint{Attribute: "zone", Operator: cluster.OpNotIn, Values: []string{"a"}}, true},
		"cores > 8":                     {cluster.Constraint{Attribute: "cores", Operator: cluster.OpMore, Values: []string{"8"}}, true},
		"cores>16":                      {cluster.Constraint{Attribute: "cores", Operator: cluster.OpMore, Values: []string{"16"}}, false},
		"memory >= 64GiB":               {cluster.Constraint{Attribute: "memory", Operator: cluster.OpLeast, Values: []string{"68719476736"}}, true},
		"memory < 64GiB":                {cluster.Constraint{Attribute: "memory", Operator: cluster.OpLess, Values: []string{"68719476736"}}, false},
		"exists nvme":                   {cluster.Constraint{Attribute: "nvme", Operator: cluster.OpExists}, true},
		"nvme exists":                   {cluster.Constraint{Attribute: "nvme", Operator: cluster.OpExists}, true},
		"!nvme":                         {cluster.Constraint{Attribute: "nvme", Operator: cluster.OpMissing}, false},
		"generation <= 7 weight 30":     {cluster.Constraint{Attribute: "generation", Operator: cluster.OpMost, Values: []string{"7"}, Weight: 30}, true},
		"nvme > 3":                      {cluster.Constraint{Attribute: "nvme", Operator: cluster.OpMore, Values: []string{"3"}}, false},
		"node = n1":                     {cluster.Constraint{Attribute: "node", Operator: cluster.OpIn, Values: []string{"n1"}}, true},
		"cores = 16.0":                  {cluster.Constraint{Attribute: "cores", Operator: cluster.OpIn, Values: []string{"16.0"}}, true},
		"gpus == 1":                     {cluster.Constraint{Attribute: "gpus", Operator: cluster.OpIn, Values: []string{"1"}}, true},
		"example.com/a_b.c = two words": {cluster.Constraint{Attribute: "example.com/a_b.c", Operator: cluster.OpIn, Values: []string{"two words"}}, false},
	} {
		got, err := placement.ParseConstraint(text)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
		if got.Allows(node().Traits()) != c.allows {
			t.Errorf("%q allows the node: %v", text, !c.allows)
		}
	}
	for text, allows := range map[string]bool{
		"gpu.memory >= 80GiB": true, "gpu.memory > 80GiB": false, "gpu.model in (H100, A100)": true, "gpu.model != A100": false,
		"gpu.speed >= 1": true, "gpu.speed > 1.5": false,
	} {
		c, err := placement.ParseConstraint(text)
		if err != nil || c.AllowsDevice(node().Devices[0]) != allows || !c.Allows(cluster.Traits{}) || !c.OfDevice() {
			t.Errorf("%q: allows %v, %v", text, !allows, err)
		}
	}
}

func TestRubbishIsRefusedWithTheRemedy(t *testing.T) {
	for _, text := range []string{
		"", " ", "rack", "rack in", "rack in ()extra", "rack in (r1", "= a", "cores > many", "cores > NaN", "cores > Inf", "cores > 0x10",
		"memory >= 1furlong", "a = b = c", "cores > 1 weight 0", "cores > 1 weight 101", "cores > 1 weight many", "cores > 1 weight -5",
		strings.Repeat("x", 1000) + " = a", "rack in (" + strings.Repeat("a,", 100) + "a)", "rack = " + strings.Repeat("x", 300), "a\xff = b", "!", "exists",
	} {
		if c, err := placement.ParseConstraint(text); err == nil || len(err.Error()) > 400 {
			t.Errorf("%.30q is %+v, %v", text, c, err)
		}
	}
	for _, text := range []string{"", "job", "job=", "job=Not A Name", "=x", "job=a per", "job=a per moon", "job=a per nvlink", "a=b weight 1000"} {
		if a, err := placement.ParseAffinity(text); err == nil {
			t.Errorf("%q is %+v", text, a)
		}
	}
	for _, text := range []string{"", "=v", ":no-place", "a:", "a:never", "*:never"} {
		if a, err := placement.ParseToleration(text); err == nil {
			t.Errorf("toleration %q is %+v", text, a)
		}
	}
	for _, text := range []string{"", "=v", "a:never", ":no-place", "a:"} {
		if a, err := placement.ParseTaint(text); err == nil {
			t.Errorf("taint %q is %+v", text, a)
		}
	}
	for _, text := range []string{"", "moon", "rack,", "rack,required,preferred", ",preferred", "rack, maybe"} {
		if a, err := placement.ParseTopology(text); err == nil {
			t.Errorf("topology %q is %+v", text, a)
		}
	}
}

func TestAffinitiesTaintsAndTopologiesAreRead(t *testing.T) {
	a, err := placement.ParseAffinity("job=loader per rack weight 20")
	if want := (cluster.Affinity{Job: "loader", Over: cluster.LevelRack, Weight: 20}); err != nil || a != want {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err = placement.ParseAffinity("team=vision"); err != nil || a != (cluster.Affinity{Label: "team", Value: "vision", Over: cluster.LevelNode}) {
		t.Errorf("%+v, %v", a, err)
	}
	taint, err := placement.ParseTaint("team=vision")
	if err != nil || taint != (cluster.Taint{Key: "team", Value: "vision", Effect: cluster.EffectNoPlace}) {
		t.Errorf("%+v, %v", taint, err)
	}
	for text, tolerates := range map[string]bool{
		"team=vision": true, "team=speech": false, "team": true, "*": true, "team:prefer-not": false, "team:no-place": true, "other": false,
	} {
		toleration, err := placement.ParseToleration(text)
		if err != nil || toleration.Tolerates(taint) != tolerates {
			t.Errorf("%q: %+v tolerates %v, %v", text, toleration, !tolerates, err)
		}
	}
	topology, err := placement.ParseTopology("rack, preferred")
	if err != nil || topology != (cluster.Topology{Level: cluster.LevelRack, Preferred: true}) {
		t.Errorf("%+v, %v", topology, err)
	}
}

func TestEveryMistakeIsNamedByItsField(t *testing.T) {
	var s placement.Spec
	text := `{"constraints": ["cores > 1", "no"], "affinity": ["x"], "anti_affinity": ["y"], "tolerations": [""], "topology": "moon", "spread": "moon", "pack": "node"}`
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, problem := range s.Validate() {
		found[problem.Field] = true
	}
	for _, field := range []string{"constraints[1]", "affinity[0]", "anti_affinity[0]", "tolerations[0]", "topology", "pack"} {
		if !found[field] {
			t.Errorf("no mistake at %s: %v", field, s.Validate())
		}
	}
	if !(placement.Spec{}).IsZero() || s.IsZero() {
		t.Error("what is asked for is nothing")
	}
}

func TestWhatIsAskedForReachesTheRole(t *testing.T) {
	s := placement.Spec{Constraints: []string{"cores > 1"}, AntiAffinity: []string{"job=web"}, Tolerations: []string{"*"}, Topology: "rack", Pack: cluster.LevelRack}
	role := cluster.Role{Name: "worker", Count: 1, Program: cluster.Program{Command: []string{"true"}}}
	s.Apply(&role)
	if len(role.Constraints) != 1 || len(role.Affinities) != 1 || !role.Affinities[0].Anti || len(role.Tolerations) != 1 ||
		role.Topology.Level != cluster.LevelRack || !role.Pack || role.Over != cluster.LevelRack || role.Spread == "" {
		t.Errorf("role %+v", role)
	}
	if err := role.Validate().Err(); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"rack in (r1,r2) weight 5", "gpu.memory >= 40GiB", "!a", "job=web per rack", "team=vision:no-place", "*", "rack,preferred"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := placement.ParseConstraint(text); err == nil {
			if problems := c.Validate(); len(problems) > 0 {
				t.Errorf("%q is read as %+v, which is wrong: %v", text, c, problems)
			}
			c.Allows(node().Traits())
			c.AllowsDevice(node().Devices[0])
			_ = c.String()
		}
		if a, err := placement.ParseAffinity(text); err == nil && len(a.Validate()) > 0 {
			t.Errorf("%q is read as %+v", text, a)
		}
		if a, err := placement.ParseTaint(text); err == nil && len(a.Validate()) > 0 {
			t.Errorf("%q is read as %+v", text, a)
		}
		if a, err := placement.ParseToleration(text); err == nil && len(a.Validate()) > 0 {
			t.Errorf("%q is read as %+v", text, a)
		}
		if a, err := placement.ParseTopology(text); err == nil && len(a.Validate()) > 0 {
			t.Errorf("%q is read as %+v", text, a)
		}
	})
}
