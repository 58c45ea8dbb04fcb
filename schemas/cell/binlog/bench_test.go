package binlog_test

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
)

// benchRow is a row of 14 columns and about 240 bytes, and its table.
func benchRow(t testing.TB) (*schemas.Table, []byte) {
	table := &schemas.Table{Schema: "s", Name: "files", Wire: schemas.WireBinlog}
	image := []byte{0, 0, 0}
	add := func(name string, c binlog.TableMapColumn, value ...byte) {
		ty, err := binlog.TypeOf(c)
		check(t, err)
		table.Columns = append(table.Columns, schemas.Column{Name: name, Type: ty})
		image = append(image, value...)
	}
	text := func(s string) []byte { return append([]byte{byte(len(s)), 0}, s...) }
	u64 := func(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }
	add("id", binlog.TableMapColumn{Code: binlog.TypeLonglong}, u64(123456)...)
	add("ns", binlog.TableMapColumn{Code: binlog.TypeLonglong, Unsigned: true}, u64(77)...)
	add("kind", binlog.TableMapColumn{Code: binlog.TypeTiny}, 1)
	add("mode", binlog.TableMapColumn{Code: binlog.TypeLong}, 1, 2, 3, 4)
	add("path", binlog.TableMapColumn{Code: binlog.TypeVarchar, Meta: 1000, Collation: 255}, text(strings.Repeat("/folder", 8))...)
	add("owner", binlog.TableMapColumn{Code: binlog.TypeVarchar, Meta: 400, Collation: 255}, text("somebody")...)
	add("size", binlog.TableMapColumn{Code: binlog.TypeLonglong}, u64(1<<40)...)
	add("price", binlog.TableMapColumn{Code: binlog.TypeNewDecimal, Meta: 10<<8 | 2}, 0x80, 0x12, 0xd6, 0x87, 0x32)
	add("created", binlog.TableMapColumn{Code: binlog.TypeDatetime2, Meta: 6}, 0x99, 0xbb, 0x6a, 0xa1, 0x6d, 0, 0, 7)
	add("seen", binlog.TableMapColumn{Code: binlog.TypeTimestamp2, Meta: 3}, 0x6b, 1, 0x6c, 0xf9, 0, 10)
	add("ratio", binlog.TableMapColumn{Code: binlog.TypeDouble}, u64(math.Float64bits(0.25))...)
	add("note", binlog.TableMapColumn{Code: binlog.TypeBlob, Meta: 2, Collation: 255}, text(strings.Repeat("words ", 15))...)
	add("hash", binlog.TableMapColumn{Code: binlog.TypeString, Meta: 0xfe14, Collation: 63}, append([]byte{20}, "01234567890123456789"...)...)
	add("day", binlog.TableMapColumn{Code: binlog.TypeDate}, 0x75, 0xd5, 0x0f)
	return table, image
}

func TestNoAllocations(t *testing.T) {
	table, image := benchRow(t)
	f := binlog.Form(table)
	l, err := binlog.NewLayout(table)
	check(t, err)
	refs, err := f.Walk(image, nil, len(table.Columns))
	check(t, err)
	var s cell.Scratch
	var v cell.Value
	row := func() {
		s.Reset()
		if refs, err = f.Walk(image, refs, len(table.Columns)); err != nil {
			t.Fatal(err)
		}
		for i := range refs {
			if err := f.Decode[i](&v, refs[i].Of(image), &s); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := l.RowLen(image[1:], nil); err != nil {
			t.Fatal(err)
		}
	}
	row()
	if n := testing.AllocsPerRun(100, row); n != 0 {
		t.Errorf("%v allocations per row", n)
	}
	sjis := textForm("sjis")
	text := []byte("\x8a\xbf\x8e\x9a abc \xb1")
	doc := []byte{2, 2, 0, 10, 0, 4, 1, 0, 5, 0xff, 0xff}
	jsonForm := binlog.Form(&schemas.Table{Columns: []schemas.Column{{Type: schemas.Type{Kind: schemas.KindJSON, Code: binlog.TypeJSON, Meta: 4}}}})
	if n := testing.AllocsPerRun(100, func() {
		s.Reset()
		check(t, sjis.Decode[0](&v, text, &s))
		check(t, jsonForm.Decode[0](&v, doc, &s))
	}); n != 0 {
		t.Errorf("%v allocations per text and document", n)
	}
}

func BenchmarkRowLen(b *testing.B) {
	table, image := benchRow(b)
	l, err := binlog.NewLayout(table)
	check(b, err)
	b.SetBytes(int64(len(image)))
	for b.Loop() {
		if _, err := l.RowLen(image[1:], nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWalk(b *testing.B) {
	table, image := benchRow(b)
	f := binlog.Form(table)
	var refs []cell.Ref
	var err error
	b.SetBytes(int64(len(image)))
	for b.Loop() {
		if refs, err = f.Walk(image, refs, len(table.Columns)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWalkDecode(b *testing.B) {
	table, image := benchRow(b)
	f := binlog.Form(table)
	var refs []cell.Ref
	var err error
	var s cell.Scratch
	var v cell.Value
	b.SetBytes(int64(len(image)))
	for b.Loop() {
		s.Reset()
		if refs, err = f.Walk(image, refs, len(table.Columns)); err != nil {
			b.Fatal(err)
		}
		for i := range refs {
			if err := f.Decode[i](&v, refs[i].Of(image), &s); err != nil {
				b.Fatal(err)
			}
		}
	}
}
