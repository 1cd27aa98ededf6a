// Package h1 reads HTTP/1.1 messages' heads and chunked bodies, strictly and without
// allocating: what two readers of a message could take in two ways is refused, since
// that is how requests are smuggled past a proxy.
//
// Source: RFC 9112 (messages), RFC 9110 (fields). Stricter than those: a bare LF, a
// repeated Content-Length or Host, Content-Length beside Transfer-Encoding, and any
// coding but chunked are refused.
package h1

import "bytes"

// Error is a message that cannot be read; Status is what a client is told with it.
type Error struct {
	Status int
	Text   string
}

// Error says what is wrong and what would be right.
func (e *Error) Error() string { return e.Text }

func bad(text string) *Error { return &Error{400, text} }

// The mistakes, made once: a flood of them allocates nothing.
var (
	errLine      = bad("a line of the head does not end with CRLF alone: end every line with CR LF")
	errStart     = bad("the request line is not METHOD SP TARGET SP HTTP/1.x")
	errTarget    = bad("the request target has a byte that no URL has, or is no path: percent-encode it")
	errFold      = bad("a header field is continued on the next line: write it on one line")
	errName      = bad("a header field's name is empty or has a byte that no name has (a space before the colon, perhaps)")
	errValue     = bad("a header field's value has a control byte")
	errLength    = bad("Content-Length is not one decimal number")
	errLengths   = bad("Content-Length is there more than once")
	errBoth      = bad("Content-Length and Transfer-Encoding are both there: send one of them")
	errCodings   = bad("Transfer-Encoding is there more than once")
	errOld       = bad("Transfer-Encoding needs HTTP/1.1")
	errHost      = bad("Host must be there once, and be a host and port")
	errStatus    = bad("the status line is not HTTP/1.x SP CODE")
	errFields    = &Error{431, "the head has too many header fields"}
	errCoding    = &Error{501, "Transfer-Encoding is not chunked: no other is known here"}
	errVersion   = &Error{505, "the version is not HTTP/1.0 or HTTP/1.1: no other is spoken here"}
	errExpect    = &Error{417, "Expect is not 100-continue: no other is known here"}
	errChunk     = bad("a chunk's size line is not a hexadecimal size and CRLF")
	errChunkEnd  = bad("a chunk does not end with CRLF where its size says")
	errTrailer   = bad("the trailer after the last chunk is no header fields, or has too many bytes")
	errChunkSize = bad("a chunk's size has too many digits")
)

// Known is a header field that a proxy looks at.
type Known uint8

// The known fields. Those up to LastHop concern one connection only, and are not passed on.
const (
	Other Known = iota
	Connection
	KeepAlive
	ProxyConnection
	TransferEncoding
	TE
	Upgrade
	Expect
	ContentLength
	Host
	Authorization
	ProxyAuthorization
	Cookie
	RequestID
	TraceParent
	TargetVariant
	TargetModel
	SessionID
	InferenceID
	ContentType
	RetryAfter
	SetCookie
	Invoked  // the variant that has answered
	AnswerID // the inference's
)

// Hop reports whether a field is of one connection.
func (k Known) Hop() bool { return Connection <= k && k <= Expect || k == ProxyAuthorization }

type named struct {
	name string
	is   Known
}

// byLength are the known names by how long they are.
var byLength = [64][]named{
	2:  {{"te", TE}},
	4:  {{"host", Host}},
	6:  {{"expect", Expect}, {"cookie", Cookie}},
	7:  {{"upgrade", Upgrade}},
	10: {{"connection", Connection}, {"keep-alive", KeepAlive}, {"set-cookie", SetCookie}},
	11: {{"traceparent", TraceParent}, {"retry-after", RetryAfter}},
	12: {{"x-request-id", RequestID}, {"content-type", ContentType}},
	13: {{"authorization", Authorization}},
	14: {{"content-length", ContentLength}},
	16: {{"proxy-connection", ProxyConnection}},
	17: {{"transfer-encoding", TransferEncoding}},
	19: {{"proxy-authorization", ProxyAuthorization}},
	20: {{"x-clary-inference-id", AnswerID}},
	27: {{"x-amzn-sagemaker-session-id", SessionID}},
	29: {{"x-amzn-sagemaker-target-model", TargetModel}, {"x-amzn-sagemaker-inference-id", InferenceID}},
	31: {{"x-amzn-sagemaker-target-variant", TargetVariant}},
	33: {{"x-amzn-invoked-production-variant", Invoked}},
}

func know(name []byte) Known {
	if len(name) >= len(byLength) {
		return Other
	}
	for _, n := range byLength[len(name)] {
		if Is(name, n.name) {
			return n.is
		}
	}
	return Other
}

