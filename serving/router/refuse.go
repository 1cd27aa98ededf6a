package router

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// refusal is an answer that the router gives itself. It says what is wrong and what to do.
type refusal struct {
	code  int
	after int  // seconds until it makes sense to try again; 0 says nothing
	close bool // the connection is of no use afterwards
	text  string
}

func (r *refusal) Error() string { return r.text }

func refuse(code int, format string, args ...any) *refusal {
	return &refusal{code: code, text: fmt.Sprintf(format, args...)}
}

func (r *refusal) retry(seconds int) *refusal {
	r.after = seconds
	return r
}

func (r *refusal) closing() *refusal {
	r.close = true
	return r
}

// append writes the whole answer.
func (r *refusal) append(out []byte, id []byte, closes, head bool) []byte {
	body, _ := json.Marshal(map[string]string{"error": r.text}) // a string can always be written
	body = append(body, '\n')
	out = append(out, "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(r.code), 10)
	out = append(out, ' ')
	out = append(out, http.StatusText(r.code)...)
	out = append(out, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	out = strconv.AppendInt(out, int64(len(body)), 10)
	if r.after > 0 {
		out = append(out, "\r\nRetry-After: "...)
		out = strconv.AppendInt(out, int64(r.after), 10)
	}
	if r.code == http.StatusUnauthorized {
		out = append(out, "\r\nWWW-Authenticate: Bearer"...)
	}
	if len(id) > 0 {
		out = append(out, "\r\nX-Request-Id: "...)
		out = append(out, id...)
	}
	if closes {
		out = append(out, "\r\nConnection: close"...)
	}
	out = append(out, "\r\n\r\n"...)
	if head {
		return out
	}
	return append(out, body...)
}
