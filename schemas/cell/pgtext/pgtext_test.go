package pgtext

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// col is one column of a hand-made tuple: nil for NULL, absent for unchanged.
type col any

type absent struct{}

func tuple(cols ...col) []byte {
	p := binary.BigEndian.AppendUint16(nil, uint16(len(cols)))
	for _, c := range cols {
		switch v := c.(type) {
		case nil:
			p = append(p, TagNull)
		case absent:
			p = append(p, TagUnchanged)
		case string:
			p = append(p, TagText)
			p = binary.BigEndian.AppendUint32(p, uint32(len(v)))
			p = append(p, v...)
		}
	}
	return p
}

func base(oid uint32, mod int32, name string) *Facts {
	return &Facts{OID: oid, Mod: mod, Name: name, TypName: name, TypType: 'b', Delim: ','}
}

func table(facts ...*Facts) *schemas.Table {
	t := &schemas.Table{Schema: "public", Name: "t", Wire: schemas.WirePGText}
	for i, f := range facts {
		t.Columns = append(t.Columns, schemas.Column{Name: fmt.Sprintf("c%d", i), Type: TypeOf(f)})
	}
	return t
}

func TestWalk(t *testing.T) {
	tab := table(base(oidInt4, -1, "integer"), base(oidText, -1, "text"), base(oidText, -1, "text"), base(oidText, -1, "text"))
	image := tuple("42", nil, absent{}, "")
	refs, err := Form(tab).Walk(image, nil, 4)
	if err != nil {
		t.Fatal(err)
	}
	if string(refs[0].Of(image)) != "42" || !refs[1].Null() || !refs[2].Absent() || refs[3].Len != 0 || refs[3].Null() {
		t.Errorf("%+v", refs)
	}
	if refs, err := Form(tab).Walk(image, refs, 2); err != nil || len(refs) != 2 {
		t.Errorf("%v, %v", refs, err)
	}
	for n := range image {
		if _, err := Form(tab).Walk(image[:n], nil, 4); err == nil {
			t.Errorf("cut at %d: no error", n)
		}
	}
	for _, bad := range [][]byte{append(tuple("1", "2", "3", "4"), 0), tuple("1"), {0, 4, 'b', 0, 0, 0, 0}, {0, 4, 'x'}, {0, 4, 't', 255, 255, 255, 255}} {
		if _, err := Form(tab).Walk(bad, nil, 4); err == nil {
			t.Errorf("% x: no error", bad)
		}
	}
}

func decode(t *testing.T, f *Facts, raw string) (cell.Value, error) {
	t.Helper()
	var v cell.Value
	err := Form(table(f)).Decode[0](&v, []byte(raw), &cell.Scratch{})
	return v, err
}

func TestBadText(t *testing.T) {
	arr := func(e *Facts) *Facts { return &Facts{OID: 1, Name: e.Name + "[]", TypType: 'b', Array: true, Elem: e} }
	bit4 := base(oidInt4, -1, "integer")
	for _, x := range []struct {
		f   *Facts
		raw []string
	}{
		{base(oidBool, -1, "boolean"), []string{"", "true", "x"}},
		{base(oidInt2, -1, "smallint"), []string{"", "-", "32768", "-32769", "1.0", "+1", " 1", "99999999999999999999999"}},
		{base(oidInt8, -1, "bigint"), []string{"9223372036854775808", "-9223372036854775809", "18446744073709551617"}},
		{base(oidOID, -1, "oid"), []string{"-1", "4294967296"}},
		{base(oidFloat8, -1, "double precision"), []string{"", "0x1p3", "1_0", "1e999", "."}},
		{base(oidNumeric, -1, "numeric"), []string{"", "-", ".5", "5.", "1e5", "nan", "1.2.3"}},
		{base(oidText, -1, "text"), []string{"\xff", "a\xc3"}},
		{base(oidBytea, -1, "bytea"), []string{"", "00", `\x0`, `\x0g`, `\000`}},
		{base(oidBit, 3, "bit(3)"), []string{"012"}},
		{base(oidDate, -1, "date"), []string{"", "2026-13-01", "2026-02-29", "21/11/2026", "2026-11-21x", "0000-01-01", "99999999-01-01"}},
		{base(oidTime, -1, "time"), []string{"", "10:15", "25:00:00", "24:00:00.000001", "10:15:30.", "10:15:30.1234567", "10:61:00"}},
		{base(oidTimestamp, -1, "timestamp"), []string{"", "2026-11-21", "2026-11-21T10:00:00", "2026-11-21 10:00:00+00"}},
		{base(oidTimestamptz, -1, "timestamptz"), []string{"", "2026-11-21 10:00:00", "2026-11-21 10:00:00 CET", "2026-11-21 10:00:00+5"}},
		{arr(bit4), []string{"", "{", "}", "{1", "{1,}", "{,1}", "{1}}", "{1}x", "{{1},2", "{1{2}}", `{"1}`, `{"1"2}`, `{x}`, "[x", `{1\2}`, "{{{{{{{1}}}}}}}"}},
		{&Facts{OID: 9, Name: "public.vector(3)", TypName: "vector", TypType: 'b', Mod: 3}, []string{"", "[", "1,2", "[1,,2]", "[a]", "[1,]"}},
	} {
		for _, raw := range x.raw {
			if v, err := decode(t, x.f, raw); err == nil {
				t.Errorf("%s %q: no error, %+v", x.f.Name, raw, v)
			} else if raw != "" && len(raw) > 3 && strings.Contains(err.Error(), raw) {
				t.Errorf("%s: the error holds the value: %v", x.f.Name, err)
			}
		}
	}
}

