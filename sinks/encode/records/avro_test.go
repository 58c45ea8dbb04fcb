package records

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"
	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
	"github.com/leat-cdc/leat/schemas/shape"
	"github.com/leat-cdc/leat/sinks/encode"
)

// shelf is a registry in memory.
type shelf struct {
	mu       sync.Mutex
	texts    []string // by id − 1
	under    []string // the subject that each was first registered under
	subjects []string
	calls    int
	fail     error
}

func (s *shelf) Register(_ context.Context, subject string, _ shape.Format, text string) (uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.fail != nil {
		return 0, s.fail
	}
	i := slices.Index(s.texts, text)
	if i < 0 {
		s.texts, s.under = append(s.texts, text), append(s.under, subject)
		i = len(s.texts) - 1
	}
	s.subjects = append(s.subjects, subject)
	return uint32(i + 1), nil
}

func (s *shelf) Versions(_ context.Context, subject string, _ shape.Format) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var texts []string
	for i, at := range s.under {
		if at == subject {
			texts = append(texts, s.texts[i])
		}
	}
	return texts, s.fail
}

// oracle decodes p with goavro, and holds that encoding it again gives the same bytes.
func (s *shelf) oracle(t testing.TB, p []byte) map[string]any {
	t.Helper()
	if len(p) < 5 || p[0] != 0 {
		t.Fatalf("no frame: %x", p)
	}
	codec, err := goavro.NewCodec(s.texts[binary.BigEndian.Uint32(p[1:])-1])
	if err != nil {
		t.Fatal(err)
	}
	native, rest, err := codec.NativeFromBinary(p[5:])
	if err != nil || len(rest) > 0 {
		t.Fatalf("%v, %d bytes left, of %x", err, len(rest), p)
	}
	back, err := codec.BinaryFromNative(nil, native)
	if err != nil || !bytes.Equal(back, p[5:]) {
		t.Fatalf("goavro writes\n%x, we\n%x\n%v: %v", back, p[5:], native, err)
	}
	return native.(map[string]any)
}

func avroEncoder(t testing.TB, o encode.Options) (*Encoder, *shelf) {
	t.Helper()
	s := &shelf{}
	e, err := New(Options{Options: o, Format: Avro, Schemas: s})
	if err != nil {
		t.Fatal(err)
	}
	return e, s
}

func appendOne(t testing.TB, e *Encoder, b *pipeline.Batch, i int, as pipeline.Op, replay string) (key, value []byte) {
	t.Helper()
	w := e.Writer(t.Context(), replay)
	defer w.Close()
	out, rec, err := w.Append(nil, e.Topic("t"), b, i, as)
	if err != nil {
		t.Fatal(err)
	}
	if rec.Key >= 0 {
		key = out[:rec.Key]
	}
	return key, out[max(rec.Key, 0):]
}

func TestAvroEvent(t *testing.T) {
	e, s := avroEncoder(t, encode.Options{Source: "files", Form: pgtext.Form})
	b := pipetest.WideBatch(3)
	key, value := appendOne(t, e, b, 1, 0, "ab1")
	if got := fmt.Sprint(s.oracle(t, key)); got != "map[id:1000001]" {
		t.Error(got)
	}
	got := s.oracle(t, value)
	row := got["after"].(map[string]any)["public.files.Value"].(map[string]any)
	at := time.Date(2026, 11, 21, 10, 15, 30, 123456000, time.UTC)
	if row["id"] != int64(1000001) || !reflect.DeepEqual(row["modified"], map[string]any{"long.timestamp-micros": at}) ||
		!reflect.DeepEqual(row["deleted"], map[string]any{"boolean": false}) {
		t.Error(row)
	}
	if got["op"] != "insert" || got["source"] != "files" || got["table"] != "public.files" || got["sequence"] != int64(1877212358656124) || got["before"] != nil ||
		!reflect.DeepEqual(got["replay"], map[string]any{"string": "ab1"}) || fmt.Sprint(got["tx"]) != "map[public.files.Tx:map[id:23803720000 last:false seq:2]]" || !got["time"].(time.Time).Equal(at) {
		t.Error(got)
	}
	if want := []string{"t-key", "t-value"}; !slices.Equal(s.subjects, want) {
		t.Error(s.subjects)
	}
}

