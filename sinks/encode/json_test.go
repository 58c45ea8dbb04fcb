package encode

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

const head = `{"specversion":"1.0","id":"files-1877212358656123","source":"/sources/files","type":"leat.OP","subject":"public.files",` +
	`"time":"2026-11-21T10:15:30.123456Z","datacontenttype":"application/json","dataschema":"http://leat/schemas/files/public.files/2",` +
	`"partitionkey":"PK","sequence":"00001877212358656123","data":{"op":"OP","table":"public.files",`

const foot = `"tx":{"id":"751","seq":2,"last":false},"position":"0/16B3748"}}`

func golden(op, pk, data string) string {
	return strings.NewReplacer("OP", op, "PK", pk).Replace(head) + data + "," + foot
}

func TestGoldenJSON(t *testing.T) {
	f := &pipetest.Values{}
	id, id2, ns, ns2 := f.Put(number(42)), f.Put(number(43)), f.Put(text(`n"s`)), f.Put(text("n2"))
	v, w, null, absent := f.Put(text("/a")), f.Put(text("/b")), f.Put(cell.Value{State: cell.Null}), f.Put(cell.Value{State: cell.Absent})
	tab := table("path", "body")
	tab.Columns = append(tab.Columns, schemas.Column{Name: "gone", Dropped: true})
	row := func(cells ...byte) []byte { return append(cells, v) }
	e := JSON(Options{Source: "files", PublicURL: "http://leat", Form: f.Form})
	schema, _ := json.Marshal(pipeline.SchemaChange{Columns: []schemas.Column{{Name: "id", Type: schemas.Type{Kind: schemas.KindInt, Name: "bigint"}},
		{Name: "tags", Type: schemas.Type{Kind: schemas.KindArray, Name: "text[]", Elem: &schemas.Type{Kind: schemas.KindText}}, Nullable: true}, {Name: "gone", Dropped: true}},
		Statement: "ALTER …", Rewrites: true})
	for name, c := range map[string]struct {
		b    *pipeline.Batch
		as   pipeline.Op
		flag pipeline.Flags
		want string
	}{
		"insert": {b: pipetest.One(tab, pipeline.OpInsert, nil, row(id, ns, v, null)),
			want: golden("insert", `[\"n\\\"s\"]`, `"key":{"id":42},"before":null,"after":{"id":42,"ns":"n\"s","path":"/a","body":null}`)},
		"update with toast": {b: pipetest.One(tab, pipeline.OpUpdate, nil, row(id, ns2, v, absent)),
			want: golden("update", `[\"n2\"]`, `"key":{"id":42},"before":null,"after":{"id":42,"ns":"n2","path":"/a"},"absent":["body"]`)},
		"update, key only in before": {b: pipetest.One(tab, pipeline.OpUpdate, row(id, ns2, absent, absent), row(absent, absent, w, absent)),
			want: golden("update", `[\"n2\"]`, `"key":{"id":42},"before":{"id":42,"ns":"n2"},"after":{"path":"/b"},"absent":["id","ns","body"]`)},
		"update of a key that stays equal (case)": {b: pipetest.One(tab, pipeline.OpUpdate, row(id, ns2, v, null), row(id, ns, w, null)),
			want: golden("update", `[\"n\\\"s\"]`, `"key":{"id":42},"before":{"id":42,"ns":"n2","path":"/a","body":null},"after":{"id":42,"ns":"n\"s","path":"/b","body":null}`)},
		"delete": {b: pipetest.One(tab, pipeline.OpDelete, row(id, ns2, absent, absent), nil),
			want: golden("delete", `[\"n2\"]`, `"key":{"id":42},"before":{"id":42,"ns":"n2"},"after":null`)},
		"update that left the filter": {b: pipetest.One(tab, pipeline.OpUpdate, row(id, ns2, v, null), row(id, ns2, w, null)), as: pipeline.OpDelete,
			want: golden("delete", `[\"n2\"]`, `"key":{"id":42},"before":{"id":42,"ns":"n2","path":"/a","body":null},"after":null`)},
		"snapshot": {b: pipetest.One(tab, pipeline.OpSnapshot, nil, row(id, ns2, v, null)),
			want: strings.Replace(golden("snapshot", `[\"n2\"]`, `"key":{"id":42},"before":null,"after":{"id":42,"ns":"n2","path":"/a","body":null}`), `{"id":"751","seq":2,"last":false}`, "null", 1)},
		"delete half": {b: pipetest.One(tab, pipeline.OpDelete, row(id, ns2, v, null), row(id2, absent, w, null)), flag: pipeline.FlagKeyChange,
			want: golden("delete", `[\"n2\"]`, `"key":{"id":42},"before":{"id":42,"ns":"n2","path":"/a","body":null},"after":null,`+
				`"key_change":true,"other":{"key":{"id":43},"partitionkey":"[\"n2\"]","id":"files-1877212358656124"}`)},
		"insert half": {b: pipetest.One(tab, pipeline.OpInsert, row(id, ns2, v, null), row(id2, ns, w, absent)), flag: pipeline.FlagKeyChange,
			want: golden("insert", `[\"n\\\"s\"]`, `"key":{"id":43},"before":null,"after":{"id":43,"ns":"n\"s","path":"/b"},"absent":["body"],`+
				`"key_change":true,"other":{"key":{"id":42},"partitionkey":"[\"n2\"]","id":"files-1877212358656122"}`)},
		"truncate": {b: pipetest.One(tab, pipeline.OpTruncate, nil, nil), want: golden("truncate", `[]`, `"key":null,"before":null,"after":null`)},
		"schema": {b: pipetest.One(tab, pipeline.OpSchema, nil, schema), want: golden("schema", `[]`,
			`"columns":[{"name":"id","type":"bigint","kind":"int","nullable":false},{"name":"tags","type":"text[]","kind":"array","nullable":true,"elem":"text"}],"statement":"ALTER …","rewrites":true`)},
		"message": {b: pipetest.One(nil, pipeline.OpMessage, []byte("app"), []byte("hi\n")), want: strings.NewReplacer(`"subject":"public.files",`, "", `"table":"public.files",`, "",
			`"dataschema":"http://leat/schemas/files/public.files/2",`, "").Replace(golden("message", `[]`, `"prefix":"app","content":"hi\n"`))},
		"binary message": {b: pipetest.One(nil, pipeline.OpMessage, []byte("app"), []byte{0xff}), want: strings.NewReplacer(`"subject":"public.files",`, "", `"table":"public.files",`, "",
			`"dataschema":"http://leat/schemas/files/public.files/2",`, "").Replace(golden("message", `[]`, `"prefix":"app","content":"/w==","encoding":"base64"`))},
	} {
		t.Run(name, func(t *testing.T) {
			c.b.Events[0].Flags = c.flag
			got, err := e.Append([]byte("x"), c.b, 0, c.as)
			if err != nil || string(got) != "x"+c.want {
				t.Fatalf("got  %s\nwant x%s\nerror %v", got, c.want, err)
			}
			if !json.Valid(got[1:]) {
				t.Fatal("not JSON")
			}
		})
	}
	if key, partition, err := e.Key(pipetest.One(tab, pipeline.OpInsert, nil, row(id, ns2, v, null)), 0); key != `{"id":42}` || partition != `["n2"]` || err != nil {
		t.Fatal(key, partition, err)
	}
	replay := JSON(Options{Source: "files", PublicURL: "http://leat", Form: f.Form, Replay: "ab1", Separator: '\n'})
	got, err := replay.Append(nil, pipetest.One(tab, pipeline.OpInsert, nil, row(id, ns2, v, null)), 0, 0)
	if err != nil || !strings.HasSuffix(string(got), `"position":"0/16B3748","replay":{"job":"ab1"}}}`+"\n") {
		t.Fatal(string(got), err)
	}
}

