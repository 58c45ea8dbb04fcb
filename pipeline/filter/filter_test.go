package filter

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/form"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// nodes has a column of each kind that matters here.
func nodes() *schemas.Table {
	col := func(name string, t schemas.Type) schemas.Column {
		return schemas.Column{Name: name, Type: t, Nullable: true}
	}
	return (&schemas.Table{Schema: "public", Name: "nodes", Wire: schemas.WirePGText, Identity: []int{0}, Columns: []schemas.Column{
		col("id", schemas.Type{Kind: schemas.KindInt, Bits: 64, OID: 20}), col("deleted", schemas.Type{Kind: schemas.KindBool, OID: 16}),
		col("path", schemas.Type{Kind: schemas.KindText, OID: 25}), col("price", schemas.Type{Kind: schemas.KindDecimal, OID: 1700}),
		col("ratio", schemas.Type{Kind: schemas.KindFloat, Bits: 64, OID: 701}), col("doc", schemas.Type{Kind: schemas.KindJSON, OID: 114}),
	}}).Seal()
}

// cells makes an image.
func cells(c ...string) pipetest.Row { return pipetest.Row(c) }

func mustCompile(t testing.TB, expr string, tables ...string) *Filter {
	t.Helper()
	p, err := Compile(Options{Expr: expr, Tables: tables, Form: form.Of})
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return p.New()
}

func build(changes ...pipetest.Change) *pipeline.Batch {
	return pipetest.Build(pipeline.Position{Counter: 1}, time.Unix(1, 0), changes)
}

func TestDecisions(t *testing.T) {
	n := nodes()
	absent, null := pipetest.Absent, pipetest.Null
	in, out := cells("1", "f", "/a", "1.5", "0.5", `{"k":1}`), cells("1", "t", "/a", "1.5", "0.5", `{"k":2}`)
	unsent := cells("1", absent, absent, "1.5", "0.5", absent)
	nulls := cells("1", null, null, null, null, null)
	update := func(before, after pipetest.Row) pipetest.Change {
		return pipetest.Change{Op: pipeline.OpUpdate, Table: n, Before: before, After: after}
	}
	insert := func(r pipetest.Row) pipetest.Change {
		return pipetest.Change{Op: pipeline.OpInsert, Table: n, After: r}
	}
	del := pipetest.Change{Op: pipeline.OpDelete, Table: n, Before: in}
	for _, c := range []struct {
		expr   string
		change pipetest.Change
		want   string
	}{
		{`after.deleted == false`, insert(in), "pass"},
		{`after.deleted == false`, insert(out), "drop"},
		{`op == "delete" || after.deleted == false`, del, "pass"},
		{`after.deleted == false`, del, "pass"}, // an image that is not there counts as not sent
		{`op != "delete" && after.deleted == false`, del, "drop"},
		{`after.deleted == false`, update(in, out), "delete"},
		{`after.deleted == false`, update(out, out), "drop"},
		{`after.deleted == false`, update(nil, out), "drop"},    // no proof
		{`after.deleted == false`, update(unsent, out), "drop"}, // no proof
		{`after.deleted == false`, update(out, in), "pass"},
		{`after.deleted == false`, update(in, unsent), "pass"},
		{`after.path.startsWith("/b")`, insert(unsent), "pass"},
		{`after.path.startsWith("/b")`, insert(in), "drop"},
		{`after.path.startsWith("/a") && after.id == 1`, insert(in), "pass"},
		{`after.doc.k == 1`, insert(in), "pass"},
		{`after.doc.k == 1`, update(in, out), "delete"},
		{`has(after.nope)`, insert(in), "drop"},
		{`after.nope == 1`, insert(in), "fail"},
		{`after.id > 0 && after.ratio < 1`, insert(in), "pass"},
		{`after.path == null`, insert(nulls), "pass"},
		{`after.id == 1 && after.ratio > 1.0`, insert(nulls), "fail"},
		{`1 / (after.id - 1) > 0`, insert(in), "fail"},
		{`after == null`, del, "pass"},
		{`before == null`, insert(in), "pass"},
		{`key.id == 1`, del, "pass"},
		{`table == "public.nodes" && op in ["insert", "update"]`, insert(in), "pass"},
		{`time == timestamp(1) && tx.id != ""`, insert(in), "pass"},
		{`before.path != after.path`, update(in, out), "drop"},
		{`size(after) == 6 && after.exists(k, k == "doc")`, insert(in), "pass"},
		{`after.price == "1.5"`, insert(in), "pass"},
		{`after.id > 0`, pipetest.Change{Op: pipeline.OpTruncate, Table: n}, "pass"},
	} {
		f := mustCompile(t, c.expr)
		b := build(c.change)
		runs, fails := f.Select(b, 0, 1, nil, nil)
		if got := verdict(runs, fails); got != c.want {
			t.Errorf("%s on %s: %s, want %s (%v)", c.expr, c.change.Op, got, c.want, fails)
		}
		b.Release()
	}
}

