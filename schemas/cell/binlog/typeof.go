package binlog

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/binlog/charset"
)

const collationBinary = 63

var errNoCharset = errors.New("the binlog does not say the column's character set: set binlog_row_metadata=FULL")

// TypeOf returns the type of a column from what its table map event says. An error tells why the
// column's values cannot be read: an unknown type or character set, or metadata that is missing.
func TypeOf(c TableMapColumn) (schemas.Type, error) {
	t := schemas.Type{Code: c.Code, Meta: c.Meta}
	err := typeOf(&t, &c)
	if err == nil {
		_, err = widthOf(&t)
	}
	if err != nil {
		return schemas.Type{}, fmt.Errorf("type of column %s: %w", c.Name, err)
	}
	return t, nil
}

func typeOf(t *schemas.Type, c *TableMapColumn) error {
	switch c.Code {
	case TypeTiny:
		integer(t, c, 8, "tinyint")
	case TypeShort:
		integer(t, c, 16, "smallint")
	case TypeInt24:
		integer(t, c, 24, "mediumint")
	case TypeLong:
		integer(t, c, 32, "int")
	case TypeLonglong:
		integer(t, c, 64, "bigint")
	case TypeYear:
		t.Kind, t.Bits, t.Name = schemas.KindUint, 16, "year"
	case TypeFloat:
		t.Kind, t.Bits, t.Name = schemas.KindFloat, 32, unsigned("float", c)
	case TypeDouble:
		t.Kind, t.Bits, t.Name = schemas.KindFloat, 64, unsigned("double", c)
	case TypeNewDecimal:
		t.Kind, t.Precision, t.Scale = schemas.KindDecimal, c.Meta>>8, c.Meta&0xff
		t.Name = unsigned(fmt.Sprintf("decimal(%d,%d)", t.Precision, t.Scale), c)
	case TypeBit:
		n := bitLength(c.Meta)
		t.Kind, t.Length, t.Name = schemas.KindBits, uint32(n), sized("bit", n)
		if n == 1 {
			t.Kind = schemas.KindBool
		}
	case TypeDate, TypeNewDate:
		t.Kind, t.Name = schemas.KindDate, "date"
	case TypeTime, TypeTime2:
		temporal(t, c, schemas.KindTime, "time")
	case TypeDatetime, TypeDatetime2:
		temporal(t, c, schemas.KindDateTime, "datetime")
	case TypeTimestamp, TypeTimestamp2:
		temporal(t, c, schemas.KindTimestamp, "timestamp")
	case TypeJSON:
		t.Kind, t.Name = schemas.KindJSON, "json"
	case TypeGeometry:
		t.Kind, t.Name = schemas.KindBytes, geometryName(c.Geometry)
	case TypeVector:
		t.Kind, t.Name, t.Length = schemas.KindVector, "vector", uint32(c.Dims)
		if c.Dims > 0 {
			t.Name = sized("vector", int(c.Dims))
		}
	case TypeTypedArray:
		return errors.New("typed arrays are parts of indexes, not values")
	default:
		return textType(t, c)
	}
	return nil
}

// textType is typeOf for strings, blobs, enums and sets.
func textType(t *schemas.Type, c *TableMapColumn) error {
	if c.labelled() {
		return labelType(t, c)
	}
	switch c.Code {
	case TypeString, TypeVarchar, TypeVarString, TypeVarcharCompressed, TypeBlob, TypeTinyBlob, TypeMediumBlob, TypeLongBlob, TypeBlobCompressed:
	default:
		return unknownType(c.Code)
	}
	if special(t, c) {
		return nil
	}
	if c.Collation == 0 {
		return errNoCharset
	}
	set, err := charsetOf(t, c.Collation)
	if err != nil {
		return err
	}
	t.Kind = schemas.KindText
	if c.Collation == collationBinary {
		t.Kind = schemas.KindBytes
	}
	binary := t.Kind == schemas.KindBytes
	switch c.Code {
	case TypeString:
		_, n := stringMeta(c.Meta)
		t.Length = uint32(n) / charset.MaxLen(set)
		t.Name = sized(either(binary, "binary", "char"), int(t.Length))
	case TypeVarchar, TypeVarString:
		t.Length = uint32(c.Meta) / charset.MaxLen(set)
		t.Name = sized(either(binary, "varbinary", "varchar"), int(t.Length))
	case TypeVarcharCompressed: // one byte of its length is the header's
		t.Length = (uint32(max(c.Meta, 1)) - 1) / charset.MaxLen(set)
		t.Name = sized(either(binary, "varbinary", "varchar"), int(t.Length))
	default:
		size := map[uint16]string{1: "tiny", 3: "medium", 4: "long"}[c.Meta]
		t.Name = size + either(binary, "blob", "text")
	}
	return nil
}

