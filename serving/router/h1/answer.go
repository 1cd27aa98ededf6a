package h1

// Answer is an answer's head. Its slices are of the buffer that it was read from.
type Answer struct {
	Status int
	Reason []byte // what follows the code, without the space between
	Minor  int
	Fields []Field
	Body   Body
	Keep   bool // the server goes on with this connection
}

// Field is the value of the first field of a kind; nil if there is none.
func (a *Answer) Field(is Known) []byte { return first(a.Fields, is) }

// Read reads the head of an answer to a request (to HEAD if head), which is text up to its End.
// Earlier contents are replaced.
func (a *Answer) Read(text []byte, head bool, most int) *Error {
	*a = Answer{Fields: a.Fields[:0]}
	start, rest, err := line(text)
	if err != nil {
		return err
	}
	if err := a.start(start[:len(start)-2]); err != nil {
		return err
	}
	if a.Fields, err = fields(rest, a.Fields, most); err != nil {
		return err
	}
	return a.frame(head)
}

func (a *Answer) start(text []byte) *Error {
	if len(text) < len("HTTP/1.1 200") || text[8] != ' ' {
		return errStatus
	}
	minor, err := version(text[:8])
	if err != nil {
		return errStatus
	}
	code, ok := Decimal(text[9:12])
	if !ok || code < 100 || code > 599 || len(text) > 12 && text[12] != ' ' {
		return errStatus
	}
	a.Status, a.Minor = int(code), minor
	if len(text) > 13 {
		a.Reason = text[13:]
	}
	if !plain(a.Reason) {
		return errStatus
	}
	return nil
}

func (a *Answer) frame(head bool) *Error {
	var f framing
	for _, field := range a.Fields {
		if err := f.read(a.Fields, field); err != nil {
			return err
		}
	}
	switch {
	case f.chunked && f.lengths > 0:
		return errBoth
	case head || a.Status < 200 || a.Status == 204 || a.Status == 304:
		a.Body = Body{}
	case f.chunked && a.Minor == 0:
		return errOld
	case f.chunked:
		a.Body = Body{Chunked: true}
	case f.lengths > 0:
		a.Body = Body{Length: f.length}
	default:
		a.Body = Body{Length: -1}
	}
	a.Keep = !f.close && (a.Minor == 1 || f.keep) && a.Body.Length >= 0
	return nil
}
