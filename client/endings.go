package client

import (
	"context"
	"crypto/x509"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/internal/request"
)

// caWarning is how long before its end a cluster's CA is warned of: all who pin it have to learn of the next one by then.
const caWarning = 90 * 24 * time.Hour

// endings are what a coordinator has told, or shown, of what ends some day.
type endings struct {
	token atomic.Int64                     // Unix nanoseconds; 0: not soon
	late  atomic.Pointer[x509.Certificate] // that should have been renewed before it was shown
	ca    atomic.Pointer[x509.Certificate]
}

// seen notes the certificates of a handshake.
func (e *endings) seen(chain []*x509.Certificate) {
	if len(chain) < 2 || !chain[1].IsCA {
		return
	}
	e.late.Store(nil)
	if renew := pki.RenewAt(chain[0]); time.Now().After(renew.Add(chain[0].NotAfter.Sub(renew) / 2)) {
		e.late.Store(chain[0])
	}
	e.ca.Store(chain[1])
}

// told is an interceptor that notes what is said of the token.
func (e *endings) told(ctx context.Context, method string, message, answer any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	var header metadata.MD
	err := invoke(ctx, method, message, answer, conn, append(options, grpc.Header(&header))...)
	for _, text := range header.Get(request.TokenEnds) {
		if at, wrong := time.Parse(time.RFC3339, text); wrong == nil {
			e.token.Store(at.UnixNano())
		}
	}
	return err
}

// TokenEnds is when the token ends that this client shows, if a coordinator has said in an answer that it does soon; else
// the zero time.
func (c *Client) TokenEnds() time.Time {
	for _, p := range c.peers {
		if at := p.ends.token.Load(); at != 0 {
			return time.Unix(0, at)
		}
	}
	return time.Time{}
}

// CertificateWarnings says which of the certificates that coordinators have shown end soon: one that should have been
// renewed by now, and the CA's, which only an admin replaces.
func (c *Client) CertificateWarnings(now time.Time) []string {
	var warnings []string
	ca := ""
	for _, p := range c.peers {
		if late := p.ends.late.Load(); late != nil {
			warnings = append(warnings, fmt.Sprintf("the certificate of the coordinator at %s ends at %s, and is not renewed: its log says why", p.address, late.NotAfter.UTC().Format(time.RFC3339)))
		}
		signer := p.ends.ca.Load()
		if signer != nil && now.Add(caWarning).After(signer.NotAfter) {
			ca = fmt.Sprintf("the cluster's CA ends at %s: an admin replaces it with clary keys rotate ca", signer.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	if ca != "" {
		warnings = append(warnings, ca)
	}
	return warnings
}
