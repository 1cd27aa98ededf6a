package transport_test

import (
	"crypto/tls"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
)

// stands is a connection of a member, whose end is told.
func (p *port) stands(identity pki.Identity) (ended chan error) {
	p.Helper()
	conn := tls.Client(p.dial(), blind(p.source(p.ca, identity), "h2"))
	if err := conn.HandshakeContext(p.Context()); err != nil {
		p.Fatal(err)
	}
	ended = make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, conn)
		ended <- err
	}()
	return ended
}

func TestWhatStandsWithARevokedNodeIsClosedAndNothingElse(t *testing.T) {
	inBubble(t, func(p *port) {
		revoked, other := p.stands(pki.Node{Role: pki.Agent, ID: "n1"}), p.stands(pki.Node{Role: pki.Agent, ID: "n2"})
		user := p.dial()
		shown := tls.Client(user, blind(nil, "h2"))
		if err := shown.HandshakeContext(p.Context()); err != nil {
			p.Fatal(err)
		}
		synctest.Wait()
		trust := pki.Trust{Revoked: []cluster.Revocation{{Role: pki.Agent, ID: "n1", Reason: "stolen", By: "ada"}}}
		p.mux.HangUp(trust.Admits)
		synctest.Wait()
		select {
		case <-revoked:
		default:
			p.Error("it still stands")
		}
		select {
		case err := <-other:
			p.Errorf("another's was closed: %v", err)
		default:
		}
		_ = shown.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := io.Copy(io.Discard, shown); err != nil {
			var slow interface{ Timeout() bool }
			if !errors.As(err, &slow) || !slow.Timeout() {
				p.Errorf("a user's was closed: %v", err)
			}
		} else {
			p.Error("a user's was closed")
		}
	})
}
