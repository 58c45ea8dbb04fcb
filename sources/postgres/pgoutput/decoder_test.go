package pgoutput

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
)

// The server's side, as far as tests need it.

type be struct{ p []byte }

func (b *be) u8(v byte) *be    { b.p = append(b.p, v); return b }
func (b *be) u16(v int) *be    { b.p = binary.BigEndian.AppendUint16(b.p, uint16(v)); return b }
func (b *be) u32(v uint32) *be { b.p = binary.BigEndian.AppendUint32(b.p, v); return b }
func (b *be) u64(v LSN) *be    { b.p = binary.BigEndian.AppendUint64(b.p, uint64(v)); return b }
func (b *be) cstr(s string) *be {
	b.p = append(append(b.p, s...), 0)
	return b
}

// tuple appends columns: "-" is NULL, "~" unchanged.
func (b *be) tuple(cols ...string) *be {
	b.u16(len(cols))
	for _, c := range cols {
		switch c {
		case "-":
			b.u8('n')
		case "~":
			b.u8('u')
		default:
			b.u8('t').u32(uint32(len(c)))
			b.p = append(b.p, c...)
		}
	}
	return b
}

func msg(kind byte) *be { return (&be{}).u8(kind) }

func begin(final LSN, xid uint32) []byte { return msg('B').u64(final).u64(1).u32(xid).p }
func commit(end LSN) []byte              { return msg('C').u8(0).u64(end - 1).u64(end).u64(1).p }
func relationMsg(oid uint32, name string, identity byte, cols ...string) []byte {
	b := msg('R').u32(oid).cstr("public").cstr(name).u8(identity).u16(len(cols))
	for i, c := range cols {
		key := byte(0)
		if i == 0 {
			key = 1
		}
		b.u8(key).cstr(c).u32(25).u32(0xffffffff)
	}
	return b.p
}
func insertMsg(oid uint32, cols ...string) []byte { return msg('I').u32(oid).u8('N').tuple(cols...).p }

func plain(rel *Relation) (Shape, error) {
	t := &schemas.Table{Schema: rel.Schema, Name: rel.Name, Wire: schemas.WirePGText}
	for _, c := range rel.Columns {
		t.Columns = append(t.Columns, schemas.Column{Name: c.Name, Type: schemas.Type{Kind: schemas.KindText, OID: c.OID, Mod: c.Mod}})
	}
	return Shape{Table: t}, nil
}

func options() Options {
	return Options{
		After: 100, Counter: 7, Token: func(l LSN) string { return l.String() }, Resolve: plain,
		BatchBytes: 1 << 20, BatchEvents: 8192, Stream: "s",
	}
}

func feed(t interface{ Fatal(...any) }, d *Decoder, messages ...[]byte) {
	for _, m := range messages {
		if err := d.Message(m, 5); err != nil {
			t.Fatal(err)
		}
	}
}

func lines(b *pipeline.Batch) []string {
	var out []string
	for i, e := range b.Events {
		line := e.Op.String()
		if tab := b.TableOf(i); tab != nil {
			line += " " + tab.Name
		}
		for _, s := range []pipeline.Span{e.Before, e.After} {
			if s.Present() {
				line += " " + fmt.Sprintf("%q", b.Bytes(s))
			}
		}
		out = append(out, line)
	}
	return out
}

func image(cols ...string) string { return fmt.Sprintf("%q", (&be{}).tuple(cols...).p) }

