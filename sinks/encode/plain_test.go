package encode

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
)

// binlogTable has the seven columns of the budget as MariaDB's binlog has them, and what else is plain.
func binlogTable(tb testing.TB) *schemas.Table {
	t := &schemas.Table{ID: 7, Version: 3, Schema: "bench", Name: "files", Wire: schemas.WireBinlog, Identity: []int{0}, Routing: []int{1}}
	add := func(name string, c binlog.TableMapColumn) {
		ty, err := binlog.TypeOf(c)
		if err != nil {
			tb.Fatal(err)
		}
		t.Columns = append(t.Columns, schemas.Column{Name: name, Type: ty})
	}
	add("id", binlog.TableMapColumn{Code: binlog.TypeLonglong})
	add("namespace_id", binlog.TableMapColumn{Code: binlog.TypeLonglong})
	add("path", binlog.TableMapColumn{Code: binlog.TypeVarchar, Meta: 800, Collation: 255})
	add("size", binlog.TableMapColumn{Code: binlog.TypeLonglong, Unsigned: true})
	add("deleted", binlog.TableMapColumn{Code: binlog.TypeTiny})
	add("hash", binlog.TableMapColumn{Code: binlog.TypeString, Meta: 0xfe40, Collation: 11})
	add("owner", binlog.TableMapColumn{Code: binlog.TypeVarchar, Meta: 20, Collation: 8}) // latin1
	add("modified", binlog.TableMapColumn{Code: binlog.TypeTimestamp2, Meta: 6})
	return t.Seal()
}

// binlogRow is one image of it.
func binlogRow(id, ns int64, path string, size uint64, deleted int8, hash, owner string) []byte {
	p := binary.LittleEndian.AppendUint64([]byte{0, 0}, uint64(id))
	p = binary.LittleEndian.AppendUint64(p, uint64(ns))
	p = append(binary.LittleEndian.AppendUint16(p, uint16(len(path))), path...)
	p = append(binary.LittleEndian.AppendUint64(p, size), byte(deleted), byte(len(hash)))
	p = append(append(append(p, hash...), byte(len(owner))), owner...)
	return append(p, 0x6b, 1, 0x6c, 0xf9, 1, 0xe2, 0x40)
}

func binlogBatch(tb testing.TB, n int) *pipeline.Batch {
	b := pipeline.NewBatch()
	b.Base, b.Tables = 1877212358656123, []*schemas.Table{binlogTable(tb)}
	for i := range n {
		if i%100 == 0 {
			id := b.PutString(fmt.Sprintf("0-1-%d", 1000+i/100))
			b.Txs = append(b.Txs, pipeline.Tx{ID: id, Position: id, Time: 1795256130123456, First: uint32(i), Ends: true})
		}
		row := b.Put(binlogRow(int64(1_000_000+i), int64(i%97), fmt.Sprintf("/home/user%d/projects/alpha/file-%08d.txt", i%31, i), uint64(i*37), 0, fmt.Sprintf("%064x", i*7919), "root"))
		b.Events = append(b.Events, pipeline.Event{Op: pipeline.OpInsert, Tx: uint32(len(b.Txs) - 1), Key: pipeline.Nowhere, Before: pipeline.Nowhere, After: row})
	}
	return b
}

// TestPlainIsWhatDecodingGives: the short way and the long one give the same bytes and the same errors.
func TestPlainIsWhatDecodingGives(t *testing.T) {
	table := binlogTable(t)
	plain, long := Options{Source: "files", Form: binlog.Form}, Options{Source: "files", Form: func(t *schemas.Table) *cell.Form {
		f := binlog.Form(t)
		f.Plain = nil
		return f
	}}
	used := binlog.Form(table).Plain
	if want := []cell.Plain{cell.PlainInt, cell.PlainInt, cell.PlainText, cell.PlainUint, cell.PlainInt, cell.PlainASCII, cell.PlainASCII, cell.PlainNone}; fmt.Sprint(used) != fmt.Sprint(want) {
		t.Fatalf("columns are plain as %v, want %v", used, want)
	}
	for i, row := range [][]byte{
		binlogRow(1, -2, "/a", 3, -4, "beef", "root"), binlogRow(-1<<63, 1<<63-1, "", 1<<64-1, -128, "", ""), binlogRow(1, 2, "h\xc3\xa9 \"q\" \x00", 3, 127, "0123456789abcdef", "Ren\xe9"),
		binlogRow(1, 2, "bad \xc3", 3, 4, "x", ""), binlogRow(1, 2, "x", 3, 4, "01234567\xc3\xa9", ""), binlogRow(1, 2, "x", 3, 4, "\x80", "\x81"),
	} {
		for _, json := range []bool{false, true} {
			b := pipetest.One(table, pipeline.OpInsert, nil, row)
			got, err1 := newEncoder(plain, json).Append(nil, b, 0, 0)
			want, err2 := newEncoder(long, json).Append(nil, b, 0, 0)
			if !bytes.Equal(got, want) || fmt.Sprint(err1) != fmt.Sprint(err2) || (err1 != nil) != (i >= 3) {
				t.Errorf("row %d, JSON %t: %x (%v), decoded %x (%v)", i, json, got, err1, want, err2)
			}
		}
	}
}
