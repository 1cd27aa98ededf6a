package runtimetest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/internal/fault"
)

// handsClaims hold for programs that run beside a task, and ports on which it listens.
var handsClaims = []claim{
	{"runs a program beside a task, as the task is", beside},
	{"feeds a program beside a task and ends its input", besideInput},
	{"gives a program beside a task a terminal", besideTerminal},
	{"ends a program beside a task with its caller and with the task", besideEnds},
	{"refuses a program beside a task that is not there or has ended", besideNothing},
	{"reaches a port on which a task listens", dial},
}

// stop ends a task.
func (b *bench) stop(id string) {
	b.Helper()
	b.must(b.driver.Stop(b.ctx, id, 0))
	b.wait(id)
}

// sleeper is a task that waits to be stopped.
func (b *bench) sleeper(change ...func(*runtime.Spec)) string {
	b.Helper()
	id := b.start("cat /proc/self/cgroup; echo ready; exec sleep 60", change...)
	b.until(id, "ready")
	return id
}

func beside(b *bench) {
	execer := can[runtime.Execer](b, "runs programs beside a task")
	var user *runtime.User
	id := b.sleeper(func(s *runtime.Spec) {
		user = s.User
		s.Env = append(s.Env, "COLOR=blue", "SHAPE=round")
		if b.Without[SecretsClaim] == "" {
			s.Secrets = []string{"TOKEN=hush"}
		} else {
			s.Env = append(s.Env, "TOKEN=hush")
		}
	})
	defer b.stop(id)
	var own, stdout, stderr bytes.Buffer
	_, err := execer.Exec(b.ctx, id, runtime.Command{Argv: []string{"sh", "-c", "id -u; pwd; cat /proc/self/cgroup"}}, runtime.Streams{Stdout: &own})
	b.must(err)
	code, err := execer.Exec(b.ctx, id, runtime.Command{
		Argv: []string{"sh", "-c", `echo "$COLOR $SHAPE $TOKEN"; id -u; grep -E "^(CapEff|NoNewPrivs|Seccomp):" /proc/self/status; echo bad >&2; exit 7`},
		Env:  []string{"SHAPE=square"},
	}, runtime.Streams{Stdout: &stdout, Stderr: &stderr})
	if err != nil || code != 7 || !strings.HasPrefix(stdout.String(), "blue square hush\n") || stderr.String() != "bad\n" {
		b.Errorf("exit code %d, %v, said %q and %q", code, err, stdout.String(), stderr.String())
	}
	if b.Isolate != nil {
		b.wants(own.String(), fmt.Sprintln(user.UID), inside+"\n")
		b.wants(strings.ReplaceAll(stdout.String(), "\t", ""), "CapEff:0000000000000000", "NoNewPrivs:1", "Seccomp:2")
	}
	for line := range strings.Lines(b.log(id, runtime.Stdout)) {
		limiting := strings.Contains(line, ":pids:") || strings.Contains(line, ":memory:") || strings.HasPrefix(line, "0::")
		if b.Limited && limiting && !strings.Contains(own.String(), line) {
			b.Errorf("the task is in %sbut it is in the control groups %s", line, own.String())
		}
	}
}

func besideInput(b *bench) {
	execer, id := can[runtime.Execer](b, "runs programs beside a task"), b.sleeper()
	defer b.stop(id)
	var stdout bytes.Buffer
	text := strings.Repeat("a line of some length\n", 100_000)
	code, err := execer.Exec(b.ctx, id, runtime.Command{Argv: []string{"cat"}}, runtime.Streams{Stdin: strings.NewReader(text), Stdout: &stdout})
	if err != nil || code != 0 || stdout.String() != text {
		b.Errorf("exit code %d, %v, %d bytes of %d", code, err, stdout.Len(), len(text))
	}
	// Input that never comes does not keep it.
	never, writer := io.Pipe()
	defer writer.Close() //nolint:errcheck // a pipe's never fails
	if code, err := execer.Exec(b.ctx, id, runtime.Command{Argv: []string{"true"}}, runtime.Streams{Stdin: never}); err != nil || code != 0 {
		b.Errorf("exit code %d, %v", code, err)
	}
}

