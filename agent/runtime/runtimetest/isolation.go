package runtimetest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/agent/runtime"
)

// isolationClaims hold for tasks with a view of the machine of their own.
var isolationClaims = []claim{
	{"runs a task as its user, with its name", ownUser},
	{"gives a task no privileges and no way to any", noPrivileges},
	{"lets a task make no namespace in which it has privileges", noNamespaces},
	{"shows a task its mounts and lets it write only where it may", mounts},
	{"resolves the names that a task was given", names},
	{"hides what is not the task's", hidden},
	{"shows a task no process of others", ownProcesses},
	{"cuts a task off when asked", offline},
	{PrivateTempClaim, privateTemp},
	{SecretsClaim, secrets},
}

const inside = "/opt/ml"

// say runs a script in a view of its own and returns what it wrote.
func (b *bench) say(script string, change ...func(*runtime.Spec)) string {
	b.Helper()
	id := b.start(script, append([]func(*runtime.Spec){b.Isolate}, change...)...)
	b.wait(id)
	return b.log(id, runtime.Stdout) + b.log(id, runtime.Stderr)
}

func (b *bench) wants(said string, words ...string) {
	b.Helper()
	for _, word := range words {
		if !strings.Contains(said, word) {
			b.Errorf("%q is not in what the task said:\n%s", word, said)
		}
	}
}

func ownUser(b *bench) {
	user := &runtime.User{}
	said := b.say("id -u; id -g; id -G; id -un", func(s *runtime.Spec) { user = s.User })
	id := strconv.Itoa(int(user.UID))
	if want := id + "\n" + id + "\n" + id + "\n" + user.Name + "\n"; said != want {
		b.Errorf("it runs as %q, want %q", said, want)
	}
}

func noPrivileges(b *bench) {
	said := b.say(`grep -E "^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp):" /proc/self/status | tr -d "\t"
mount -t tmpfs none /tmp 2>/dev/null && echo mounted
unshare -m true 2>/dev/null && echo unshared
mknod /tmp/disk b 8 0 2>/dev/null && echo a device
chroot /tmp true 2>/dev/null && echo chrooted
su -c id 2>/dev/null && echo root
echo 1 2>/dev/null >/proc/sys/kernel/panic && echo wrote
echo done`)
	b.wants(said, "CapPrm:0000000000000000", "CapEff:0000000000000000", "CapBnd:0000000000000000", "CapAmb:0000000000000000", "NoNewPrivs:1", "Seccomp:2", "done")
	for _, word := range []string{"mounted", "unshared", "a device", "chrooted", "root", "wrote"} {
		if strings.Contains(said, word) {
			b.Errorf("it could do what it must not: %s", said)
		}
	}
}

func noNamespaces(b *bench) {
	if said := b.say("unshare -U true 2>/dev/null && echo unshared; echo done"); said != "done\n" {
		b.Errorf("it said %q", said)
	}
}

func mounts(b *bench) {
	shown := b.TempDir()
	b.must(os.WriteFile(filepath.Join(shown, "words"), []byte("read me"), 0o644))
	b.must(os.Chmod(shown, 0o777))
	b.must(os.Chmod(filepath.Dir(shown), 0o755))
	said := b.say(`pwd; cat /opt/data/words; echo
echo x 2>/dev/null >/opt/data/more && echo wrote a read-only mount
echo x 2>/dev/null >/etc/more && echo wrote the root
echo x 2>/dev/null >/usr/more && echo wrote the root
touch /opt/ml/made && echo made`, func(s *runtime.Spec) {
		s.Isolation.Mounts = append(s.Isolation.Mounts, runtime.Mount{Source: shown, Target: "/opt/data", ReadOnly: true})
	})
	b.wants(said, inside+"\n", "read me", "made")
	if strings.Contains(said, "wrote") {
		b.Errorf("it wrote where it must not: %s", said)
	}
	if _, err := os.Stat(filepath.Join(b.work(), "made")); err != nil {
		b.Error(err)
	}
}

