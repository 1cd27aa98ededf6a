package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clary-ml/clary/test/testbed"
)

// block is a block of commands of a page, and the machines that its first line names.
type block struct {
	on       []string
	commands string
}

var onLine = regexp.MustCompile(`^# on ([a-z0-9, ]+)$`)

// blocks are those of a page that say where they are run.
func blocks(page string) []block {
	var found []block
	inside := false
	for line := range strings.Lines(page) {
		text, indented := strings.CutPrefix(line, "    ")
		named := onLine.FindStringSubmatch(strings.TrimSuffix(text, "\n"))
		switch {
		case indented && named != nil:
			found, inside = append(found, block{on: strings.Split(named[1], ", ")}), true
		case indented && inside:
			found[len(found)-1].commands += text
		default:
			inside = false
		}
	}
	return found
}

// scp is a line that brings a file from one machine to another.
var scp = regexp.MustCompile(`(?m)^scp (\S+) root@(\S+?):(\S+)$`)

func TestThePageOfBareMetalDoesWhatItSays(t *testing.T) {
	binary := os.Getenv("CLARY_BIN")
	if binary == "" {
		t.Skip("skipped: CLARY_BIN does not name a built clary; run `make e2e`")
	}
	page, err := os.ReadFile("../../docs/bare-metal.md")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	bed := testbed.NewBoxes(t)
	boxes, hosts := map[string]*testbed.Box{}, map[string]*testbed.Box{}
	for name, address := range map[string]string{"a": "10.0.0.1/24", "b": "10.0.0.2/24", "c": "10.0.0.3/24", "n1": "10.0.0.11/24", "n2": "10.0.0.12/24"} {
		box := bed.Start(name, address)
		boxes[name], hosts[box.Address] = box, box
	}
	bundle := release(t, binary)
	for _, box := range boxes {
		box.Booted()
		box.Copy(bundle, "/root/"+filepath.Base(bundle))
	}
	t.Logf("all machines have booted, and have the bundle, after %.1f s", time.Since(began).Seconds())
	ran := 0
	for _, block := range blocks(string(page)) {
		var machines sync.WaitGroup
		for _, name := range block.on {
			box := boxes[name]
			if box == nil {
				t.Fatalf("the page names the machine %s, which it has not introduced", name)
			}
			machines.Go(func() {
				began := time.Now()
				out, err := run(box, hosts, block.commands)
				if t.Logf("== on %s, %.1f s\n%s%s", name, time.Since(began).Seconds(), block.commands, out); err != nil {
					t.Errorf("on %s: %v", name, err)
				}
			})
			ran++
		}
		if machines.Wait(); t.Failed() {
			return
		}
	}
	if ran < 20 {
		t.Errorf("only %d blocks were found", ran)
	}
	// What the page promises of its units.
	if out := boxes["a"].Run(`stat -c %U /var/lib/clary/coordinator; ps -o user= -C clary | sort -u`); strings.Contains(out, "root") || !strings.Contains(out, "clary") {
		t.Errorf("the coordinator and its store run as %s", out)
	}
	if out := boxes["b"].Run(`systemd-analyze verify --man=no clary-server.service clary-agent.service clary-router.service 2>&1 | grep clary || true`); out != "" {
		t.Errorf("systemd warns: %s", out)
	}
}

// run does what stands in a block; files that go to other machines are brought there.
func run(box *testbed.Box, hosts map[string]*testbed.Box, commands string) (string, error) {
	var said strings.Builder
	for {
		at := scp.FindStringSubmatchIndex(commands)
		if at == nil {
			out, err := box.Try(commands)
			said.WriteString(out)
			return said.String(), err
		}
		out, err := box.Try(commands[:at[0]])
		if said.WriteString(out); err != nil {
			return said.String(), err
		}
		box.Send("/root/"+commands[at[2]:at[3]], hosts[commands[at[4]:at[5]]], commands[at[6]:at[7]])
		commands = commands[at[1]:]
	}
}

// release makes the bundle of the binary under test.
func release(t *testing.T, binary string) string {
	t.Helper()
	make := exec.Command("go", "run", "./deploy/release", "-binary", binary, "-to", t.TempDir())
	make.Dir = "../.."
	out, err := make.Output()
	if err != nil {
		t.Fatalf("make the bundle: %v", err)
	}
	return strings.TrimSpace(string(out))
}
