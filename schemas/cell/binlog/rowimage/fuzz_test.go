package rowimage_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
	"github.com/leat-cdc/leat/schemas/cell/binlog/rowimage"
)

// kinds has a column of every type, with the type under which results declare it.
func kinds(t testing.TB) (list []schemas.Column, codes []uint8) {
	t.Helper()
	add := func(code uint8, c binlog.TableMapColumn) {
		c.Name = fmt.Sprintf("c%d", len(list))
		ty, err := binlog.TypeOf(c)
		if err != nil {
			t.Fatal(err)
		}
		list, codes = append(list, schemas.Column{Name: c.Name, Type: ty}), append(codes, code)
	}
	for _, code := range []uint8{binlog.TypeTiny, binlog.TypeShort, binlog.TypeInt24, binlog.TypeLong, binlog.TypeLonglong, binlog.TypeFloat, binlog.TypeDouble, binlog.TypeYear, binlog.TypeDate} {
		add(code, binlog.TableMapColumn{Code: code})
	}
	for _, meta := range []uint16{1 << 8, 10<<8 | 2, 65<<8 | 30, 9<<8 | 9} {
		add(binlog.TypeNewDecimal, binlog.TableMapColumn{Code: binlog.TypeNewDecimal, Meta: meta})
	}
	for digits := range uint16(7) {
		add(binlog.TypeTime, binlog.TableMapColumn{Code: binlog.TypeTime2, Meta: digits})
		add(binlog.TypeDatetime, binlog.TableMapColumn{Code: binlog.TypeDatetime2, Meta: digits})
		add(binlog.TypeTimestamp, binlog.TableMapColumn{Code: binlog.TypeTimestamp2, Meta: digits})
		add(binlog.TypeTime, binlog.TableMapColumn{Code: binlog.TypeTime, Declared: fmt.Sprintf("time(%d)", digits)})
		add(binlog.TypeDatetime, binlog.TableMapColumn{Code: binlog.TypeDatetime, Declared: fmt.Sprintf("datetime(%d)", digits)})
		add(binlog.TypeTimestamp, binlog.TableMapColumn{Code: binlog.TypeTimestamp, Declared: fmt.Sprintf("timestamp(%d)", digits)})
	}
	add(binlog.TypeBit, binlog.TableMapColumn{Code: binlog.TypeBit, Meta: 1<<8 | 3})
	add(binlog.TypeString, binlog.TableMapColumn{Code: binlog.TypeString, Meta: 0xfe0a, Collation: 45})
	add(binlog.TypeString, binlog.TableMapColumn{Code: binlog.TypeString, Meta: 0xfe04, Collation: 63})
	add(binlog.TypeVarString, binlog.TableMapColumn{Code: binlog.TypeVarchar, Meta: 20, Collation: 45})
	add(binlog.TypeVarString, binlog.TableMapColumn{Code: binlog.TypeVarchar, Meta: 2000, Collation: 8})
	add(binlog.TypeVarString, binlog.TableMapColumn{Code: binlog.TypeVarcharCompressed, Meta: 300, Collation: 45})
	add(binlog.TypeBlob, binlog.TableMapColumn{Code: binlog.TypeBlobCompressed, Meta: 2, Collation: 63})
	add(binlog.TypeBlob, binlog.TableMapColumn{Code: binlog.TypeBlob, Meta: 1, Collation: 63})
	add(binlog.TypeBlob, binlog.TableMapColumn{Code: binlog.TypeBlob, Meta: 4, Collation: 45})
	add(binlog.TypeJSON, binlog.TableMapColumn{Code: binlog.TypeJSON, Meta: 4})
	add(binlog.TypeGeometry, binlog.TableMapColumn{Code: binlog.TypeGeometry, Meta: 4})
	add(binlog.TypeVector, binlog.TableMapColumn{Code: binlog.TypeVector, Meta: 4, Dims: 2})
	add(binlog.TypeLonglong, binlog.TableMapColumn{Code: binlog.TypeString, Meta: 0xf701, Collation: 45, Labels: [][]byte{[]byte("a"), []byte("b")}})
	add(binlog.TypeLonglong, binlog.TableMapColumn{Code: binlog.TypeString, Meta: 0xf808, Collation: 45, Labels: [][]byte{[]byte("a"), []byte("b")}})
	for _, declared := range []string{"uuid", "uuid /* old */", "inet6", "inet4"} {
		meta := uint16(0xfe10)
		if declared == "inet4" {
			meta = 0xfe04
		}
		add(binlog.TypeString, binlog.TableMapColumn{Code: binlog.TypeString, Meta: meta, Collation: 63, Declared: declared})
	}
	return list, codes
}

// FuzzAppend: whatever a server sends, there is an error or an image that can be walked whole.
func FuzzAppend(f *testing.F) {
	all, codes := kinds(f)
	f.Add([]byte{0, 2}, byte(0), []byte{0, 0, 1, 1, 0})
	for i := range all {
		f.Add([]byte{byte(i)}, byte(0), append([]byte{0, 0}, 8, 1, 2, 3, 4, 5, 6, 7, 8))
		f.Add([]byte{byte(i), byte(i)}, byte(1), append([]byte{0, 4}, "\x0500.50"...))
	}
	f.Fuzz(func(t *testing.T, pick []byte, dropped byte, row []byte) {
		table := &schemas.Table{Schema: "s", Name: "t"}
		var have []uint8
		for i, p := range pick[:min(len(pick), 20)] {
			c := all[int(p)%len(all)]
			if c.Dropped = dropped&(1<<(i%8)) != 0; !c.Dropped {
				have = append(have, codes[int(p)%len(all)])
			}
			table.Columns = append(table.Columns, c)
		}
		m, err := rowimage.New(table, have)
		if err != nil {
			return
		}
		image, err := m.Append([]byte("before"), row)
		if err != nil {
			return
		}
		image = image[len("before"):]
		form := binlog.Form(table)
		refs, err := form.Walk(image, nil, len(table.Columns))
		if err != nil {
			t.Fatalf("%v: of %x came %x", err, row, image)
		}
		var s cell.Scratch
		for i, r := range refs {
			if r.Absent() != table.Columns[i].Dropped {
				t.Fatalf("column %d: absent %v", i, r.Absent())
			}
			if b := r.Of(image); b != nil {
				var v cell.Value
				_ = form.Decode[i](&v, b, &s) // values that no server sends may be refused
			}
		}
	})
}

func TestAppendTakesNoMemory(t *testing.T) {
	all, codes := kinds(t)
	at := slices.Index(codes, binlog.TypeNewDecimal) + 1
	table := &schemas.Table{Schema: "s", Name: "t", Columns: []schemas.Column{all[4], all[at], all[slices.Index(codes, binlog.TypeDatetime)]}}
	m, err := rowimage.New(table, []uint8{codes[4], codes[at], binlog.TypeDatetime})
	if err != nil {
		t.Fatal(err)
	}
	row := append([]byte{0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, "\x05-1.50\x04\xea\x07\x0b\x15"...)
	dst := make([]byte, 0, 1000)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := m.Append(dst, row); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a row", n)
	}
}
