package doctor_test

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/doctor"
	"github.com/clary-ml/clary/internal/fault"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// healthy is a machine of a healthy cluster of three.
func healthy() doctor.Machine {
	files := map[string]string{
		"/proc/sys/kernel/osrelease": "6.8.0-31-generic\n", "/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
		"/proc/sys/user/max_mnt_namespaces": "9000\n", "/proc/sys/user/max_pid_namespaces": "9000\n", "/proc/sys/user/max_net_namespaces": "9000\n", "/proc/sys/user/max_ipc_namespaces": "9000\n",
	}
	return doctor.Machine{
		Read: func(path string) (string, error) {
			if text, ok := files[path]; ok {
				return text, nil
			}
			return "", fs.ErrNotExist
		},
		Root: true, Folders: []string{"/data"},
		Room:    func(string) (int64, int64, error) { return 50 << 30, 100 << 30, nil },
		Objects: func(string) bool { return false },
		Sync:    func(string) (time.Duration, error) { return time.Millisecond, nil },
		Certs:   certs(noon.Add(time.Hour), noon.Add(2*time.Hour)),
		Keyring: func(string) error { return nil },
		Ports:   []doctor.Port{{Number: 7420, Of: "coordinators"}},
		Port:    func(context.Context, doctor.Port) doctor.PortState { return doctor.Answered },
		GPUs:    func(context.Context) ([]doctor.GPU, error) { return []doctor.GPU{{Model: "A100", Healthy: true}}, nil },
		Synced:  func() (bool, error) { return true, nil },
		Files:   func() (uint64, error) { return 1 << 20, nil },
		Now:     func() time.Time { return noon },
		Cluster: func(context.Context) (*doctor.ClusterAnswers, error) {
			return &doctor.ClusterAnswers{
				Coordinators: []doctor.CoordinatorAnswer{answer("a"), answer("b"), answer("c")},
				Nodes:        []cluster.Node{{ID: "n1", State: cluster.NodeReady, Version: "v1"}},
				Backups:      &doctor.BackupsAnswer{Every: 6 * time.Hour, Newest: noon.Add(-7 * time.Hour)},
			}, nil
		},
	}
}

func certs(renew, expiry time.Time) func(string) ([]doctor.Certificate, error) {
	return func(folder string) ([]doctor.Certificate, error) {
		return []doctor.Certificate{{File: folder + "/tls/cert.pem", Of: "coordinator/a", Renew: renew, Expiry: expiry}}, nil
	}
}

func unreadable(err error) func(string) ([]doctor.Certificate, error) {
	return func(string) ([]doctor.Certificate, error) { return nil, err }
}

func answer(id string) doctor.CoordinatorAnswer {
	return doctor.CoordinatorAnswer{ID: id, Address: id + ":7420", Version: "v1", Leader: "a", Voter: true, Clock: true, Skew: 3 * time.Millisecond, Round: time.Millisecond}
}

// in changes what the cluster says.
func in(m *doctor.Machine, change func(*doctor.ClusterAnswers)) {
	answers, err := m.Cluster(context.Background())
	change(answers)
	m.Cluster = func(context.Context) (*doctor.ClusterAnswers, error) { return answers, err }
}

func TestAHealthyMachineHasNothingToBeDone(t *testing.T) {
	found := doctor.Examine(t.Context(), healthy())
	if len(found) < 15 || doctor.Failed(found) {
		t.Errorf("%+v", found)
	}
	for _, f := range found {
		if f.Level != doctor.OK || f.Remedy != "" || f.Text == "" {
			t.Errorf("%+v", f)
		}
	}
}