func TestDaysAgreeWithTime(t *testing.T) {
	for y := int64(1); y < 10000; y += 13 {
		for m := int64(1); m <= 12; m++ {
			for _, day := range []int64{1, 28, daysIn(y, m)} {
				want := time.Date(int(y), time.Month(m), int(day), 0, 0, 0, 0, time.UTC).Unix() / 86400
				if s := time.Date(int(y), time.Month(m), int(day), 0, 0, 0, 0, time.UTC).Unix(); s%86400 != 0 || daysSince1970(y, m, day) != want {
					t.Fatalf("%d-%d-%d: %d, want %d", y, m, day, daysSince1970(y, m, day), want)
				}
			}
		}
	}
}

func TestExtensions(t *testing.T) {
	ext := func(name, full string) *Facts {
		return &Facts{OID: 70000, Mod: -1, TypName: name, Name: full, TypType: 'b', Delim: ','}
	}
	v, err := decode(t, ext("vector", "public.vector"), "[1,2.5,-3e-05]")
	if err != nil || v.Kind != schemas.KindVector || len(v.Elems) != 3 || v.Elems[1].Float() != 2.5 || v.Elems[2].Bits != 32 {
		t.Errorf("%+v, %v", v, err)
	}
	v, err = decode(t, ext("geometry", "public.geometry(Point,4326)"), "0101000000")
	if err != nil || v.Kind != schemas.KindBytes || string(v.B) != "\x01\x01\x00\x00\x00" {
		t.Errorf("%+v, %v", v, err)
	}
	for name, kind := range map[string]schemas.Kind{"citext": schemas.KindText, "hstore": schemas.KindUnknown, "halfvec": schemas.KindUnknown, "mystery": schemas.KindUnknown} {
		if got := TypeOf(ext(name, "public."+name)).Kind; got != kind {
			t.Errorf("%s: %s", name, got)
		}
	}
	odd := ext("odd", "public.odd")
	odd.Delim = '|'
	if got := TypeOf(&Facts{TypType: 'b', Array: true, Elem: odd}).Kind; got != schemas.KindUnknown {
		t.Errorf("array with a delimiter of its own: %s", got)
	}
}

func TestTypeOf(t *testing.T) {
	for _, x := range []struct {
		f    *Facts
		want schemas.Type
	}{
		{base(oidNumeric, 10<<16|2+4, "numeric(10,2)"), schemas.Type{Kind: schemas.KindDecimal, Precision: 10, Scale: 2}},
		{base(oidNumeric, 3<<16|(0x7ff&-2)+4, "numeric(3,-2)"), schemas.Type{Kind: schemas.KindDecimal, Precision: 5}},
		{base(oidNumeric, 2<<16|5+4, "numeric(2,5)"), schemas.Type{Kind: schemas.KindDecimal, Precision: 5, Scale: 5}},
		{base(oidVarchar, 14, "character varying(10)"), schemas.Type{Kind: schemas.KindText, Length: 10}},
		{base(oidTimestamp, 3, "timestamp(3) without time zone"), schemas.Type{Kind: schemas.KindDateTime, Length: 3}},
		{base(oidBit, 7, "bit(7)"), schemas.Type{Kind: schemas.KindBits, Length: 7}},
	} {
		got := TypeOf(x.f)
		x.want.Name, x.want.OID, x.want.Mod = x.f.Name, x.f.OID, x.f.Mod
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", x.want) {
			t.Errorf("%+v, want %+v", got, x.want)
		}
	}
	dom := &Facts{OID: 99, Mod: -1, Name: "public.d2", TypType: 'd', Base: &Facts{OID: 98, Mod: -1, Name: "public.d", TypType: 'd', Base: base(oidNumeric, 10<<16|2+4, "numeric(10,2)")}}
	if got := TypeOf(dom); got.Kind != schemas.KindDecimal || got.Precision != 10 || got.OID != 99 || got.Name != "public.d2" {
		t.Errorf("%+v", got)
	}
}

