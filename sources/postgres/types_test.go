package postgres

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
)

// sample is a type with values, each an SQL expression; kind is what values decode to, textual those that have
// no place in it.
type sample struct {
	typ     string
	kind    schemas.Kind
	values  []string
	textual []string
}

func samples() []sample {
	const (
		un, tx = schemas.KindUnknown, schemas.KindText
	)
	return []sample{
		{"bool", schemas.KindBool, []string{"true", "false"}, nil},
		{`"char"`, tx, []string{`'a'`}, nil},
		{"char(5)", tx, []string{`'ab'`, `''`}, nil},
		{"varchar(10)", tx, []string{`'é'`, `''`}, nil},
		{"name", tx, []string{`'n'`}, nil},
		{"text", tx, []string{`'\N'`, `''`, `E'line\nbreak\ttab'`, `'日本'`}, nil},
		{"int2", schemas.KindInt, []string{"-32768", "32767"}, nil},
		{"int4", schemas.KindInt, []string{"-2147483648", "2147483647"}, nil},
		{"int8", schemas.KindInt, []string{"-9223372036854775808", "9223372036854775807", "0"}, nil},
		{"oid", schemas.KindUint, []string{"4294967295"}, nil},
		{"float4", schemas.KindFloat, []string{"'NaN'", "'Infinity'", "'-Infinity'", "1.1", "3.4e38", "1e-45", "'-0'"}, nil},
		{"float8", schemas.KindFloat, []string{"'NaN'", "'Infinity'", "'-Infinity'", "0.1", "1.7976931348623157e308", "5e-324"}, nil},
		{"numeric", schemas.KindDecimal, []string{"'NaN'", "'Infinity'", "'-Infinity'", "1.10", "-0.00001", "123456789012345678901234567890.5"}, nil},
		{"numeric(10,2)", schemas.KindDecimal, []string{"1.5", "-99999999.99"}, nil},
		{"numeric(3,-2)", schemas.KindDecimal, []string{"12345"}, nil},
		{"money", tx, []string{"'-92233720368547758.08'", "1.5"}, nil},
		{"bytea", schemas.KindBytes, []string{`'\x00ff10'`, `''`}, nil},
		{"date", schemas.KindDate, []string{"'2026-11-21'", "'0001-01-01'", "'9999-12-31'", "'1969-12-31'", "'2000-02-29'"}, []string{"'infinity'", "'-infinity'", "'0044-03-15 BC'", "'10000-01-01'", "'5874897-12-31'"}},
		{"time", schemas.KindTime, []string{"'00:00'", "'24:00:00'", "'10:15:30.5'", "'23:59:59.999999'"}, nil},
		{"time(0)", schemas.KindTime, []string{"'10:15:30.5'"}, nil},
		{"timetz", tx, []string{"'10:15:30.5+05:30'", "'24:00:00-08'"}, nil},
		{"timestamp", schemas.KindDateTime, []string{"'2026-11-21 10:15:30.123456'", "'0001-01-01'", "'9999-12-31 23:59:59.999999'"}, []string{"'infinity'", "'-infinity'", "'4713-01-01 00:00:00 BC'", "'294276-12-31 23:59:59'"}},
		{"timestamptz", schemas.KindTimestamp, []string{"'2026-11-21 10:15:30.123456+02'", "'1969-12-31 23:59:59.5+00'"}, []string{"'infinity'", "'0044-03-15 10:00:00+00 BC'", "'10000-01-01 00:00:00+00'"}},
		{"interval", un, []string{"'-1 year 2 mons -3 days 04:05:06.7'", "'0'"}, nil},
		{"uuid", tx, []string{"'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"}, nil},
		{"json", schemas.KindJSON, []string{`'{"a": 1.00, "b":  [9007199254740993]}'`, "'null'"}, nil},
		{"jsonb", schemas.KindJSON, []string{`'{"a": 1.00, "b": [9007199254740993]}'`, "'null'", `'"x"'`}, nil},
		{"xml", tx, []string{"'<a>b</a>'"}, nil},
		{"inet", tx, []string{"'10.0.0.1/8'", "'::1'"}, nil},
		{"cidr", tx, []string{"'10.0.0.0/8'"}, nil},
		{"macaddr", tx, []string{"'08:00:2b:01:02:03'"}, nil},
		{"macaddr8", tx, []string{"'08:00:2b:01:02:03:04:05'"}, nil},
		{"bit(3)", schemas.KindBits, []string{"B'101'"}, nil},
		{"varbit", schemas.KindBits, []string{"B'10110'", "B''"}, nil},
		{"int4range", un, []string{"'[1,10)'", "'empty'", "'(,5)'"}, nil},
		{"tstzrange", un, []string{"'[2020-01-01 00:00+00,2021-01-01 00:00+00)'"}, nil},
		{"int4multirange", un, []string{"'{[1,3),[5,8)}'"}, nil},
		{"int2vector", tx, []string{"'1 2 3'"}, nil},
		{"oidvector", tx, []string{"'1 2'"}, nil},
		{"point", un, []string{"'(1,2)'"}, nil},
		{"line", un, []string{"'{1,2,3}'"}, nil},
		{"lseg", un, []string{"'[(1,2),(3,4)]'"}, nil},
		{"box", un, []string{"'(3,4),(1,2)'"}, nil},
		{"path", un, []string{"'[(1,2),(3,4)]'"}, nil},
		{"polygon", un, []string{"'((1,2),(3,4))'"}, nil},
		{"circle", un, []string{"'<(1,2),3>'"}, nil},
		{"tsvector", un, []string{"'a:1 b:2'"}, nil},
		{"pg_lsn", un, []string{"'0/16B3748'"}, nil},
		{"mood", tx, []string{"'sad'", "'ok, \"fine\"'"}, nil},
		{"small", schemas.KindInt, []string{"7"}, nil},
		{"smaller", schemas.KindInt, []string{"3"}, nil},
		{"pair", un, []string{"row(1, 'a,b')"}, nil},
		{"int4[]", schemas.KindArray, []string{"'{1,NULL,-3}'", "'{}'", "'{{1,2},{3,NULL}}'", "'{{{1}},{{2}}}'"}, []string{"'[0:1]={1,2}'", "'[2:2][1:2]={{1,2}}'"}},
		{"text[]", schemas.KindArray, []string{`array['a,b', '"q"', 'back\slash', 'NULL', '', ' sp ', '{}', null, 'é']`}, nil},
		{"bytea[]", schemas.KindArray, []string{`array['\x00ff'::bytea, '\x']`}, nil},
		{"numeric(5,2)[]", schemas.KindArray, []string{"'{1.50,NaN}'"}, nil},
		{"timestamptz[]", schemas.KindArray, []string{"'{\"2026-11-21 10:15:30+02\",infinity}'"}, nil},
		{"box[]", schemas.KindArray, []string{"'{(3,4),(1,2);(7,8),(5,6)}'"}, nil},
		{"mood[]", schemas.KindArray, []string{`array['sad', 'ok, "fine"']::mood[]`}, nil},
		{"smaller[]", schemas.KindArray, []string{"'{1,2}'"}, nil},
		{"jsonb[]", schemas.KindArray, []string{`array['{"a": [1, 2]}', 'null']::jsonb[]`}, nil},
		{"pair[]", schemas.KindArray, []string{"array[row(1, 'a')::pair]"}, nil},
		{"ints", schemas.KindArray, []string{"'{1,2}'"}, nil},
	}
}

