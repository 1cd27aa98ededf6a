package invoke

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/clary-ml/clary/internal/fault"
)

// maxSaid is how much of an answer that is no success is read for its reason.
const maxSaid = 16 << 10

// Refused is an answer without success, a router's or a model's.
type Refused struct {
	Status     int
	Text       string // what it said
	Variant    string // that said so; empty if no replica was asked
	Request    string // its id, by which logs and traces know it
	RetryAfter string // seconds, if it said when to come again
}

// Error tells what was said, and by whom.
func (r *Refused) Error() string {
	text := fmt.Sprintf("%d %s", r.Status, http.StatusText(r.Status))
	if r.Variant != "" {
		text = "variant " + r.Variant + ": " + text
	}
	if r.Text != "" {
		text += ": " + r.Text
	}
	if r.RetryAfter != "" {
		text += fmt.Sprintf(" (again after %s s)", r.RetryAfter)
	}
	if r.Request != "" {
		text += fmt.Sprintf(" (request %s)", r.Request)
	}
	return text
}

// Temporary reports whether the same request may succeed later.
func (r *Refused) Temporary() bool {
	return r.Status == http.StatusTooManyRequests || r.Status == http.StatusServiceUnavailable || r.Status == http.StatusBadGateway || r.Status == http.StatusGatewayTimeout
}

var kinds = map[int]fault.Kind{
	http.StatusNotFound: fault.NotFound, http.StatusConflict: fault.Conflict, http.StatusUnauthorized: fault.Denied, http.StatusForbidden: fault.Denied,
	http.StatusTooManyRequests: fault.Exhausted, http.StatusServiceUnavailable: fault.Unready, http.StatusBadGateway: fault.Unready, http.StatusGatewayTimeout: fault.Unready,
}

func (r *Refused) kind() fault.Kind {
	if kind, known := kinds[r.Status]; known {
		return kind
	}
	if r.Status >= http.StatusInternalServerError {
		return fault.Internal
	}
	return fault.Invalid
}

// judge makes an error of an answer that is no success.
func judge(a *Answer) (*Answer, error) {
	if a.Status/100 == 2 {
		return a, nil
	}
	defer a.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(a.Body, maxSaid)) // what came says enough
	r := &Refused{
		Status: a.Status, Text: reason(said), Variant: a.Variant(), Request: a.Header.Get(HeaderRequest), RetryAfter: a.Header.Get("Retry-After"),
	}
	return nil, fault.New(r.kind(), "%w", r)
}

// reason is what a body says for people: a JSON object's error or message, or a text as it is.
func reason(body []byte) string {
	var said struct {
		Error   json.RawMessage `json:"error"`
		Message string          `json:"message"`
	}
	if json.Unmarshal(body, &said) == nil {
		var text string
		if json.Unmarshal(said.Error, &text) != nil {
			text = string(said.Error)
		}
		if text = cmp.Or(text, said.Message); text != "" {
			return text
		}
	}
	if !utf8.Valid(body) {
		return fmt.Sprintf("%d bytes that are no text", len(body))
	}
	return strings.TrimSpace(string(body))
}
