package binlog_test

import (
	"bytes"
	"encoding/binary"
	"testing"
	"unicode/utf8"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
)

// wide is a table with every layout and every decoder that takes bytes.
func wide() *schemas.Table {
	t := &schemas.Table{Schema: "s", Name: "wide", Wire: schemas.WireBinlog}
	add := func(ty schemas.Type) { t.Columns = append(t.Columns, schemas.Column{Name: "c", Type: ty}) }
	typed := func(c binlog.TableMapColumn) {
		ty, err := binlog.TypeOf(c)
		if err != nil {
			panic(err)
		}
		add(ty)
	}
	for _, c := range []uint8{binlog.TypeTiny, binlog.TypeShort, binlog.TypeInt24, binlog.TypeLong, binlog.TypeLonglong} {
		typed(binlog.TableMapColumn{Code: c})
		typed(binlog.TableMapColumn{Code: c, Unsigned: true})
	}
	for _, c := range []uint8{binlog.TypeYear, binlog.TypeFloat, binlog.TypeDouble, binlog.TypeDate} {
		typed(binlog.TableMapColumn{Code: c})
	}
	for d := range uint16(7) {
		for _, c := range []uint8{binlog.TypeTime2, binlog.TypeDatetime2, binlog.TypeTimestamp2} {
			typed(binlog.TableMapColumn{Code: c, Meta: d})
		}
		for _, c := range []uint8{binlog.TypeTime, binlog.TypeDatetime, binlog.TypeTimestamp} {
			typed(binlog.TableMapColumn{Code: c, Declared: "x(" + string('0'+byte(d)) + ")"})
		}
	}
	for _, m := range []uint16{0x4100 | 30, 0x0a00 | 2, 0x0100, 0x1e00 | 30} {
		typed(binlog.TableMapColumn{Code: binlog.TypeNewDecimal, Meta: m})
	}
	for _, m := range []uint16{0x0001, 0x0005, 0x0100, 0x0701, 0x0800} {
		typed(binlog.TableMapColumn{Code: binlog.TypeBit, Meta: m})
	}
	labels := [][]byte{[]byte("a"), []byte("b"), []byte("c")}
	for _, m := range []uint16{0xf701, 0xf702, 0xf801, 0xf808} {
		typed(binlog.TableMapColumn{Code: binlog.TypeString, Meta: m, Collation: 255, Labels: labels})
	}
	for _, id := range []uint64{63, 8, 255, 28, 35, 54, 56, 60, 1, 13, 12, 98, 19, 249} {
		typed(binlog.TableMapColumn{Code: binlog.TypeString, Meta: 0xfe14, Collation: id})
		typed(binlog.TableMapColumn{Code: binlog.TypeVarchar, Meta: 300, Collation: id})
		typed(binlog.TableMapColumn{Code: binlog.TypeVarcharCompressed, Meta: 300, Collation: id})
		typed(binlog.TableMapColumn{Code: binlog.TypeBlobCompressed, Meta: 2, Collation: id})
		typed(binlog.TableMapColumn{Code: binlog.TypeBlob, Meta: 4, Collation: id})
	}
	for declared, m := range map[string]uint16{"uuid": 0xfe10, "uuid /* old */": 0xfe10, "inet6": 0xfe10, "inet4": 0xfe04} {
		typed(binlog.TableMapColumn{Code: binlog.TypeString, Meta: m, Collation: 63, Declared: declared})
	}
	typed(binlog.TableMapColumn{Code: binlog.TypeVarchar, Meta: 12, Collation: 63, Declared: "vector(3)"})
	for _, c := range []uint8{binlog.TypeJSON, binlog.TypeGeometry, binlog.TypeVector} {
		typed(binlog.TableMapColumn{Code: c, Meta: 4})
	}
	return t
}

