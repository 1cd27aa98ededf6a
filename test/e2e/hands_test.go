package e2e

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

// as is a client of another user, with a context of its own.
func (m *machines) as(user, role string) []string {
	m.T.Helper()
	file := m.Path(user + ".token")
	m.Exits(0, "token", "create", user, "--role", role, "--token-file", file)
	config := "CLARY_CONFIG=" + m.Path(user+".json")
	if out, err := m.As([]string{config}, "login", m.Address["s1"], "--ca", filepath.Join(m.Path("s1"), "tls", "ca.pem"), "--token-file", file); err != nil {
		m.T.Fatalf("%v: %s", err, out)
	}
	return []string{config}
}

const echoServer = `perl -MIO::Socket::INET -e '
my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1", LocalPort => 0) or die $!;
$| = 1; print "port ", $s->sockport, "\n";
while (my $c = $s->accept) { while (my $l = <$c>) { print $c "you said $l" } close $c; }'`

func TestHandsOnATask(t *testing.T) {
	m := start(t, 2, 1)
	m.Exits(0, "run", "--name", "busy", "--env", "COLOR=blue", "--detach", "--", "sh", "-c", "echo made >/opt/ml/model/made.txt; "+echoServer)
	port := ""
	m.WaitFor("the task to listen", 30*time.Second, func() bool {
		out, _ := m.Try("logs", "busy")
		if found := regexp.MustCompile(`port (\d+)`).FindStringSubmatch(out); found != nil {
			port = found[1]
		}
		return port != ""
	})

	t.Run("exec", func(t *testing.T) {
		out := m.Exits(0, "exec", "busy", "--env", "SHAPE=round", "--", "sh", "-c", `echo "$COLOR $SHAPE"; pwd; cat model/made.txt; id -u`)
		if !strings.Contains(out, "blue round\n/opt/ml\nmade\n2") {
			t.Errorf("it said %s", out)
		}
		m.Exits(7, "exec", "busy", "--", "sh", "-c", "exit 7")
		command := exec.Command(m.Binary, "exec", "busy", "--task", "worker-0", "--", "tr", "a-z", "A-Z")
		command.Env, command.Stdin = m.Env, strings.NewReader("over the wire\n")
		if text, err := command.Output(); err != nil || string(text) != "OVER THE WIRE\n" {
			t.Errorf("%q, %v", text, err)
		}
		m.refuses(nil, []string{"exec", "busy", "--", "no-such-program"}, "no-such-program")
		m.refuses(nil, []string{"exec", "busy", "--task", "worker-9", "--", "true"}, "no task")
		m.refuses(nil, []string{"exec", "nothing", "--", "true"}, "nothing")
	})
	t.Run("exec with a terminal", func(t *testing.T) {
		command := exec.Command(m.Binary, "exec", "busy", "--", "sh", "-c", "stty size; read word; echo got $word; cat")
		command.Env = append(m.Env, "TERM=xterm")
		screen, err := pty.StartWithSize(command, &pty.Winsize{Rows: 31, Cols: 71})
		if err != nil {
			t.Fatal(err)
		}
		defer screen.Close()
		reader := bufio.NewReader(screen)
		expect := func(word string) {
			t.Helper()
			for line := ""; !strings.Contains(line, word); {
				if line, err = reader.ReadString('\n'); err != nil {
					t.Fatalf("waiting for %q: %v after %q", word, err, line)
				}
			}
		}
		expect("31 71")
		_, _ = screen.WriteString("hello\r")
		expect("got hello")
		_, _ = screen.WriteString("again\r")
		expect("again")                   // the terminal's echo
		expect("again")                   // cat's word: it is there to be interrupted
		_, _ = screen.WriteString("\x03") // Ctrl-C is the program's
		go func() { _, _ = io.Copy(io.Discard, reader) }()
		if err := command.Wait(); err == nil || command.ProcessState.ExitCode() != 130 {
			t.Errorf("it ended with %v", err)
		}
	})
	t.Run("port-forward", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		command := exec.CommandContext(ctx, m.Binary, "port-forward", "busy", "0:"+port)
		command.Env = m.Env
		command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
		notes, err := command.StderrPipe()
		if err != nil || command.Start() != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(notes).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", strings.Fields(line)[0])
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "hello\n")
		answer, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || answer != "you said hello\n" {
			t.Errorf("it answered %q, %v", answer, err)
		}
		_ = conn.Close()
		cancel()
		_ = command.Wait()
	})
	t.Run("cp", func(t *testing.T) {
		m.Exits(0, "cp", "busy:/opt/ml/model", m.Path("copied"))
		if text, err := os.ReadFile(m.Path("copied/made.txt")); err != nil || string(text) != "made\n" {
			t.Errorf("%q, %v", text, err)
		}
		m.Exits(0, "cp", m.File("fix.txt", "a fix\n"), "busy/worker-0:/tmp")
		m.Exits(0, "cp", "busy:/tmp/fix.txt", m.Path("back.txt"))
		if text, err := os.ReadFile(m.Path("back.txt")); err != nil || string(text) != "a fix\n" {
			t.Errorf("%q, %v", text, err)
		}
		m.refuses(nil, []string{"cp", "busy:/no/such", m.Path("x")}, "tar in the task")
	})
	t.Run("only the owner, and on record", func(t *testing.T) {
		user, viewer := m.as("eve", "user"), m.as("vic", "viewer")
		m.refuses(user, []string{"exec", "busy", "--", "true"}, "belongs to admin")
		m.refuses(viewer, []string{"exec", "busy", "--", "true"}, "may not run programs")
		m.refuses(user, []string{"audit"}, "may not read the audit")
		var deeds []struct{ User, Action, Task, Detail, Ended, Result string }
		m.JSON(&deeds, "audit", "--job", "busy", "-o", "json")
		count := map[string]int{}
		for _, d := range deeds {
			if d.Task == "" { // the submission, and those who were refused
				continue
			}
			count[d.Action]++
			if d.User != "admin" || d.Task != "busy/main/worker-0.1" || d.Ended == "" || d.Result == "" {
				t.Errorf("on record: %+v", d)
			}
		}
		if count["exec"] != 5 || count["cp"] != 4 || count["port-forward"] != 1 {
			t.Errorf("on record: %v", count)
		}
	})
	m.Exits(0, "cancel", "busy")
	m.Exits(1, "wait", "busy")
	m.refuses(nil, []string{"exec", "busy", "--", "true"}, "no task")
}
