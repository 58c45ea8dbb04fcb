package records

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
	"github.com/leat-cdc/leat/sinks/encode"
)

func debeziumEncoder(t testing.TB, o encode.Options) *Encoder {
	t.Helper()
	e, err := New(Options{Options: o, Format: Debezium})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestDebezium(t *testing.T) {
	e := debeziumEncoder(t, encode.Options{Source: "files", Form: pgtext.Form})
	b := pipetest.WideBatch(3)
	key, value := appendOne(t, e, b, 0, 0, "")
	const source = `"source":{"version":"leat","connector":"postgresql","name":"files","db":"","schema":"public","table":"files","snapshot":"false","ts_ms":1795256130123,"ts_us":1795256130123456,"position":"0/16B3748","sequence":1877212358656123,"txId":"23803720000"}`
	want := `{"before":null,"after":{"id":1000000,"namespace_id":0,"path":"/home/user0/projects/alpha/file-00000000.txt","size":0,"deleted":false,"hash":"` + strings.Repeat("0", 64) +
		`","modified":"2026-11-21T10:15:30.123456Z"},` + source + `,"op":"c","ts_ms":1795256130123,"transaction":null}`
	if string(key) != `{"id":1000000}` || string(value) != want {
		t.Errorf("%s\n%s\nwant\n%s", key, value, want)
	}
	b.Events[1].Op, b.Events[1].After = pipeline.OpSchema, b.Put([]byte(`{"columns":[],"statement":"ALTER \"x\""}`))
	b.Events[2] = pipeline.Event{Op: pipeline.OpMessage, Table: pipeline.NoTable, Before: b.Put([]byte("p")), After: b.Put([]byte{0xff})}
	for i, want := range map[int]string{1: `{"ddl":"ALTER \"x\"",`, 2: `{"message":{"prefix":"p","content":"/w=="},`} {
		if key, value := appendOne(t, e, b, i, 0, ""); key != nil || !strings.HasPrefix(string(value), want) || !json.Valid(value) {
			t.Errorf("%s %s", key, value)
		}
	}
}

// Whatever a row holds, the record is JSON, and what is absent says so.
func TestDebeziumValues(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := &pipetest.Values{}
		c, at, _ := anyColumn(rt, f, "c")
		tab := &schemas.Table{ID: 1, Schema: "d", Name: "t", Wire: schemas.WirePGText, Identity: []int{0}, Columns: []schemas.Column{{Name: "id", Type: schemas.Type{Kind: schemas.KindInt, Bits: 32}}, c}}
		row := []byte{f.Put(cell.Value{Kind: schemas.KindInt, Bits: 32, N: 5}), at}
		_, value := appendOne(t, debeziumEncoder(t, encode.Options{Source: "s", Form: f.Form}), pipetest.One(tab.Seal(), pipeline.OpUpdate, row, row), 0, 0, "")
		var e struct{ Before, After map[string]any }
		if err := json.Unmarshal(value, &e); err != nil {
			rt.Fatalf("%s: %v", value, err)
		}
		got, there := e.After[c.Name]
		state := f.At(at).State
		if !there || (state == cell.Null) != (got == nil) || (state == cell.Absent) != (got == "__debezium_unavailable_value") || e.Before["id"] != 5.0 {
			rt.Fatalf("%s", value)
		}
	})
}

// Plans are bounded, and each table version has its own.
func TestPlansAreBounded(t *testing.T) {
	topic := debeziumEncoder(t, encode.Options{Source: "s", Form: pgtext.Form}).Topic("t")
	for i := range maxPlans + 10 {
		table := &schemas.Table{ID: 1, Version: uint32(i + 1), Schema: "d", Name: "t", Wire: schemas.WirePGText}
		p, err := topic.planOf(t.Context(), table)
		if err != nil || p.table != table {
			t.Fatal(p, err)
		}
		if again, err := topic.planOf(t.Context(), table); again != p || err != nil {
			t.Fatal("made twice", err)
		}
	}
	n := 0
	topic.plans.Range(func(any, any) bool { n++; return true })
	if n != 10 {
		t.Errorf("%d plans are kept", n)
	}
}
