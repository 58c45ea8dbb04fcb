package encode

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

func decode(t testing.TB, p []byte) *leatv1.Event {
	t.Helper()
	var e leatv1.Events
	if err := proto.Unmarshal(p, &e); err != nil || len(e.Events) != 1 || len(e.ProtoReflect().GetUnknown()) > 0 {
		t.Fatalf("%x: %v: %v", p, &e, err)
	}
	noUnknown(t, e.Events[0])
	// What we wrote is as short as what protobuf writes.
	if canonical, _ := proto.Marshal(&e); len(canonical) != len(p) {
		t.Errorf("%d bytes, protobuf needs %d", len(p), len(canonical))
	}
	return e.Events[0]
}

// noUnknown fails when a tag of ours names no field of the generated code.
func noUnknown(t testing.TB, e *leatv1.Event) {
	t.Helper()
	rows := [][]*leatv1.Value{e.Key, e.PartitionKey, e.Before.GetValues(), e.After.GetValues(), e.KeyChange.GetKey()}
	for _, row := range rows {
		for _, v := range row {
			if v.Kind == nil || len(v.ProtoReflect().GetUnknown()) > 0 {
				t.Fatalf("a value of no known kind: %v", v)
			}
		}
	}
	if len(e.ProtoReflect().GetUnknown()) > 0 || len(e.Tx.ProtoReflect().GetUnknown()) > 0 {
		t.Fatalf("unknown fields in %v", e)
	}
}

