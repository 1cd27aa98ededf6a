package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// readModes is a script that reads a channel of each mode and says what it found. It goes
// on after the first epoch when the file "go" is in its checkpoints, so that a test can do
// something meanwhile.
const readModes = `
import hashlib, os, sys, time
data = "/opt/ml/input/data/"
def digest(*files):
    h = hashlib.sha256()
    for f in files:
        h.update(open(f, "rb").read())
    return h.hexdigest()
def tree(channel):
    found = []
    for folder, _, files in os.walk(data + channel):
        found += [os.path.join(folder, f) for f in files]
    return sorted(found)
fast = tree("fast")
assert digest(fast[0]), fast
print("ready", flush=True)
while "wait" in sys.argv and not os.path.exists("/opt/ml/checkpoints/go"):
    time.sleep(0.05)
print("file", digest(*tree("file")))
print("fast", digest(*fast))
for epoch in range(3):
    print("pipe", digest(data + "pipe_%d" % epoch))
for path in (fast[0], tree("file")[0]):
    try:
        open(path, "ab")
        print("writable", path)
    except OSError:
        pass
`

func TestAScriptReadsItsInputsInEveryModeAlsoWhenTheAgentIsKilled(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: mounting needs root")
	}
	m := start(t, 1, 1)
	files := map[string]string{}
	for i := range 5 {
		files[fmt.Sprintf("part-%d/rows", i)] = strings.Repeat(fmt.Sprintf("row %d of many\n", i), 200_000)
	}
	data, code := m.tree("data", files), m.File("read.py", readModes)
	train := func(name string, more ...string) []string {
		args := []string{"train", "--script", code, "--name", name}
		for channel, option := range map[string]string{"file": "", "fast": "fast_file", "pipe": "pipe"} {
			args = append(args, "--channel", channel+"="+data)
			if option != "" {
				args = append(args, "--channel-option", channel+"="+option)
			}
		}
		return append(args, more...)
	}
	m.Clary(train("first", "--detach", "--", "wait")...)
	m.WaitFor("the script to read", 30*time.Second, func() bool {
		said, _ := m.Try("logs", "first")
		return strings.Contains(said, "ready")
	})
	m.Kill("n1")
	m.Again("n1")
	m.WaitFor("the agent", 30*time.Second, func() bool { return m.Ready() == 1 })
	folder := m.Path("n1/tasks/first~main~worker-0.1/ml/checkpoints")
	if err := os.WriteFile(folder+"/go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	m.Waits(0, "first")
	said := m.Clary("logs", "first")
	digests := map[string]int{}
	for _, line := range regexp.MustCompile(`(?m)^(file|fast|pipe) (\w{64})$`).FindAllStringSubmatch(said, -1) {
		digests[line[2]]++
	}
	if len(digests) != 1 || strings.Contains(said, "writable") {
		t.Errorf("it read %v:\n%s", digests, said)
	}
	for _, count := range digests {
		if count != 5 {
			t.Errorf("it read %d times", count)
		}
	}
	if left := m.Mounts(); len(left) > 0 {
		t.Errorf("mounts are left: %v", left)
	}

	// The second run stages nothing: what it needs as files is on the node.
	m.Clary(train("second")...)
	log, err := os.ReadFile(m.Path("n1.log"))
	if err != nil {
		t.Fatal(err)
	}
	for job, want := range map[string]string{"first": "objects=5 fetched=5 bytes=[1-9]", "second": "objects=5 fetched=0 bytes=0"} {
		if !regexp.MustCompile(`input staged.*task=` + job + `/\S+ channel=file ` + want).Match(log) {
			t.Errorf("the agent does not say that the %s staged %s", job, want)
		}
	}
}

func TestEachInstanceReadsItsShare(t *testing.T) {
	m := start(t, 1, 1)
	files := map[string]string{}
	for i := range 7 {
		files[fmt.Sprintf("%d", i)] = fmt.Sprintf("object %d\n", i)
	}
	data := m.tree("data", files)
	m.Clary("run", "--name", "shares", "-n", "3", "--input", "train="+data, "--input-option", "train=sharded", "--", "sh", "-c", "cat input/data/train/*")
	seen := map[string]int{}
	for _, line := range regexp.MustCompile(`object \d`).FindAllString(m.Clary("logs", "shares"), -1) {
		seen[line]++
	}
	if len(seen) != 7 {
		t.Errorf("together they read %v", seen)
	}
	for object, count := range seen {
		if count != 1 {
			t.Errorf("%s was read %d times", object, count)
		}
	}
}

