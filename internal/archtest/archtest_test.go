package archtest_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/clary-ml/clary/internal/archtest"
)

const module = "github.com/clary-ml/clary"

func TestTheRepositoryKeepsItsShape(t *testing.T) {
	tree, err := archtest.Read(os.DirFS("../.."), module)
	if err != nil {
		t.Fatal(err)
	}
	if folders := tree.Folders(); !slices.Contains(folders, "cluster") || !slices.Contains(folders, "cmd/clary") {
		t.Fatalf("this is not the whole repository: %q", folders)
	}
	for _, breach := range tree.Check(archtest.Clary()) {
		t.Error(breach)
	}
}

// good is a tree that breaks nothing; each row of the table adds the file that does.
func good() fstest.MapFS {
	return tree(map[string]string{
		"cluster/job.go":             src("cluster", `import "time"`, `var Zero time.Duration`),
		"scheduler/place.go":         src("scheduler", `import "github.com/clary-ml/clary/cluster"`, `var _ = cluster.Zero`),
		"coordinator/planner/run.go": src("planner", `import ("time"; "github.com/clary-ml/clary/scheduler")`, `var _ = time.Now`),
		"trainer/network/graph.go":   src("network", `import "gorgonia.org/gorgonia"`, `var _ = gorgonia.Use`),
		"trainer/spec/spec.go":       src("spec", ``, ``),
		"workload/run.go":            src("workload", `import "github.com/clary-ml/clary/trainer/spec"`, ``),
		"client/dial.go":             src("client", `import "github.com/clary-ml/clary/auth/pki"`, ``),
		"auth/pki/ca.go":             src("pki", ``, ``),
		"proto/wire/job.go":          src("wire", `import "google.golang.org/protobuf/proto"`, ``),
	})
}

func src(pkg, imports, body string) string {
	return fmt.Sprintf("// Package %s is an example.\npackage %s\n%s\n%s\n", pkg, pkg, imports, body)
}

func tree(files map[string]string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fsys
}

func TestEveryBreachIsRefusedAndSaysWhy(t *testing.T) {
	clary := func(folder string) string { return `import _ "github.com/clary-ml/clary/` + folder + `"` }
	for _, row := range []struct {
		name, path, text, want string
	}{
		{"an arrow up", "storage/kv/kv.go", src("kv", clary("coordinator/planner"), ""), "arrows point down"},
		{"an arrow between rooms of one height", "auth/token.go", src("auth", clary("monitor"), ""), "do not know one another"},
		{"an agent that knows coordinators", "agent/link.go", src("agent", clary("coordinator/planner"), ""), "over proto"},
		{"an agent that knows gorgonia by way of the trainer", "agent/run.go", src("agent", clary("trainer/network"), ""), "knows none of them"},
		{"a coordinator that reaches gorgonia", "coordinator/rpc/a.go", src("rpc", clary("trainer/network"), ""), "which imports gorgonia.org/gorgonia"},
		{"gorgonia elsewhere", "trainer/data/csv.go", src("data", `import _ "gorgonia.org/tensor"`, ""), "only user of gorgonia"},
		{"a scheduler that speaks protobuf", "scheduler/x.go", src("scheduler", clary("proto/wire"), ""), "only proto/wire converts"},
		{"a workload that speaks protobuf", "workload/x.go", src("workload", `import _ "google.golang.org/protobuf/proto"`, ""), "only proto/wire converts"},
		{"a workload with a network", "workload/x.go", src("workload", `import _ "net/http"`, ""), "no network, no disk"},
		{"a scheduler with a clock", "scheduler/x.go", src("scheduler", `import "time"`, `var now = time.Now()`), "must not call time.Now"},
		{"a scheduler with a renamed clock", "scheduler/x.go", src("scheduler", `import clock "time"`, `var now = clock.Now()`), "must not call time.Now"},
		{"a command with a clock", "coordinator/command/x.go", src("command", `import "time"`, `var now = time.Now()`), "every replica"},
		{"a command with chance", "coordinator/fsm/x.go", src("fsm", `import _ "math/rand/v2"`, ""), "every replica"},
		{"nouns with a library", "cluster/x.go", src("cluster", `import _ "github.com/google/uuid"`, ""), "the nouns import nothing"},
		{"nouns that know a room", "cluster/x.go", src("cluster", clary("internal/fault"), ""), "the nouns import nothing"},
		{"storage that knows the nouns", "storage/kv/x.go", src("kv", clary("cluster"), ""), "codecs are passed in"},
		{"a trainer that knows the cluster", "trainer/x.go", src("trainer", clary("cluster"), ""), "files, environment and addresses"},
		{"a client that knows more of auth than its pins", "client/x.go", src("client", clary("auth"), ""), "arrows point down"},
		{"a heavy shim", "cmd/clary-shim/main.go", src("main", `import _ "google.golang.org/grpc"`, ""), "small and static"},
		{"a room nobody planned", "gadgets/x.go", src("gadgets", "", ""), "no row of the table"},
		{"a package without words", "agent/quiet/x.go", "package quiet\n", "no doc comment"},
		{"a package without meaning", "agent/util/x.go", src("util", "", ""), "says nothing"},
		{"an init", "agent/x.go", src("agent", "", "func init() {}"), "func init"},
		{"an init in a test", "agent/x_test.go", src("agent", "", "func init() {}"), "func init"},
		{"an endless file", "agent/x.go", src("agent", "", strings.Repeat("// line\n", 600)), "at most 600"},
		{"an endless function", "agent/x.go", src("agent", "", "func f() {\n"+strings.Repeat("\tf()\n", 70)+"}"), "fits a screen"},
	} {
		t.Run(row.name, func(t *testing.T) {
			files := good()
			files[row.path] = &fstest.MapFile{Data: []byte(row.text)}
			breaches := check(t, files)
			if all := strings.Join(breaches, "\n"); !strings.Contains(all, row.want) || !strings.Contains(all, strings.TrimSuffix(row.path, "/x.go")) {
				t.Errorf("found %q, want a breach in %s that says %q", breaches, row.path, row.want)
			}
		})
	}
}

func TestWhatTheLawAllowsIsNotRefused(t *testing.T) {
	for _, row := range []struct{ name, path, text string }{
		{"nothing at all", "docs/readme.md", "words"},
		{"a test may import what it tests with", "scheduler/place_test.go", src("scheduler", `import ("time"; "math/rand/v2")`, "var _, _ = time.Now(), rand.Int()")},
		{"a method named init", "agent/x.go", src("agent", "", "type a struct{}\nfunc (a) init() {}")},
		{"end-to-end tests import everything", "test/e2e/x.go", src("e2e", `import _ "github.com/clary-ml/clary/coordinator/planner"`, "")},
		{"a variable named like a package", "scheduler/x.go", src("scheduler", "", "var time struct{ Now int }\nvar _ = time.Now")},
		{"what is not a package", "agent/testdata/x.go", "package broken {"},
	} {
		t.Run(row.name, func(t *testing.T) {
			files := good()
			files[row.path] = &fstest.MapFile{Data: []byte(row.text)}
			for _, breach := range check(t, files) {
				t.Error(breach)
			}
		})
	}
}

func check(t *testing.T, files fstest.MapFS) []string {
	t.Helper()
	parsed, err := archtest.Read(files, module)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Check(archtest.Clary())
}
