package batch

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/batch/jsonpath"
)

// The names of SageMaker's under which a JSON output has input and prediction.
const (
	inputKey  = "SageMakerInput"
	outputKey = "SageMakerOutput"
)

// joined puts a record and its prediction together. Both stay as they are written.
func joined(f format, input, prediction []byte) ([]byte, error) {
	if f == csvRows {
		return bytes.Join([][]byte{input, prediction}, []byte{','}), nil
	}
	input, prediction = bytes.TrimSpace(input), bytes.TrimSpace(prediction)
	if !json.Valid(prediction) {
		return nil, fault.New(fault.Invalid, "join: the server's answer is not valid JSON: %s", excerpt(prediction))
	}
	if !json.Valid(input) {
		return nil, fault.New(fault.Invalid, "join: the record is not valid JSON: %s", excerpt(input))
	}
	if input[0] != '{' {
		return objectOf([]jsonpath.Member{{Name: inputKey, Value: input}, {Name: outputKey, Value: prediction}}), nil
	}
	members, err := jsonpath.Members(input)
	if err != nil {
		return nil, err
	}
	for i, m := range members {
		if m.Name == outputKey { // of an earlier transform
			members[i].Value = prediction
			return objectOf(members), nil
		}
	}
	return objectOf(append(members, jsonpath.Member{Name: outputKey, Value: prediction})), nil
}

func objectOf(members []jsonpath.Member) []byte {
	text := []byte{'{'}
	for i, m := range members {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(append(append(text, jsonpath.Quote(m.Name)...), ':'), m.Value...)
	}
	return append(text, '}')
}

// filterRow selects from one row.
func filterRow(f format, path jsonpath.Path, row []byte) ([]byte, error) {
	if path.All() {
		return row, nil
	}
	if f.isJSON() {
		return path.JSON(row)
	}
	fields, err := fieldsOf(row)
	if err != nil {
		return nil, err
	}
	kept, err := path.Columns(fields)
	return bytes.Join(kept, []byte{','}), err
}

// fieldsOf cuts a row of CSV at its commas. Fields keep their quotes.
func fieldsOf(row []byte) ([][]byte, error) {
	var fields [][]byte
	from, quoted := 0, false
	for i, c := range row {
		switch {
		case c == '"':
			quoted = !quoted // a doubled quote closes and opens again
		case c == ',' && !quoted:
			fields = append(fields, row[from:i])
			from = i + 1
		}
	}
	if quoted {
		return nil, fault.New(fault.Invalid, "a quote is not closed: rows that go over several lines cannot be split by line")
	}
	return append(fields, row[from:]), nil
}

// excerpt is the beginning of what a server or an object said, for an error.
func excerpt(text []byte) string {
	const most = 200
	text = bytes.TrimSpace(text)
	if len(text) > most {
		text = append(text[:most:most], "…"...)
	}
	return strconv.Quote(string(text))
}