func TestAManifestsObjectsAndAttributesAreRead(t *testing.T) {
	m := start(t, 1, 1)
	for name, text := range map[string]string{
		"set/a": "object a\n", "set/b": "object b\n", "set/c": "nobody reads c\n",
		"list/plain.json": `[{"prefix": "s3://data/set/"}, "a", "b"]`,
		"list/augmented.jsonl": `{"source-ref": "s3://data/set/b", "label": 7, "other": "x"}` + "\n" +
			`{"source-ref": "s3://data/set/a", "label": 9, "other": "y"}` + "\n",
	} {
		m.Clary("cp", m.File("object", text), "s3://data/"+name)
	}
	for name, c := range map[string]struct{ uri, options, program, want string }{
		"plain": {"s3://data/list/plain.json", "manifest", "cat input/data/train/*", "object a\nobject b\n"},
		"augmented": {
			"s3://data/list/augmented.jsonl", "pipe,augmented_manifest,attribute:label,attribute:source-ref", "cat input/data/train_0; cat input/data/train_1 >/dev/null",
			"7\nobject b\n9\nobject a\n",
		},
		"records": {
			"s3://data/list/augmented.jsonl", "pipe,augmented_manifest,attribute:source-ref,record_io", "od -An -tx4 -N8 input/data/train_0",
			" ced7230a 00000009\n",
		},
	} {
		m.Exits(0, "run", "--name", name, "--input", "train="+c.uri, "--input-option", "train="+c.options, "--", "sh", "-c", c.program)
		if said := m.Clary("logs", name); said != c.want {
			t.Errorf("%s: it read %q, want %q", name, said, c.want)
		}
	}
}

func TestWhatCannotBeReadFailsTheJobAndNamesTheObject(t *testing.T) {
	m := start(t, 1, 1)
	data := m.tree("data", map[string]string{"plain.gz": "not gzip at all"})
	said := m.Exits(1, "run", "--name", "broken", "--input", "train="+data, "--input-option", "train=gzip", "--", "true")
	if reason := m.Job("broken").Reason; !strings.Contains(reason+said, "plain.gz") || !strings.Contains(reason+said, "gzip") {
		t.Errorf("it says %q, %s", reason, said)
	}
	m.Exits(143, "run", "--name", "cut", "--input", "train="+data, "--input-option", "train=gzip,pipe", "--", "sh", "-c", "cat input/data/train_0; echo it ended")
	if reason := m.Job("cut").Reason; !strings.Contains(reason, "plain.gz") || strings.Contains(m.Clary("logs", "cut"), "it ended") {
		t.Errorf("the pipe's job says %q", reason)
	}
}

func TestAContainerReadsItsInputsLazily(t *testing.T) {
	e := engine(t)
	m := start(t, 1, 0)
	m.Agent("n1", "--container-engine", e.Socket)
	m.WaitFor("the agent", 30*time.Second, func() bool { return m.Ready() == 1 })
	image := m.Path("trainer.tar")
	trainImage(t, image)
	data := m.tree("data", map[string]string{"a": "hello", "deep/b": " world"})
	read := "cd /opt/ml/input/data; cat fast/a fast/deep/b; echo; cat pipe_0; echo; cat pipe_1; echo; touch fast/a 2>/dev/null && echo writable; true"
	m.Exits(0, "run", "--image", image, "--name", "lazy", "--input", "fast="+data, "--input-option", "fast=fast_file",
		"--input", "pipe="+data, "--input-option", "pipe=pipe", "--", "sh", "-c", read)
	if said := m.Clary("logs", "lazy"); strings.Count(said, "hello world") != 3 || strings.Contains(said, "writable") {
		t.Errorf("it read %q", said)
	}
	if left := m.Mounts(); len(left) > 0 {
		t.Errorf("mounts are left: %v", left)
	}
}
