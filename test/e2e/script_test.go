package e2e

import (
	"archive/zip"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// wheelhouse is a folder with one package: greet, which says hello.
func (m *machines) wheelhouse() string {
	m.T.Helper()
	folder := m.Path("wheels")
	if err := os.Mkdir(folder, 0o755); err != nil {
		m.T.Fatal(err)
	}
	file, err := os.Create(filepath.Join(folder, "greet-1.0-py3-none-any.whl"))
	if err != nil {
		m.T.Fatal(err)
	}
	wheel := zip.NewWriter(file)
	for name, text := range map[string]string{
		"greet.py":                     "def hello(): return 'hello from a wheel'\n",
		"greet-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: greet\nVersion: 1.0\n",
		"greet-1.0.dist-info/WHEEL":    "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		"greet-1.0.dist-info/RECORD":   "",
	} {
		entry, err := wheel.Create(name)
		if err != nil {
			m.T.Fatal(err)
		}
		if _, err := entry.Write([]byte(text)); err != nil {
			m.T.Fatal(err)
		}
	}
	if wheel.Close() != nil || file.Close() != nil {
		m.T.Fatal("the wheel cannot be written")
	}
	return folder
}

// tree writes files below a new folder.
func (m *machines) tree(name string, files map[string]string) string {
	m.T.Helper()
	root := m.Path(name)
	for file, text := range files {
		path := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			m.T.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			m.T.Fatal(err)
		}
	}
	return root
}

const script = `
import argparse, getpass, json, os, socket, sys
import greet, part.more
parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int)
parser.add_argument("--lr", type=float)
parser.add_argument("--name")
print(json.dumps({
    "greeting": greet.hello(), "more": part.more.value, "args": vars(parser.parse_args()),
    "ignored": [p for p in ("secret.txt", "part/cache.pyc", ".git", "big") if os.path.exists(p)],
    "data": open(os.path.join(os.environ["SM_CHANNEL_TRAIN"], "rows.csv")).read(),
    "hosts": json.loads(os.environ["SM_HOSTS"]), "address": socket.gethostbyname(os.environ["SM_CURRENT_HOST"]),
    "uid": os.getuid(), "user": getpass.getuser(), "cwd": os.getcwd(), "prefix": sys.prefix != sys.base_prefix,
    "lr": os.environ["SM_HP_LR"], "conf": json.load(open("/opt/ml/input/config/hyperparameters.json")),
}))
open(os.path.join(os.environ["SM_MODEL_DIR"], "model.txt"), "w").write("weights")
`

