package pgtext

import (
	"strings"

	"github.com/leat-cdc/leat/schemas"
)

// Facts are what the catalogue says about a type (pg_type, pg_enum) and what a column adds to it.
type Facts struct {
	OID uint32
	// Mod is the column's modifier (atttypmod), -1 for none.
	Mod int32
	// Name is format_type(OID, Mod) under a search_path of pg_catalog alone: what lies elsewhere is qualified.
	Name string
	// TypName and Schema are typname and its namespace.
	TypName, Schema string
	// TypType is typtype: b base, c composite, d domain, e enum, m multirange, p pseudo, r range.
	TypType byte
	// Array says that the type's text form is array_out's; Elem is then the element's type.
	Array bool
	Elem  *Facts
	// Delim is typdelim of an element type: what separates it in arrays.
	Delim byte
	// Base is a domain's base type, with the modifier that the domain gives it.
	Base *Facts
	// Labels of an enum in their order.
	Labels []string
}

// OIDs of PostgreSQL's own types; fixed for all times by src/include/catalog/pg_type.dat.
const (
	oidBool, oidBytea, oidChar, oidName, oidInt8, oidInt2, oidInt2Vector, oidInt4     = 16, 17, 18, 19, 20, 21, 22, 23
	oidText, oidOID, oidOIDVector, oidJSON, oidXML                                    = 25, 26, 30, 114, 142
	oidBox, oidFloat4, oidFloat8, oidMoney, oidMacaddr, oidInet, oidCidr, oidMacaddr8 = 603, 700, 701, 790, 829, 869, 650, 774
	oidBPChar, oidVarchar, oidDate, oidTime, oidTimestamp, oidTimestamptz             = 1042, 1043, 1082, 1083, 1114, 1184
	oidTimetz, oidBit, oidVarbit, oidNumeric, oidUUID, oidJSONB, oidRefcursor         = 1266, 1560, 1562, 1700, 2950, 3802, 1790
)

// TypeOf maps what the catalogue says to a type. What has no better form is KindUnknown.
func TypeOf(f *Facts) schemas.Type {
	t := schemas.Type{Name: f.Name, OID: f.OID, Mod: f.Mod}
	switch {
	case f.TypType == 'd' && f.Base != nil:
		b := TypeOf(f.Base)
		b.OID, b.Mod = f.OID, f.Mod
		if b.Kind != schemas.KindBytes || !spatial(b.Name) { // spatial types are told by their name
			b.Name = f.Name
		}
		return b
	case f.Array && f.Elem != nil:
		elem := TypeOf(f.Elem)
		if f.Elem.Delim != 0 && f.Elem.Delim != delimiter(&elem) {
			return t // an extension's own delimiter: not read, kept as text
		}
		t.Kind, t.Elem = schemas.KindArray, &elem
	case f.TypType == 'e':
		t.Kind, t.Labels = schemas.KindText, f.Labels
	case f.TypType != 'b' && f.TypType != 0:
	default:
		if !builtin(&t) {
			extension(&t, f)
		}
	}
	return t
}

// builtin sets what is known about PostgreSQL's own types.
func builtin(t *schemas.Type) bool {
	switch t.OID {
	case oidBool:
		t.Kind = schemas.KindBool
	case oidInt2:
		t.Kind, t.Bits = schemas.KindInt, 16
	case oidInt4:
		t.Kind, t.Bits = schemas.KindInt, 32
	case oidInt8:
		t.Kind, t.Bits = schemas.KindInt, 64
	case oidOID:
		t.Kind, t.Bits = schemas.KindUint, 32
	case oidFloat4:
		t.Kind, t.Bits = schemas.KindFloat, 32
	case oidFloat8:
		t.Kind, t.Bits = schemas.KindFloat, 64
	case oidNumeric:
		t.Kind = schemas.KindDecimal
		t.Precision, t.Scale = numericMod(t.Mod)
	case oidBPChar, oidVarchar:
		t.Kind = schemas.KindText
		if t.Mod > 4 {
			t.Length = uint32(t.Mod - 4)
		}
	case oidText, oidName, oidChar, oidUUID, oidXML, oidMoney, oidMacaddr, oidMacaddr8, oidInet, oidCidr,
		oidTimetz, oidInt2Vector, oidOIDVector, oidRefcursor:
		t.Kind = schemas.KindText
	case oidJSON, oidJSONB:
		t.Kind = schemas.KindJSON
	case oidBytea:
		t.Kind = schemas.KindBytes
	case oidBit, oidVarbit:
		t.Kind = schemas.KindBits
		if t.Mod > 0 {
			t.Length = uint32(t.Mod)
		}
	case oidDate:
		t.Kind = schemas.KindDate
	case oidTime:
		t.Kind, t.Length = schemas.KindTime, fraction(t.Mod)
	case oidTimestamp:
		t.Kind, t.Length = schemas.KindDateTime, fraction(t.Mod)
	case oidTimestamptz:
		t.Kind, t.Length = schemas.KindTimestamp, fraction(t.Mod)
	default:
		return false
	}
	return true
}

// extension knows types of extensions by name, as their OIDs differ from database to database.
func extension(t *schemas.Type, f *Facts) {
	switch f.TypName {
	case "citext", "ltree":
		t.Kind = schemas.KindText
	case "vector":
		t.Kind = schemas.KindVector
		if f.Mod > 0 {
			t.Length = uint32(f.Mod)
		}
	case "geometry", "geography":
		if spatial(f.Name) {
			t.Kind = schemas.KindBytes
		}
	}
}

// fraction is the digits of a second's fraction that a modifier allows.
func fraction(mod int32) uint32 {
	if mod < 0 || mod > 6 {
		return 6
	}
	return uint32(mod)
}

// numericMod splits a numeric's modifier; 0, 0 when it has none. A negative scale (PostgreSQL 15) is
// given as the digits that it leaves, a scale above the precision as digits enough to hold it.
func numericMod(mod int32) (precision, scale uint16) {
	if mod < 4 {
		return 0, 0
	}
	p, s := (mod-4)>>16&0xffff, ((mod-4)&0x7ff^1024)-1024
	if s < 0 {
		return uint16(p - s), 0
	}
	return uint16(max(p, s)), uint16(s)
}

// spatial tells PostGIS's types by the name that format_type gives: "public.geometry(Point,4326)".
func spatial(name string) bool {
	name, _, _ = strings.Cut(name, "(")
	name = name[strings.LastIndexByte(name, '.')+1:]
	return name == "geometry" || name == "geography"
}

// delimiter is what separates elements of type t in an array's text.
func delimiter(t *schemas.Type) byte {
	switch {
	case t.OID == oidBox:
		return ';'
	case t.Kind == schemas.KindBytes && spatial(t.Name):
		return ':'
	}
	return ','
}
