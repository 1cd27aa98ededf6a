package h1

import "bytes"

// Request is a request's head. Its slices are of the buffer that it was read from.
type Request struct {
	Method []byte
	Path   []byte // the target without its query, as it was sent
	Query  []byte // with its question mark
	Host   []byte
	Minor  int // of HTTP/1
	Fields []Field
	Body   Body
	// Keep says that the client wants to go on with this connection, Continue that it waits
	// to be told before it sends the body.
	Keep, Continue bool
}

// Head reports whether an answer has a head only.
func (r *Request) Head() bool { return string(r.Method) == "HEAD" }

// Idempotent reports whether doing it twice is doing it once (RFC 9110, section 9.2.2).
func (r *Request) Idempotent() bool {
	switch string(r.Method) {
	case "GET", "HEAD", "PUT", "DELETE", "OPTIONS":
		return true
	}
	return false
}

// Field is the value of the first field of a kind; nil if there is none.
func (r *Request) Field(is Known) []byte { return first(r.Fields, is) }

// Named is the value of the first field of a name, whatever its case; nil if there is none.
func (r *Request) Named(name string) []byte {
	for i := range r.Fields {
		if f := &r.Fields[i]; len(f.Name) == len(name) && bytes.EqualFold(f.Name, []byte(name)) {
			return f.Value
		}
	}
	return nil
}

func first(fields []Field, is Known) []byte {
	for i := range fields {
		if fields[i].Is == is {
			return fields[i].Value
		}
	}
	return nil
}

// Read reads a head, which is text up to its End, with at most so many fields. Earlier contents are
// replaced.
func (r *Request) Read(text []byte, most int) *Error {
	*r = Request{Fields: r.Fields[:0]}
	start, rest, err := line(text)
	if err != nil {
		return err
	}
	if err := r.start(start[:len(start)-2]); err != nil {
		return err
	}
	if r.Fields, err = fields(rest, r.Fields, most); err != nil {
		return err
	}
	return r.frame()
}

func (r *Request) start(text []byte) *Error {
	one := bytes.IndexByte(text, ' ')
	if one < 1 {
		return errStart
	}
	two := one + 1 + bytes.IndexByte(text[one+1:], ' ')
	if two <= one+1 {
		return errStart
	}
	minor, err := version(text[two+1:])
	if err != nil {
		return err
	}
	r.Minor = minor
	r.Method = text[:one]
	for _, c := range r.Method {
		if !tokens[c] {
			return errStart
		}
	}
	return r.target(text[one+1 : two])
}

func version(text []byte) (int, *Error) {
	switch string(text) {
	case "HTTP/1.1":
		return 1, nil
	case "HTTP/1.0":
		return 0, nil
	}
	if bytes.HasPrefix(text, []byte("HTTP/")) && len(text) == 8 {
		return 0, errVersion
	}
	return 0, errStart
}

func (r *Request) target(text []byte) *Error {
	for _, c := range text {
		if c <= ' ' || c >= 0x7f || c == '#' {
			return errTarget
		}
	}
	if text[0] != '/' { // a client that thinks this a forward proxy sends the whole URL
		_, after, ok := bytes.Cut(text, []byte("://"))
		slash := bytes.IndexByte(after, '/')
		if !ok || slash < 1 {
			return errTarget
		}
		text = after[slash:]
	}
	r.Path = text
	if mark := bytes.IndexByte(text, '?'); mark >= 0 {
		r.Path, r.Query = text[:mark], text[mark:]
	}
	return nil
}

// frame says where the body ends and what becomes of the connection.
func (r *Request) frame() *Error {
	var f framing
	hosts := 0
	for _, field := range r.Fields {
		if err := f.read(r.Fields, field); err != nil {
			return err
		}
		switch field.Is {
		case Host:
			hosts++
			r.Host = field.Value
		case Expect:
			if !Is(field.Value, "100-continue") {
				return errExpect
			}
			r.Continue = r.Minor == 1
		}
	}
	switch {
	case hosts > 1 || hosts == 0 && r.Minor == 1 || !hostly(r.Host):
		return errHost
	case f.chunked && f.lengths > 0:
		return errBoth
	case f.chunked && r.Minor == 0:
		return errOld
	}
	r.Body = Body{Chunked: f.chunked, Length: f.length}
	r.Keep = !f.close && (r.Minor == 1 || f.keep)
	return nil
}

func hostly(host []byte) bool {
	for _, c := range host {
		if c <= ' ' || c >= 0x7f || c == '/' || c == '?' || c == '#' || c == '@' || c == ',' || c == '\\' {
			return false
		}
	}
	return true
}