// Is compares with a lower-case word, whatever the case of text.
func Is(text []byte, lower string) bool {
	if len(text) != len(lower) {
		return false
	}
	for i := range text {
		c := text[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// Field is one header field, as it stands in the head that was read.
type Field struct {
	Line  []byte // with its CRLF
	Name  []byte
	Value []byte // without the space around it
	Is    Known
	Drop  bool // Connection names it: it is of this connection only
}

// Body says how a message's body ends.
type Body struct {
	Chunked bool
	Length  int64 // if not Chunked; -1 is until the connection ends, of answers only
}

// End is where the head ends that text begins with, its empty line included; 0 if it is
// not all there. from is how much of text was looked at before.
func End(text []byte, from int) int {
	from = max(from-3, 0)
	if at := bytes.Index(text[from:], crlf2); at >= 0 {
		return from + at + 4
	}
	return 0
}

var crlf2 = []byte("\r\n\r\n")

// line cuts the first line off. What follows a LF must have had a CR before it, and a CR a LF behind.
func line(text []byte) (first, rest []byte, err *Error) {
	at := bytes.IndexByte(text, '\n')
	if at < 1 || text[at-1] != '\r' {
		return nil, nil, errLine
	}
	return text[:at+1], text[at+1:], nil
}

// fields reads the header fields of a head into kept, with the empty line at its end.
func fields(text []byte, kept []Field, most int) ([]Field, *Error) {
	for {
		whole, rest, err := line(text)
		if err != nil {
			return kept, err
		}
		if len(whole) == 2 {
			return kept, nil
		}
		if len(kept) >= most {
			return kept, errFields
		}
		f, err := field(whole)
		if err != nil {
			return kept, err
		}
		kept = append(kept, f)
		text = rest
	}
}

func field(whole []byte) (Field, *Error) {
	if whole[0] == ' ' || whole[0] == '\t' {
		return Field{}, errFold
	}
	colon := 0
	for colon < len(whole) && tokens[whole[colon]] {
		colon++
	}
	if colon == 0 || whole[colon] != ':' { // there is a CR, which is no token
		return Field{}, errName
	}
	value := trim(whole[colon+1 : len(whole)-2])
	if !plain(value) {
		return Field{}, errValue
	}
	return Field{Line: whole, Name: whole[:colon], Value: value, Is: know(whole[:colon])}, nil
}

// framing is what the fields say of the connection and the body.
type framing struct {
	lengths, codings int
	length           int64
	chunked          bool
	close, keep      bool
}

func (f *framing) read(all []Field, of Field) *Error {
	switch of.Is {
	case ContentLength:
		if f.lengths++; f.lengths > 1 {
			return errLengths
		}
		n, ok := Decimal(of.Value)
		if !ok {
			return errLength
		}
		f.length = n
	case TransferEncoding:
		if f.codings++; f.codings > 1 {
			return errCodings
		}
		if !Is(of.Value, "chunked") {
			return errCoding
		}
		f.chunked = true
	case Connection:
		for word := range Words(of.Value) {
			switch {
			case Is(word, "close"):
				f.close = true
			case Is(word, "keep-alive"):
				f.keep = true
			default:
				nominate(all, word)
			}
		}
	}
	return nil
}

// nominate drops the fields that Connection names, unless they say how the message is to be read
// or who may send it.
func nominate(all []Field, name []byte) {
	for i := range all {
		if all[i].Is == Other && bytes.EqualFold(all[i].Name, name) {
			all[i].Drop = true
		}
	}
}

// Words are the members of a list in a field's value.
func Words(value []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(value) > 0 {
			word := value
			if comma := bytes.IndexByte(value, ','); comma >= 0 {
				word, value = value[:comma], value[comma+1:]
			} else {
				value = nil
			}
			if word = trim(word); len(word) > 0 && !yield(word) {
				return
			}
		}
	}
}

// Decimal reads a number of at most 18 digits, and nothing else.
func Decimal(text []byte) (int64, bool) {
	if len(text) == 0 || len(text) > 18 {
		return 0, false
	}
	n := int64(0)
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

func trim(text []byte) []byte {
	for len(text) > 0 && (text[0] == ' ' || text[0] == '\t') {
		text = text[1:]
	}
	for len(text) > 0 && (text[len(text)-1] == ' ' || text[len(text)-1] == '\t') {
		text = text[:len(text)-1]
	}
	return text
}

// plain reports whether a value has no control byte but tabs.
func plain(value []byte) bool {
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// tokens are the bytes of names and methods.
var tokens = func() (is [256]bool) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		is[c] = true
	}
	return is
}()
