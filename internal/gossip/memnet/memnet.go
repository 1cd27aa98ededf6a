// Package memnet is a network in memory for gossip, to be used inside a
// testing/synctest bubble. Like UDP, it drops a packet for a receiver that is too slow
// instead of blocking its sender: blocking is what makes memberlist's own mock
// transport stand still in a bubble.
package memnet

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// queue is how many packets, or waiting streams, a receiver may be behind.
const queue = 256

// Network connects transports. Its zero value is ready for use.
type Network struct {
	mu    sync.Mutex
	nodes map[string]*Transport
	cut   func(from, to string) bool
}

// Cut installs which packets and new streams get lost; nil is none.
func (n *Network) Cut(cut func(from, to string) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = cut
}

// Transport returns the one end of the network at an address, ip:port. The end that
// was there before gets nothing any more.
func (n *Network) Transport(address string) (*Transport, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	t := &Transport{
		network: n, address: at,
		packets: make(chan *memberlist.Packet, queue),
		streams: make(chan net.Conn, queue),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nodes == nil {
		n.nodes = map[string]*Transport{}
	}
	n.nodes[address] = t
	return t, nil
}

// reach returns the end at an address, or nil if there is none or the way is cut.
func (n *Network) reach(from, to string) *Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut != nil && n.cut(from, to) {
		return nil
	}
	return n.nodes[to]
}

// Transport is one end of a Network; it is a memberlist.NodeAwareTransport.
type Transport struct {
	network *Network
	address netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
}

// FinalAdvertiseAddr returns this end's own address.
func (t *Transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.address.Addr().AsSlice(), int(t.address.Port()), nil
}

// WriteTo sends a packet, which arrives at once or never.
func (t *Transport) WriteTo(b []byte, to string) (time.Time, error) {
	now := time.Now()
	if peer := t.network.reach(t.address.String(), to); peer != nil {
		packet := &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(t.address), Timestamp: now}
		select {
		case peer.packets <- packet:
		default:
		}
	}
	return now, nil
}

// PacketCh returns what arrives.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// DialTimeout opens a stream. One that is cut fails at once.
func (t *Transport) DialTimeout(to string, _ time.Duration) (net.Conn, error) {
	peer := t.network.reach(t.address.String(), to)
	if peer == nil {
		return nil, fmt.Errorf("memnet: no way from %s to %s", t.address, to)
	}
	ours, theirs := net.Pipe()
	select {
	case peer.streams <- theirs:
		return ours, nil
	default:
		return nil, fmt.Errorf("memnet: %s is too slow", to)
	}
}

// StreamCh returns the streams that others open.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown takes this end off the network.
func (t *Transport) Shutdown() error {
	n := t.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nodes[t.address.String()] == t {
		delete(n.nodes, t.address.String())
	}
	return nil
}

// WriteToAddress is WriteTo for memberlist's named addresses.
func (t *Transport) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, to.Addr)
}

// DialAddressTimeout is DialTimeout for memberlist's named addresses.
func (t *Transport) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(to.Addr, timeout)
}
