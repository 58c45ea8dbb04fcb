package event

import (
	"encoding/binary"

	"github.com/klauspost/compress/zlib"
)

// Rows is a rows event.
type Rows struct {
	Table   uint64
	Columns int
	// Present and PresentAfter are the bitmaps of columns in the (before) image and in the after image of
	// an update.
	Present, PresentAfter []byte
	Kind                  RowsKind
	Compressed            bool // Body is to be inflated
	Body                  []byte
}

// RowsKind says what happened to the rows.
type RowsKind uint8

// The kinds.
const (
	Write RowsKind = iota
	Update
	Delete
	// Partial is an update in which parts of JSON values may be sent instead of the whole.
	Partial
)

// RowsKindOf tells what a rows event of type t does; ok is false of other events.
func RowsKindOf(t Type) (kind RowsKind, v2, compressed, ok bool) {
	switch t {
	case WriteRowsV1, WriteRows, MariaWriteRowsCompressed1, MariaWriteRowsCompressed2:
		kind = Write
	case UpdateRowsV1, UpdateRows, MariaUpdateRowsCompressed, MariaUpdateRowsCompress2:
		kind = Update
	case DeleteRowsV1, DeleteRows, MariaDeleteRowsCompressed, MariaDeleteRowsCompress2:
		kind = Delete
	case PartialUpdateRows:
		kind = Partial
	default:
		return 0, false, false, false
	}
	v2 = t >= WriteRows && t < MariaWriteRowsCompressed1 || t >= MariaWriteRowsCompressed2
	return kind, v2, t >= MariaWriteRowsCompressed1, true
}

// ReadRows reads the head of a rows event of type t.
// https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Rows__event.html
func ReadRows(t Type, body []byte) (r Rows, err error) {
	kind, v2, compressed, ok := RowsKindOf(t)
	if !ok || len(body) < 8 {
		return r, damaged("rows event")
	}
	r.Kind, r.Compressed = kind, compressed
	r.Table = uint64(binary.LittleEndian.Uint32(body)) | uint64(binary.LittleEndian.Uint16(body[4:]))<<32
	c := cursor{b: body[8:]}
	if v2 {
		n := c.int(2) // the length of what is extra, itself included
		if n < 2 {
			return r, damaged("rows event")
		}
		c.take(n - 2)
	}
	n := c.packed()
	if n > 4096 {
		return r, damaged("rows event")
	}
	r.Columns = int(n)
	r.Present = c.take((n + 7) / 8)
	if kind == Update || kind == Partial {
		r.PresentAfter = c.take((n + 7) / 8)
	}
	if c.bad {
		return r, damaged("rows event")
	}
	r.Body = c.b
	return r, nil
}

// RowsTable returns the table id of a rows event or table map.
func RowsTable(body []byte) (uint64, error) {
	if len(body) < 8 {
		return 0, damaged("rows event")
	}
	return uint64(binary.LittleEndian.Uint32(body)) | uint64(binary.LittleEndian.Uint16(body[4:]))<<32, nil
}

// reset readies z for what src holds.
func (f *Inflater) reset() (err error) {
	if f.z == nil {
		f.z, err = zlib.NewReader(&f.src)
		return err
	}
	return f.z.(zlib.Resetter).Reset(&f.src, nil)
}
