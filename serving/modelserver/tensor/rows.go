package tensor

import (
	"reflect"
	"slices"
)

// Join puts the rows of tensors of one type and like shapes behind one another; ok is false where
// they differ.
func Join(parts []Tensor) (joined Tensor, ok bool) {
	joined = parts[0]
	joined.Shape = slices.Clone(joined.Shape)
	rows := 0
	for _, p := range parts {
		if p.Type != joined.Type || len(p.Shape) == 0 || len(p.Shape) != len(joined.Shape) || !slices.Equal(p.Shape[1:], joined.Shape[1:]) {
			return Tensor{}, false
		}
		rows += p.Rows()
	}
	joined.Shape[0] = int64(rows)
	all := reflect.MakeSlice(reflect.TypeOf(joined.Data), 0, Volume(joined.Shape))
	for _, p := range parts {
		all = reflect.AppendSlice(all, reflect.ValueOf(p.Data))
	}
	joined.Data = all.Interface()
	return joined, true
}

// Cut is the rows from one to another, the latter left out. They stand on the same values.
func (t Tensor) Cut(from, to int) Tensor {
	width := 0
	if t.Rows() > 0 {
		width = t.Len() / t.Rows()
	}
	t.Shape = append([]int64{int64(to - from)}, t.Shape[1:]...)
	t.Data = reflect.ValueOf(t.Data).Slice3(from*width, to*width, to*width).Interface()
	return t
}
