package rubbish

import (
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/clary-ml/clary/test/testbed"
)

const fine = "name: a\nkind: training\nspec: {program: {command: [\"true\"]}}\n"

// alias names nine times what was named nine times, and so on: the file is small, what it says is not.
func alias() string {
	var b strings.Builder
	b.WriteString(`a: &a ["x","x","x","x","x","x","x","x","x"]` + "\n")
	for name := 'b'; name <= 'h'; name++ {
		before := string(name - 1)
		b.WriteString(string(name) + ": &" + string(name) + " [" + strings.Repeat("*"+before+",", 8) + "*" + before + "]\n")
	}
	return b.String() + "name: *h\n"
}

// noise is bytes that nobody meant.
func noise(seed uint64, size int) []byte {
	random := rand.New(rand.NewPCG(seed, 0))
	out := make([]byte, size)
	for i := range out {
		out[i] = byte(random.Uint32())
	}
	return out
}

func TestABadJobFileIsRefusedWhereItIsWrong(t *testing.T) {
	m := testbed.Start(t, 1, 0)
	spec := func(text string) string { return "name: a\nkind: training\nspec: " + text + "\n" }
	program := func(more string) string { return spec(`{program: {command: ["true"]}` + more + `}`) }
	for _, c := range []struct{ what, file, says string }{
		{"nothing", "", "the file is empty: it takes at least a spec"},
		{"broken YAML", "name: [\n", "line 1: this is not YAML"},
		{"bytes", string(noise(1, 3000)), "this is not YAML"},
		{"half of a JSON", `{"name": "a", "kind": "training"`, "line 1: ends too early"},
		{"a kind that is none", "name: a\nkind: baking\nspec: {}\n", `line 2: kind: "baking" is unknown: there is endpoint`},
		{"a name that is none", "name: Not A Name!\nkind: training\nspec: {program: {command: [\"true\"]}}\n", `line 1: name: "Not A Name!" is not a name: use 1 to 63 of a-z`},
		{"no program", spec("{program: {command: []}}"), "line 3: spec.program.command: is empty: name the program"},
		{"a slip of the pen", spec(`{program: {comand: ["true"]}}`), `spec.program.comand: unknown field: did you mean "command"?`},
		{"a word for a number", "retries: many\n" + fine, "line 1: retries: takes a whole number"},
		{"less than nothing", program(", resources: {cores: -1}"), "spec.resources.cores: -1 cores is out of range"},
		{"a size that is none", program(", resources: {memory: lots}"), `spec.resources.memory: "lots" is not a size: write it like "512MiB"`},
		{"too many tasks", program(", instances: 1000000"), "spec.instances: 1000000 is out of range: from 1 to 4096"},
		{"two kinds of work", program(", network: {input: [64], layers: [{dense: {units: 10}}]}"), "spec.network: is for a declared network, and program is set"},
		{"a layer without units", spec("{network: {input: [64], layers: [{dense: {units: 0}}], loss: cross_entropy}}"), "spec.network.layers[0].dense.units: 0: give 1 to 1048576"},
		{"an address that is none", program(`, inputs: {train: "s3://"}`), `spec.inputs.train: "s3://" is not s3://bucket/key`},
		{"a file that is not there", program(", inputs: {train: no/such/file.csv}"), "no/such/file.csv: no such file"},
		{"a queue that is not there", "queue: nowhere\n" + fine, "nowhere"},
		{"two mistakes", "priority: 99999\nmax_runtime: -5s\n" + fine, "line 2: max_runtime: -5s is out of range"},
		{"three megabytes", program(`, hyperparameters: {a: "` + strings.Repeat("x", 3<<20) + `"}`), "the file has 3145"},
		{"more than a job may hold", program(`, hyperparameters: {a: "` + strings.Repeat("x", 3<<19) + `"}`), "at most 1048576"},
		{"a hundred thousand brackets", strings.Repeat("[", 100_000), "exceeded max depth"},
		{"aliases of aliases", alias(), "the file is too large or too deep, aliases expanded"},
		{"a field twice", "name: b\n" + fine, "name: is there twice"},
		{"a variable without a name", spec(`{program: {command: ["true"], env: {"": x}}}`), `"" is not a variable's name`},
		{"a range that is upside down", "name: a\nkind: tuning\nspec: {space: {parameters: [{name: x, type: float, low: 2, high: 1}]}, objectives: [{name: l}], trial: {program: {command: [\"true\"]}}}\n", "spec.space.parameters[0].high: 1 is below low 2: exchange them"},
		{"two jobs", fine + "---\n" + fine, "line 4: a second document begins here: a file holds one job"},
		{"a NUL byte", spec(`{program: {command: ["a\0b"]}}`), "holds a NUL byte"},
		{"an exclusive container", spec("{image: a/b, exclusive: true}"), "spec.exclusive: is for a process"},
	} {
		path := m.Path("job.yaml")
		if strings.HasPrefix(c.file, "{") {
			path = m.Path("job.json")
		}
		if err := os.WriteFile(path, []byte(c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		out := m.Exits(1, "submit", "-f", path)
		if !strings.Contains(out, c.says) || strings.Contains(out, "panic") || strings.Contains(out, "goroutine") || len(out) > 4096 {
			t.Errorf("%s: %d bytes are said, and not %q:\n%.1000s", c.what, len(out), c.says, out)
		}
	}
	if jobs := m.Clary("jobs", "-o", "json"); strings.Contains(jobs, `"name"`) {
		t.Errorf("something was submitted: %s", jobs)
	}
	m.Clary("submit", "-f", m.File("fine.yaml", fine)) // what they are mistakes beside
}