// What is absent is null, and named; a key that one image lacks comes from the other.
func TestAvroAbsent(t *testing.T) {
	e, s := avroEncoder(t, encode.Options{Source: "s", Form: pgtext.Form})
	b := pipetest.WideBatch(1)
	ev := &b.Events[0]
	ev.Op = pipeline.OpUpdate
	absent := func(cells ...string) pipeline.Span {
		p := binary.BigEndian.AppendUint16(nil, 7)
		for i := range 7 {
			if i >= len(cells) || cells[i] == "" {
				p = append(p, pgtext.TagUnchanged)
				continue
			}
			p = append(binary.BigEndian.AppendUint32(append(p, pgtext.TagText), uint32(len(cells[i]))), cells[i]...)
		}
		return b.Put(p)
	}
	ev.Before, ev.After = absent("7"), absent("", "2", "/a", "3", "t", "", "2026-11-21 10:15:30+00")
	key, value := appendOne(t, e, b, 0, 0, "")
	if got := fmt.Sprint(s.oracle(t, key)); got != "map[id:7]" {
		t.Error(got)
	}
	got := s.oracle(t, value)
	if fmt.Sprint(got["absent"]) != "[hash]" || fmt.Sprint(got["before_absent"]) != "[namespace_id path size deleted hash modified]" {
		t.Error(got)
	}
	if after := got["after"].(map[string]any)["public.files.Value"].(map[string]any); after["id"] != int64(7) || after["hash"] != nil {
		t.Error(after)
	}
	ev.Flags = pipeline.FlagKeyChange
	ev.Op = pipeline.OpDelete
	key, value = appendOne(t, e, b, 0, 0, "")
	got = s.oracle(t, value)
	if fmt.Sprint(got["other"]) != "map[long:1877212358656124]" || got["after"] != nil || fmt.Sprint(s.oracle(t, key)) != "map[id:7]" {
		t.Error(got)
	}
}

func TestAvroOther(t *testing.T) {
	e, s := avroEncoder(t, encode.Options{Source: "s", Form: pgtext.Form})
	b := pipetest.WideBatch(3)
	b.Events[0].Op, b.Events[0].After = pipeline.OpTruncate, pipeline.Nowhere
	b.Events[1].Op, b.Events[1].After = pipeline.OpSchema, b.Put([]byte(`{"columns":[],"statement":"ALTER","rewrites":true}`))
	b.Events[2] = pipeline.Event{Op: pipeline.OpMessage, Table: pipeline.NoTable, Before: b.Put([]byte("p")), After: b.Put([]byte{0xff})}
	for i, want := range []string{"op:truncate", "schema_change:map[public.files.SchemaChange:map[rewrites:true statement:map[string:ALTER]]]", "prefix:p"} {
		key, value := appendOne(t, e, b, i, 0, "")
		if got := fmt.Sprint(s.oracle(t, value)); key != nil || !strings.Contains(got, want) {
			t.Errorf("%x %s", key, got)
		}
	}
}

