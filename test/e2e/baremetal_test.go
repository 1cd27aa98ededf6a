package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clary-ml/clary/test/testbed"
)

// block is a block of commands of a page, its section, and the machines that its first line names.
type block struct {
	section  string
	on       []string
	commands string
}

var onLine = regexp.MustCompile(`^# on ([a-z0-9, ]+)$`)

// blocks are those of a page that say where they are run.
func blocks(page string) []block {
	var found []block
	section, inside := "", false
	for line := range strings.Lines(page) {
		text, indented := strings.CutPrefix(line, "    ")
		named := onLine.FindStringSubmatch(strings.TrimSuffix(text, "\n"))
		switch {
		case indented && named != nil:
			found, inside = append(found, block{section: section, on: strings.Split(named[1], ", ")}), true
		case indented && inside:
			found[len(found)-1].commands += text
		default:
			inside = false
		}
		if title, ok := strings.CutPrefix(line, "## "); ok {
			section = strings.TrimSpace(title)
		}
	}
	return found
}

// outside is a line that does something to other machines than the one it is typed on, or to the machine itself.
var outside = regexp.MustCompile(`(?m)^(?:scp (\S+) root@(\S+?):(\S+)|reboot)$`)

func TestThePageOfBareMetalDoesWhatItSays(t *testing.T) {
	binary := os.Getenv("CLARY_BIN")
	if binary == "" {
		t.Skip("skipped: CLARY_BIN does not name a built clary; run `make e2e`")
	}
	beside(t)
	page, err := os.ReadFile("../../docs/bare-metal.md")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	bed := testbed.NewBoxes(t)
	r := reader{T: t, boxes: map[string]*testbed.Box{}, hosts: map[string]*testbed.Box{}}
	for name, address := range map[string]string{"a": "10.0.0.1/24", "b": "10.0.0.2/24", "c": "10.0.0.3/24", "n1": "10.0.0.11/24", "n2": "10.0.0.12/24"} {
		box := bed.Start(name, address)
		r.boxes[name], r.hosts[box.Address] = box, box
	}
	newer := make(chan string, 1)
	var building sync.WaitGroup
	defer building.Wait()
	building.Go(func() { newer <- release(t, rebuilt(t)) })
	bundle := release(t, binary)
	for _, box := range r.boxes {
		box.Booted()
		box.Copy(bundle, "/root/"+filepath.Base(bundle))
	}
	t.Logf("all machines have booted, and have the bundle, after %.1f s", time.Since(began).Seconds())
	all := blocks(string(page))
	upgrade := slices.IndexFunc(all, func(b block) bool { return b.section == "A newer version" })
	if upgrade < 20 || len(all) < upgrade+15 {
		t.Fatalf("%d blocks were found, and the newer version comes with number %d", len(all), upgrade)
	}
	r.follow(all[:upgrade])
	r.replace(bundle, <-newer)
	r.follow(all[upgrade:])
	t.Logf("the page was followed after %.1f s", time.Since(began).Seconds())
	r.holds()
}

// reader does what the page says.
type reader struct {
	*testing.T
	boxes, hosts map[string]*testbed.Box // by name, and by address
}

// follow runs blocks one after the other, each on all of its machines at once.
func (r reader) follow(all []block) {
	r.Helper()
	for _, block := range all {
		var machines sync.WaitGroup
		for _, name := range block.on {
			box := r.boxes[name]
			if box == nil {
				r.Fatalf("the page names the machine %s, which it has not introduced", name)
			}
			machines.Go(func() {
				began := time.Now()
				out, err := r.run(box, block.commands)
				if r.Logf("== on %s, %.1f s\n%s%s", name, time.Since(began).Seconds(), block.commands, out); err != nil {
					r.Errorf("on %s: %v", name, err)
				}
			})
		}
		if machines.Wait(); r.Failed() {
			r.FailNow()
		}
	}
}

// holds checks at the end what the page promises, and no command of it shows.
func (r reader) holds() {
	if out := r.boxes["a"].Run(`stat -c %U /var/lib/clary/coordinator; ps -o user= -C clary | sort -u`); strings.Contains(out, "root") || !strings.Contains(out, "clary") {
		r.Errorf("the coordinator and its store run as %s", out)
	}
	if out := r.boxes["b"].Run(`systemd-analyze verify --man=no clary-server.service clary-agent.service clary-router.service 2>&1 | grep clary || true`); out != "" {
		r.Errorf("systemd warns: %s", out)
	}
	if out := r.boxes["a"].Run(`clary cluster members`); strings.Count(out, "newer") != 3 {
		r.Errorf("the coordinators are of the versions\n%s", out)
	}
}

// run does what stands in a block; files that go to other machines are brought there, and a machine that reboots
// does not get the time to end anything.
func (r reader) run(box *testbed.Box, commands string) (string, error) {
	var said strings.Builder
	for {
		at := outside.FindStringSubmatchIndex(commands)
		if at == nil {
			out, err := box.Try(commands)
			said.WriteString(out)
			return said.String(), err
		}
		out, err := box.Try(commands[:at[0]])
		if said.WriteString(out); err != nil {
			return said.String(), err
		}
		if at[2] < 0 {
			box.Reset()
		} else {
			box.Send("/root/"+commands[at[2]:at[3]], r.hosts[commands[at[4]:at[5]]], commands[at[6]:at[7]])
		}
		commands = commands[at[1]:]
	}
}

// rebuilt is the program under test with another version.
func rebuilt(t *testing.T) string {
	binary := filepath.Join(t.TempDir(), "clary")
	build := exec.Command("go", "build", "-ldflags", "-s -w -X github.com/clary-ml/clary/internal/version.version=newer", "-o", binary, "./cmd/clary")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Errorf("build the newer version: %v\n%s", err, out)
	}
	return binary
}

// release makes the bundle of a program.
func release(t *testing.T, binary string) string {
	make := exec.Command("go", "run", "./deploy/release", "-binary", binary, "-to", t.TempDir())
	make.Dir = "../.."
	out, err := make.Output()
	if err != nil {
		t.Errorf("make the bundle of %s: %v", binary, err)
	}
	return strings.TrimSpace(string(out))
}

// replace puts a bundle in the place of another on each machine.
func (r reader) replace(old, bundle string) {
	for _, box := range r.boxes {
		box.Run("rm /root/" + filepath.Base(old))
		box.Copy(bundle, "/root/"+filepath.Base(bundle))
	}
}