// Every type travels: inserted, updated under FULL (both images), deleted; the text is what the database itself
// says, and the decoded value, written back as text, is the same.
func TestTypes(t *testing.T) {
	t.Parallel()
	allVersions(t, func(t *testing.T, d *db) {
		d.exec(`create type mood as enum ('sad', 'ok, "fine"')`, `create domain small as int check (value < 10)`,
			`create domain smaller as small`, `create type pair as (a int, b text)`, `create domain ints as int[]`)
		all := samples()
		var columns []string
		for i, s := range all {
			columns = append(columns, fmt.Sprintf("c%d %s", i, s.typ))
		}
		d.exec(`create table v (id int primary key, `+strings.Join(columns, ", ")+`)`, `alter table v replica identity full`)
		st, err := d.source().Open(t.Context(), pipeline.Position{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = st.Close() }()
		d.exec(`set timezone = 'UTC'`, `set extra_float_digits = 1`)
		id := 0
		for i, s := range all {
			for j, v := range append(append([]string(nil), s.values...), s.textual...) {
				id++
				d.exec(fmt.Sprintf(`insert into v (id, c%d) values (%d, %s)`, i, id, v))
				want := d.output(fmt.Sprintf(`select c%d from v where id = %d`, i, id))
				d.exec(fmt.Sprintf(`update v set id = -id where id = %d`, id), fmt.Sprintf(`delete from v where id = %d`, -id))
				kind := s.kind
				if j >= len(s.values) {
					kind = schemas.KindText
				}
				checkRows(t, d, st, s.typ, i+1, want, kind)
			}
		}
	})
}

// output is what the type's own output function says; a cast to text differs for some types.
func (d *db) output(query string) string {
	d.t.Helper()
	results, err := d.conn.PgConn().Exec(d.t.Context(), query).ReadAll()
	if err != nil {
		d.t.Fatalf("%s: %v", query, err)
	}
	return string(results[0].Rows[0][0])
}

// checkRows takes the insert, update and delete of one value and checks all four images.
func checkRows(t *testing.T, d *db, st pipeline.Stream, typ string, column int, want string, kind schemas.Kind) {
	t.Helper()
	for images := 0; images < 4; {
		b, err := st.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range b.Events {
			tab := b.TableOf(i)
			form := pgtext.Form(tab)
			for _, span := range []pipeline.Span{e.Before, e.After} {
				if !span.Present() {
					continue
				}
				images++
				image := b.Bytes(span)
				refs, err := form.Walk(image, nil, len(tab.Columns))
				if err != nil {
					t.Fatal(err)
				}
				raw := refs[column].Of(image)
				if string(raw) != want {
					t.Errorf("%s: the stream says %q, the database %q", typ, raw, want)
				}
				var v cell.Value
				var s cell.Scratch
				if err := form.Decode[column](&v, raw, &s); err != nil {
					t.Errorf("%s %q: %v", typ, raw, err)
				} else if v.Kind != kind {
					t.Errorf("%s %q: kind %s, want %s (type %+v)", typ, raw, v.Kind, kind, tab.Columns[column].Type)
				} else if back := written(&v, &tab.Columns[column].Type); !sameText(d, back, want, typ) {
					t.Errorf("%s %q: decoded and written back: %q", typ, raw, back)
				}
			}
		}
		b.Release()
	}
}

// sameText compares what was written back with the server's text, or lets the server say that both are one value.
func sameText(d *db, back, want, typ string) bool {
	if back == want {
		return true
	}
	var same bool
	err := d.conn.QueryRow(d.t.Context(), fmt.Sprintf("select ($1::text::%s)::text = $2", typ), back, want).Scan(&same)
	return err == nil && same
}

// written is a value as text that the server reads back.
func written(v *cell.Value, t *schemas.Type) string {
	switch v.Kind {
	case schemas.KindBool:
		return map[uint64]string{0: "f", 1: "t"}[v.N]
	case schemas.KindInt:
		return fmt.Sprint(int64(v.N))
	case schemas.KindUint:
		return fmt.Sprint(v.N)
	case schemas.KindFloat:
		if v.Bits == 32 {
			return fmt.Sprint(float32(v.Float()))
		}
		return fmt.Sprint(v.Float())
	case schemas.KindBytes:
		return fmt.Sprintf(`\x%x`, v.B)
	case schemas.KindDate:
		return time.Unix(int64(v.N)*86400, 0).UTC().Format(time.DateOnly)
	case schemas.KindTime:
		us := int64(v.N)
		return fmt.Sprintf("%02d:%02d:%02d.%06d", us/3_600_000_000, us/60_000_000%60, us/1_000_000%60, us%1_000_000)
	case schemas.KindDateTime, schemas.KindTimestamp:
		text := time.UnixMicro(int64(v.N)).UTC().Format("2006-01-02 15:04:05.999999")
		if v.Kind == schemas.KindTimestamp {
			text += "+00"
		}
		return text
	case schemas.KindArray:
		elem, delim := t.Elem, ","
		if elem.Name == "box" {
			delim = ";"
		}
		var parts []string
		for i := range v.Elems {
			e := &v.Elems[i]
			switch {
			case e.State == cell.Null:
				parts = append(parts, "NULL")
			case e.Kind == schemas.KindArray:
				parts = append(parts, written(e, t))
			default:
				parts = append(parts, `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(written(e, elem))+`"`)
			}
		}
		return "{" + strings.Join(parts, delim) + "}"
	}
	return string(bytes.Clone(v.B))
}