func besideTerminal(b *bench) {
	execer, id := can[runtime.Execer](b, "runs programs beside a task"), b.sleeper()
	defer b.stop(id)
	sizes := make(chan runtime.Size, 1)
	sizes <- runtime.Size{Rows: 33, Columns: 77}
	var screen bytes.Buffer
	code, err := execer.Exec(b.ctx, id, runtime.Command{
		Argv: []string{"sh", "-c", "test -t 0 && test -t 1 && until stty size | grep -q '33 77'; do :; done; stty size; read word && echo got $word; exit 3"}, Terminal: true, Sizes: sizes,
	}, runtime.Streams{Stdin: strings.NewReader("hello\n"), Stdout: &screen})
	if err != nil || code != 3 || !strings.Contains(screen.String(), "33 77") || !strings.Contains(screen.String(), "got hello") {
		b.Errorf("exit code %d, %v, on the screen %q", code, err, screen.String())
	}
}

func besideEnds(b *bench) {
	execer, id := can[runtime.Execer](b, "runs programs beside a task"), b.sleeper()
	ctx, cancel := context.WithTimeout(b.ctx, 100*time.Millisecond)
	defer cancel()
	if code, err := execer.Exec(ctx, id, runtime.Command{Argv: []string{"sleep", "60"}}, runtime.Streams{}); err == nil && code == 0 || b.ctx.Err() != nil {
		b.Errorf("its caller went, and it ended with code %d, %v", code, err)
	}
	ended := make(chan struct{})
	words, said := io.Pipe()
	go func() {
		defer close(ended)
		_, _ = execer.Exec(b.ctx, id, runtime.Command{Argv: []string{"sh", "-c", "echo here; sleep 60"}}, runtime.Streams{Stdout: said})
		_ = said.Close()
	}()
	if _, err := words.Read(make([]byte, 10)); err != nil {
		b.Fatal(err)
	}
	b.stop(id)
	<-ended
}

func besideNothing(b *bench) {
	execer, id := can[runtime.Execer](b, "runs programs beside a task"), b.sleeper()
	if _, err := execer.Exec(b.ctx, id, runtime.Command{Argv: []string{"no-such-program"}}, runtime.Streams{}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "no-such-program") {
		b.Errorf("an unknown program: %v", err)
	}
	if _, err := execer.Exec(b.ctx, id, runtime.Command{}, runtime.Streams{}); !fault.Is(err, fault.Invalid) {
		b.Errorf("no program: %v", err)
	}
	if _, err := execer.Exec(b.ctx, "job/main/other-0.1", runtime.Command{Argv: []string{"true"}}, runtime.Streams{}); !fault.Is(err, fault.NotFound) {
		b.Errorf("an unknown task: %v", err)
	}
	b.stop(id)
	if _, err := execer.Exec(b.ctx, id, runtime.Command{Argv: []string{"true"}}, runtime.Streams{}); !fault.Is(err, fault.Conflict) {
		b.Errorf("a task that has ended: %v", err)
	}
}

// listener answers each connection with a word; perl-base is on every Debian.
const listener = `exec perl -MIO::Socket::INET -e '
my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1", LocalPort => 0) or die $!;
print "port ", $s->sockport, "\n"; $| = 1; print "\n";
while (my $c = $s->accept) { print $c "hello\n"; close $c; }'`

func dial(b *bench) {
	dialer := can[runtime.Dialer](b, "reaches ports of tasks")
	for _, network := range []runtime.Network{runtime.NetworkHost, runtime.NetworkNone} {
		if network == runtime.NetworkNone && b.Isolate == nil {
			continue
		}
		id := b.start(cmp.Or(b.Listener, listener), func(s *runtime.Spec) {
			if s.Isolation != nil {
				s.Isolation.Network = network
			}
		})
		b.until(id, "port ")
		_, text, _ := strings.Cut(b.log(id, runtime.Stdout), "port ")
		port := 0
		text, _, _ = strings.Cut(text, "\n")
		for _, digit := range text {
			port = port*10 + int(digit-'0')
		}
		conn, err := dialer.Dial(b.ctx, id, port)
		for fault.Is(err, fault.Unready) && b.ctx.Err() == nil { // it is about to listen
			conn, err = dialer.Dial(b.ctx, id, port)
		}
		if err != nil {
			b.Fatalf("network %q: %v", network, err)
		}
		said, err := io.ReadAll(conn)
		if string(said) != "hello\n" || err != nil {
			b.Errorf("network %q: it said %q, %v", network, said, err)
		}
		_ = conn.Close()
		if _, err := dialer.Dial(b.ctx, id, 1); !fault.Is(err, fault.Unready) {
			b.Errorf("a port on which nobody listens: %v", err)
		}
		b.stop(id)
		b.must(b.driver.Remove(b.ctx, id))
	}
}
