// Clock writes an overlay for `go build -overlay`, with which any program of Go is built so that its wall clock
// can be stepped while it runs: package time adds what the file that CLARY_TEST_CLOCK names holds, a little-endian
// number of nanoseconds, to every reading. Timers and durations go by the monotonic clock and do not notice, as when
// an operator or NTP sets a machine's clock. The program's own source has no seam for it, and what is shipped cannot be told
// a wrong time: only binaries built with the overlay can.
//
//	go run ./test/chaos/clock FOLDER && go build -overlay FOLDER/overlay.json ./cmd/clary
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// reading is what the overlay changes in time.Now.
const reading = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"

const stepped = `package time

import (
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// step is what is added to the wall clock, nil where nothing is.
var step = sync.OnceValue(func() *int64 {
	path, ok := syscall.Getenv("CLARY_TEST_CLOCK")
	if !ok || path == "" {
		return nil
	}
	file, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil // of another machine, as a task in a container is
	}
	defer syscall.Close(file)
	page, err := syscall.Mmap(file, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("map " + path + ": " + err.Error())
	}
	return (*int64)(unsafe.Pointer(&page[0]))
})

func steppedNow() (sec int64, nsec int32, mono int64) {
	sec, nsec, mono = runtimeNow()
	if by := step(); by != nil {
		all := int64(nsec) + atomic.LoadInt64(by)
		sec += all / 1e9
		if all %= 1e9; all < 0 {
			sec, all = sec-1, all+1e9
		}
		nsec = int32(all)
	}
	return sec, nsec, mono
}
`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "clock:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("takes the folder to write to, not %q", args)
	}
	folder, err := filepath.Abs(args[0])
	if err != nil {
		return err
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	now, err := os.ReadFile(filepath.Join(source, "time.go"))
	if err != nil {
		return err
	}
	if bytes.Count(now, []byte(reading)) != 1 {
		return fmt.Errorf("time.Now of %s does not begin with %q: teach this program its new form", source, reading)
	}
	now = bytes.Replace(now, []byte(reading), []byte(strings.Replace(reading, "runtimeNow", "steppedNow", 1)), 1)
	overlay := map[string]map[string]string{"Replace": {
		filepath.Join(source, "time.go"):    filepath.Join(folder, "time.go"),
		filepath.Join(source, "stepped.go"): filepath.Join(folder, "stepped.go"),
	}}
	list, err := json.Marshal(overlay)
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{"time.go": now, "stepped.go": []byte(stepped), "overlay.json": list} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
