package binlog

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// errShort and errLong are wrapped by what finds a row image that does not fit its table's shape.
var (
	errShort = errors.New("the row image ends before its last value: it is cut off, or of another shape than the table map says")
	errLong  = errors.New("bytes are left after the row image's last value: it is of another shape than the table map says")
)

// width is the room that one column's value takes: fixed bytes, or a little-endian length of prefix
// bytes and that many bytes.
type width struct {
	fixed    uint32
	prefix   uint8
	document bool // of type JSON
}

// run is a stretch of fixed columns and, unless last, the column with a length that follows.
type run struct {
	fixed  int
	prefix uint8 // 0: no such column
}

// Layout knows where the values of a table's row images end. Safe for concurrent use.
type Layout struct {
	widths []width
	runs   []run
	nulls  int  // bytes of the null bitmap when all columns are present
	last   byte // the bits of its last byte that stand for columns; servers set the others
	// documents counts the columns of type JSON.
	documents int
}

// NewLayout compiles the layout of a table whose columns have Code and Meta as [TypeOf] sets them.
// An error names the column that cannot be read.
func NewLayout(t *schemas.Table) (*Layout, error) {
	if len(t.Columns) == 0 {
		return nil, fmt.Errorf("lay out %s.%s: it has no columns", t.Schema, t.Name)
	}
	l := &Layout{widths: make([]width, len(t.Columns)), nulls: (len(t.Columns) + 7) / 8}
	l.last = l.mask(l.nulls - 1)
	r := run{}
	for i := range t.Columns {
		w, err := widthOf(&t.Columns[i].Type)
		if err != nil {
			return nil, fmt.Errorf("lay out column %s of %s.%s: %w", t.Columns[i].Name, t.Schema, t.Name, err)
		}
		if w.document = t.Columns[i].Type.Code == TypeJSON; w.document {
			l.documents++
		}
		l.widths[i] = w
		r.fixed += int(w.fixed)
		if w.prefix > 0 {
			r.prefix = w.prefix
			l.runs, r = append(l.runs, r), run{}
		}
	}
	if r.fixed > 0 {
		l.runs = append(l.runs, r)
	}
	return l, nil
}

// Width returns the room of column i in a row image: fixed bytes, or a little-endian length of prefix bytes and that
// many bytes.
func (l *Layout) Width(i int) (fixed, prefix int) {
	return int(l.widths[i].fixed), int(l.widths[i].prefix)
}

// Real returns the column type behind TypeString: that, TypeEnum or TypeSet; of other types the code itself.
func Real(t *schemas.Type) uint8 {
	if t.Code == TypeString {
		real, _ := stringMeta(t.Meta)
		return real
	}
	return t.Code
}

// RowLen returns the length of the first row image in body, which begins at a null bitmap; present is
// the event's bitmap of columns (bit i of byte i/8), nil when all are there. It allocates nothing.
func (l *Layout) RowLen(body, present []byte) (int, error) {
	if present != nil && !l.all(present) {
		return l.partialLen(body, present)
	}
	if len(body) < l.nulls {
		return 0, errShort
	}
	if !l.none(body[:l.nulls]) {
		return l.nullLen(body)
	}
	at := l.nulls
	for _, r := range l.runs {
		at += r.fixed
		if r.prefix == 0 {
			break
		}
		n, ok := length(body, at, r.prefix)
		if !ok {
			return 0, errShort
		}
		at += int(r.prefix) + n
	}
	if at > len(body) {
		return 0, errShort
	}
	return at, nil
}

// nullLen is RowLen for a row with all columns, some of them NULL.
func (l *Layout) nullLen(body []byte) (int, error) {
	at := l.nulls
	for i, w := range l.widths {
		if bit(body, i) {
			continue
		}
		at += int(w.fixed)
		if w.prefix == 0 {
			continue
		}
		n, ok := length(body, at, w.prefix)
		if !ok {
			return 0, errShort
		}
		at += int(w.prefix) + n
	}
	if at > len(body) {
		return 0, errShort
	}
	return at, nil
}

// partialLen is RowLen for a row in which columns are missing.
func (l *Layout) partialLen(body, present []byte) (int, error) {
	nth, n, err := l.count(present)
	if err != nil {
		return 0, err
	}
	at := (n + 7) / 8
	if len(body) < at {
		return 0, errShort
	}
	for i, w := range l.widths {
		if !bit(present, i) {
			continue
		}
		null := bit(body, nth)
		nth++
		if null {
			continue
		}
		at += int(w.fixed)
		if w.prefix == 0 {
			continue
		}
		n, ok := length(body, at, w.prefix)
		if !ok {
			return 0, errShort
		}
		at += int(w.prefix) + n
	}
	if at > len(body) {
		return 0, errShort
	}
	return at, nil
}

