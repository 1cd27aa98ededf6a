package payload

import (
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/clary-ml/clary/serving/modelserver/tensor"
)

// Encode appends rows of outputs. In CSV a line has the values of all outputs in order; in JSON a
// row is an object with the outputs' names, in a list under "predictions"; in JSON lines it is that
// object. A number that is not finite is null in JSON.
func Encode(to []byte, f Format, outputs []tensor.Tensor) []byte {
	rows := 0
	if len(outputs) > 0 {
		rows = outputs[0].Rows()
	}
	if f == JSON {
		to = append(to, `{"predictions":[`...)
	}
	for row := range rows {
		switch f {
		case CSV:
			to = append(csvRow(to, outputs, row), '\n')
		case JSONLines:
			to = append(jsonRow(to, outputs, row), '\n')
		default:
			if row > 0 {
				to = append(to, ',')
			}
			to = jsonRow(to, outputs, row)
		}
	}
	if f == JSON {
		to = append(to, "]}\n"...)
	}
	return to
}

func csvRow(to []byte, outputs []tensor.Tensor, row int) []byte {
	begun := false
	for _, t := range outputs {
		width := widthOf(t)
		for i := row * width; i < (row+1)*width; i++ {
			if begun {
				to = append(to, ',')
			}
			begun = true
			if texts, ok := t.Data.([]string); ok {
				to = csvText(to, texts[i])
			} else {
				to = AppendNumber(to, t, i)
			}
		}
	}
	return to
}

func widthOf(t tensor.Tensor) int {
	if t.Rows() == 0 {
		return 0
	}
	return t.Len() / t.Rows()
}

func csvText(to []byte, text string) []byte {
	if !strings.ContainsAny(text, ",\"\r\n") && strings.TrimSpace(text) == text {
		return append(to, text...)
	}
	to = append(to, '"')
	to = append(to, strings.ReplaceAll(text, `"`, `""`)...)
	return append(to, '"')
}

func jsonRow(to []byte, outputs []tensor.Tensor, row int) []byte {
	to = append(to, '{')
	for i, t := range outputs {
		if i > 0 {
			to = append(to, ',')
		}
		to = append(AppendString(to, t.Name), ':')
		width := widthOf(t)
		if len(t.Shape) < 2 && width == 1 {
			to = AppendJSON(to, t, row)
			continue
		}
		to = append(to, '[')
		for j := range width {
			if j > 0 {
				to = append(to, ',')
			}
			to = AppendJSON(to, t, row*width+j)
		}
		to = append(to, ']')
	}
	return append(to, '}')
}

// AppendString writes a JSON string; what is no UTF-8 is replaced.
func AppendString(to []byte, text string) []byte {
	out, err := jsontext.AppendQuote(to, text)
	if err != nil { // not UTF-8
		out, _ = jsontext.AppendQuote(to, strings.ToValidUTF8(text, "\ufffd"))
	}
	return out
}

// AppendJSON writes one value of a tensor as JSON.
func AppendJSON(to []byte, t tensor.Tensor, i int) []byte {
	if texts, ok := t.Data.([]string); ok {
		return AppendString(to, texts[i])
	}
	at := len(to)
	to = AppendNumber(to, t, i)
	if c := to[len(to)-1]; c == 'N' || c == 'f' { // NaN, Inf
		to = append(to[:at], "null"...)
	}
	return to
}

// AppendNumber writes one value of a tensor that is no text: as few digits as give it back.
func AppendNumber(to []byte, t tensor.Tensor, i int) []byte {
	switch d := t.Data.(type) {
	case []float32:
		return appendFloat(to, float64(d[i]), 32)
	case []float64:
		return appendFloat(to, d[i], 64)
	case []bool:
		return strconv.AppendBool(to, d[i])
	case []uint8:
		return strconv.AppendUint(to, uint64(d[i]), 10)
	case []uint16:
		return strconv.AppendUint(to, uint64(d[i]), 10)
	case []uint32:
		return strconv.AppendUint(to, uint64(d[i]), 10)
	case []uint64:
		return strconv.AppendUint(to, d[i], 10)
	case []int8:
		return strconv.AppendInt(to, int64(d[i]), 10)
	case []int16:
		return strconv.AppendInt(to, int64(d[i]), 10)
	case []int32:
		return strconv.AppendInt(to, int64(d[i]), 10)
	case []int64:
		return strconv.AppendInt(to, d[i], 10)
	}
	return to
}

func appendFloat(to []byte, v float64, bits int) []byte {
	if a := math.Abs(v); a != 0 && (a < 1e-6 || a >= 1e21) {
		return strconv.AppendFloat(to, v, 'e', -1, bits)
	}
	return strconv.AppendFloat(to, v, 'f', -1, bits)
}
