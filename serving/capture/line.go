package capture

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"mime"
	"time"
	"unicode/utf8"
)

// Record is one request and its answer.
type Record struct {
	// Endpoint and Variant say who answered.
	Endpoint, Variant string
	// Event is the request's own name, Inference the one that the client gave, if any.
	Event, Inference string
	// Attributes is the client's X-Amzn-SageMaker-Custom-Attributes.
	Attributes string
	// Time is when it was answered.
	Time time.Time
	// Input and Output are the halves that are kept; nil is not kept.
	Input, Output *Body
}

// Body is one half of an exchange. What it holds belongs to the capture from then on.
type Body struct {
	ContentType string
	Data        []byte
	// Omitted is how many bytes it had, if it had too many to be kept; Data is empty then.
	Omitted int64
}

// What a half's data is written as.
const (
	encodingCSV    = "CSV"
	encodingJSON   = "JSON"
	encodingBase64 = "BASE64"
)

// encodings are those of content types that are kept as text, as SageMaker has them unless it is
// told otherwise: everything else is base64.
var encodings = map[string]string{"text/csv": encodingCSV, "application/json": encodingJSON}

// line is a record in the form of SageMaker's data capture, event version 0.
type line struct {
	Capture  data     `json:"captureData"`
	Metadata metadata `json:"eventMetadata"`
	Version  string   `json:"eventVersion"`
}

type data struct {
	Input  *half `json:"endpointInput,omitempty"`
	Output *half `json:"endpointOutput,omitempty"`
}

type half struct {
	Type     string `json:"observedContentType"`
	Mode     string `json:"mode"`
	Data     string `json:"data"`
	Encoding string `json:"encoding"`
	Omitted  int64  `json:"omittedBytes,omitempty"` // Clary's own
}

type metadata struct {
	Event      string   `json:"eventId"`
	Attributes []string `json:"customAttributes,omitempty"`
	Inference  string   `json:"inferenceId,omitempty"`
	Time       string   `json:"inferenceTime"`
}

// appendLine writes a record as a line of JSON.
func appendLine(to []byte, r Record) []byte {
	l := line{
		Capture:  data{Input: halfOf(r.Input, "INPUT"), Output: halfOf(r.Output, "OUTPUT")},
		Metadata: metadata{Event: r.Event, Inference: r.Inference, Time: r.Time.UTC().Format(time.RFC3339)},
		Version:  "0",
	}
	if r.Attributes != "" {
		l.Metadata.Attributes = []string{r.Attributes}
	}
	out := bytes.NewBuffer(to)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(l) // strings and numbers, to memory; it ends the line too
	return out.Bytes()
}

func halfOf(b *Body, mode string) *half {
	if b == nil {
		return nil
	}
	h := &half{Type: b.ContentType, Mode: mode, Encoding: encodingBase64, Omitted: b.Omitted}
	name, _, err := mime.ParseMediaType(b.ContentType)
	if text, is := encodings[name]; err == nil && is && utf8.Valid(b.Data) { // JSON has no other bytes
		h.Encoding, h.Data = text, string(b.Data)
	} else {
		h.Data = base64.StdEncoding.EncodeToString(b.Data)
	}
	return h
}
