package payload

import (
	"bytes"
	"mime"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
)

// Format is how rows are written.
type Format string

// The formats, by their media types.
const (
	CSV       Format = "text/csv"
	JSON      Format = "application/json"
	JSONLines Format = "application/jsonlines"
)

var mediaTypes = map[string]Format{
	"text/csv": CSV, "application/csv": CSV, "text/plain": CSV,
	"application/json": JSON, "text/json": JSON,
	"application/jsonlines": JSONLines, "application/x-jsonlines": JSONLines, "application/jsonl": JSONLines,
	"application/x-ndjson": JSONLines, "application/ndjson": JSONLines,
}

// ContentFormat tells the format of a body by its Content-Type; without one, by its first byte.
func ContentFormat(contentType string, body []byte) (Format, error) {
	if f, known := mediaTypes[contentType]; known {
		return f, nil
	}
	if contentType == "" {
		if text := bytes.TrimLeft(body, " \t\r\n"); len(text) > 0 && (text[0] == '{' || text[0] == '[') {
			return JSON, nil
		}
		return CSV, nil
	}
	name, _, err := mime.ParseMediaType(contentType)
	if f, known := mediaTypes[name]; known && err == nil {
		return f, nil
	}
	return "", fault.New(fault.Invalid, "Content-Type %q: give text/csv, application/json or application/jsonlines", clip(contentType))
}

// AcceptFormat is the first format that an Accept header names; usual where it leaves that open.
func AcceptFormat(accept string, usual Format) (Format, error) {
	if accept == "" || accept == "*/*" {
		return usual, nil
	}
	for one := range strings.SplitSeq(accept, ",") {
		name, _, _ := strings.Cut(one, ";")
		name = strings.ToLower(strings.TrimSpace(name))
		if f, known := mediaTypes[name]; known {
			return f, nil
		}
		if name == "*/*" {
			return usual, nil
		}
	}
	return "", fault.New(fault.Invalid, "Accept %q: give text/csv, application/json or application/jsonlines", clip(accept))
}