// wide has a column of each scalar family, and arrays.
func wide() (*schemas.Table, []byte) {
	return table(base(oidBool, -1, "bool"), base(oidInt8, -1, "int8"), base(oidNumeric, -1, "numeric"), base(oidFloat8, -1, "float8"),
			base(oidText, -1, "text"), base(oidBytea, -1, "bytea"), base(oidJSONB, -1, "jsonb"), base(oidDate, -1, "date"),
			base(oidTimestamptz, -1, "timestamptz"), base(oidUUID, -1, "uuid"), base(oidBit, 3, "bit"), base(oidTime, -1, "time"),
			&Facts{OID: 1009, Mod: -1, Name: "text[]", TypType: 'b', Array: true, Elem: base(oidText, -1, "text")}),
		tuple("t", "-12345678901", "123.450", "1.25e-7", "hello", `\x00ff`, `{"a": 1}`, "2026-11-21",
			"2026-11-21 10:15:30.123456+00", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "101", "10:15:30", `{a,"b \"c\"",NULL,{}}`)
}

func TestNoAllocations(t *testing.T) {
	tab, image := wide()
	f := Form(tab)
	refs, s := make([]cell.Ref, 0, 16), &cell.Scratch{Buf: make([]byte, 0, 256), Elems: make([]cell.Value, 0, 16)}
	var err error
	if n := testing.AllocsPerRun(100, func() { refs, err = f.Walk(image, refs, len(tab.Columns)) }); n != 0 || err != nil {
		t.Errorf("walk: %v allocations, %v", n, err)
	}
	for i := range tab.Columns[:12] {
		raw := refs[i].Of(image)
		var v cell.Value
		if n := testing.AllocsPerRun(100, func() { s.Reset(); err = f.Decode[i](&v, raw, s) }); n != 0 || err != nil {
			t.Errorf("%s: %v allocations, %v", tab.Columns[i].Type.Name, n, err)
		}
	}
}

func FuzzWalk(f *testing.F) {
	_, image := wide()
	f.Add(image)
	f.Add(tuple(nil, absent{}, ""))
	f.Fuzz(func(t *testing.T, image []byte) {
		if len(image) < 2 {
			return
		}
		n := int(binary.BigEndian.Uint16(image)) % 64
		tab := &schemas.Table{Columns: make([]schemas.Column, n)}
		refs, err := Form(tab).Walk(image, nil, n)
		if err != nil {
			return
		}
		size := 2
		for _, r := range refs {
			size++
			if b := r.Of(image); b != nil {
				size += 4 + len(b)
			}
		}
		if len(refs) != n || size != len(image) {
			t.Fatalf("%d of %d columns, %d of %d bytes", len(refs), n, size, len(image))
		}
	})
}

func FuzzDecode(f *testing.F) {
	tab, image := wide()
	refs, err := Form(tab).Walk(image, nil, len(tab.Columns))
	if err != nil {
		f.Fatal(err)
	}
	for i, r := range refs {
		f.Add(uint8(i), r.Of(image))
	}
	nested := &Facts{TypType: 'b', Array: true, Elem: base(oidBytea, -1, "bytea")}
	tab.Columns = append(tab.Columns, schemas.Column{Type: TypeOf(nested)}, schemas.Column{Type: schemas.Type{Kind: schemas.KindVector}})
	f.Add(uint8(13), []byte(`{{"\\x00",NULL},{"\\xff",""}}`))
	f.Add(uint8(14), []byte("[1,2]"))
	form := Form(tab)
	f.Fuzz(func(t *testing.T, i uint8, raw []byte) {
		var v cell.Value
		s := &cell.Scratch{}
		n := int(i) % len(form.Decode)
		err := form.Decode[n](&v, raw, s)
		if p := form.PlainOf(n); p != cell.PlainNone && (p.Sound(raw) != (err == nil) || err == nil && (v.Kind != schemas.KindText || !bytes.Equal(v.B, raw))) {
			t.Fatalf("column %d: %x, plain %d, decoded %v (%v)", n, raw, p, v, err)
		}
		if err == nil {
			sane(t, &v, raw, s, 0)
		}
	})
}

// sane checks that a value refers only to what it was decoded from.
func sane(t *testing.T, v *cell.Value, raw []byte, s *cell.Scratch, depth int) {
	if depth > maxDepth {
		t.Fatal("nested too deep")
	}
	if len(v.B) > len(raw) {
		t.Fatalf("%d bytes out of %d", len(v.B), len(raw))
	}
	for i := range v.Elems {
		sane(t, &v.Elems[i], raw, s, depth+1)
	}
}
