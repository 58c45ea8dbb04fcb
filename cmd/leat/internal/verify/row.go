package verify

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"

	"github.com/cespare/xxhash/v2"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// unknown is the sum of a column that was never sent; no value has it.
const unknown = 0

// layout names the columns that are compared, in one order for both sides.
type layout struct {
	names []string
	key   []string
	// loose compares values of different databases: JSON by its content.
	loose bool
}

// layoutOf takes the columns of the source's table as it is now.
func layoutOf(t *schemas.Table, loose bool) *layout {
	l := &layout{loose: loose}
	for i := range t.Columns {
		if !t.Columns[i].Dropped {
			l.names = append(l.names, t.Columns[i].Name)
		}
	}
	for _, i := range t.Identity {
		l.key = append(l.key, t.Columns[i].Name)
	}
	return l
}

// shape is how rows of one table version lie in a layout.
type shape struct {
	table   *schemas.Table
	form    *cell.Form
	columns []int // by place in the layout: index in the table, -1 = it has none
	key     []int
}

// shapeOf finds the layout's columns in a version; an error when it lacks one of the key.
func (l *layout) shapeOf(t *schemas.Table, form *cell.Form) (*shape, error) {
	s := &shape{table: t, form: form}
	find := func(name string) int {
		if i := t.Column(name); i >= 0 && !t.Columns[i].Dropped {
			return i
		}
		return -1
	}
	for _, name := range l.names {
		s.columns = append(s.columns, find(name))
	}
	for _, name := range l.key {
		i := find(name)
		if i < 0 {
			return nil, fmt.Errorf("%s, version %d, has no column %q, which is in the key now", t.Subject(), t.Version, name)
		}
		s.key = append(s.key, i)
	}
	return s, nil
}

// reader turns images into sums. Not for concurrent use.
type reader struct {
	layout  *layout
	table   uint64 // keys of different tables are different
	refs    []cell.Ref
	others  []cell.Ref
	scratch cell.Scratch
	value   cell.Value
	buf     []byte
}

// row sums what an image holds: of the key, and of each column of the layout into sums. Columns of the key that the
// image lacks are taken from the other one (nil: there is none).
func (r *reader) row(s *shape, image, other []byte, sums []uint64) (key uint64, err error) {
	if r.refs, err = s.form.Walk(image, r.refs[:0], len(s.table.Columns)); err != nil {
		return 0, fmt.Errorf("%s: %w", s.table.Subject(), err)
	}
	for n, i := range s.columns {
		sums[n] = unknown
		if i < 0 || r.refs[i].Absent() {
			continue
		}
		if sums[n], err = r.cell(s, i, r.refs[i], image); err != nil {
			return 0, err
		}
	}
	return r.key(s, image, other)
}

// key sums the key of an image.
func (r *reader) key(s *shape, image, other []byte) (uint64, error) {
	var err error
	if r.refs, err = s.form.Walk(image, r.refs[:0], len(s.table.Columns)); err != nil {
		return 0, fmt.Errorf("%s: %w", s.table.Subject(), err)
	}
	var h xxhash.Digest
	h.Reset()
	r.buf = binary.LittleEndian.AppendUint64(r.buf[:0], r.table)
	h.Write(r.buf)
	for _, i := range s.key {
		ref, from := r.refs[i], image
		if ref.Absent() && other != nil {
			if r.others, err = s.form.Walk(other, r.others[:0], len(s.table.Columns)); err != nil {
				return 0, fmt.Errorf("%s: %w", s.table.Subject(), err)
			}
			ref, from = r.others[i], other
		}
		if ref.Absent() {
			return 0, fmt.Errorf("%s: an image lacks column %q of the key", s.table.Subject(), s.table.Columns[i].Name)
		}
		sum, err := r.cell(s, i, ref, from)
		if err != nil {
			return 0, err
		}
		r.buf = binary.LittleEndian.AppendUint64(r.buf[:0], sum)
		h.Write(r.buf)
	}
	return h.Sum64(), nil
}

// cell sums one present or NULL cell.
func (r *reader) cell(s *shape, i int, ref cell.Ref, image []byte) (uint64, error) {
	v := &r.value
	*v = cell.Value{}
	r.scratch.Reset()
	if ref.Null() {
		v.State = cell.Null
	} else if err := s.form.Decode[i](v, ref.Of(image), &r.scratch); err != nil {
		return 0, fmt.Errorf("%s, column %q: %w", s.table.Subject(), s.table.Columns[i].Name, err)
	}
	r.buf = r.layout.appendValue(r.buf[:0], v)
	if sum := xxhash.Sum64(r.buf); sum != unknown {
		return sum, nil
	}
	return 1, nil
}

// appendValue writes a value so that equal values are equal bytes, whatever type of column holds them.
func (l *layout) appendValue(dst []byte, v *cell.Value) []byte {
	if v.State == cell.Null {
		return append(dst, 0)
	}
	switch v.Kind {
	case schemas.KindBool, schemas.KindUint:
		return fmt.Appendf(append(dst, 'n'), "%d", v.N)
	case schemas.KindInt:
		return fmt.Appendf(append(dst, 'n'), "%d", int64(v.N))
	case schemas.KindDecimal:
		return append(append(dst, 'n'), plainDecimal(v.B)...)
	case schemas.KindFloat:
		f := v.Float()
		if f == 0 {
			f = 0 // -0 equals 0
		}
		return binary.LittleEndian.AppendUint64(append(dst, 'f'), math.Float64bits(f))
	case schemas.KindDate, schemas.KindTime, schemas.KindDateTime, schemas.KindTimestamp:
		return binary.LittleEndian.AppendUint64(append(dst, 'd'), v.N)
	case schemas.KindBytes:
		return append(append(dst, 'b'), v.B...)
	case schemas.KindJSON:
		if l.loose {
			return append(append(dst, 'j'), canonicalJSON(v.B)...)
		}
		return append(append(dst, 'j'), v.B...)
	case schemas.KindArray, schemas.KindVector:
		dst = append(dst, 'a')
		for i := range v.Elems {
			at := len(dst)
			dst = l.appendValue(append(dst, 0, 0, 0, 0), &v.Elems[i])
			binary.LittleEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
		}
		return dst
	}
	return append(append(dst, 't'), v.B...)
}

// plainDecimal is a decimal without zeros at the end of its fraction: 1.50 and 1.5 are one number.
func plainDecimal(text []byte) []byte {
	if bytes.IndexByte(text, '.') < 0 || bytes.ContainsAny(text, "eE") {
		return text
	}
	return bytes.TrimSuffix(bytes.TrimRight(text, "0"), []byte("."))
}

// canonicalJSON is the same for JSON of the same content; what is no JSON stays.
func canonicalJSON(text []byte) []byte {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return text
	}
	out, err := json.Marshal(v)
	if err != nil {
		return text
	}
	return out
}