// Whatever the sizes of batches and wherever the socket runs dry: the same events in the same transactions, the
// chunks of one in order, and a position only between transactions.
func TestBatchesHoldWhatCame(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		o := options()
		o.BatchBytes = rapid.IntRange(1, 600).Draw(rt, "bytes")
		o.BatchEvents = rapid.IntRange(1, 12).Draw(rt, "events")
		d := NewDecoder(o)
		defer d.Close()
		var want, got []string
		open := map[string][]string{}
		var ends []LSN
		seq := map[string]uint32{}
		take := func() {
			for b := d.Take(); b != nil; b = d.Take() {
				if err := pipetest.CheckBatch(b, pgtext.Form); err != nil {
					rt.Fatal(err)
				}
				var ls []string
				for i, l := range lines(b) {
					tx := b.Txs[b.Events[i].Tx]
					n, last := b.Seq(i)
					id := string(b.Bytes(tx.ID))
					if n != seq[id]+1 {
						rt.Fatalf("event %d of transaction %s comes after %d", n, id, seq[id])
					}
					seq[id] = n
					ls = append(ls, fmt.Sprintf("%s %s %v", id, l, last))
				}
				switch b.Kind {
				case pipeline.BatchRows:
					got = append(got, ls...)
				case pipeline.BatchChunk:
					open[b.Open] = append(open[b.Open], ls...)
				case pipeline.BatchCommit:
					if int(b.Txs[0].Before) != len(open[b.Open]) {
						rt.Fatalf("commit counts %d of %d events", b.Txs[0].Before, len(open[b.Open]))
					}
					got = append(got, open[b.Open]...)
					delete(open, b.Open)
				}
				if !b.End.Zero() {
					lsn, err := parse(b.End.Token)
					if err != nil || !slices.Contains(ends, lsn) {
						rt.Fatalf("position %s is no boundary", b.End.Token)
					}
				}
				b.Release()
			}
		}
		feed(rt, d, begin(101, 1), relationMsg(1, "a", 'd', "id", "v"), relationMsg(2, "b", 'd', "id"), commit(102))
		ends = append(ends, 102)
		lsn := LSN(200)
		for xid := range rapid.IntRange(1, 12).Draw(rt, "transactions") {
			id := uint32(xid + 10)
			feed(rt, d, begin(lsn, id))
			n := rapid.IntRange(0, 30).Draw(rt, "rows")
			for i := range n {
				v := strings.Repeat("x", rapid.IntRange(0, 40).Draw(rt, "length"))
				if rapid.Bool().Draw(rt, "table") {
					feed(rt, d, insertMsg(1, fmt.Sprint(i), v))
					want = append(want, fmt.Sprintf("%d insert a %s %v", id, image(fmt.Sprint(i), v), i == n-1))
				} else {
					feed(rt, d, insertMsg(2, v))
					want = append(want, fmt.Sprintf("%d insert b %s %v", id, image(v), i == n-1))
				}
				if rapid.IntRange(0, 9).Draw(rt, "dry") == 0 {
					d.Flush()
				}
				if rapid.Bool().Draw(rt, "take") {
					take()
				}
			}
			lsn += 10
			ends = append(ends, lsn)
			feed(rt, d, commit(lsn))
			if rapid.Bool().Draw(rt, "flush") {
				d.Flush()
			}
		}
		d.Flush()
		take()
		if !slices.Equal(got, want) || len(open) != 0 {
			rt.Fatalf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

func parse(s string) (LSN, error) {
	var hi, lo uint32
	_, err := fmt.Sscanf(s, "%X/%X", &hi, &lo)
	return LSN(hi)<<32 | LSN(lo), err
}

func all(t *testing.T, d *Decoder) (out []string, notices []pipeline.Notice) {
	t.Helper()
	d.Flush()
	for b := d.Take(); b != nil; b = d.Take() {
		out = append(out, lines(b)...)
		notices = append(notices, b.Notices...)
		b.Release()
	}
	return out, notices
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestImages(t *testing.T) {
	d := NewDecoder(options())
	defer d.Close()
	feed(t, d, begin(200, 1), relationMsg(1, "a", 'd', "id", "v", "w"),
		msg('U').u32(1).u8('N').tuple("1", "~", "-").p,
		msg('U').u32(1).u8('K').tuple("1", "-", "-").u8('N').tuple("2", "~", "x").p,
		msg('U').u32(1).u8('O').tuple("1", "old", "-").u8('N').tuple("1", "~", "~").p,
		msg('D').u32(1).u8('K').tuple("2", "-", "-").p,
		msg('D').u32(1).u8('O').tuple("2", "-", "x").p,
		msg('T').u32(1).u8(0).u32(1).p, commit(201))
	got, _ := all(t, d)
	same(t, got,
		"update a "+image("1", "~", "-"),
		"update a "+image("1", "~", "~")+" "+image("2", "~", "x"),
		"update a "+image("1", "old", "-")+" "+image("1", "old", "-"),
		"delete a "+image("2", "~", "~"),
		"delete a "+image("2", "-", "x"),
		"truncate a")
}

func TestExcludedColumnsLeaveNoTrace(t *testing.T) {
	o := options()
	o.Resolve = func(rel *Relation) (Shape, error) {
		s, err := plain(rel)
		s.Table.Columns = slices.Delete(s.Table.Columns, 1, 2)
		s.Keep = []bool{true, false, true}
		return s, err
	}
	d := NewDecoder(o)
	defer d.Close()
	feed(t, d, begin(200, 1), relationMsg(1, "a", 'f', "id", "secret", "w"), insertMsg(1, "1", "hidden", "x"),
		msg('U').u32(1).u8('O').tuple("1", "hidden", "x").u8('N').tuple("1", "~", "y").p, commit(201))
	d.Flush()
	b := d.Take()
	defer b.Release()
	same(t, lines(b), "insert a "+image("1", "x"), "update a "+image("1", "x")+" "+image("1", "y"))
	if strings.Contains(string(b.Arena[:cap(b.Arena)]), "hidden") {
		t.Error("the value stands in the arena")
	}
}

func TestWhatTheLogHasIsDropped(t *testing.T) {
	d := NewDecoder(options()) // stands at 100
	defer d.Close()
	feed(t, d, begin(90, 1), relationMsg(1, "a", 'd', "id"), insertMsg(1, "old"), commit(100),
		msg('M').u8(0).u64(100).cstr("p").u32(1).u8('x').p,
		begin(100, 2), insertMsg(1, "new"), commit(110),
		msg('M').u8(0).u64(111).cstr("p").u32(1).u8('y').p)
	got, _ := all(t, d)
	same(t, got, "insert a "+image("new"), `message "p" "y"`)
}

func TestShapes(t *testing.T) {
	o := options()
	shape, _ := plain(&Relation{Schema: "public", Name: "a", Columns: []RelationColumn{{Name: "id", OID: 25, Mod: -1}}})
	o.Known = map[string]*schemas.Table{"public.a": shape.Table}
	d := NewDecoder(o)
	defer d.Close()
	feed(t, d,
		begin(50, 1), relationMsg(1, "a", 'd', "older"), insertMsg(1, "0"), commit(60), // dropped: says nothing of now
		begin(200, 2), relationMsg(1, "a", 'd', "id"), insertMsg(1, "1"), commit(201),
		begin(202, 3), relationMsg(1, "a", 'd', "id"), insertMsg(1, "2"), commit(203),
		begin(204, 4), relationMsg(1, "a", 'd', "id", "v"), insertMsg(1, "3", "x"), commit(205))
	d.Flush()
	b := d.Take()
	defer b.Release()
	got := lines(b)
	if len(got) != 4 || !strings.HasPrefix(got[2], `schema a "{\"columns\":`) {
		t.Fatalf("%q", got)
	}
	if b.TableOf(0) != b.TableOf(1) || b.TableOf(1) == b.TableOf(2) || b.TableOf(2) != b.TableOf(3) {
		t.Error("table versions do not follow the shapes")
	}
}

func TestQuarantine(t *testing.T) {
	o := options()
	refuse := true
	o.Resolve = func(rel *Relation) (Shape, error) {
		if rel.Name == "bad" && refuse {
			return Shape{}, &Refused{"columns", "why", "how"}
		}
		return plain(rel)
	}
	d := NewDecoder(o)
	defer d.Close()
	feed(t, d, begin(200, 1), relationMsg(1, "a", 'd', "id"), relationMsg(2, "bad", 'd', "id"), relationMsg(3, "c", 'd', "id"),
		insertMsg(2, "x"), insertMsg(1, "1"), insertMsg(2, "x"), insertMsg(3, "too", "many"), insertMsg(3, "late"), insertMsg(1, "2"), commit(201))
	got, notices := all(t, d)
	same(t, got, "insert a "+image("1"), "insert a "+image("2"))
	if len(notices) != 2 || notices[0].Table != "public.bad" || notices[1].Table != "public.c" || notices[0].Kind != pipeline.NoticeQuarantined {
		t.Errorf("%+v", notices)
	}
	refuse = false
	feed(t, d, begin(300, 2), relationMsg(2, "bad", 'd', "id"), insertMsg(2, "y"), commit(301))
	got, notices = all(t, d)
	same(t, got, "insert bad "+image("y"))
	if len(notices) != 2 || notices[0].Kind != pipeline.NoticeReleased || notices[1].Kind != pipeline.NoticeGap {
		t.Errorf("%+v", notices)
	}
}

func TestBrokenStreams(t *testing.T) {
	for name, messages := range map[string][][]byte{
		"empty":           {{}},
		"unknown":         {{'?'}},
		"begin in begin":  {begin(200, 1), begin(201, 2)},
		"lone commit":     {commit(200)},
		"lone row":        {insertMsg(1, "x")},
		"unknown table":   {begin(200, 1), insertMsg(9, "x")},
		"short begin":     {begin(200, 1)[:9]},
		"short relation":  {relationMsg(1, "a", 'd', "id")[:12]},
		"short truncate":  {begin(200, 1), msg('T').u32(3).u8(0).p},
		"short message":   {msg('M').u8(0).u64(200).cstr("p").u32(50).p},
		"lone tx message": {msg('M').u8(1).u64(200).cstr("p").u32(0).p},
	} {
		d := NewDecoder(options())
		var err error
		for _, m := range messages {
			err = errors.Join(err, d.Message(m, 5))
		}
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		d.Close()
	}
}

func TestNoAllocationsPerRow(t *testing.T) {
	d := NewDecoder(options())
	defer d.Close()
	feed(t, d, begin(101, 1), relationMsg(1, "a", 'f', "id", "v", "w"), insertMsg(1, "0", "x", "y"), commit(102))
	b, e, c := begin(200, 1), insertMsg(1, "1", strings.Repeat("x", 100), "-"), commit(201)
	u := msg('U').u32(1).u8('O').tuple("1", "hello", "x").u8('N').tuple("1", "~", "y").p
	const rows = 500
	transaction := func() {
		feed(t, d, b)
		for range rows {
			feed(t, d, e, u)
		}
		feed(t, d, c)
		d.Flush()
		d.Take().Release()
	}
	transaction() // so that the pool's memory has its size
	if n := testing.AllocsPerRun(20, transaction); n > rows/20 {
		t.Errorf("%.1f allocations for %d rows", n, 2*rows)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(begin(200, 1), insertMsg(1, "1", "x"), commit(201))
	f.Add(relationMsg(1, "a", 'f', "id", "v"), msg('U').u32(1).u8('O').tuple("1", "o").u8('N').tuple("1", "~").p, msg('T').u32(1).u8(0).u32(1).p)
	f.Add(msg('M').u8(0).u64(300).cstr("p").u32(1).u8('x').p, []byte{'O'}, []byte{'Y'})
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		o := options()
		o.BatchBytes = 64
		d := NewDecoder(o)
		defer d.Close()
		feed(t, d, begin(150, 1), relationMsg(1, "a", 'd', "id", "v"), insertMsg(1, "1", "2"))
		for _, m := range [][]byte{a, b, c} {
			if d.Message(m, 5) != nil {
				break
			}
		}
		d.Flush()
		for got := d.Take(); got != nil; got = d.Take() {
			if err := pipetest.CheckBatch(got, pgtext.Form); err != nil && !strings.Contains(err.Error(), "id, position or time") {
				t.Error(err)
			}
			got.Release()
		}
	})
}

// A keepalive counts only between transactions: what follows in the open one has not come yet.
func TestKeepalives(t *testing.T) {
	d := NewDecoder(options())
	defer d.Close()
	d.Advance(150)
	if !d.Behind() || d.Position() != 150 {
		t.Errorf("position %s", d.Position())
	}
	d.Progress()
	b := d.Take()
	if b.End.Token != "0/96" || b.End.Counter != 8 || len(b.Events) != 0 {
		t.Errorf("%+v", b.End)
	}
	b.Release()
	feed(t, d, begin(200, 1), relationMsg(1, "a", 'd', "id"), insertMsg(1, "x"))
	d.Advance(1000)
	if d.Behind() || d.Position() != 150 {
		t.Errorf("position %s within a transaction", d.Position())
	}
	feed(t, d, commit(201))
	d.Advance(120)
	if d.Position() != 201 {
		t.Errorf("position %s", d.Position())
	}
}
