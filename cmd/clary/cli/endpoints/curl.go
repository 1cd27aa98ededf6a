package endpoints

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/client/config"
	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/internal/fault"
)

// curlSettings writes what curl needs to ask endpoints into a file beside the contexts, and returns its
// path: the CA's certificate, and the user's token, which so stands in no command line.
func (a app) curlSettings() (string, error) {
	to, err := a.Cluster()
	if err != nil {
		return "", err
	}
	certificate, err := authority(to)
	if err != nil {
		return "", err
	}
	ca, err := a.SaveCA(certificate)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("cacert = %s\n", quoted(ca))
	if to.Token != "" {
		text += fmt.Sprintf("header = %s\n", quoted("Authorization: Bearer "+to.Token))
	}
	path := filepath.Join(filepath.Dir(ca), fmt.Sprintf("curl-%.6x.conf", sha256.Sum256([]byte(text))))
	return path, atomicfile.Write(path, []byte(text), 0o600)
}

// quoted is a value of a curl configuration.
func quoted(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}

// authority is the certificate of a cluster's CA, as PEM, from whichever coordinator can be reached.
func authority(to config.Context) (string, error) {
	var errs []error
	for _, address := range to.Addresses {
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", address, pki.PinnedTLS(to.CAPin, "h2"))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", address, err))
			continue
		}
		shown := conn.ConnectionState().PeerCertificates
		_ = conn.Close() // nothing was said
		for _, cert := range shown[1:] {
			if cert.IsCA && pki.PinOf(cert) == to.CAPin {
				return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})), nil
			}
		}
	}
	return "", fault.New(fault.Unready, "no coordinator shows its CA: %w", errors.Join(errs...))
}