func TestWhatIsWrongIsSaidWithItsRemedy(t *testing.T) {
	away := errors.New("connection refused")
	for name, c := range map[string]struct {
		change func(*doctor.Machine)
		check  string
		level  doctor.Level
		says   string
	}{
		"an old kernel": {func(m *doctor.Machine) { m.Read = func(string) (string, error) { return "5.4.0", nil } }, "kernel", doctor.Warn, "5.12"},
		"no cgroups": {func(m *doctor.Machine) {
			read := m.Read
			m.Read = func(p string) (string, error) {
				if strings.Contains(p, "cgroup") {
					return "", fs.ErrNotExist
				}
				return read(p)
			}
		}, "cgroups", doctor.Warn, "unified_cgroup_hierarchy"},
		"no namespaces": {func(m *doctor.Machine) { m.Read = func(string) (string, error) { return "0", nil } }, "namespaces", doctor.Warn, "max_mnt_namespaces"},
		"not root":      {func(m *doctor.Machine) { m.Root = false }, "privileges", doctor.Warn, "as root"},
		"a full disk": {func(m *doctor.Machine) {
			m.Room = func(string) (int64, int64, error) { return 1 << 30, 100 << 30, nil }
		}, "disk", doctor.Fail, "larger disk"},
		"a full disk with objects": {func(m *doctor.Machine) {
			m.Room = func(string) (int64, int64, error) { return 1 << 30, 100 << 30, nil }
			m.Objects = func(string) bool { return true }
		}, "disk", doctor.Fail, "a disk of its own"},
		"a node with a full disk": {func(m *doctor.Machine) {
			ask := m.Cluster
			m.Cluster = func(ctx context.Context) (*doctor.ClusterAnswers, error) {
				answers, err := ask(ctx)
				answers.Nodes[0].Taints = []cluster.Taint{{Key: "clary.disk", Value: "low", Effect: cluster.EffectNoPlace}}
				return answers, err
			}
		}, "nodes", doctor.Warn, "--task-disk"},
		"a filling disk": {func(m *doctor.Machine) {
			m.Room = func(string) (int64, int64, error) { return 5 << 30, 100 << 30, nil }
		}, "disk", doctor.Warn, "soon"},
		"a slow disk": {func(m *doctor.Machine) {
			m.Sync = func(string) (time.Duration, error) { return 20 * time.Millisecond, nil }
		}, "fsync", doctor.Warn, "SSD"},
		"a very slow disk":         {func(m *doctor.Machine) { m.Sync = func(string) (time.Duration, error) { return time.Second, nil } }, "fsync", doctor.Fail, "SSD"},
		"a certificate that ended": {func(m *doctor.Machine) { m.Certs = certs(noon.Add(-2*time.Hour), noon.Add(-time.Hour)) }, "certificates", doctor.Fail, "join again"},
		"one that is not renewed":  {func(m *doctor.Machine) { m.Certs = certs(noon.Add(-time.Hour), noon.Add(time.Hour)) }, "certificates", doctor.Warn, "its log"},
		"a damaged certificate":    {func(m *doctor.Machine) { m.Certs = unreadable(errors.New("no PEM")) }, "certificates", doctor.Fail, "join it again"},
		"one that is not for you":  {func(m *doctor.Machine) { m.Certs = unreadable(fs.ErrPermission) }, "certificates", doctor.Warn, "as root"},
		"a lost keyring":           {func(m *doctor.Machine) { m.Keyring = func(string) error { return fs.ErrNotExist } }, "keyring", doctor.Fail, "join it again"},
		"a keyring for all to read": {func(m *doctor.Machine) {
			m.Keyring = func(string) error { return fault.New(fault.Denied, "mode 0644") }
		}, "keyring", doctor.Fail, "chmod 600 /data/keyring.json"},
		"a taken port": {func(m *doctor.Machine) {
			m.Port = func(context.Context, doctor.Port) doctor.PortState { return doctor.Silent }
		}, "ports", doctor.Fail, "ss -lptn"},
		"a driver that is broken": {func(m *doctor.Machine) { m.GPUs = func(context.Context) ([]doctor.GPU, error) { return nil, away } }, "gpus", doctor.Fail, "nvidia-smi"},
		"a sick GPU": {func(m *doctor.Machine) {
			m.GPUs = func(context.Context) ([]doctor.GPU, error) { return []doctor.GPU{{Model: "T4"}}, nil }
		}, "gpus", doctor.Warn, "Xid"},
		"a clock nobody keeps": {func(m *doctor.Machine) { m.Synced = func() (bool, error) { return false, nil } }, "clock", doctor.Warn, "chrony"},
		"few files":            {func(m *doctor.Machine) { m.Files = func() (uint64, error) { return 1024, nil } }, "open files", doctor.Warn, "LimitNOFILE"},
		"a context that is broken": {func(m *doctor.Machine) {
			m.Cluster = func(context.Context) (*doctor.ClusterAnswers, error) { return nil, away }
		}, "cluster", doctor.Fail, "clary login"},
		"one coordinator away": {func(m *doctor.Machine) { in(m, func(a *doctor.ClusterAnswers) { a.Coordinators[2].Err = away }) }, "quorum", doctor.Warn, "none may fail"},
		"two away": {func(m *doctor.Machine) {
			in(m, func(a *doctor.ClusterAnswers) { a.Coordinators[2].Err, a.Coordinators[1].Err = away, away })
		}, "quorum", doctor.Fail, "clary cluster recover"},
		"nobody leads": {func(m *doctor.Machine) {
			in(m, func(a *doctor.ClusterAnswers) {
				for i := range a.Coordinators {
					a.Coordinators[i].Leader = ""
				}
			})
		}, "quorum", doctor.Fail, "nobody leads"},
		"two leaders": {func(m *doctor.Machine) { in(m, func(a *doctor.ClusterAnswers) { a.Coordinators[2].Leader = "c" }) }, "quorum", doctor.Warn, "do not agree"},
		"a skewed clock": {func(m *doctor.Machine) {
			in(m, func(a *doctor.ClusterAnswers) { a.Coordinators[1].Skew = -5 * time.Second })
		}, "clocks", doctor.Warn, "chrony"},
		"a wrong clock":      {func(m *doctor.Machine) { in(m, func(a *doctor.ClusterAnswers) { a.Coordinators[1].Skew = time.Hour }) }, "clocks", doctor.Fail, "chrony"},
		"an upgrade halfway": {func(m *doctor.Machine) { in(m, func(a *doctor.ClusterAnswers) { a.Nodes[0].Version = "v0" }) }, "versions", doctor.Warn, "finish the upgrade"},
		"no backups": {func(m *doctor.Machine) {
			in(m, func(a *doctor.ClusterAnswers) { a.Backups = &doctor.BackupsAnswer{} })
		}, "backups", doctor.Warn, "backup.every=6h"},
		"backups by hand": {func(m *doctor.Machine) { in(m, func(a *doctor.ClusterAnswers) { a.Backups.Every = 0 }) }, "backups", doctor.Warn, "none is made by itself"},
		"a late backup": {func(m *doctor.Machine) {
			in(m, func(a *doctor.ClusterAnswers) { a.Backups.Newest = noon.Add(-13 * time.Hour) })
		}, "backups", doctor.Fail, "one is due every 6h0m0s"},
		"no first backup": {func(m *doctor.Machine) {
			in(m, func(a *doctor.ClusterAnswers) { a.Backups.Newest = time.Time{} })
		}, "backups", doctor.Fail, "there is none, and one is due"},
		"a backup that cannot be made": {func(m *doctor.Machine) {
			in(m, func(a *doctor.ClusterAnswers) { a.Backups.Failed = "put s3://b/x: no such host" })
		}, "backups", doctor.Fail, "no such host"},
		"a lost node": {func(m *doctor.Machine) { in(m, func(a *doctor.ClusterAnswers) { a.Nodes[0].State = cluster.NodeLost }) }, "nodes", doctor.Warn, "nodes remove"},
	} {
		m := healthy()
		c.change(&m)
		found := doctor.Examine(t.Context(), m)
		is := func(f doctor.Finding) bool {
			return f.Check == c.check && f.Level == c.level && strings.Contains(f.Text+f.Remedy, c.says)
		}
		if !slices.ContainsFunc(found, is) || doctor.Failed(found) != (c.level == doctor.Fail) {
			t.Errorf("%s: %+v", name, found)
		}
	}
}

func TestAMachineWithoutAClusterIsExaminedToo(t *testing.T) {
	m := healthy()
	m.Cluster = func(context.Context) (*doctor.ClusterAnswers, error) { return nil, nil }
	if found := doctor.Examine(t.Context(), m); doctor.Failed(found) || !slices.ContainsFunc(found, func(f doctor.Finding) bool { return f.Check == "cluster" && f.Level == doctor.OK }) {
		t.Errorf("%+v", found)
	}
}