func names(b *bench) {
	said := b.say("find() { getent hosts $1 2>/dev/null || grep $1 /etc/hosts; }; find algo-1; find algo-2; find localhost >/dev/null && echo local; hostname", func(s *runtime.Spec) {
		s.Isolation.Hosts = map[string]string{"algo-1": "10.1.2.3", "algo-2": "10.1.2.4"}
		s.Isolation.Hostname = "algo-1"
	})
	b.wants(said, "10.1.2.3", "10.1.2.4", "local\n", "algo-1\n")
}

func hidden(b *bench) {
	folder := b.TempDir()
	b.must(os.WriteFile(filepath.Join(folder, "secret"), []byte("hush"), 0o644))
	for _, path := range []string{folder, filepath.Dir(folder)} {
		b.must(os.Chmod(path, 0o755))
	}
	// Below /var, since /tmp is private anyway.
	public, err := os.MkdirTemp("/var/tmp", "clary-hidden")
	b.must(err)
	b.Cleanup(func() { _ = os.RemoveAll(public) })
	b.must(os.Chmod(public, 0o755))
	b.must(os.WriteFile(filepath.Join(public, "secret"), []byte("hush"), 0o644))
	said := b.say("cat "+folder+"/secret "+public+"/secret 2>&1; ls "+public+" /run; echo done", func(s *runtime.Spec) {
		s.Isolation.Hide = []string{public, "/no/such/folder"}
	})
	b.wants(said, "done")
	if strings.Contains(said, "hush") || strings.Contains(said, "docker.sock") {
		b.Errorf("it sees %q", said)
	}
}

func ownProcesses(b *bench) {
	other := b.Script(b.T, "job/main/other-0.1", "echo here; sleep 60")
	b.Isolate(&other)
	other.User = &runtime.User{UID: other.User.UID + 1, GID: other.User.GID + 1, Name: "other"}
	_, err := b.driver.Start(b.ctx, other)
	b.must(err)
	b.until(other.ID, "here")
	contained := other.Image != "" // process 1 is the task's own, and heeds no signal
	said := b.say(`for p in /proc/[0-9]*; do tr "\0" " " <$p/cmdline 2>/dev/null; echo; done; kill -9 1 2>/dev/null && echo killed$((1+1))`)
	if strings.Contains(said, "sleep 60") || strings.Contains(said, "clary-shim") || strings.Contains(said, "killed2") && !contained {
		b.Errorf("it sees %s", said)
	}
	b.must(b.driver.Stop(b.ctx, other.ID, 0))
	b.wait(other.ID)
}

func offline(b *bench) {
	said := b.say(`cat /proc/net/dev | grep : | cut -d: -f1 | tr -d " "; cat /sys/class/net/lo/operstate 2>/dev/null; cat /proc/net/route | wc -l`, func(s *runtime.Spec) {
		s.Isolation.Network = runtime.NetworkNone
	})
	b.wants(said, "lo\n")
	if strings.Contains(said, "eth") || strings.Contains(said, "en") {
		b.Errorf("it has %q", said)
	}
}

func privateTemp(b *bench) {
	said := b.say("ls -A /tmp /dev/shm; echo x >/tmp/mine && stat -c %a /tmp; df --output=size -B1 /tmp | tail -1; test -c /dev/null && echo null; echo pts; ls /dev/pts")
	b.wants(said, "1777\n", "null")
	if _, err := os.Stat("/tmp/mine"); err == nil {
		b.Error("it wrote to the machine's /tmp")
	}
	if strings.Contains(said, "clary") {
		b.Errorf("it sees the machine's /tmp: %s", said)
	}
}

func secrets(b *bench) {
	const value = "correct horse battery staple"
	id := b.start(`echo "$TOKEN" | rev; sleep 60`, b.Isolate, func(s *runtime.Spec) { s.Secrets = []string{"TOKEN=" + value} })
	b.until(id, "elpats yrettab esroh tcerroc")
	for _, root := range b.Roots {
		b.must(filepath.WalkDir(root, func(path string, item os.DirEntry, err error) error {
			if err != nil || item.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			if strings.Contains(string(text), value) {
				b.Errorf("the secret is in %s", path)
			}
			return err
		}))
	}
	b.must(b.driver.Stop(b.ctx, id, 0))
	b.wait(id)
}