func TestGoldenProto(t *testing.T) {
	f := &pipetest.Values{}
	id, id2, ns, v := f.Put(number(42)), f.Put(number(43)), f.Put(text("n")), f.Put(text("/a"))
	null, absent := f.Put(cell.Value{State: cell.Null}), f.Put(cell.Value{State: cell.Absent})
	e := Proto(Options{Source: "files", Form: f.Form, Replay: "ab1"})
	const common = ` table: 4 table_version: 2 time_micros: 1795256130123456 position: "0/16B3748" replay: "ab1"`
	const tx = ` tx: { id: "751" seq: 2 }`
	const key = ` key: { integer: 42 } partition_key: { text: "n" }`
	tab := table("path", "body")
	for name, c := range map[string]struct {
		b    *pipeline.Batch
		flag pipeline.Flags
		want string
	}{
		"insert": {pipetest.One(tab, pipeline.OpInsert, nil, []byte{id, ns, v, null}), 0,
			`op: OP_INSERT` + common + tx + key + ` after: { values: { integer: 42 } values: { text: "n" } values: { text: "/a" } values: { null: true } }`},
		"snapshot": {pipetest.One(tab, pipeline.OpSnapshot, nil, []byte{id, ns, v, absent}), 0,
			`op: OP_SNAPSHOT` + common + key + ` after: { values: { integer: 42 } values: { text: "n" } values: { text: "/a" } values: { absent: true } }`},
		"delete half": {pipetest.One(tab, pipeline.OpDelete, []byte{id, ns, absent, absent}, []byte{id2, absent, v, v}), pipeline.FlagKeyChange,
			`op: OP_DELETE` + common + tx + key + ` before: { values: { integer: 42 } values: { text: "n" } values: { absent: true } values: { absent: true } }` +
				` key_change: { offset: 1877212358656124 key: { integer: 43 } partition_key: { text: "n" } }`},
		"truncate": {pipetest.One(tab, pipeline.OpTruncate, nil, nil), 0, `op: OP_TRUNCATE` + common + tx},
		"schema": {pipetest.One(tab, pipeline.OpSchema, nil, []byte(`{"columns":[{"name":"id","type":{"kind":2,"name":"bigint","bits":64}}],"rewrites":true}`)), 0,
			`op: OP_SCHEMA` + common + tx + ` schema_change: { columns: { name: "id" kind: KIND_INT type: "bigint" bits: 64 } rewrites: true }`},
		"message": {pipetest.One(nil, pipeline.OpMessage, []byte("app"), []byte{0xff}), 0,
			strings.Replace(`op: OP_MESSAGE`+common+tx, " table: 4 table_version: 2", "", 1) + ` message: { prefix: "app" content: "\xff" }`},
	} {
		t.Run(name, func(t *testing.T) {
			c.b.Events[0].Flags = c.flag
			p, err := e.Append(nil, c.b, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			var want leatv1.Event
			if err := prototext.Unmarshal([]byte("offset: 1877212358656123 "+c.want), &want); err != nil {
				t.Fatal(err)
			}
			if got := decode(t, p); !proto.Equal(got, &want) {
				t.Fatalf("got  %v\nwant %v", got, &want)
			}
		})
	}
}

func TestProtoValues(t *testing.T) {
	array := func(v ...cell.Value) cell.Value { return cell.Value{Kind: schemas.KindArray, Elems: v} }
	long := strings.Repeat("é", 9000)
	many := make([]cell.Value, 300)
	for i := range many {
		many[i] = text(fmt.Sprint(i))
	}
	for _, v := range []cell.Value{number(0), number(-1), numeric(schemas.KindInt, math.MinInt64), numeric(schemas.KindUint, -1), float(0.1, 32), float(math.NaN(), 64), float(-0.5, 64),
		{Kind: schemas.KindBool, N: 1}, {Kind: schemas.KindBool}, text(""), text(strings.Repeat("x", 124)), text(strings.Repeat("x", 125)), text(strings.Repeat("x", 126)), text(strings.Repeat("x", 128)), text(long),
		bytesOf(schemas.KindDecimal, "1.50"), bytesOf(schemas.KindBytes, "\x00\xff"), bytesOf(schemas.KindBits, "01"), bytesOf(schemas.KindJSON, "{ }"), bytesOf(schemas.KindUnknown, "[1,2)"),
		numeric(schemas.KindDate, -5), numeric(schemas.KindTime, -1), numeric(schemas.KindDateTime, 7), numeric(schemas.KindTimestamp, -7),
		array(), array(number(1), array(text("a"), cell.Value{State: cell.Null})), array(many...), {Kind: schemas.KindVector, Elems: []cell.Value{float(1, 32), float(2, 32)}}} {
		f := &pipetest.Values{}
		id := f.Put(number(1))
		p, err := Proto(Options{Form: f.Form}).Append(nil, pipetest.One(table("v"), pipeline.OpInsert, nil, []byte{id, id, f.Put(v)}), 0, 0)
		if err != nil {
			t.Fatal(v.Kind, err)
		}
		if got, want := decode(t, p).After.Values[2], protoOf(&v); !proto.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	for _, bad := range []cell.Value{text("\xff"), bytesOf(schemas.KindJSON, "\xff"), {Kind: 99}, {Kind: schemas.KindVector, Elems: []cell.Value{number(1)}}, numeric(schemas.KindDate, 1<<40)} {
		f := &pipetest.Values{}
		id := f.Put(number(1))
		if _, err := Proto(Options{Form: f.Form}).Append(nil, pipetest.One(table("v"), pipeline.OpInsert, nil, []byte{id, id, f.Put(bad)}), 0, 0); err == nil {
			t.Errorf("%v was encoded", bad)
		}
	}
}

// protoOf says what a value is in generated code.
func protoOf(v *cell.Value) *leatv1.Value {
	if v.State == cell.Null {
		return &leatv1.Value{Kind: &leatv1.Value_Null{Null: true}}
	}
	s := string(v.B)
	switch v.Kind {
	case schemas.KindBool:
		return &leatv1.Value{Kind: &leatv1.Value_Boolean{Boolean: v.N == 1}}
	case schemas.KindInt:
		return &leatv1.Value{Kind: &leatv1.Value_Integer{Integer: int64(v.N)}}
	case schemas.KindUint:
		return &leatv1.Value{Kind: &leatv1.Value_Unsigned{Unsigned: v.N}}
	case schemas.KindFloat:
		if v.Bits == 32 {
			return &leatv1.Value{Kind: &leatv1.Value_Float32{Float32: float32(v.Float())}}
		}
		return &leatv1.Value{Kind: &leatv1.Value_Float64{Float64: v.Float()}}
	case schemas.KindDecimal:
		return &leatv1.Value{Kind: &leatv1.Value_Decimal{Decimal: s}}
	case schemas.KindBytes:
		return &leatv1.Value{Kind: &leatv1.Value_Blob{Blob: v.B}}
	case schemas.KindBits:
		return &leatv1.Value{Kind: &leatv1.Value_Bits{Bits: s}}
	case schemas.KindJSON:
		return &leatv1.Value{Kind: &leatv1.Value_Json{Json: s}}
	case schemas.KindDate:
		return &leatv1.Value{Kind: &leatv1.Value_DateDays{DateDays: int32(v.N)}}
	case schemas.KindTime:
		return &leatv1.Value{Kind: &leatv1.Value_TimeMicros{TimeMicros: int64(v.N)}}
	case schemas.KindDateTime:
		return &leatv1.Value{Kind: &leatv1.Value_DatetimeMicros{DatetimeMicros: int64(v.N)}}
	case schemas.KindTimestamp:
		return &leatv1.Value{Kind: &leatv1.Value_TimestampMicros{TimestampMicros: int64(v.N)}}
	case schemas.KindArray:
		a := &leatv1.Array{}
		for i := range v.Elems {
			a.Values = append(a.Values, protoOf(&v.Elems[i]))
		}
		return &leatv1.Value{Kind: &leatv1.Value_Array{Array: a}}
	case schemas.KindVector:
		a := &leatv1.Vector{}
		for i := range v.Elems {
			a.Values = append(a.Values, float32(v.Elems[i].Float()))
		}
		return &leatv1.Value{Kind: &leatv1.Value_Vector{Vector: a}}
	}
	return &leatv1.Value{Kind: &leatv1.Value_Text{Text: s}}
}

func TestKindsAndOpsAreTheSameNumbers(t *testing.T) {
	for k, name := range leatv1.Kind_name {
		if want := "KIND_" + strings.ToUpper(schemas.Kind(k).String()); k != 0 && name != want {
			t.Errorf("%d: %s, want %s", k, name, want)
		}
	}
	for o, name := range leatv1.Op_name {
		if want := "OP_" + strings.ToUpper(pipeline.Op(o).String()); o != 0 && name != want {
			t.Errorf("%d: %s, want %s", o, name, want)
		}
	}
}

// Gather gives the same bytes however the batch is cut, shared or not.
func TestGather(t *testing.T) {
	b := pipetest.WideBatch(1000)
	bad := b.Bytes(b.Events[300].After)
	copy(bad[len(bad)-3:], "\xff\xff\xff")
	for _, make := range []func(Options) *Encoder{JSON, Proto} {
		o := options()
		o.Separator = '\n'
		plain := make(o)
		share := NewShare(1 << 30)
		o.Share = share
		shared, other := make(o), make(o)
		o.Share = NewShare(100 << 10) // full after a few chunks
		tight, _ := make(o), make(o)
		o.Share = NewShare(1 << 30)
		alone := make(o)
		b.Retain()
		for _, e := range []*Encoder{plain, shared, other, tight, alone} {
			var g Gathered
			for _, cuts := range [][]uint32{{0, 1000}, {0, 1, 2, 130, 131, 290, 301, 302, 999, 1000}, {0, 500, 1000}} {
				d := &pipeline.Delivery{}
				for i := range len(cuts) - 1 {
					d.Runs = append(d.Runs, pipeline.Run{Batch: b, From: cuts[i], To: cuts[i+1]})
				}
				d.Runs = append(d.Runs, pipeline.Run{Batch: b, From: 5, To: 7, As: pipeline.OpInsert})
				e.Gather(d, &g)
				check(t, plain, d, &g)
			}
			g.Release()
		}
		if share.Used() == 0 {
			t.Error("nothing was shared")
		}
		if n := o.Share.Used(); n != 0 {
			t.Errorf("%d bytes are kept for nobody", n)
		}
	}
}

// A buffer is in no class whose callers it is too small for, and is found again by who needs as much as it was
// made for.
func TestBufferClasses(t *testing.T) {
	for n := 1; n < 1<<12; n++ {
		var p bufferPool
		b := p.get(n)
		if cap(b) < n || n > 16 && cap(b) > n+n/4 {
			t.Fatalf("a buffer of %d for %d", cap(b), n)
		}
		odd := make([]byte, 0, n)
		p.put(odd)
		for class := range p.classes {
			if got, _ := p.classes[class].Get().(*[]byte); got != nil && cap(*got) < classSize(class) {
				t.Fatalf("a buffer of %d stands in the class of %d", cap(*got), classSize(class))
			}
		}
	}
}

func check(t *testing.T, e *Encoder, d *pipeline.Delivery, g *Gathered) {
	t.Helper()
	all := slices.Concat(g.Parts...)
	if len(all) != g.Size || string(g.AppendRange(nil, 0, g.Size)) != string(all) {
		t.Fatalf("%d bytes, size %d", len(all), g.Size)
	}
	start, errs := 0, 0
	err := d.Each(func(i int, b *pipeline.Batch, event int, as pipeline.Op) error {
		want, err := e.Append(nil, b, event, as)
		if err != nil {
			if errs >= len(g.Errs) || g.Errs[errs].Event != i {
				return fmt.Errorf("errors %v", g.Errs)
			}
			errs++
		}
		if got := g.AppendRange(nil, start, int(g.Ends[i])); string(got) != string(want) {
			return fmt.Errorf("event %d: %q, want %q", i, got, want)
		}
		start = int(g.Ends[i])
		return nil
	})
	if err != nil || errs != len(g.Errs) || start != g.Size {
		t.Fatal(err, errs, g.Errs)
	}
}

// The share's memory comes back with the batch.
func TestShareIsGivenBack(t *testing.T) {
	b := pipetest.WideBatch(300)
	o := options()
	o.Share = NewShare(1 << 30)
	var g Gathered
	for range 3 {
		JSON(o).Gather(&pipeline.Delivery{Runs: []pipeline.Run{{Batch: b, To: 300}}}, &g)
	}
	used := o.Share.Used()
	if used == 0 || used > 300*2048 {
		t.Fatalf("%d bytes are shared", used)
	}
	g.Release()
	b.Release()
	if o.Share.Used() != 0 {
		t.Fatalf("%d bytes are still held", o.Share.Used())
	}
}

func TestNoAllocations(t *testing.T) {
	b := pipetest.WideBatch(100)
	for i := range b.Events { // not only the plain path
		if p := b.Bytes(b.Events[i].After); i%3 == 0 {
			copy(p[bytes.Index(p, []byte("/home")):], "\xc3\xa9\"")
		}
	}
	o := options()
	o.Form = pgtext.Form
	for name, e := range map[string]*Encoder{"json": JSON(o), "proto": Proto(o)} {
		var dst []byte
		if n := testing.AllocsPerRun(20, func() {
			for i := range b.Events {
				var err error
				if dst, err = e.Append(dst[:0], b, i, 0); err != nil {
					t.Fatal(err)
				}
			}
		}); n > 0.5 && !raceEnabled {
			t.Errorf("%s: %v allocations per 100 events", name, n)
		}
	}
}