// walk is [cell.Form.Walk].
func (l *Layout) walk(image []byte, refs []cell.Ref, upTo int) ([]cell.Ref, error) {
	refs = refs[:0]
	if uint64(len(image)) >= uint64(cell.LenAbsent) {
		return refs, errors.New("walk a row image: it has more than 4 GiB")
	}
	if len(image) == 0 {
		return refs, fmt.Errorf("walk a row image: %w", errShort)
	}
	if upTo > len(l.widths) {
		return refs, fmt.Errorf("walk a row image: %d columns wanted of a table with %d", upTo, len(l.widths))
	}
	var err error
	switch image[0] {
	case 0:
		refs, err = l.walkAll(image, refs, upTo)
	case 1:
		refs, err = l.walkPartial(image, refs, upTo)
	default:
		err = fmt.Errorf("its first byte is %d: want 0 or 1", image[0])
	}
	if err != nil {
		return refs[:0], fmt.Errorf("walk a row image: %w", err)
	}
	return refs, nil
}

func (l *Layout) walkAll(image []byte, refs []cell.Ref, upTo int) ([]cell.Ref, error) {
	at := 1 + l.nulls
	if len(image) < at {
		return refs, errShort
	}
	nulls := image[1:at]
	none := l.none(nulls)
	refs = slices.Grow(refs, upTo)[:upTo]
	for i, w := range l.widths[:upTo] {
		ref := &refs[i]
		if !none && bit(nulls, i) {
			*ref = cell.Ref{Len: cell.LenNull}
			continue
		}
		n := int(w.fixed)
		if w.prefix != 0 {
			var ok bool
			if n, ok = length(image, at, w.prefix); !ok {
				return refs, errShort
			}
			at += int(w.prefix)
		}
		ref.Off, ref.Len = uint32(at), uint32(n)
		at += n
	}
	return refs, ended(at, len(image), upTo == len(l.widths))
}

func (l *Layout) walkPartial(image []byte, refs []cell.Ref, upTo int) ([]cell.Ref, error) {
	at := 1 + l.nulls
	if len(image) < at {
		return refs, errShort
	}
	present := image[1:at]
	nth, n, err := l.count(present)
	if err != nil {
		return refs, err
	}
	if len(image) < at+(n+7)/8 {
		return refs, errShort
	}
	nulls := image[at : at+(n+7)/8]
	at += len(nulls)
	for i, w := range l.widths[:upTo] {
		if !bit(present, i) {
			refs = append(refs, cell.Ref{Len: cell.LenAbsent})
			continue
		}
		nth++
		if bit(nulls, nth-1) {
			refs = append(refs, cell.Ref{Len: cell.LenNull})
			continue
		}
		n := int(w.fixed)
		if w.prefix != 0 {
			var ok bool
			if n, ok = length(image, at, w.prefix); !ok {
				return refs, errShort
			}
			at += int(w.prefix)
		}
		refs = append(refs, cell.Ref{Off: uint32(at), Len: uint32(n)})
		at += n
	}
	return refs, ended(at, len(image), upTo == len(l.widths))
}

// ended checks where a walk ended. Fixed columns are stepped over unchecked: positions only grow, so
// one check at the end covers all.
func ended(at, size int, whole bool) error {
	switch {
	case at > size:
		return errShort
	case whole && at < size:
		return errLong
	}
	return nil
}

// count returns 0 (the first column's place among the present ones) and how many are present.
func (l *Layout) count(present []byte) (nth, n int, err error) {
	if len(present) < l.nulls {
		return 0, 0, errors.New("the bitmap of present columns is shorter than the table's columns")
	}
	for i, b := range present[:l.nulls] {
		n += bits.OnesCount8(b & l.mask(i))
	}
	return 0, n, nil
}

// mask has the bits that stand for columns in byte i of a bitmap.
func (l *Layout) mask(i int) byte {
	if rest := len(l.widths) - i*8; rest < 8 {
		return 1<<rest - 1
	}
	return 0xff
}

func (l *Layout) all(present []byte) bool {
	if len(present) < l.nulls {
		return false
	}
	for i, b := range present[:l.nulls] {
		if m := l.mask(i); b&m != m {
			return false
		}
	}
	return true
}

// none tells that no column is NULL, by the null bitmap of a row with all columns.
func (l *Layout) none(nulls []byte) bool {
	n := len(nulls) - 1
	return nulls[n]&l.last == 0 && zero(nulls[:n])
}

