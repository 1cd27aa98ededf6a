//go:build cgo

package nvml_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clary-ml/clary/agent/device/nvml"
	"github.com/clary-ml/clary/cluster"
)

// oldest is a library that knows the oldest calls alone.
const oldest = "../../../test/chaos/fakenvml/nvml.c"

// More calls than the oldest, each with what tells that it was made.
const (
	bus = `int nvmlDeviceGetPciInfo(void *d, char *info) {
	(void)d;
	for (int i = 0; i < 68; i++) info[i] = 0;
	const char *id = "00000000:3B:00.0";
	for (int i = 0; id[i] != 0; i++) info[i + 36] = id[i]; /* behind the old bus ID and five numbers */
	return 0;
}
int nvmlDeviceGetPciInfo_v3(void *d, char *info) { return nvmlDeviceGetPciInfo(d, info); }
`
	migMode  = "int nvmlDeviceGetMigMode(void *d, unsigned *now, unsigned *then) { (void)d; *now = *then = 1; return 0; }\n"
	nvlinked = "int nvmlDeviceGetNvLinkState(void *d, unsigned l, unsigned *on) { (void)d; (void)l; *on = 1; return 0; }\n"
)

// said is what a process with a library of its own found.
type said struct {
	Devices []cluster.Device
	Usage   int // how many devices told theirs
	Err     string
	Slot    string // the error
}

const asksVariable = "CLARY_TEST_ASKS_NVML"

func TestWhatALibraryLacksIsNotCalled(t *testing.T) {
	if os.Getenv(asksVariable) != "" {
		ask(t)
		return
	}
	compiler, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("skipped: a library is made with a C compiler, and there is no cc")
	}
	for name, c := range map[string]struct{ more, pci string }{
		"the oldest":                             {"", ""},
		"one that knows the bus":                 {bus, "0000:3b:00.0"},
		"one that knows half of what slots need": {bus + migMode, "0000:3b:00.0"},
		"one that knows half of what links need": {nvlinked, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			more := filepath.Join(dir, "more.c")
			if err := os.WriteFile(more, []byte(c.more), 0o600); err != nil {
				t.Fatal(err)
			}
			build := exec.Command(compiler, "-shared", "-fPIC", "-o", filepath.Join(dir, "libnvidia-ml.so.1"), oldest, more)
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			process := exec.Command(os.Args[0], "-test.run=^TestWhatALibraryLacksIsNotCalled$")
			process.Env = append(os.Environ(), "LD_LIBRARY_PATH="+dir, asksVariable+"="+filepath.Join(dir, "said"))
			if out, err := process.CombinedOutput(); err != nil {
				t.Fatalf("who asked it ended with %v: %s", err, out)
			}
			text, err := os.ReadFile(filepath.Join(dir, "said"))
			if err != nil {
				t.Fatal(err)
			}
			var found said
			if err := json.Unmarshal(text, &found); err != nil || found.Err != "" || len(found.Devices) != 2 || found.Usage != 2 {
				t.Fatalf("it found %s, %v", text, err)
			}
			for _, d := range found.Devices {
				if d.Model != "A100-40GB" || d.Memory != 40<<30 || !d.Healthy || d.PCI != c.pci || d.Partitioned || d.Link != 0 {
					t.Errorf("a device is %+v", d)
				}
			}
			if !strings.Contains(found.Slot, "has no MIG device") {
				t.Errorf("asked for a slot it says %q", found.Slot)
			}
		})
	}
}

// ask writes down what the library of this process tells.
func ask(t *testing.T) {
	source, err := nvml.Open()
	if err != nil {
		t.Fatal(err)
	}
	var found said
	found.Devices, err = source.Devices(t.Context())
	usage, usageErr := source.Usage(t.Context())
	found.Usage = len(usage)
	if len(found.Devices) > 0 {
		_, slotErr := source.Slot(t.Context(), cluster.DeviceShare{UUID: found.Devices[0].UUID, Profile: "1g.5gb"})
		found.Slot = fmt.Sprint(slotErr)
	}
	if err := errors.Join(err, usageErr, source.Close()); err != nil {
		found.Err = err.Error()
	}
	text, err := json.Marshal(found)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(os.Getenv(asksVariable), text, 0o600); err != nil {
		t.Fatal(err)
	}
}