func TestLastOfTransaction(t *testing.T) {
	b := pipetest.WideBatch(150)
	e := JSON(options())
	for i, want := range map[int]string{0: `"seq":1,"last":false`, 99: `"seq":100,"last":true`, 100: `"seq":1,"last":false`, 149: `"seq":50,"last":true`} {
		if got, err := e.Append(nil, b, i, 0); err != nil || !strings.Contains(string(got), want) {
			t.Errorf("event %d: %s %v", i, got, err)
		}
	}
}

// value encodes one value.
func value(t testing.TB, v cell.Value, o Options) (string, error) {
	t.Helper()
	st := JSON(o).state()
	got, err := st.jsonValue(nil, &v, 0)
	return string(got), err
}

func TestValues(t *testing.T) {
	day := int64(86_400_000_000)
	array := func(v ...cell.Value) cell.Value { return cell.Value{Kind: schemas.KindArray, Elems: v} }
	for _, c := range []struct {
		v    cell.Value
		want string
	}{
		{numeric(schemas.KindInt, math.MinInt64), "-9223372036854775808"},
		{numeric(schemas.KindUint, -1), "18446744073709551615"},
		{cell.Value{Kind: schemas.KindBool, N: 1}, "true"}, {cell.Value{Kind: schemas.KindBool}, "false"},
		{bytesOf(schemas.KindDecimal, "-00.10"), `"-00.10"`}, {bytesOf(schemas.KindDecimal, "NaN"), `"NaN"`},
		{float(0.1, 64), "0.1"}, {float(0.1, 32), "0.1"}, {float(1e300, 64), "1e+300"}, {float(5e-324, 64), "5e-324"}, {float(math.Copysign(0, -1), 64), "-0"},
		{float(123456789, 64), "123456789"}, {float(math.NaN(), 64), `"NaN"`}, {float(math.Inf(1), 32), `"Infinity"`}, {float(math.Inf(-1), 64), `"-Infinity"`},
		{text("a\"b\\c\x00\x1f\n\r\t\b\f\x7fé\U0001F600\u2028</script>"), `"a\"b\\c\u0000\u001f\n\r\t\b\f` + "\x7fé\U0001F600\u2028" + `</script>"`},
		{text(""), `""`}, {bytesOf(schemas.KindBytes, "\x00\xff"), `"AP8="`}, {bytesOf(schemas.KindBits, "0101"), `"0101"`},
		{bytesOf(schemas.KindUnknown, "[1,2)"), `"[1,2)"`},
		{bytesOf(schemas.KindJSON, " { \"a\" : [ 1.50 , -0e+10, true,null , \"x \\u00e9 é\" ] ,\n\"a\":{} } "), `{"a":[1.50,-0e+10,true,null,"x \u00e9 é"],"a":{}}`},
		{numeric(schemas.KindDate, 0), `"1970-01-01"`}, {numeric(schemas.KindDate, firstDay), `"0001-01-01"`}, {numeric(schemas.KindDate, pastDay-1), `"9999-12-31"`},
		{numeric(schemas.KindTime, 36930_500_000), `"10:15:30.5"`}, {numeric(schemas.KindTime, day), `"24:00:00"`}, {numeric(schemas.KindTime, -3020399_000001), `"-838:59:59.000001"`},
		{numeric(schemas.KindDateTime, -1), `"1969-12-31T23:59:59.999999"`}, {numeric(schemas.KindTimestamp, 951_782_400_000_000), `"2000-02-29T00:00:00Z"`},
		{array(array(number(1), cell.Value{State: cell.Null}), array()), "[[1,null],[]]"},
		{cell.Value{Kind: schemas.KindVector, Elems: []cell.Value{float(0.1, 32), float(-3, 32)}}, "[0.1,-3]"},
	} {
		got, err := value(t, c.v, Options{})
		if err != nil || got != c.want {
			t.Errorf("%v %q: %s, want %s; %v", c.v.Kind, c.v.B, got, c.want, err)
		}
	}
	for v, want := range map[*cell.Value]string{{Kind: schemas.KindInt, Bits: 64, N: 1}: `"1"`, {Kind: schemas.KindUint, Bits: 64, N: 1 << 63}: `"9223372036854775808"`, {Kind: schemas.KindInt, Bits: 32, N: 1}: "1"} {
		if got, _ := value(t, *v, Options{Int64AsString: true}); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	deep := array()
	for range 100 {
		deep = array(deep)
	}
	for _, bad := range []cell.Value{text("a\xffb"), text("12345678\xc3"), bytesOf(schemas.KindJSON, "{"), bytesOf(schemas.KindJSON, ""), bytesOf(schemas.KindJSON, `{"a":1,}`),
		bytesOf(schemas.KindJSON, "[01]"), bytesOf(schemas.KindJSON, "1 2"), bytesOf(schemas.KindJSON, "\"\n\""), bytesOf(schemas.KindJSON, strings.Repeat("[", 20_000)), bytesOf(schemas.KindJSON, "\"\xff\""),
		numeric(schemas.KindDate, pastDay), numeric(schemas.KindTimestamp, math.MinInt64), {Kind: 99}, deep} {
		if got, err := value(t, bad, Options{}); err == nil {
			t.Errorf("%v %q became %s", bad.Kind, bad.B, got)
		}
	}
}

// Dates agree with the standard library over the whole range.
func TestDates(t *testing.T) {
	for d := int64(firstDay); d < pastDay; d += 97 {
		got, ok := appendDate(nil, d)
		if want := time.Unix(d*86_400, 0).UTC().Format("2006-01-02"); !ok || string(got) != want {
			t.Fatalf("day %d: %s, want %s", d, got, want)
		}
	}
}

func TestErrorsNameTheColumn(t *testing.T) {
	f := &pipetest.Values{}
	id, bad := f.Put(number(1)), f.Put(text("geheim\xff"))
	for _, e := range []*Encoder{JSON(Options{Source: "s", Form: f.Form}), Proto(Options{Source: "s", Form: f.Form})} {
		dst := []byte("before")
		got, err := e.Append(dst, pipetest.One(table("path"), pipeline.OpInsert, nil, []byte{id, id, bad}), 0, 0)
		var ee *EventError
		if !errors.As(err, &ee) || ee.Column != "path" || strings.Contains(err.Error(), "geheim") || string(got) != "before" {
			t.Fatal(err, string(got))
		}
		if _, err := e.Append(nil, pipetest.One(table("path"), pipeline.OpInsert, nil, []byte{bad, id, id}), 0, 0); !errors.As(err, &ee) || ee.Column != "id" {
			t.Fatal(err)
		}
		if _, err := e.Append(nil, pipetest.One(table("path"), pipeline.OpInsert, nil, []byte{id}), 0, 0); err == nil {
			t.Fatal("a row too short was encoded")
		}
		if _, err := e.Append(nil, pipetest.One(table("path"), pipeline.OpInsert, nil, nil), 0, 0); err == nil {
			t.Fatal("an insert without a row was encoded")
		}
	}
}

// A table's plan is made once, however many others there are, and the copies of the map cost no square.
func TestManyTables(t *testing.T) {
	f := &pipetest.Values{}
	e := JSON(Options{Source: "s", Form: f.Form})
	var all []*schemas.Table
	first := map[*schemas.Table]*plan{}
	copies, was := 0, e.plans.Load()
	for round := range 3 {
		for i := range 1000 {
			if round == 0 {
				all = append(all, table("path"))
			}
			p, err := e.planOf(all[i])
			if err != nil {
				t.Fatal(err)
			}
			if round > 0 && p != first[all[i]] {
				t.Fatalf("table %d has another plan", i)
			}
			first[all[i]] = p
			if now := e.plans.Load(); now != was {
				copies, was = copies+1, now
			}
		}
	}
	if copies > 60 || len(*was) != len(all) {
		t.Errorf("%d copies, %d plans at the end", copies, len(*was))
	}
}

func TestProjection(t *testing.T) {
	for _, c := range []struct {
		columns map[string][]string
		want    string
	}{
		{nil, "id ns path secret_a"},
		{map[string][]string{"public.files": {"!secret*"}}, "id ns path"},
		{map[string][]string{"public.*": {"path", "i?"}}, "id path"},
		{map[string][]string{"*.*": {"*", "!ns"}, "public.files": {"!path"}}, "id secret_a"},
		{map[string][]string{"other.files": {"x"}}, "id ns path secret_a"},
	} {
		p := Proto(Options{Columns: c.columns, Form: (&pipetest.Values{}).Form}).Table(table("path", "secret_a"))
		var got []string
		for _, col := range p.Columns {
			got = append(got, col.Name)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%v: %v, want %s", c.columns, got, c.want)
		}
	}
	f := &pipetest.Values{}
	id, s := f.Put(number(1)), f.Put(text("geheim"))
	e := JSON(Options{Source: "s", Form: f.Form, Columns: map[string][]string{"public.files": {"!secret"}}})
	got, err := e.Append(nil, pipetest.One(table("secret"), pipeline.OpUpdate, []byte{id, id, s}, []byte{id, id, s}), 0, 0)
	if err != nil || strings.Contains(string(got), "geheim") || strings.Contains(string(got), "secret") {
		t.Fatal(string(got), err)
	}
}

// FuzzValues: whatever bytes a cell holds, what comes out is JSON that means the same, or an error.
func FuzzValues(f *testing.F) {
	for _, s := range []string{"", "plain", "q\"\\", "é\x00", "\xff", `{"a": [1, 2.50, "x"]}`, "[[[", "1e5", `"\ud800"`, "-", "tru"} {
		for k := range 16 {
			f.Add(uint8(k), []byte(s), uint64(len(s))*0x9e3779b97f4a7c15)
		}
	}
	e := JSON(Options{Source: "s"})
	f.Fuzz(func(t *testing.T, kind uint8, raw []byte, n uint64) {
		v := cell.Value{Kind: schemas.Kind(kind % 18), B: raw, N: n, Bits: 64}
		st := e.state()
		defer e.release(st)
		got, err := st.jsonValue(nil, &v, 0)
		if err != nil {
			if v.Kind == schemas.KindJSON && json.Valid(raw) && utf8.Valid(raw) {
				t.Fatalf("valid JSON %q was refused: %v", raw, err)
			}
			return
		}
		if !json.Valid(got) || !utf8.Valid(got) {
			t.Fatalf("%s %q became %q", v.Kind, raw, got)
		}
		means(t, &v, got)
	})
}

// means checks that the JSON says what the value is.
func means(t *testing.T, v *cell.Value, got []byte) {
	t.Helper()
	switch v.Kind {
	case schemas.KindText, schemas.KindDecimal, schemas.KindUnknown, schemas.KindBits:
		var s string
		if json.Unmarshal(got, &s); s != string(v.B) {
			t.Fatalf("%q reads back as %q", v.B, s)
		}
	case schemas.KindBytes:
		var s string
		json.Unmarshal(got, &s)
		if back, err := base64.StdEncoding.DecodeString(s); err != nil || string(back) != string(v.B) {
			t.Fatalf("%x reads back as %x", v.B, back)
		}
	case schemas.KindInt, schemas.KindUint:
		n, ok := new(big.Int).SetString(string(got), 10)
		if want := new(big.Int).SetUint64(v.N); v.Kind == schemas.KindInt {
			ok = ok && n.Cmp(big.NewInt(int64(v.N))) == 0
		} else {
			ok = ok && n.Cmp(want) == 0
		}
		if !ok {
			t.Fatalf("%d reads back as %s", v.N, got)
		}
	case schemas.KindFloat:
		if f := v.Float(); !math.IsNaN(f) && !math.IsInf(f, 0) {
			if back, err := strconv.ParseFloat(string(got), 64); err != nil || math.Float64bits(back) != v.N {
				t.Fatalf("%v reads back as %s", f, got)
			}
		}
	case schemas.KindJSON:
		var want, have any
		d := json.NewDecoder(strings.NewReader(string(v.B)))
		d.UseNumber()
		h := json.NewDecoder(strings.NewReader(string(got)))
		h.UseNumber()
		if d.Decode(&want) != nil || h.Decode(&have) != nil || !jsonEqual(want, have) {
			t.Fatalf("%q became %q", v.B, got)
		}
	case schemas.KindTimestamp:
		var s string
		json.Unmarshal(got, &s)
		if at, err := time.Parse(time.RFC3339Nano, s); err != nil || at.UnixMicro() != int64(v.N) {
			t.Fatalf("%d became %s", int64(v.N), s)
		}
	}
}

func jsonEqual(a, b any) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

// TestProjectionOfOddNames: what columns: leaves out stays out however the table is written.
func TestProjectionOfOddNames(t *testing.T) {
	odd := table("path", "secret_a")
	odd.Name = "f.i"
	for _, glob := range []string{"public.f%2Ei", "public.f.i", "public.*"} {
		p := Proto(Options{Columns: map[string][]string{glob: {"!secret_a"}}, Form: (&pipetest.Values{}).Form}).Table(odd)
		if len(p.Columns) != 3 {
			t.Errorf("%s leaves %d columns", glob, len(p.Columns))
		}
	}
}