// special recognises MariaDB's types that look like binary strings in the event.
func special(t *schemas.Type, c *TableMapColumn) bool {
	if c.Collation != collationBinary && c.Collation != 0 {
		return false
	}
	declared := strings.ToLower(strings.TrimSpace(c.Declared))
	switch c.Code {
	case TypeString:
		_, n := stringMeta(c.Meta)
		switch {
		case declared == "uuid" && n == 16, declared == oldUUID && n == 16, declared == "inet6" && n == 16, declared == "inet4" && n == 4:
			t.Kind, t.Name = schemas.KindText, declared
			return true
		}
	case TypeVarchar:
		if strings.HasPrefix(declared, "vector(") {
			t.Kind, t.Name, t.Length = schemas.KindVector, declared, uint32(c.Meta)/4
			return true
		}
	}
	return false
}

func labelType(t *schemas.Type, c *TableMapColumn) error {
	if c.Labels == nil {
		return errors.New("the binlog does not say the labels of an enum or set: set binlog_row_metadata=FULL")
	}
	if c.Collation == 0 {
		return errNoCharset
	}
	set, err := charsetOf(t, c.Collation)
	if err != nil {
		return err
	}
	t.Kind, t.Charset = schemas.KindText, "" // the labels are UTF-8 from here on; a cell is a number
	t.Labels = make([]string, 0, len(c.Labels))
	decode, err := charset.Of(set)
	if err != nil {
		return err
	}
	name := []byte(either(c.real() == TypeEnum, "enum", "set"))
	sep := "('"
	for _, l := range c.Labels {
		b, err := decode(nil, l)
		if err != nil {
			return fmt.Errorf("label %d: %w", len(t.Labels)+1, err)
		}
		t.Labels = append(t.Labels, string(b))
		name = append(append(name, sep...), strings.ReplaceAll(string(b), "'", "''")...)
		sep = "','"
	}
	t.Name = string(append(name, "')"...))
	return nil
}

// charsetOf sets the type's collation and character set from a collation's id and returns the latter.
func charsetOf(t *schemas.Type, collation uint64) (string, error) {
	name, set, err := charset.Collation(collation)
	if err != nil {
		return "", err
	}
	if set != "binary" {
		t.Collation = name
		if !strings.HasPrefix(set, "utf8") {
			t.Charset = set
		}
	}
	return set, nil
}

func integer(t *schemas.Type, c *TableMapColumn, bits uint8, name string) {
	t.Kind, t.Bits, t.Name = schemas.KindInt, bits, unsigned(name, c)
	if c.Unsigned {
		t.Kind = schemas.KindUint
	}
}

func temporal(t *schemas.Type, c *TableMapColumn, kind schemas.Kind, name string) {
	t.Kind, t.Name = kind, name
	switch c.Code {
	case TypeTime2, TypeDatetime2, TypeTimestamp2:
		t.Length = uint32(c.Meta)
	default: // MariaDB's formats before MySQL 5.6's: the event does not tell their digits
		t.Length = declaredDigits(c.Declared)
	}
	if t.Length > 0 {
		t.Name = sized(name, int(t.Length))
	}
}

// declaredDigits reads n of "datetime(n)".
func declaredDigits(declared string) uint32 {
	_, rest, ok := strings.Cut(declared, "(")
	if !ok {
		return 0
	}
	digits, _, _ := strings.Cut(rest, ")")
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || n > 6 {
		return 0
	}
	return uint32(n)
}

var geometryNames = [...]string{"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geomcollection"}

func geometryName(n uint64) string {
	if n < uint64(len(geometryNames)) {
		return geometryNames[n]
	}
	return geometryNames[0]
}

func unsigned(name string, c *TableMapColumn) string {
	if c.Unsigned {
		return name + " unsigned"
	}
	return name
}

func sized(name string, n int) string { return name + "(" + strconv.Itoa(n) + ")" }

func either(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}