// anyColumn draws a type of either database and a value that its decoder may yield, with what goavro has to read.
func anyColumn(t *rapid.T, f *pipetest.Values, label string) (schemas.Column, byte, any) {
	type typed struct {
		ty   schemas.Type
		v    cell.Value
		name string
		want any
	}
	n := rapid.Int64().Draw(t, label+"n")
	text := func(s string) cell.Value { return cell.Value{Kind: schemas.KindText, B: []byte(s)} }
	str := rapid.String().Draw(t, label+"s")
	digits := rapid.StringMatching(`-?[0-9]{1,35}\.[0-9]{3}`).Draw(t, label+"d")
	number, _ := new(big.Rat).SetString(digits)
	day := rapid.Int64Range(-719162, 2932896).Draw(t, label+"day")
	us := day*86_400_000_000 + rapid.Int64Range(0, 86_399_999_999).Draw(t, label+"us")
	bits := rapid.Float64().Draw(t, label+"f")
	pg := uint32(1)
	all := []typed{
		{schemas.Type{Kind: schemas.KindInt, Bits: 64}, cell.Value{Kind: schemas.KindInt, Bits: 64, N: uint64(n)}, "long", n},
		{schemas.Type{Kind: schemas.KindInt, Bits: 24}, cell.Value{Kind: schemas.KindInt, Bits: 24, N: uint64(n >> 40)}, "int", int32(n >> 40)},
		{schemas.Type{Kind: schemas.KindUint, Bits: 32}, cell.Value{Kind: schemas.KindUint, Bits: 32, N: uint64(uint32(n))}, "long", int64(uint32(n))},
		{schemas.Type{Kind: schemas.KindUint, Bits: 64}, cell.Value{Kind: schemas.KindUint, Bits: 64, N: uint64(n)}, "bytes.decimal", new(big.Rat).SetUint64(uint64(n))},
		{schemas.Type{Kind: schemas.KindBool}, cell.Value{Kind: schemas.KindBool, N: uint64(n) & 1}, "boolean", n&1 == 1},
		{schemas.Type{Kind: schemas.KindDecimal, Precision: 40, Scale: 4, OID: pg}, cell.Value{Kind: schemas.KindDecimal, B: []byte(digits)}, "bytes.decimal", number},
		{schemas.Type{Kind: schemas.KindDecimal, Precision: 40, Scale: 4, OID: pg}, cell.Value{Kind: schemas.KindDecimal, B: []byte("NaN")}, "string", "NaN"},
		{schemas.Type{Kind: schemas.KindDecimal, OID: pg}, cell.Value{Kind: schemas.KindDecimal, B: []byte(digits)}, "string", digits},
		{schemas.Type{Kind: schemas.KindFloat, Bits: 64}, cell.Value{Kind: schemas.KindFloat, Bits: 64, N: math.Float64bits(bits)}, "double", bits},
		{schemas.Type{Kind: schemas.KindFloat, Bits: 32}, cell.Value{Kind: schemas.KindFloat, Bits: 32, N: uint64(math.Float32bits(float32(day)))}, "float", float32(day)},
		{schemas.Type{Kind: schemas.KindText}, text(str), "string", str},
		{schemas.Type{Kind: schemas.KindText, Name: "uuid"}, text("0198f0c2-0000-7000-8000-000000000000"), "string", "0198f0c2-0000-7000-8000-000000000000"},
		{schemas.Type{Kind: schemas.KindBytes}, cell.Value{Kind: schemas.KindBytes, B: []byte(str)}, "bytes", []byte(str)},
		{schemas.Type{Kind: schemas.KindBits}, cell.Value{Kind: schemas.KindBits, B: []byte("0110")}, "string", "0110"},
		{schemas.Type{Kind: schemas.KindJSON}, cell.Value{Kind: schemas.KindJSON, B: []byte(`{"a":1.50}`)}, "string", `{"a":1.50}`},
		{schemas.Type{Kind: schemas.KindUnknown}, cell.Value{Kind: schemas.KindUnknown, B: []byte(str)}, "string", str},
		{schemas.Type{Kind: schemas.KindDate}, cell.Value{Kind: schemas.KindDate, N: uint64(day)}, "int.date", time.Unix(day*86400, 0).UTC()},
		{schemas.Type{Kind: schemas.KindDate}, text("0000-00-00"), "string", "0000-00-00"},
		{schemas.Type{Kind: schemas.KindTime, OID: pg}, cell.Value{Kind: schemas.KindTime, N: 1_500_000}, "long.time-micros", 1500 * time.Millisecond},
		{schemas.Type{Kind: schemas.KindTime, OID: pg}, cell.Value{Kind: schemas.KindTime, N: 86_400_000_000}, "string", "24:00:00"},
		{schemas.Type{Kind: schemas.KindTime}, cell.Value{Kind: schemas.KindTime, N: uint64(-n)}, "long", -n},
		{schemas.Type{Kind: schemas.KindDateTime}, cell.Value{Kind: schemas.KindDateTime, N: uint64(us)}, "long.local-timestamp-micros", us},
		{schemas.Type{Kind: schemas.KindTimestamp}, cell.Value{Kind: schemas.KindTimestamp, N: uint64(us)}, "long.timestamp-micros", time.UnixMicro(us).UTC()},
		{schemas.Type{Kind: schemas.KindTimestamp}, text("infinity"), "string", "infinity"},
		{schemas.Type{Kind: schemas.KindVector}, cell.Value{Kind: schemas.KindVector, Elems: []cell.Value{{Kind: schemas.KindFloat, Bits: 32, N: uint64(math.Float32bits(1.5))}}}, "array", []any{float32(1.5)}},
		{schemas.Type{Kind: schemas.KindArray, OID: pg, Elem: &schemas.Type{Kind: schemas.KindDate, OID: pg}}, cell.Value{Kind: schemas.KindArray, Elems: []cell.Value{
			{Kind: schemas.KindDate, N: uint64(day)}, {State: cell.Null}, text("infinity")}}, "array",
			[]any{map[string]any{"int.date": time.Unix(day*86400, 0).UTC()}, nil, map[string]any{"string": "infinity"}}},
		{schemas.Type{Kind: schemas.KindArray, OID: pg, Elem: &schemas.Type{Kind: schemas.KindText}}, cell.Value{Kind: schemas.KindArray}, "array", []any{}},
		{schemas.Type{Kind: schemas.KindArray, OID: pg, Elem: &schemas.Type{Kind: schemas.KindText}}, text("[0:1]={a,b}"), "string", "[0:1]={a,b}"},
	}
	pick := all[rapid.IntRange(0, len(all)-1).Draw(t, label+"type")]
	col := schemas.Column{Name: label + rapid.SampledFrom([]string{"", "ö", " x", "0"}).Draw(t, label+"name"), Type: pick.ty, Nullable: true}
	switch rapid.IntRange(0, 9).Draw(t, label+"there") {
	case 0:
		return col, f.Put(cell.Value{State: cell.Null}), nil
	case 1:
		return col, f.Put(cell.Value{State: cell.Absent}), nil
	}
	return col, f.Put(pick.v), map[string]any{pick.name: pick.want}
}

