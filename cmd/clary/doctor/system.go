package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/agent/device/nvml"
	"github.com/clary-ml/clary/auth/keyring"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/coordinator/warden"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/ops"
)

// syncs are how many writes are measured; the one in the middle counts.
const syncWrites = 9

// System is the machine that this process runs on. ask asks the cluster, if one is known.
func System(folders []string, ask func(context.Context) (*ClusterAnswers, error)) Machine {
	return Machine{
		Read: func(path string) (string, error) {
			text, err := os.ReadFile(path)
			return string(text), err
		},
		Root: os.Geteuid() == 0, Folders: folders, Room: ops.Room, Objects: func(folder string) bool { return ops.SameDisk(folder, filepath.Join(folder, "objects")) }, Sync: syncTime, Certs: certificatesIn, Keyring: keyringIn,
		Ports: []Port{
			{7420, "coordinators", false},
			{7421, "coordinators' gossip", true},
			{7423, "object store", false},
			{7426, "router", false},
			{7424, "agent", false},
			{7425, "agent's gossip", true},
		},
		Port: portState, GPUs: gpusHere, Synced: clockSynced, Now: time.Now, Cluster: ask,
		Files: func() (uint64, error) {
			var limit unix.Rlimit
			err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
			return limit.Max, err
		},
	}
}

// syncTime measures how long a page takes until the disk has it, as an append to the raft log does.
func syncTime(folder string) (took time.Duration, err error) {
	file, err := os.CreateTemp(folder, ".doctor-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	page := make([]byte, 4096)
	var all []time.Duration
	for range syncWrites {
		begun := time.Now()
		if _, err := file.Write(page); err != nil {
			return 0, err
		}
		if err := file.Sync(); err != nil {
			return 0, err
		}
		all = append(all, time.Since(begun))
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}

// certificatesIn reads the certificate of a data folder. A folder that no member has used yet has none.
func certificatesIn(folder string) ([]Certificate, error) {
	dir := filepath.Join(folder, "tls")
	found, err := pki.LoadCredentials(dir)
	if errors.Is(err, fs.ErrNotExist) && !within(folder, "member.json") {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	of := found.Cert.Subject.CommonName
	if identity, err := pki.IdentityOf(found.Cert); err == nil {
		of = strings.TrimPrefix(identity.URI(), "clary://node/")
	}
	return []Certificate{{File: filepath.Join(dir, pki.CertFile), Of: of, Renew: pki.RenewAt(found.Cert), Expiry: found.Cert.NotAfter}}, nil
}

// keyringIn reads the keyring of a data folder, if that is a coordinator's.
func keyringIn(folder string) error {
	_, err := keyring.Load(filepath.Join(folder, warden.File))
	if fault.Is(err, fault.NotFound) && !within(folder, "raft") {
		return nil
	}
	return err
}

func within(folder, name string) bool {
	_, err := os.Lstat(filepath.Join(folder, name))
	return err == nil
}

// dialTime is how long a port of this machine may take to answer.
const dialTime = time.Second

// portState looks whether a port is free, else whether somebody answers there, at any of this machine's
// addresses. Whoever has one that is for UDP too answers by TCP, if it is Clary.
func portState(ctx context.Context, port Port) PortState {
	number := strconv.Itoa(port.Number)
	listener, err := net.Listen("tcp", net.JoinHostPort("", number))
	if err == nil {
		_ = listener.Close()
		if !port.UDP {
			return Free
		}
		packets, err := net.ListenPacket("udp", net.JoinHostPort("", number))
		if err != nil {
			return Silent
		}
		_ = packets.Close()
		return Free
	}
	hosts := []string{"127.0.0.1", "::1"}
	addresses, _ := net.InterfaceAddrs()
	for _, address := range addresses {
		if ip, ok := address.(*net.IPNet); ok && !ip.IP.IsLoopback() && !ip.IP.IsLinkLocalUnicast() {
			hosts = append(hosts, ip.IP.String())
		}
	}
	for _, host := range hosts {
		dialer := net.Dialer{Timeout: dialTime}
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, number))
		if err == nil {
			_ = conn.Close()
			return Answered
		}
	}
	return Silent
}

func gpusHere(ctx context.Context) ([]GPU, error) {
	source, err := nvml.Open()
	if errors.Is(err, nvml.ErrNone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer source.Close()
	devices, err := source.Devices(ctx)
	var found []GPU
	for _, d := range devices {
		found = append(found, GPU{Model: d.Model, Healthy: d.Healthy})
	}
	return found, err
}

// clockSynced asks the kernel whether somebody keeps its clock.
func clockSynced() (bool, error) {
	var told unix.Timex
	state, err := unix.Adjtimex(&told)
	if err != nil {
		return false, fmt.Errorf("ask the kernel for its clock: %w", err)
	}
	return state != unix.TIME_ERROR && told.Status&unix.STA_UNSYNC == 0, nil
}
