package chaos_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
)

// beats are what tasks send while they run: by them it is seen from outside who holds what, whatever the cluster
// believes. A key is what only one may have at a time: the name of an exclusive job's task, a device or a port of a node.
type beats struct {
	conn *net.UDPConn
	done sync.WaitGroup

	mu      sync.Mutex
	holder  map[string]string          // of each key, the last that began
	before  map[string]map[string]bool // of each key, all that ever beat
	count   int
	changes map[string]int // how often a key went from one to another, by what stands before its first space
	twice   []string
}

// holds takes note of a beat, in the order in which they come. Once another has begun, none that
// had the key before may be heard again.
func (b *beats) holds(key, who string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count++
	switch {
	case b.holder[key] == who:
	case b.before[key][who]:
		if len(b.twice) < 20 {
			b.twice = append(b.twice, fmt.Sprintf("%s is held by %s, and %s still runs", key, b.holder[key], who))
		}
	default:
		if b.before[key] == nil {
			b.before[key] = map[string]bool{}
		} else {
			kind, _, _ := strings.Cut(key, " ")
			b.changes[kind]++
		}
		b.before[key][who], b.holder[key] = true, who
	}
}

// heard reports whether anybody has ever had a key.
func (b *beats) heard(key string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.holder[key] != ""
}

func newBeats() *beats {
	return &beats{holder: map[string]string{}, before: map[string]map[string]bool{}, changes: map[string]int{}}
}

// listen hears beats at an address of this machine until close.
func (b *beats) listen(t *testing.T, host string) string {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(host)})
	if err != nil {
		t.Fatal(err)
	}
	b.conn = conn
	b.done.Go(func() {
		buffer := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDP(buffer)
			if err != nil {
				return
			}
			b.hear(from.IP.String(), string(buffer[:n]))
		}
	})
	t.Cleanup(func() { _ = conn.Close(); b.done.Wait() })
	return conn.LocalAddr().String()
}

// hear reads a beat: the task, how it is exclusive, its devices and its ports.
func (b *beats) hear(node, text string) {
	fields := strings.Split(text, "|")
	if len(fields) != 4 {
		return
	}
	task := fields[0]
	if fields[1] == "exclusive" {
		name, _, _ := strings.Cut(task, ".")
		b.holds("exclusive "+name, task)
	}
	for _, device := range strings.Split(fields[2], ",") {
		if strings.HasPrefix(device, "GPU-") {
			b.holds("device "+node+" "+device, task)
		}
	}
	if fields[3] != "" {
		b.holds("port "+node+" "+fields[3], task)
	}
}

// beating is a program that beats twenty times a second, so many times, and exits with a code. Who asks it to end has to wait until it
// is killed: so whatever starts in its place too early is seen.
func beating(to, how string, times, code int) []string {
	script := `my $s = IO::Socket::INET->new(Proto => "udp", PeerAddr => $ARGV[0]) or die; $| = 1; $SIG{TERM} = "IGNORE"; print "begins\n";
for (1 .. $ARGV[2]) { $s->send(join("|", $ENV{CLARY_TASK}, $ARGV[1], $ENV{CUDA_VISIBLE_DEVICES} // "", $ENV{CLARY_PORTS} // "")); select(undef, undef, undef, 0.05) }
exit $ARGV[3]`
	return []string{"perl", "-MIO::Socket::INET", "-e", script, to, how, fmt.Sprint(times), fmt.Sprint(code)}
}

func TestWhoRunsTwiceIsSeen(t *testing.T) {
	b := newBeats()
	for _, beat := range []string{"a.1|exclusive||", "a.1|exclusive||", "a.2|exclusive|GPU-1|", "a.2|exclusive|GPU-1|", "b.1||GPU-1,GPU-2|", "c.1|||300"} {
		b.hear("n1", beat)
	}
	b.hear("n2", "d.1||GPU-1|")
	if len(b.twice) > 0 || b.changes["exclusive"] != 1 || b.changes["device"] != 1 || b.count != 10 {
		t.Errorf("one after the other: %v, %v, %d beats", b.twice, b.changes, b.count)
	}
	b.hear("n1", "a.1|exclusive||")
	b.hear("n1", "a.2|exclusive|GPU-1|")
	if len(b.twice) != 2 || !strings.Contains(b.twice[0], "held by a.2, and a.1 still runs") || !strings.Contains(b.twice[1], "held by b.1, and a.2") {
		t.Errorf("two at once: %q", b.twice)
	}
}
