package binlog

import (
	"fmt"
	"strings"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/binlog/charset"
)

// Form returns the reader of a table's rows in wire form [schemas.WireBinlog]. A table with a column
// of unknown layout gives a form whose Walk always fails; a column of unknown meaning one whose Decode
// always fails.
func Form(t *schemas.Table) *cell.Form {
	f := &cell.Form{Decode: make([]cell.Decode, len(t.Columns)), Plain: make([]cell.Plain, len(t.Columns))}
	l, err := NewLayout(t)
	if err == nil {
		f.Walk = l.walk
	} else {
		f.Walk = func(_ []byte, refs []cell.Ref, _ int) ([]cell.Ref, error) { return refs[:0], err }
	}
	for i := range t.Columns {
		d, err := decoder(&t.Columns[i].Type)
		if err != nil {
			err = fmt.Errorf("read column %s: %w", t.Columns[i].Name, err)
			d = func(*cell.Value, []byte, *cell.Scratch) error { return err }
		}
		f.Decode[i] = d
		if err == nil {
			f.Plain[i] = plain(&t.Columns[i].Type)
		}
	}
	return f
}

// plain tells which cells are their values: what decoder reads by intDecoder, or by textDecoder in UTF-8 or a set
// that begins with ASCII.
func plain(t *schemas.Type) cell.Plain {
	switch t.Code {
	case TypeTiny, TypeShort, TypeInt24, TypeLong, TypeLonglong:
		if t.Kind == schemas.KindInt {
			return cell.PlainInt
		}
		return cell.PlainUint
	case TypeVarchar, TypeVarString, TypeBlob, TypeTinyBlob, TypeMediumBlob, TypeLongBlob:
		if t.Kind == schemas.KindBytes || t.Kind == schemas.KindVector {
			return cell.PlainNone
		}
	case TypeString:
		if real, _ := stringMeta(t.Meta); real == TypeEnum || real == TypeSet || t.Kind != schemas.KindText || packedText(t.Name) {
			return cell.PlainNone
		}
	default:
		return cell.PlainNone
	}
	switch t.Charset {
	case "", "utf8mb3", "utf8mb4":
		return cell.PlainText
	}
	if charset.HasASCII(t.Charset) {
		return cell.PlainASCII
	}
	return cell.PlainNone
}

// packedText names MariaDB's types whose text is not what they are kept as.
func packedText(name string) bool {
	return name == "inet4" || name == "inet6" || strings.HasPrefix(name, "uuid") || name == oldUUID
}

// decoder picks the function that reads a column's cells.
func decoder(t *schemas.Type) (cell.Decode, error) {
	switch t.Code {
	case TypeTiny, TypeShort, TypeInt24, TypeLong, TypeLonglong:
		return intDecoder(t)
	case TypeYear:
		return decodeYear, nil
	case TypeFloat:
		return decodeFloat, nil
	case TypeDouble:
		return decodeDouble, nil
	case TypeNewDecimal:
		return decimalDecoder(int(t.Meta>>8), int(t.Meta&0xff))
	case TypeBit:
		return bitDecoder(bitLength(t.Meta)), nil
	case TypeDate, TypeNewDate:
		return decodeDate, nil
	case TypeTime2:
		return time2Decoder(int(t.Meta)), nil
	case TypeDatetime2:
		return datetime2Decoder(int(t.Meta)), nil
	case TypeTimestamp2:
		return timestamp2Decoder(int(t.Meta)), nil
	case TypeTime:
		return oldTimeDecoder(hires(t)), nil
	case TypeDatetime:
		return oldDatetimeDecoder(hires(t)), nil
	case TypeTimestamp:
		return oldTimestampDecoder(hires(t)), nil
	case TypeJSON:
		return decodeJSON, nil
	case TypeGeometry:
		return decodeGeometry, nil
	case TypeVector:
		return decodeVector, nil
	case TypeEnum:
		return enumDecoder(t.Labels), nil
	case TypeSet:
		return setDecoder(t.Labels), nil
	case TypeString, TypeVarchar, TypeVarString, TypeBlob, TypeTinyBlob, TypeMediumBlob, TypeLongBlob:
		return stringDecoder(t)
	case TypeBlobCompressed, TypeVarcharCompressed:
		d, err := stringDecoder(t)
		return inflating(d), err
	}
	return nil, unknownType(t.Code)
}

// stringDecoder reads what the servers keep as strings of bytes.
func stringDecoder(t *schemas.Type) (cell.Decode, error) {
	if t.Code == TypeString {
		switch real, _ := stringMeta(t.Meta); real {
		case TypeEnum:
			return enumDecoder(t.Labels), nil
		case TypeSet:
			return setDecoder(t.Labels), nil
		}
	}
	switch t.Kind {
	case schemas.KindVector:
		return decodeVector, nil
	case schemas.KindBytes:
		if t.Code == TypeString {
			_, n := stringMeta(t.Meta)
			return binaryDecoder(int(n)), nil
		}
		return decodeBytes, nil
	}
	if t.Code == TypeString {
		switch {
		case t.Name == "inet4":
			return decodeINET4, nil
		case t.Name == "inet6":
			return decodeINET6, nil
		case t.Name == oldUUID:
			return uuidDecoder(true), nil
		case strings.HasPrefix(t.Name, "uuid"):
			return uuidDecoder(false), nil
		}
	}
	return textDecoder(t.Charset)
}
