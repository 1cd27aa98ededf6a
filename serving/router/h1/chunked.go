package h1

// Chunked reads a chunked body as it comes, in pieces cut anywhere. Its zero value stands before
// the first chunk.
type Chunked struct {
	state  state
	digits uint8
	left   uint64 // of the chunk's data
	spent  int    // bytes of this size line's extension, or of the trailer
}

type state uint8

const (
	atSize state = iota
	inExtension
	afterSize // a CR was there
	inData
	afterData
	afterDataCR
	atTrailer // at the start of a line
	inTrailerName
	inTrailer
	afterTrailer // a CR was there
	beforeEnd    // the CR of the last line was there
	done
)

const (
	maxDigits    = 15
	maxExtension = 1 << 10
	maxTrailer   = 8 << 10
)

// Done says that the body's last byte was read.
func (c *Chunked) Done() bool { return c.state == done }

// Next reads from the front of text: it returns how many bytes it took, and which of those are
// data, if any. It takes at least one unless text is empty or the body is done.
func (c *Chunked) Next(text []byte) (data []byte, n int, err *Error) {
	for n < len(text) && c.state != done {
		if c.state == inData {
			size := int(min(c.left, uint64(len(text)-n)))
			data = text[n : n+size]
			if c.left -= uint64(size); c.left == 0 {
				c.state = afterData
			}
			return data, n + size, nil
		}
		if err := c.step(text[n]); err != nil {
			return nil, n, err
		}
		n++
	}
	return nil, n, nil
}

// step takes one byte that is no data.
func (c *Chunked) step(b byte) *Error {
	switch c.state {
	case atSize, inExtension, afterSize:
		return c.size(b)
	case afterData:
		return c.expect(b, '\r', afterDataCR, errChunkEnd)
	case afterDataCR:
		*c = Chunked{}
		if b != '\n' {
			return errChunkEnd
		}
		return nil
	default:
		return c.trailer(b)
	}
}

func (c *Chunked) expect(b, want byte, then state, otherwise *Error) *Error {
	if b != want {
		return otherwise
	}
	c.state = then
	return nil
}

func (c *Chunked) size(b byte) *Error {
	switch {
	case c.state == afterSize:
		if b != '\n' {
			return errChunk
		}
		c.spent = 0
		if c.state = inData; c.left == 0 {
			c.state = atTrailer
		}
		return nil
	case b == '\r' && c.digits > 0:
		c.state = afterSize
		return nil
	case c.state == inExtension:
		if c.spent++; c.spent > maxExtension || b < ' ' && b != '\t' || b == 0x7f {
			return errChunk
		}
		return nil
	case b == ';' && c.digits > 0:
		c.state = inExtension
		return nil
	}
	digit, ok := hex(b)
	if !ok {
		return errChunk
	}
	if c.digits++; c.digits > maxDigits {
		return errChunkSize
	}
	c.left = c.left<<4 | uint64(digit)
	return nil
}

func (c *Chunked) trailer(b byte) *Error {
	if c.spent++; c.spent > maxTrailer {
		return errTrailer
	}
	switch c.state {
	case atTrailer:
		if b == '\r' {
			c.state = beforeEnd
			return nil
		}
		if !tokens[b] {
			return errTrailer
		}
		c.state = inTrailerName
	case inTrailerName:
		if b == ':' {
			c.state = inTrailer
		} else if !tokens[b] {
			return errTrailer
		}
	case inTrailer:
		if b == '\r' {
			c.state = afterTrailer
		} else if b < ' ' && b != '\t' || b == 0x7f {
			return errTrailer
		}
	case afterTrailer:
		return c.expect(b, '\n', atTrailer, errTrailer)
	case beforeEnd:
		return c.expect(b, '\n', done, errTrailer)
	}
	return nil
}

func hex(b byte) (byte, bool) {
	switch {
	case '0' <= b && b <= '9':
		return b - '0', true
	case 'a' <= b|0x20 && b|0x20 <= 'f':
		return b | 0x20 - 'a' + 10, true
	}
	return 0, false
}