// same compares what goavro read; it has no local-timestamp-micros, which are longs to it.
func same(got, want any) bool {
	g, ok := got.(map[string]any)
	w, ok2 := want.(map[string]any)
	if ok && ok2 && len(g) == 1 && len(w) == 1 {
		for k, v := range g {
			x, ok := w[k]
			if !ok && k == "long" {
				x, ok = w["long.local-timestamp-micros"]
			}
			if r, rat := v.(*big.Rat); rat && ok {
				return r.Cmp(x.(*big.Rat)) == 0
			}
			if at, is := v.(time.Time); is && ok {
				return at.Equal(x.(time.Time))
			}
			if f, is := v.(float64); is && ok && f != f {
				return math.IsNaN(x.(float64))
			}
			if list, is := v.([]any); is && ok {
				return slices.EqualFunc(list, x.([]any), func(a, b any) bool { return reflect.DeepEqual(a, b) || same(a, b) })
			}
			return ok && reflect.DeepEqual(v, x)
		}
	}
	return reflect.DeepEqual(got, want)
}

// Rows of any types and values are read back by goavro as they are, and goavro writes the same bytes.
func TestAvroValues(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := &pipetest.Values{}
		tab := &schemas.Table{ID: 1, Version: 1, Schema: "my db", Name: "t", Wire: schemas.WirePGText, Identity: []int{0}}
		tab.Columns = []schemas.Column{{Name: "id", Type: schemas.Type{Kind: schemas.KindInt, Bits: 32}}}
		row := []byte{f.Put(cell.Value{Kind: schemas.KindInt, Bits: 32, N: 5})}
		var want []any
		for i := range rapid.IntRange(1, 5).Draw(rt, "columns") {
			c, at, w := anyColumn(rt, f, fmt.Sprintf("c%d", i))
			tab.Columns, row, want = append(tab.Columns, c), append(row, at), append(want, w)
		}
		e, s := avroEncoder(t, encode.Options{Source: "s", Form: f.Form})
		_, value := appendOne(t, e, pipetest.One(tab.Seal(), pipeline.OpInsert, nil, row), 0, 0, "")
		after := s.oracle(t, value)["after"].(map[string]any)["my_db.t.Value"].(map[string]any)
		var names []string
		for i := range tab.Columns {
			names = append(names, tab.Columns[i].Name)
		}
		for i, name := range shape.Names(names)[1:] {
			if !same(after[name], want[i]) {
				rt.Fatalf("column %s %v: got %v (%T), want %v", name, tab.Columns[i+1].Type, after[name], after[name], want[i])
			}
		}
	})
}

