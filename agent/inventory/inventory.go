// Package inventory says what a machine has: cores, memory, disk, system.
package inventory

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/internal/fault"
)

// Host is what was found.
type Host struct {
	Hostname string
	MilliCPU int64             // thousandths of a core that this process may use
	Memory   int64             // bytes
	Disk     int64             // bytes free below the data folder
	Labels   map[string]string // os, arch, kernel, hostname
}

// Read looks at this machine; dataDir is where task folders and the cache will be.
func Read(dataDir string) (Host, error) {
	var errs []error
	hostname, err := os.Hostname()
	errs = append(errs, err)
	meminfo, err := os.ReadFile("/proc/meminfo")
	errs = append(errs, err)
	memory, err := memTotal(string(meminfo))
	errs = append(errs, err)
	var disk unix.Statfs_t
	errs = append(errs, unix.Statfs(dataDir, &disk))
	var system unix.Utsname
	errs = append(errs, unix.Uname(&system))
	if err := errors.Join(errs...); err != nil {
		return Host{}, fault.New(fault.Internal, "take inventory of this machine: %w", err)
	}
	release, _ := os.ReadFile("/etc/os-release")
	return Host{
		Hostname: hostname, MilliCPU: int64(runtime.NumCPU()) * 1000, Memory: memory,
		Disk: int64(disk.Bavail) * disk.Bsize,
		Labels: map[string]string{
			"os": osName(string(release)), "arch": runtime.GOARCH,
			"kernel": unix.ByteSliceToString(system.Release[:]), "hostname": hostname,
		},
	}, nil
}

// memTotal reads the line "MemTotal: 123 kB".
func memTotal(meminfo string) (int64, error) {
	for line := range strings.Lines(meminfo) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[0] == "MemTotal:" && fields[2] == "kB" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("/proc/meminfo has no line MemTotal")
}

// osName reads ID and VERSION_ID of os-release: "debian-12"; "linux" if there is none.
func osName(release string) string {
	values := map[string]string{}
	for line := range strings.Lines(release) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[key] = strings.Trim(value, `"'`)
	}
	switch {
	case values["ID"] == "":
		return "linux"
	case values["VERSION_ID"] == "":
		return values["ID"]
	}
	return fmt.Sprintf("%s-%s", values["ID"], values["VERSION_ID"])
}
