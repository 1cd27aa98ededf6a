package container

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"
)

// libpodPrefix is where Podman's own API begins. A container with devices is made by it: the
// API that is like Docker's drops them without a word (as of Podman 4).
const libpodPrefix = "/v4.0.0/libpod"

const maxAnswer = 1 << 20 // bytes

// libpodSpec is what of Podman's container specification a task needs
// (SpecGenerator of its REST API).
type libpodSpec struct {
	Name            string            `json:"name"`
	Image           string            `json:"image"`
	Entrypoint      []string          `json:"entrypoint,omitempty"`
	Command         []string          `json:"command,omitempty"`
	Env             map[string]string `json:"env,omitempty"`
	WorkDir         string            `json:"work_dir,omitempty"`
	Hostname        string            `json:"hostname,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
	User            string            `json:"user,omitempty"`
	StopSignal      int               `json:"stop_signal"`
	Init            bool              `json:"init,omitempty"`
	CapDrop         []string          `json:"cap_drop,omitempty"`
	NoNewPrivileges bool              `json:"no_new_privileges"`
	ReadOnly        bool              `json:"read_only_filesystem"`
	Filter          string            `json:"seccomp_profile_path,omitempty"`
	ShmSize         int64             `json:"shm_size"`
	NetNS           libpodNamespace   `json:"netns"`
	HostAdd         []string          `json:"hostadd,omitempty"`
	Mounts          []libpodMount     `json:"mounts,omitempty"`
	Devices         []libpodDevice    `json:"devices,omitempty"`
	Log             libpodLog         `json:"log_configuration"`
	Limits          libpodLimits      `json:"resource_limits"`
}

type libpodNamespace struct {
	Mode string `json:"nsmode"`
}

type libpodMount struct {
	Type        string   `json:"type"`
	Source      string   `json:"source"`
	Destination string   `json:"destination"`
	Options     []string `json:"options"`
}

type libpodDevice struct {
	Path string `json:"path"`
}

type libpodLog struct {
	Driver string `json:"driver"`
	Size   int64  `json:"size"`
}

type libpodLimits struct {
	Memory *libpodMemory `json:"memory,omitempty"`
	CPU    libpodCPU     `json:"cpu"`
	Pids   *libpodPids   `json:"pids,omitempty"`
}

type libpodMemory struct {
	Limit int64 `json:"limit"`
	Swap  int64 `json:"swap"`
}

type libpodCPU struct {
	Shares int64 `json:"shares,omitempty"`
	Quota  int64 `json:"quota,omitempty"`
	Period int64 `json:"period,omitempty"`
}

type libpodPids struct {
	Limit int64 `json:"limit"`
}

// cfsPeriod is the kernel's usual one, in microseconds.
const cfsPeriod = 100_000

// libpodOf says the same to Podman as the options say to Docker.
func libpodOf(options moby.ContainerCreateOptions) libpodSpec {
	config, host := options.Config, options.HostConfig
	s := libpodSpec{
		Name: options.Name, Image: config.Image, Entrypoint: config.Entrypoint, Command: config.Cmd, WorkDir: config.WorkingDir,
		Hostname: config.Hostname, Labels: config.Labels, User: config.User, StopSignal: int(syscall.SIGTERM),
		Init: host.Init != nil && *host.Init, CapDrop: host.CapDrop, NoNewPrivileges: true, ReadOnly: host.ReadonlyRootfs, ShmSize: host.ShmSize,
		NetNS: libpodNamespace{string(host.NetworkMode)}, HostAdd: host.ExtraHosts,
		Env: map[string]string{}, Log: libpodLog{Driver: host.LogConfig.Type, Size: logBytes(host.LogConfig)},
		Limits: libpodLimits{CPU: libpodCPU{Shares: host.CPUShares}},
	}
	for _, option := range host.SecurityOpt {
		if path, ok := strings.CutPrefix(option, filterOption); ok {
			s.Filter = path
		}
	}
	for _, entry := range config.Env {
		name, value, _ := strings.Cut(entry, "=")
		s.Env[name] = value
	}
	for _, m := range host.Mounts {
		way := "rw"
		if m.ReadOnly {
			way = "ro"
		}
		s.Mounts = append(s.Mounts, libpodMount{Type: string(m.Type), Source: m.Source, Destination: m.Target, Options: []string{"rbind", way}})
	}
	for _, request := range host.DeviceRequests {
		for _, name := range request.DeviceIDs {
			s.Devices = append(s.Devices, libpodDevice{name})
		}
	}
	if host.Memory > 0 {
		s.Limits.Memory = &libpodMemory{host.Memory, host.MemorySwap}
	}
	if host.NanoCPUs > 0 {
		s.Limits.CPU.Quota, s.Limits.CPU.Period = host.NanoCPUs*cfsPeriod/1e9, cfsPeriod
	}
	if host.PidsLimit != nil {
		s.Limits.Pids = &libpodPids{*host.PidsLimit}
	}
	return s
}

// logBytes is how large one of a container's log files may become.
func logBytes(log container.LogConfig) int64 {
	var size int64
	_, _ = fmt.Sscan(log.Config["max-size"], &size) // it was written here
	return size
}

// libpodCreate makes a container through Podman's own API.
func (d *Driver) libpodCreate(ctx context.Context, options moby.ContainerCreateOptions) error {
	body, err := json.Marshal(libpodOf(options))
	if err != nil {
		return err
	}
	return d.libpod(ctx, http.MethodPost, "/containers/create", body, nil)
}

// libpod asks Podman by its own API, and reads the answer into a value if there is one.
func (d *Driver) libpod(ctx context.Context, method, path string, body []byte, into any) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.engine.Dialer()(ctx) }}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, method, "http://podman"+libpodPrefix+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrUnavailable, err)
	}
	defer answer.Body.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrUnavailable, err)
	}
	if answer.StatusCode < http.StatusBadRequest {
		if into == nil {
			return nil
		}
		return json.Unmarshal(text, into)
	}
	var told struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal(text, &told) // then the status is all there is to say
	err = fmt.Errorf("podman: %s: %s", answer.Status, told.Message)
	switch {
	case answer.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%w: %w", errdefs.ErrNotFound, err)
	case answer.StatusCode == http.StatusConflict, strings.Contains(told.Message, "already in use"):
		return fmt.Errorf("%w: %w", errdefs.ErrConflict, err)
	}
	return err
}
