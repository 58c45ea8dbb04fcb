package chunks

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
	"github.com/leat-cdc/leat/schemas/cell/form"
)

// A key is, for each column of the identity, the value as an SQL literal that compares with the column exactly, with
// its length before it: so it means the same after a restart, and does not depend on the table's shape.

// keys makes keys of row images. Safe for concurrent use.
type keys struct{ forms form.Cache }

var errNoKey = errors.New("the row image lacks columns of the primary key")

// of returns the key of an image.
func (k *keys) of(t *schemas.Table, image []byte) ([]byte, error) {
	f := k.forms.Of(t)
	refs, err := f.Walk(image, make([]cell.Ref, 0, len(t.Columns)), len(t.Columns))
	if err != nil {
		return nil, err
	}
	if len(t.Identity) == 0 {
		return nil, fmt.Errorf("table %s has no primary key", t.Subject())
	}
	var key []byte
	var s cell.Scratch
	for _, i := range t.Identity {
		if refs[i].Absent() || refs[i].Null() {
			return nil, errNoKey
		}
		lit, err := literal(&t.Columns[i].Type, f.Decode[i], refs[i].Of(image), &s)
		if err != nil {
			return nil, fmt.Errorf("key column %s of %s: %w", t.Columns[i].Name, t.Subject(), err)
		}
		key = append(binary.AppendUvarint(key, uint64(len(lit))), lit...)
	}
	return key, nil
}

// split returns the literals of a key.
func split(key []byte, columns int) ([]string, error) {
	var list []string
	for len(key) > 0 {
		n, size := binary.Uvarint(key)
		if size <= 0 || n > uint64(len(key)-size) {
			return nil, errors.New("a key is damaged")
		}
		list = append(list, string(key[size:size+int(n)]))
		key = key[size+int(n):]
	}
	if len(list) != columns {
		return nil, fmt.Errorf("a key of %d columns, the table's has %d", len(list), columns)
	}
	return list, nil
}

// Condition implements [snapshot.Database].
func (d *Database) Condition(t *schemas.Table, key []byte) (string, error) {
	list, err := split(key, len(t.Identity))
	if err != nil {
		return "", err
	}
	for n, i := range t.Identity {
		list[n] = ident(t.Columns[i].Name) + " = " + list[n]
	}
	return "(" + strings.Join(list, " AND ") + ")", nil
}

// literal writes a cell so that the column compares with it as with itself, by its index: text in the column's own
// character set, enums, sets and bits by number, in whose order the server keeps them.
func literal(t *schemas.Type, decode cell.Decode, raw []byte, s *cell.Scratch) (string, error) {
	switch binlog.Real(t) {
	case binlog.TypeEnum, binlog.TypeSet:
		var b [8]byte
		copy(b[:], raw)
		return strconv.FormatUint(binary.LittleEndian.Uint64(b[:]), 10), nil
	case binlog.TypeBit:
		n := uint64(0)
		for _, c := range raw {
			n = n<<8 | uint64(c)
		}
		return strconv.FormatUint(n, 10), nil
	case binlog.TypeJSON, binlog.TypeGeometry, binlog.TypeVector:
		return "", errors.New("its type has no order")
	}
	if t.Kind == schemas.KindText && t.Collation != "" {
		set, _, _ := strings.Cut(t.Collation, "_")
		return "_" + set + " x'" + hex.EncodeToString(raw) + "'", nil
	}
	var v cell.Value
	if err := decode(&v, raw, s); err != nil {
		return "", err
	}
	switch v.Kind {
	case schemas.KindInt:
		return strconv.FormatInt(int64(v.N), 10), nil
	case schemas.KindUint:
		if t.Code == binlog.TypeYear {
			return fmt.Sprintf("'%04d'", v.N), nil // a number below 100 would be a year of this century
		}
		return strconv.FormatUint(v.N, 10), nil
	case schemas.KindDecimal:
		return string(v.B), nil
	case schemas.KindFloat:
		return strconv.FormatFloat(v.Float(), 'e', -1, 64), nil
	case schemas.KindBytes:
		return "x'" + hex.EncodeToString(v.B) + "'", nil
	case schemas.KindDate:
		return time.Unix(int64(v.N)*86400, 0).UTC().Format("'2006-01-02'"), nil
	case schemas.KindDateTime, schemas.KindTimestamp:
		return time.UnixMicro(int64(v.N)).UTC().Format("'2006-01-02 15:04:05.000000'"), nil
	case schemas.KindTime:
		n, sign := int64(v.N), ""
		if n < 0 {
			n, sign = -n, "-"
		}
		return fmt.Sprintf("'%s%02d:%02d:%02d.%06d'", sign, n/3600e6, n/60e6%60, n/1e6%60, n%1e6), nil
	case schemas.KindText: // addresses, UUIDs, dates that no calendar has: letters, digits and marks that need no quoting
		return "'" + strings.ReplaceAll(string(v.B), "'", "''") + "'", nil
	}
	return "", fmt.Errorf("values of kind %s have no order", v.Kind)
}
