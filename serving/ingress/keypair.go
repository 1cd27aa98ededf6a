package ingress

import (
	"crypto/tls"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clary-ml/clary/internal/fault"
)

// lookEvery is how often it is looked whether a certificate's files have changed: while clients come.
const lookEvery = time.Second

// KeyPair is a certificate in files, taken up anew when they change.
type KeyPair struct {
	cert, key string
	log       *slog.Logger
	now       atomic.Pointer[tls.Certificate]

	mu     sync.Mutex
	looked time.Time
	read   [2]stamp // of the files, when they were read last
}

// stamp tells forms of a file apart.
type stamp struct {
	at   time.Time
	size int64
}

// LoadKeyPair reads a certificate and its key.
func LoadKeyPair(cert, key string, log *slog.Logger) (*KeyPair, error) {
	k := &KeyPair{cert: cert, key: key, log: log}
	k.read = k.stamps()
	return k, k.load()
}

func (k *KeyPair) stamps() (found [2]stamp) {
	for i, path := range []string{k.cert, k.key} {
		if info, err := os.Stat(path); err == nil {
			found[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return found
}

func (k *KeyPair) load() error {
	pair, err := tls.LoadX509KeyPair(k.cert, k.key)
	if err != nil {
		return fault.New(fault.Invalid, "certificate %s and key %s: %w", k.cert, k.key, err)
	}
	k.now.Store(&pair)
	return nil
}

// Get is tls.Config.GetCertificate. Files that do not belong together, since one of them is still being
// written, leave the pair before in use.
func (k *KeyPair) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if k.mu.TryLock() {
		if now := time.Now(); now.Sub(k.looked) >= lookEvery {
			k.looked = now
			if found := k.stamps(); found != k.read {
				k.read = found
				if err := k.load(); err != nil {
					k.read = [2]stamp{} // look again
					k.log.Warn("a changed certificate is not taken up", "error", err)
				} else {
					k.log.Info("a changed certificate is taken up", "file", k.cert)
				}
			}
		}
		k.mu.Unlock()
	}
	return k.now.Load(), nil
}