func bit(bitmap []byte, i int) bool { return bitmap[i>>3]&(1<<(i&7)) != 0 }

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// length reads a little-endian length of prefix bytes at b[at:]; ok tells that it stands inside b.
func length(b []byte, at int, prefix uint8) (n int, ok bool) {
	if at+int(prefix) > len(b) {
		return 0, false
	}
	switch p := b[at:]; prefix {
	case 1:
		return int(p[0]), true
	case 2:
		return int(p[0]) | int(p[1])<<8, true
	case 3:
		return int(p[0]) | int(p[1])<<8 | int(p[2])<<16, true
	default:
		return int(p[0]) | int(p[1])<<8 | int(p[2])<<16 | int(p[3])<<24, true
	}
}

// widthOf returns the room of a column's values in a row image.
func widthOf(t *schemas.Type) (width, error) {
	switch t.Code {
	case TypeTiny, TypeYear:
		return width{fixed: 1}, nil
	case TypeShort:
		return width{fixed: 2}, nil
	case TypeInt24, TypeDate, TypeNewDate:
		return width{fixed: 3}, nil
	case TypeLong, TypeFloat:
		return width{fixed: 4}, nil
	case TypeLonglong, TypeDouble:
		return width{fixed: 8}, nil
	case TypeTimestamp:
		return width{fixed: 4 + fractionBytes(hires(t))}, nil
	case TypeTime:
		return width{fixed: timeHiresBytes[hires(t)]}, nil
	case TypeDatetime:
		return width{fixed: datetimeHiresBytes[hires(t)]}, nil
	case TypeTimestamp2, TypeDatetime2, TypeTime2:
		if t.Meta > 6 {
			return width{}, fmt.Errorf("a time with %d digits of a second's fraction", t.Meta)
		}
		base := map[uint8]uint32{TypeTimestamp2: 4, TypeDatetime2: 5, TypeTime2: 3}[t.Code]
		return width{fixed: base + fractionBytes(int(t.Meta))}, nil
	case TypeNewDecimal:
		n, err := decimalBytes(int(t.Meta>>8), int(t.Meta&0xff))
		return width{fixed: uint32(n)}, err
	case TypeBit:
		n := bitLength(t.Meta)
		if n == 0 || n > 64 {
			return width{}, fmt.Errorf("a bit string of %d bits", n)
		}
		return width{fixed: uint32(n+7) / 8}, nil
	case TypeVarchar, TypeVarString, TypeVarcharCompressed:
		if t.Meta > 255 {
			return width{prefix: 2}, nil
		}
		return width{prefix: 1}, nil
	case TypeString:
		return stringWidth(t.Meta)
	case TypeBlob, TypeTinyBlob, TypeMediumBlob, TypeLongBlob, TypeBlobCompressed, TypeJSON, TypeGeometry, TypeVector:
		if t.Meta == 0 || t.Meta > 4 {
			return width{}, fmt.Errorf("a blob with a length of %d bytes", t.Meta)
		}
		return width{prefix: uint8(t.Meta)}, nil
	case TypeEnum, TypeSet:
		return packed(t.Meta & 0xff)
	}
	return width{}, unknownType(t.Code)
}

// stringWidth reads the metadata of a TypeString column, which may also be an enum or a set.
func stringWidth(meta uint16) (width, error) {
	switch real, n := stringMeta(meta); real {
	case TypeEnum, TypeSet:
		return packed(n)
	case TypeString, TypeVarString:
		if n > 255 {
			return width{prefix: 2}, nil
		}
		return width{prefix: 1}, nil
	default:
		return width{}, unknownType(real)
	}
}

func packed(n uint16) (width, error) {
	if n == 0 || n > 8 {
		return width{}, fmt.Errorf("an enum or set of %d bytes", n)
	}
	return width{fixed: uint32(n)}, nil
}

// stringMeta splits the metadata of a TypeString column into its real type and its length in bytes.
// Lengths over 255 put their two high bits, inverted, into bits 4 and 5 of the real type.
func stringMeta(meta uint16) (real uint8, n uint16) {
	hi, lo := uint8(meta>>8), meta&0xff
	if hi == 0 {
		return TypeString, lo // as servers before 5.0 wrote it
	}
	if hi&0x30 != 0x30 {
		return hi | 0x30, lo | (uint16(hi&0x30)^0x30)<<4
	}
	return hi, lo
}

func bitLength(meta uint16) int { return int(meta>>8)*8 + int(meta&0xff) }

func unknownType(code uint8) error {
	return fmt.Errorf("column type %d of the table map is not known to this version", code)
}