// A registry that is down holds the Delivery, costs one call a second, and is not asked for what is known.
func TestRegistryDown(t *testing.T) {
	e, s := avroEncoder(t, encode.Options{Source: "s", Form: pgtext.Form})
	b := pipetest.WideBatch(2)
	known := b.Tables[0]
	s.fail = errors.New("connection refused")
	w := e.Writer(t.Context(), "")
	defer w.Close()
	topic := e.Topic("t")
	for range 10 {
		var de *pipeline.DeliveryError
		if out, _, err := w.Append([]byte("x"), topic, b, 0, 0); !errors.As(err, &de) || de.Class != pipeline.Unavailable || string(out) != "x" {
			t.Fatal(err)
		}
	}
	if s.calls > 2 {
		t.Errorf("%d calls", s.calls)
	}
	topic.mu.Lock()
	topic.known(known).until = time.Time{} // the second is over
	topic.mu.Unlock()
	s.fail = nil
	if _, _, err := w.Append(nil, topic, b, 0, 0); err != nil {
		t.Fatal(err)
	}
	s.fail = errors.New("connection refused")
	if _, _, err := w.Append(nil, topic, b, 1, 0); err != nil {
		t.Fatal(err)
	}
	newer := pipetest.WideTable()
	newer.Version++
	b.Tables[0] = newer
	if _, _, err := w.Append(nil, topic, b, 1, 0); err == nil {
		t.Fatal("a new version needed no registry")
	}
}

// An event that cannot be read is named with its column, not its value.
func TestAvroErrors(t *testing.T) {
	f := &pipetest.Values{}
	id, bad, null := f.Put(cell.Value{Kind: schemas.KindInt, Bits: 32, N: 1}), f.Put(cell.Value{Kind: schemas.KindText, B: []byte("geheim\xff")}), f.Put(cell.Value{State: cell.Null})
	tab := &schemas.Table{Schema: "s", Name: "t", Wire: schemas.WirePGText, Identity: []int{0}, Columns: []schemas.Column{{Name: "id", Type: schemas.Type{Kind: schemas.KindInt, Bits: 32}}, {Name: "path", Type: schemas.Type{Kind: schemas.KindText}}}}
	e, _ := avroEncoder(t, encode.Options{Source: "s", Form: f.Form})
	w := e.Writer(t.Context(), "")
	defer w.Close()
	for _, c := range []struct {
		row    []byte
		column string
	}{{[]byte{id, bad}, "path"}, {[]byte{null, id}, "id"}, {[]byte{id}, ""}, {nil, ""}} {
		out, _, err := w.Append([]byte("x"), e.Topic("t"), pipetest.One(tab, pipeline.OpInsert, nil, c.row), 0, 0)
		var ee *encode.EventError
		if !errors.As(err, &ee) || ee.Column != c.column || strings.Contains(err.Error(), "geheim") || string(out) != "x" {
			t.Errorf("%v: %v", c.row, err)
		}
	}
}

func TestAvroAllocatesNothing(t *testing.T) {
	if raceEnabled {
		return
	}
	e, _ := avroEncoder(t, encode.Options{Source: "files", Form: pgtext.Form})
	b := pipetest.WideBatch(100)
	w := e.Writer(t.Context(), "")
	defer w.Close()
	topic := e.Topic("t")
	dst := make([]byte, 0, 64<<10)
	if n := testing.AllocsPerRun(20, func() {
		for i := range b.Events {
			var err error
			if dst, _, err = w.Append(dst[:0], topic, b, i, 0); err != nil {
				t.Fatal(err)
			}
		}
	}); n > 0 {
		t.Errorf("%v allocations for 100 events", n)
	}
}

func BenchmarkAvro(b *testing.B) {
	e, _ := avroEncoder(b, encode.Options{Source: "files", Form: pgtext.Form})
	benchmarkAppend(b, e, pipetest.WideBatch(1000))
}

func benchmarkAppend(b *testing.B, e *Encoder, batch *pipeline.Batch) {
	w := e.Writer(b.Context(), "")
	defer w.Close()
	topic := e.Topic("t")
	dst := make([]byte, 0, 64<<10)
	b.ReportAllocs()
	size := 0
	for b.Loop() {
		for i := range batch.Events {
			var err error
			if dst, _, err = w.Append(dst[:0], topic, batch, i, 0); err != nil {
				b.Fatal(err)
			}
			size += len(dst)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch.Events)), "ns/event")
	b.ReportMetric(float64(size)/float64(b.N*len(batch.Events)), "B/event")
}
