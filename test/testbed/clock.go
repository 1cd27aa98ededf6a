package testbed

import (
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"time"
)

// Clock gives a machine a wall clock of its own, before it is started: Step sets it. Only binaries that are built with
// the overlay of test/chaos/clock have one.
func (m *Machines) Clock(name string) {
	m.T.Helper()
	file, err := os.Create(m.Path(name) + ".clock")
	if err != nil {
		m.T.Fatal(err)
	}
	if m.clocks == nil {
		m.clocks = map[string]*os.File{}
	}
	m.clocks[name] = file
	m.Step(name, 0)
}

// Step sets a machine's clock to so much after this one's.
func (m *Machines) Step(name string, by time.Duration) {
	m.T.Helper()
	if _, err := m.clocks[name].WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(by)), 0); err != nil {
		m.T.Fatal(err)
	}
}

// Shows is what a machine's clock showed when it last wrote to its log.
func (m *Machines) Shows(name string) time.Time {
	log, _ := os.ReadFile(m.Path(name) + ".log")
	lines := strings.Split(string(log), "\n")
	for _, line := range slices.Backward(lines) {
		text, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
			return at
		}
	}
	return time.Time{}
}

// environment is that of a machine's processes.
func (m *Machines) environment(name string) []string {
	if clock := m.clocks[name]; clock != nil {
		return append(slices.Clone(m.Env), "CLARY_TEST_CLOCK="+clock.Name())
	}
	return m.Env
}
