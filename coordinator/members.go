package coordinator

import (
	"time"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/replica"
	"github.com/clary-ml/clary/coordinator/warden"
	"github.com/clary-ml/clary/internal/gossip"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// members answers for who is in the cluster.
type members struct {
	config  Config
	self    membership
	replica *replica.Replica
	gossip  *gossip.Gossip
	store   *objectStore
	warden  *warden.Warden
	lives   func() cluster.Certificates
}

// Pin names the cluster's CA.
func (m *members) Pin() string { return m.self.keyring.Get().Authority.Pin() }

// IsCoordinator reports whether a coordinator of that id is a member already.
func (m *members) IsCoordinator(id string) bool {
	known, err := m.replica.Members()
	if err != nil {
		return true // do not let a second one in while in doubt
	}
	for _, member := range known {
		if member.ID == id {
			return true
		}
	}
	return false
}

// Admit certifies a machine and tells it what a member needs to know; a coordinator
// gets the cluster's secrets too.
func (m *members) Admit(node pki.Node, address string, csr []byte) (*claryv1.JoinResponse, error) {
	var names []string
	if node.Role == pki.Coordinator {
		names = hosts(hostOf(address))
	}
	certificate, err := m.Certify(node, csr, names...)
	if err != nil {
		return nil, err
	}
	keys := m.self.keyring.Get()
	answer := &claryv1.JoinResponse{
		CertificatePem: certificate, CaPem: pki.CertsPEM(keys.CAs()...), GossipKey: keys.GossipKeys[0], Trust: m.warden.Bundle(),
		Coordinators: m.addresses(), Gossip: m.seeds(), ObjectStore: m.store.external(),
	}
	if node.Role == pki.Coordinator {
		answer.Keyring, err = keys.Marshal()
	}
	return answer, err
}

// Certify signs a member's certificate.
func (m *members) Certify(node pki.Node, csr []byte, hosts ...string) ([]byte, error) {
	return m.self.keyring.Get().Authority.IssueCSR(csr, pki.Request{Identity: node, Hosts: hosts, Validity: m.lives().Node}, time.Now())
}

// addresses are the RPC addresses of all coordinators that are alive.
func (m *members) addresses() []string {
	var addresses []string
	for _, member := range m.gossip.Members() {
		if member.Role == gossip.Coordinator {
			addresses = append(addresses, member.RPC)
		}
	}
	return addresses
}

// seeds are the gossip addresses of the coordinators that are alive.
func (m *members) seeds() []string {
	var addresses []string
	for _, member := range m.gossip.Members() {
		if member.Role == gossip.Coordinator {
			addresses = append(addresses, member.Gossip)
		}
	}
	return addresses
}

// Info describes the cluster as seen from here.
func (m *members) Info() *claryv1.ClusterInfo {
	info := &claryv1.ClusterInfo{Leader: m.replica.Leader(), Version: m.config.Version, CaPin: m.Pin(), Now: time.Now().UnixNano(), Id: m.config.ID}
	known, err := m.replica.Members()
	if err != nil {
		return info
	}
	for _, member := range known {
		seen, alive := m.gossip.Find(gossip.Coordinator, member.ID)
		address := member.Address
		if alive {
			address = seen.RPC
		}
		info.Coordinators = append(info.Coordinators, &claryv1.Coordinator{
			Id: member.ID, Address: address, Leader: member.Leader, Voter: member.Voter, Alive: alive,
		})
	}
	return info
}