func TestAScriptFindsItsCodePackagesDataAndArguments(t *testing.T) {
	m := start(t, 1, 0)
	m.Agent("n1", "--wheelhouse", m.wheelhouse())
	m.WaitFor("the agent", 30*time.Second, func() bool { return m.Ready() == 1 })
	source := m.tree("source", map[string]string{
		"train.py": script, "part/more.py": "value = 42\n", "part/cache.pyc": "x", "part/.gitignore": "*.pyc\n",
		".gitignore": "/secret.txt\nbig/\n", "secret.txt": "hush", "big/blob": "x", ".git/config": "x",
	})
	data := m.tree("data", map[string]string{"rows.csv": "1,2\n"})
	requirements := m.File("requirements.txt", "greet==1.0\n")
	// Run by hand as root, PATH may begin with a Python of root's own: the agent finds another.
	train := func(name string, extra ...string) string {
		return m.Exits(0, append([]string{
			"train", "--script", "train.py", "--source", source, "--requirements", requirements, "--data", data, "--name", name,
			"--hyperparameter", "lr=0.5", "--hyperparameter", "name=net", "--", "--epochs", "3",
		}, extra...)...)
	}
	train("first")
	said := m.Exits(0, "logs", "first")
	var found struct {
		Greeting, Data, Address, User, Cwd, Lr string
		More, UID                              int
		Args                                   struct {
			Epochs int
			Lr     float64
			Name   string
		}
		Ignored, Hosts []string
		Prefix         bool
		Conf           map[string]string
	}
	if err := json.Unmarshal([]byte(said), &found); err != nil {
		t.Fatalf("%v in %q", err, said)
	}
	if found.Greeting != "hello from a wheel" || found.More != 42 || !found.Prefix || found.Cwd != "/opt/ml/code" || found.Data != "1,2\n" {
		t.Errorf("code, packages, data: %+v", found)
	}
	if found.Args.Epochs != 3 || found.Args.Lr != 0.5 || found.Args.Name != "net" || found.Lr != "0.5" || found.Conf["name"] != `"net"` || len(found.Ignored) > 0 {
		t.Errorf("arguments: %+v", found)
	}
	if found.UID < 200000 || !strings.HasPrefix(found.User, "clary-") || found.Address != "127.0.0.1" || len(found.Hosts) != 1 {
		t.Errorf("place: %+v", found)
	}
	if view := m.Job("first"); len(view.Outputs) != 1 || view.Outputs[0].Name != "model" {
		t.Errorf("outputs: %+v", view.Outputs)
	}

	// The same packages again are not installed again, also by the next agent.
	environments := func() []os.DirEntry {
		items, _ := os.ReadDir(m.Path("n1/python"))
		return items
	}
	before := environments()
	m.Kill("n1")
	m.Again("n1")
	began := time.Now()
	train("second")
	t.Logf("with a cached environment: %s", time.Since(began).Round(time.Millisecond))
	if after := environments(); len(before) != 1 || len(after) != 1 || before[0].Name() != after[0].Name() {
		t.Errorf("environments %v, then %v", before, after)
	}

	// What cannot be installed says so, and is no node's fault for ever.
	out := m.Exits(1, "train", "--script", "train.py", "--source", source, "--requirements", m.File("wrong.txt", "no-such-package==9\n"), "--data", data, "--name", "wrong")
	if !strings.Contains(out, "no-such-package") {
		t.Errorf("a package that is not there: %s", out)
	}
	m.refuses(nil, []string{"train", "--script", "nothing.py", "--source", source}, "there is no file nothing.py")
	m.refuses(nil, []string{"train", "--script", "secret.txt", "--source", source}, "left out of the source by a .gitignore")
	m.refuses(nil, []string{"train", "--script", "train.py", "--source", source, "--epochs", "3"}, "--epochs is for a network")
	m.refuses(nil, []string{"train", "--source", source}, "--source is for a script")
}

func TestATaskThatIsCutOffReachesNothing(t *testing.T) {
	m := start(t, 1, 1)
	path := m.tree("alone", map[string]string{"alone.py": `
import socket
for to in [("127.0.0.1", ` + strings.Split(m.Address["s1"], ":")[1] + `), ("1.1.1.1", 53)]:
    try:
        socket.create_connection(to, 2)
        print("reached", to)
    except OSError as e:
        print("cut off", e.strerror)
print(socket.gethostbyname("algo-1"))
`})
	m.Exits(0, "train", "--script", filepath.Join(path, "alone.py"), "--network-isolation", "--name", "alone")
	out := m.Exits(0, "logs", "alone")
	if strings.Contains(out, "reached") || strings.Count(out, "cut off") != 2 || !strings.Contains(out, "127.0.0.1\n") {
		t.Errorf("it said %s", out)
	}
}

func TestInstancesFindEachOtherAndStartTogether(t *testing.T) {
	m := start(t, 1, 2)
	path := m.tree("ranks", map[string]string{"rank.sh": `echo "$CLARY_RANK of $CLARY_WORLD_SIZE at $MASTER_ADDR with $RANK $WORLD_SIZE $PET_NNODES"; getent hosts algo-2 >/dev/null && echo found`})
	m.Exits(0, "train", "--script", filepath.Join(path, "rank.sh"), "--framework", "torch", "--instances", "2", "--cores", "3", "--name", "ranks")
	out := m.Exits(0, "logs", "ranks")
	for _, want := range []string{"0 of 2 at 127.0.0.1 with 0 2 2", "1 of 2 at 127.0.0.1 with 1 2 2", "found"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in %s", want, out)
		}
	}
	nodes := map[string]bool{}
	for _, task := range m.Job("ranks").Tasks {
		nodes[task.Node] = true
	}
	if len(nodes) != 2 {
		t.Errorf("they ran on %v", nodes)
	}
}
