package embedded

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/clary-ml/clary/internal/atomicfile"
)

// Holder is a token whose keys open the store.
type Holder struct {
	Token   string
	Expires time.Time // zero is never
}

// WriteHolders replaces the file of those whose keys open the store. A running store heeds it
// from its next request on.
func WriteHolders(path string, list []Holder) error {
	var text bytes.Buffer
	for _, h := range list {
		until := int64(0)
		if !h.Expires.IsZero() {
			until = h.Expires.UnixNano()
		}
		fmt.Fprintf(&text, "%s %d\n", h.Token, until)
	}
	return atomicfile.Write(path, text.Bytes(), 0o600)
}

const (
	lateness  = 2 * time.Second // that a new token may take from where it was made to here
	lookAgain = 50 * time.Millisecond
	waiting   = 64 // requests that may wait for a token at a time
)

// holders reads the file, again whenever it was replaced. The zero value lets everybody in.
type holders struct {
	path  string
	waits chan struct{}

	mu    sync.Mutex
	as    os.FileInfo // the file that was read
	until map[string]int64
}

func newHolders(path string) *holders {
	return &holders{path: path, waits: make(chan struct{}, waiting)}
}

// admit reports whether a token's keys are good now. One that is not known is waited for a
// little, by not too many: it may have been made elsewhere a moment ago.
func (h *holders) admit(token string) bool {
	if h.path == "" {
		return true
	}
	good, known := h.look(token)
	if known {
		return good
	}
	select {
	case h.waits <- struct{}{}:
		defer func() { <-h.waits }()
	default:
		return false
	}
	for late := time.Now().Add(lateness); time.Now().Before(late); time.Sleep(lookAgain) {
		if good, known := h.look(token); known {
			return good
		}
	}
	return false
}

// look reports whether a token is good, and whether it is known at all.
func (h *holders) look(token string) (good, known bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	info, err := os.Stat(h.path)
	if err != nil {
		return false, true // who may is not known: nobody
	}
	if h.as == nil || !os.SameFile(h.as, info) || h.as.ModTime() != info.ModTime() {
		if h.read() != nil {
			return false, true
		}
		h.as = info
	}
	until, known := h.until[token]
	return until == 0 || time.Now().UnixNano() < until, known
}

func (h *holders) read() error {
	text, err := os.ReadFile(h.path)
	if err != nil {
		return err
	}
	h.until = map[string]int64{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		token, until, _ := strings.Cut(lines.Text(), " ")
		n, err := strconv.ParseInt(until, 10, 64)
		if err != nil {
			return err
		}
		h.until[token] = n
	}
	return lines.Err()
}