func verdict(runs []pipeline.Run, fails []Failure) string {
	switch {
	case len(fails) > 0:
		return "fail"
	case len(runs) == 0:
		return "drop"
	case runs[0].As == pipeline.OpDelete:
		return "delete"
	}
	return "pass"
}

func TestUnderFullIdentityTheOldRowFillsIn(t *testing.T) {
	n := nodes()
	n.FullBefore = true
	b := build(pipetest.Change{Op: pipeline.OpUpdate, Table: n, Before: cells("1", "f", "/a", "1", "1", "{}"), After: cells("1", "f", pipetest.Absent, "1", "1", "{}")})
	defer b.Release()
	if runs, _ := mustCompile(t, `after.path == "/b"`).Select(b, 0, 1, nil, nil); len(runs) != 0 {
		t.Fatal("a column that the old row holds counts as absent")
	}
}

func TestRunsAreJoined(t *testing.T) {
	n := nodes()
	ins := func(del string) pipetest.Change {
		return pipetest.Change{Op: pipeline.OpInsert, Table: n, After: cells("1", del, "/a", "1", "1", "{}")}
	}
	b := build(ins("f"), ins("f"), ins("t"), ins("f"))
	defer b.Release()
	f := mustCompile(t, `!after.deleted`)
	runs, _ := f.Select(b, 0, 4, nil, nil)
	if fmt.Sprint(len(runs), runs[0].From, runs[0].To, runs[1].From, runs[1].To) != "2 0 2 3 4" {
		t.Fatalf("%+v", runs)
	}
	fails := make([]Failure, 0, 1)
	if n := testing.AllocsPerRun(100, func() { runs, fails = f.Select(b, 0, 4, runs[:0], fails[:0]) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestErrorsNameThePlace(t *testing.T) {
	for expr, want := range map[string]string{
		"op == \"x\" &&\n  afterr.id == 1": "line 2, column 3: undeclared reference to 'afterr'",
		"after.id ==":                      "line 1, column",
		"after.id + 1 == 2 ? 1 : 2":        "line 1, column 1: a filter is true or false, this is of type int",
		"op == 3":                          "line 1, column 4: found no matching overload",
	} {
		_, err := Compile(Options{Expr: expr, Form: form.Of})
		var e *ExprError
		if !errors.As(err, &e) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", expr, err, want)
		}
	}
	if _, err := Compile(Options{Tables: []string{"files"}}); err == nil || !strings.Contains(err.Error(), `"files"`) {
		t.Errorf("a glob without a schema: %v", err)
	}
}

func TestCostIsBounded(t *testing.T) {
	n := nodes()
	doc := "[" + strings.Repeat("1,", 2000) + "1]"
	b := build(pipetest.Change{Op: pipeline.OpInsert, Table: n, After: cells("1", "f", "/a", "1", "1", doc)})
	defer b.Release()
	if _, fails := mustCompile(t, `after.doc.all(x, after.doc.all(y, x == y))`).Select(b, 0, 1, nil, nil); len(fails) != 1 || !strings.Contains(fails[0].Reason, "cost") {
		t.Fatalf("%v", fails)
	}
}

func TestTables(t *testing.T) {
	for _, c := range []struct {
		globs string
		table string
		want  bool
	}{
		{"", "public.files", true}, {"public.*", "public.files", true}, {"public.*", "private.files", false},
		{"public.* !public.tmp_*", "public.tmp_1", false}, {"!public.tmp_*", "public.files", true}, {"!public.tmp_* public.*", "public.tmp_1", false},
		{"public.f?les", "public.files", true}, {"*.*", "a.b", true}, {"pub*.*es", "public.files", true}, {"public.file", "public.files", false},
		{"public.a%2Eb", "public.a.b", true}, {"public.a.b", "public.a.b", true},
	} {
		tables, err := ParseTables(strings.Fields(c.globs))
		if err != nil {
			t.Fatal(err)
		}
		schema, name, _ := strings.Cut(c.table, ".")
		if tables.Match(schema, name) != c.want {
			t.Errorf("%q on %s: want %v", c.globs, c.table, c.want)
		}
	}
}

// drawExpr draws an expression that closures may be able to do.
func drawExpr(t *rapid.T, depth int) string {
	lit := func() string {
		return rapid.SampledFrom([]string{"0", "1", "-1", "2.5", "-0.5", "9007199254740993", `"/a"`, `"1.5"`, `""`, "true", "false", "null"}).Draw(t, "literal")
	}
	col := func() string {
		return rapid.SampledFrom([]string{"before.", "after."}).Draw(t, "image") + rapid.SampledFrom([]string{"id", "deleted", "path", "price", "ratio", "doc", "nope"}).Draw(t, "column")
	}
	if depth > 0 {
		switch rapid.IntRange(0, 3).Draw(t, "node") {
		case 0:
			return "(" + drawExpr(t, depth-1) + " && " + drawExpr(t, depth-1) + ")"
		case 1:
			return "(" + drawExpr(t, depth-1) + " || " + drawExpr(t, depth-1) + ")"
		case 2:
			return "!(" + drawExpr(t, depth-1) + ")"
		}
	}
	switch rapid.IntRange(0, 5).Draw(t, "leaf") {
	case 0:
		return `op == "` + rapid.SampledFrom([]string{"insert", "update", "delete", "x"}).Draw(t, "op") + `"`
	case 1:
		return col()
	case 2:
		return col() + " in [" + lit() + ", " + lit() + "]"
	case 3:
		return lit() + " " + rapid.SampledFrom([]string{"==", "!=", "<", ">="}).Draw(t, "cmp") + " " + col()
	default:
		return col() + " " + rapid.SampledFrom([]string{"==", "!=", "<", "<=", ">", ">="}).Draw(t, "cmp") + " " + lit()
	}
}

// TestClosuresAgreeWithCEL: the fast way is only ever faster.
func TestClosuresAgreeWithCEL(t *testing.T) {
	n := nodes()
	rapid.Check(t, func(rt *rapid.T) {
		expr := drawExpr(rt, 3)
		p, err := Compile(Options{Expr: expr, Form: form.Of})
		if err != nil {
			return // does not type-check
		}
		if p.expr.fast == nil {
			rt.Fatalf("%s is not compiled to closures", expr)
		}
		slow := *p
		slowExpr := *p.expr
		slowExpr.fast = nil
		slow.expr = &slowExpr
		image := func(name string) pipetest.Row {
			if rapid.IntRange(0, 3).Draw(rt, name) == 0 {
				return nil
			}
			r := make(pipetest.Row, 6)
			for i, values := range [][]string{{"0", "1", "-1", "9007199254740993"}, {"t", "f"}, {"/a", "", "/b"}, {"1.5", "NaN"}, {"2.5", "NaN", "-0.5", "Infinity", "1"}, {"1", `"/a"`, "{}", "true", "null"}} {
				r[i] = rapid.SampledFrom(append(values, pipetest.Null, pipetest.Absent)).Draw(rt, "cell")
			}
			return r
		}
		op := rapid.SampledFrom([]pipeline.Op{pipeline.OpInsert, pipeline.OpUpdate, pipeline.OpDelete, pipeline.OpSnapshot}).Draw(rt, "op")
		b := build(pipetest.Change{Op: op, Table: n, Before: image("before"), After: image("after")})
		defer b.Release()
		got, want := verdict(p.New().Select(b, 0, 1, nil, nil)), verdict(slow.New().Select(b, 0, 1, nil, nil))
		if got != want {
			rt.Fatalf("%s: closures say %s, CEL %s", expr, got, want)
		}
	})
}

func benchmarkFilter(b *testing.B, expr string, fast bool) {
	n := nodes()
	changes := make([]pipetest.Change, 1000)
	for i := range changes {
		changes[i] = pipetest.Change{Op: pipeline.OpInsert, Table: n, After: cells("1", "f", "/a", "1.5", "0.5", "{}")}
	}
	batch := build(changes...)
	defer batch.Release()
	f := mustCompile(b, expr)
	if !fast {
		x := *f.p.expr
		x.fast = nil
		p := *f.p
		p.expr = &x
		f = p.New()
	}
	var runs []pipeline.Run
	b.ReportAllocs()
	for b.Loop() {
		runs, _ = f.Select(batch, 0, 1000, runs[:0], nil)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/event")
}

func BenchmarkClosures(b *testing.B) {
	benchmarkFilter(b, `op == "delete" || after.deleted == false`, true)
}
func BenchmarkCEL(b *testing.B) {
	benchmarkFilter(b, `op == "delete" || after.deleted == false`, false)
}

// A filter sees what a logical message says; of an event that is none it cannot tell, so that passes.
func TestMessages(t *testing.T) {
	n := nodes()
	b := pipeline.NewBatch()
	defer b.Release()
	b.Txs = append(b.Txs, pipeline.Tx{ID: b.PutString("7"), Position: b.PutString("0/7"), Ends: true})
	for _, content := range []string{`{"kind":"subscription","name":"a","n":3}`, `not JSON`} {
		b.Events = append(b.Events, pipeline.Event{Op: pipeline.OpMessage, Table: pipeline.NoTable, Key: pipeline.Nowhere, Before: b.PutString("leat.status"), After: b.PutString(content)})
	}
	row := build(pipetest.Change{Op: pipeline.OpInsert, Table: n, After: cells("1", "f", "/a", "1", "1", "{}")})
	defer row.Release()
	for expr, want := range map[string]string{
		`message.content.kind == "subscription"`:                          "pass fail pass",
		`message.content.kind == "source"`:                                "drop fail pass",
		`message.prefix == "leat.status" && message.content.n == 3`:       "pass fail pass",
		`message.prefix == "other"`:                                       "drop drop pass",
		`message.content == "not JSON"`:                                   "drop pass pass",
		`op == "message" && message.prefix == "leat.status"`:              "pass pass drop",
		`op == "insert" ? after.id == 1 : message.prefix == "other"`:      "drop drop pass",
		`message != null && has(message.content.n) || after.path == "/b"`: "pass pass drop", // what depends on an image passes
	} {
		f := mustCompile(t, expr)
		got := ""
		for _, on := range []struct {
			b *pipeline.Batch
			i int
		}{{b, 0}, {b, 1}, {row, 0}} {
			runs, fails := f.Select(on.b, on.i, on.i+1, nil, nil)
			got += " " + verdict(runs, fails)
		}
		if got[1:] != want {
			t.Errorf("%s: %s, want %s", expr, got[1:], want)
		}
	}
	for expr, rows := range map[string]bool{`message.content.kind == "x"`: false, `op == "insert"`: false, `key.id == 1`: true, `after.x == 1`: true, `has(before.x)`: true} {
		p, err := Compile(Options{Expr: expr, Form: form.Of})
		if err != nil || p.OfRows() != rows {
			t.Errorf("%s: of rows is not %v: %v", expr, rows, err)
		}
	}
}