// FuzzDecode gives any bytes to every decoder: text must come out as UTF-8, memory stays in proportion.
func FuzzDecode(f *testing.F) {
	table := wide()
	form := binlog.Form(table)
	for _, seed := range [][]byte{
		{}, {0}, {0xff}, []byte("plain"), {0x8a, 1, 0x2c, 0xab, 0xac, 0x1c, 5, 0xc4, 2, 0}, {0x8f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		{0, 1, 0, 12, 0, 11, 0, 1, 0, 5, 1, 0, 'a'}, {2, 2, 0, 10, 0, 4, 1, 0, 5, 0xff, 0xff}, {2, 1, 0, 7, 0, 2, 0, 0}, {15, 246, 3, 2, 1, 0x80, 5},
		{0x81, 0x35, 0xf4, 0x37}, {0xd8, 0, 0xdc, 0}, {0x80, 0, 0, 0, 0, 0, 0, 0}, {0x7f, 0xff, 0xff, 0xff}, bytes.Repeat([]byte{0xff}, 30),
		{0xe6, 0x10, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		raw = raw[:len(raw):len(raw)]
		var s cell.Scratch
		for i, decode := range form.Decode {
			s.Buf, s.Elems = nil, nil
			v := cell.Value{N: 99, B: []byte("old"), State: cell.Absent}
			err := decode(&v, raw, &s)
			switch p := form.PlainOf(i); p {
			case cell.PlainText, cell.PlainASCII:
				if sound := p.Sound(raw); p == cell.PlainText && sound != (err == nil) || sound && (err != nil || v.Kind != schemas.KindText || !bytes.Equal(v.B, raw)) {
					t.Fatalf("column %d (%s): %x is sound: %t; decoded %v (%v)", i, table.Columns[i].Type.Name, raw, sound, v, err)
				}
			case cell.PlainInt, cell.PlainUint:
				n, ok := p.Number(raw)
				if kind := map[cell.Plain]schemas.Kind{cell.PlainInt: schemas.KindInt, cell.PlainUint: schemas.KindUint}[p]; err == nil && (!ok || n != v.N || kind != v.Kind) {
					t.Fatalf("column %d (%s): %x is %d (%t); decoded %v", i, table.Columns[i].Type.Name, raw, n, ok, v)
				}
			}
			if err != nil {
				continue
			}
			if v.State != cell.Present {
				t.Fatalf("column %d (%s): state %d", i, table.Columns[i].Type.Name, v.State)
			}
			switch v.Kind {
			case schemas.KindText, schemas.KindJSON, schemas.KindDecimal, schemas.KindBits:
				if !utf8.Valid(v.B) {
					t.Fatalf("column %d (%s): %x is not UTF-8", i, table.Columns[i].Type.Name, v.B)
				}
			}
			if cap(s.Buf) > 4096+2200*len(raw) {
				t.Fatalf("column %d (%s): %d bytes from %d", i, table.Columns[i].Type.Name, cap(s.Buf), len(raw))
			}
		}
	})
}

// FuzzWalk gives any bytes to Walk and RowLen: cells lie inside, follow each other, and both agree.
func FuzzWalk(f *testing.F) {
	table := wide()
	form := binlog.Form(table)
	layout, err := binlog.NewLayout(table)
	check(f, err)
	n := len(table.Columns)
	nulls := (n + 7) / 8
	all := bytes.Repeat([]byte{0xff}, nulls)
	f.Add(append([]byte{0}, all...))
	f.Add(append([]byte{0}, make([]byte, 2000)...))
	f.Add(append([]byte{1}, make([]byte, nulls)...))
	f.Add(append(append([]byte{1}, all...), make([]byte, 2000)...))
	f.Add(append(append([]byte{1, 0x55, 3, 0, 0, 9}, make([]byte, nulls-5)...), bytes.Repeat([]byte{1}, 300)...))
	f.Fuzz(func(t *testing.T, image []byte) {
		image = image[:len(image):len(image)]
		refs, err := form.Walk(image, nil, n)
		if err == nil {
			checkRefs(t, refs, image, n)
		}
		var half []cell.Ref
		if half, err2 := form.Walk(image, half, n/2); err == nil && (err2 != nil || len(half) != n/2) {
			t.Fatalf("all columns can be walked, half cannot: %v", err2)
		}
		if len(image) <= 1+nulls {
			return
		}
		body, present := image[1:], []byte(nil)
		if image[0] == 1 {
			body, present = image[1+nulls:], image[1:1+nulls]
		}
		size, lenErr := layout.RowLen(body, present)
		if lenErr == nil && (size < 0 || size > len(body)) {
			t.Fatalf("a row of %d bytes in %d", size, len(body))
		}
		if image[0] > 1 {
			return
		}
		if (err == nil) != (lenErr == nil && size == len(body)) {
			t.Fatalf("walk: %v; length: %d of %d, %v", err, size, len(body), lenErr)
		}
		if lenErr == nil { // what RowLen cuts can be walked
			if _, err := form.Walk(image[:len(image)-len(body)+size], refs, n); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func checkRefs(t *testing.T, refs []cell.Ref, image []byte, n int) {
	t.Helper()
	if len(refs) != n {
		t.Fatalf("%d cells of %d", len(refs), n)
	}
	at := uint64(1)
	for _, r := range refs {
		if r.Null() || r.Absent() {
			continue
		}
		if uint64(r.Off) < at || uint64(r.Off)+uint64(r.Len) > uint64(len(image)) {
			t.Fatalf("cell %v outside of what is left of %d bytes", r, len(image))
		}
		at = uint64(r.Off) + uint64(r.Len)
	}
}

// FuzzTableMap reads any bytes as a table map and makes types of what it says.
func FuzzTableMap(f *testing.F) {
	f.Add([]byte{18, 0, 0, 0, 0, 0, 1, 0, 1, 'q', 0, 1, 't', 0, 2, 3, 15, 2, 20, 0, 3, 1, 1, 0x80, 2, 1, 8, 4, 4, 1, 'a', 1, 'b', 8, 1, 0})
	f.Add([]byte{18, 0, 0, 0, 0, 0, 1, 0, 1, 'q', 0, 1, 't', 0, 2, 254, 254, 4, 0xf7, 1, 0xf8, 1, 3, 6, 4, 2, 1, 'a', 0, 5, 3, 1, 1, 'b', 10, 1, 8, 12, 1, 0xc0})
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, mariadb := range []bool{false, true} {
			m, err := binlog.ReadTableMap(body[:len(body):len(body)], mariadb)
			if err != nil {
				continue
			}
			table := &schemas.Table{}
			for _, c := range m.Columns {
				ty, err := binlog.TypeOf(c)
				if err != nil {
					return
				}
				table.Columns = append(table.Columns, schemas.Column{Type: ty})
			}
			for _, i := range m.Identity {
				if i < 0 || i >= len(m.Columns) {
					t.Fatalf("identity column %d of %d", i, len(m.Columns))
				}
			}
			if len(table.Columns) == 0 {
				continue
			}
			if _, err := binlog.NewLayout(table); err != nil {
				t.Fatalf("TypeOf accepted what NewLayout refuses: %v", err)
			}
		}
	})
}

// TestJSONBomb gives containers that share their values, which would grow exponentially.
func TestJSONBomb(t *testing.T) {
	const levels = 18
	var doc []byte
	for range levels { // an array of two that are both the next one
		doc = append(doc, 2, 0, 0, 0, 2)
		doc = append(doc, 10, 0, 2, 10, 0)
	}
	doc = append(doc, 0, 0, 4, 0)
	for i := range levels {
		binary.LittleEndian.PutUint16(doc[i*10+2:], uint16(len(doc)-i*10))
	}
	table := &schemas.Table{Columns: []schemas.Column{{Type: schemas.Type{Kind: schemas.KindJSON, Code: binlog.TypeJSON, Meta: 4}}}}
	var v cell.Value
	var s cell.Scratch
	if err := binlog.Form(table).Decode[0](&v, append([]byte{2}, doc...), &s); err == nil || cap(s.Buf) > 1<<16 {
		t.Errorf("%d bytes of JSON made %d (%v)", len(doc), cap(s.Buf), err)
	}
}
