package testbed

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Bridged gives each agent that is started from here on a network of its own, on a bridge
// that the coordinators are on too. Without root, or without ip and nsenter, the test is
// skipped.
func (m *Machines) Bridged() {
	m.T.Helper()
	for _, tool := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil || os.Geteuid() != 0 {
			m.T.Skipf("networks of their own need root, and %s (Debian has them in iproute2 and util-linux): %v", tool, err)
		}
	}
	number := m.claim("bridges", 4000)
	m.bridge, m.host, m.plugged = fmt.Sprintf("clb%d", number), fmt.Sprintf("10.%d.%d.1", 208+number/250, number%250), map[string]string{}
	// With an address of its own the bridge keeps it. Else it takes the lowest of its ports', and whoever
	// asked before the lowest port came sends to an address that is now another machine's port.
	m.ip("link", "add", m.bridge, "address", fmt.Sprintf("02:c1:a7:00:%02x:%02x", number>>8, number&0xff), "type", "bridge")
	m.ip("address", "add", m.host+"/24", "dev", m.bridge)
	m.ip("link", "set", m.bridge, "up")
}

// Apart is Bridged with the coordinators on networks of their own too, so that any two machines can be parted.
func (m *Machines) Apart() {
	m.T.Helper()
	if _, err := exec.LookPath("iptables"); err != nil {
		m.T.Skipf("networks that can be parted need iptables: %v", err)
	}
	m.Bridged()
	m.apart = true
}

// Host is the address of this process on the machines' network. It is parted from none.
func (m *Machines) Host() string { return m.host }

// Part has a machine hear nothing more of another one, which hears it still.
func (m *Machines) Part(from, to string) {
	m.T.Helper()
	m.filter(to, "-A", "INPUT", "-s", m.plugged[from], "-j", "DROP")
}

// Reset breaks whatever connections there are to a port of a machine that has a network of its own, for as long as it takes
// that each has sent something.
func (m *Machines) Reset(name string, port int, while func()) {
	m.T.Helper()
	rule := []string{"INPUT", "-p", "tcp", "--dport", fmt.Sprint(port), "-j", "REJECT", "--reject-with", "tcp-reset"}
	m.filter(name, append([]string{"-A"}, rule...)...)
	while()
	m.filter(name, append([]string{"-D"}, rule...)...)
}

// Rejoin has a machine hear all others again.
func (m *Machines) Rejoin(name string) {
	m.T.Helper()
	m.filter(name, "-F", "INPUT")
}

func (m *Machines) filter(name string, rule ...string) {
	m.T.Helper()
	if out, err := exec.Command("nsenter", append([]string{"--net=" + m.netns(name), "iptables", "-w"}, rule...)...).CombinedOutput(); err != nil {
		m.T.Errorf("iptables %s on %s: %v: %s", strings.Join(rule, " "), name, err, out)
	}
}

// plug makes a machine's network and returns its address there.
func (m *Machines) plug(name string) string {
	m.T.Helper()
	if m.plugged[name] != "" {
		return m.plugged[name]
	}
	number := len(m.plugged) + 10
	address := strings.TrimSuffix(m.host, "1") + fmt.Sprint(number)
	m.plugged[name] = address
	space, outer := m.bridge+"-"+name, fmt.Sprintf("%s.%d", m.bridge, number)
	m.ip("netns", "add", space)
	m.ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
	m.ip("link", "set", outer, "master", m.bridge, "up")
	m.ip("-n", space, "link", "set", "lo", "up")
	m.ip("-n", space, "address", "add", address+"/24", "dev", "eth0")
	m.ip("-n", space, "link", "set", "eth0", "up")
	return address
}

// Plugged is the address of a machine that has a network of its own.
func (m *Machines) Plugged(name string) string { return m.plugged[name] }

func (m *Machines) netns(name string) string { return "/run/netns/" + m.bridge + "-" + name }

// unplug takes the networks away.
func (m *Machines) unplug() {
	if m.bridge == "" {
		return
	}
	for name := range m.plugged {
		m.ip("netns", "delete", m.bridge+"-"+name)
	}
	m.ip("link", "delete", m.bridge)
}

func (m *Machines) ip(args ...string) {
	m.T.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		m.T.Errorf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}
