package ingest

import (
	"slices"
	"testing"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/partition"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
)

// pair is a table with the key (id, namespace_id).
func pair(name string) *schemas.Table {
	t := sourceTable(name)
	t.Identity = []int{0, 1}
	return t
}

func update(t *schemas.Table, before, after pipetest.Row) pipetest.Change {
	return pipetest.Change{Op: pipeline.OpUpdate, Table: t, Before: before, After: after}
}

// TestPartialImages: what an after image lacks is taken from the before image, of the key too; a column that
// one of them lacks has not changed.
func TestPartialImages(t *testing.T) {
	const absent = pipetest.Absent
	files := pair("files")
	r := newRows(Config{Log: pipetest.NewMemoryLog("log", 1), Form: pipetest.PGForm})
	b := pipetest.Build(at(1), epoch, []pipetest.Change{
		insert(files, "1", "7", "/a"),
		update(files, pipetest.Row{"1", "7", absent}, pipetest.Row{absent, absent, "/b"}),
		update(files, pipetest.Row{"1", "7", absent}, pipetest.Row{absent, "8", absent}), // half of the key
		insert(files, "1", "8", "/b"),
		update(files, pipetest.Row{"1", pipetest.Null, absent}, pipetest.Row{"1", "0", absent}), // NULL is a value
	})
	defer b.Release()
	r.prepare(b)
	ops := ""
	for _, e := range b.Events {
		ops += e.Op.String()[:1]
	}
	if ops != "iudiidi" {
		t.Fatalf("events: %s", ops)
	}
	key := func(i int) string { return string(b.Bytes(b.Events[i].Key)) }
	if key(0) != key(1) || key(2) != key(0) || key(3) != key(4) || key(3) == key(0) || key(5) == key(6) {
		t.Fatalf("keys: %x %x %x %x %x %x %x", key(0), key(1), key(2), key(3), key(4), key(5), key(6))
	}
	if len(r.catalog.takeNotices()) > 0 {
		t.Fatal("a notice")
	}
}

// TestTransactionsKeepTheirPlacesInARebuiltBatch: also those without events, and those that lose theirs.
func TestTransactionsKeepTheirPlacesInARebuiltBatch(t *testing.T) {
	files, bad := sourceTable("files"), sourceTable("bad")
	r := newRows(Config{Log: pipetest.NewMemoryLog("log", 1), Form: pipetest.PGForm})
	gone := insert(bad, "1")
	moved := update(files, pipetest.Row{"1", pipetest.Absent, pipetest.Absent}, pipetest.Row{"2", "1", "x"})
	b := pipetest.Build(at(1), epoch, []pipetest.Change{}, []pipetest.Change{insert(files, "1", "1", "x"), moved}, []pipetest.Change{}, []pipetest.Change{gone},
		[]pipetest.Change{moved, gone}, []pipetest.Change{gone}, []pipetest.Change{})
	defer b.Release()
	r.prepare(b)
	var firsts []uint32
	for _, tx := range b.Txs {
		firsts = append(firsts, tx.First)
	}
	want := []uint32{0, 0, 3, 3, 3, 5, 5}
	for i := range want {
		if len(b.Events) != 5 || len(firsts) != len(want) || firsts[i] != want[i] {
			t.Fatalf("%d events, transactions begin at %v, want %v", len(b.Events), firsts, want)
		}
	}
	if seq, last := b.Seq(4); seq != 2 || !last {
		t.Fatalf("the last event is %d, last %v", seq, last)
	}
}

// TestTableWideEventsHaveNoKey: they stand in their table's key space, also when no row of it was ever seen.
func TestTableWideEventsHaveNoKey(t *testing.T) {
	bare := &schemas.Table{Schema: "public", Name: "bare"}
	files := sourceTable("files")
	r := newRows(Config{Log: pipetest.NewMemoryLog("log", 1), Form: pipetest.PGForm,
		Route: Routes{Keys: []KeyRoute{{Table: "public.bare", Columns: []string{"namespace_id"}}}}})
	b := pipetest.Build(at(1), epoch, []pipetest.Change{{Op: pipeline.OpTruncate, Table: bare}, {Op: pipeline.OpTruncate, Table: files}, {Op: pipeline.OpMessage}})
	defer b.Release()
	r.prepare(b)
	if len(b.Events) != 3 || len(b.Notices) > 0 {
		t.Fatalf("%d events, notices %+v", len(b.Events), b.Notices)
	}
	for i, space := range []string{"public.bare", "public.files"} {
		if e := b.Events[i]; e.Key.Present() || e.Hash != partition.SpaceHash(space) {
			t.Errorf("event %d: key %v, hash %x", i, e.Key, e.Hash)
		}
	}
	if b.Events[2].Key.Present() {
		t.Error("a message has a key")
	}
}

// TestReconnectsLeaveNoTablesBehind: each stream brings table versions of its own.
func TestReconnectsLeaveNoTablesBehind(t *testing.T) {
	var steps []pipetest.Step
	for i := 1; i <= 20; i++ {
		own := sourceTable("files")
		steps = append(steps, whole(i, insert(own, "1", "1", "x")), pipetest.Step{Err: &pipeline.SourceError{What: "cut"}})
	}
	l := pipetest.NewMemoryLog("log", 1)
	r := &reader{cfg: Config{Source: pipetest.NewScriptedSource(steps...), Log: l, Form: pipetest.PGForm, Observer: pipeline.Observer{}.Fill()}}
	r.rows = newRows(r.cfg)
	for range 20 {
		if err := r.once(t.Context()); err == nil {
			t.Fatal("the stream did not end")
		}
	}
	if n := len(r.rows.catalog.bySrc); n > 1 {
		t.Fatalf("%d tables of streams that are gone are kept", n)
	}
	if len(l.Tables()) != 1 || l.Tables()[0].Version != 1 {
		t.Fatalf("%d tables", len(l.Tables()))
	}
}

// TestRoutesNameOddTables: by their name or their subject, as tables: does.
func TestRoutesNameOddTables(t *testing.T) {
	for _, glob := range []string{"public.*", "public.a/[b%2Ec", "public.a%2F%5Bb%2Ec"} {
		r := Routes{Keys: []KeyRoute{{glob, []string{"tenant"}}}, Spaces: []SpaceRoute{{glob, "tree"}}}
		table := &schemas.Table{Schema: "public", Name: "a/[b.c", Wire: schemas.WirePGText, FullBefore: true, Columns: []schemas.Column{{Name: "id"}, {Name: "tenant"}}, Identity: []int{0}}
		if err := r.apply(table); err != nil {
			t.Fatal(err)
		}
		if want := glob != "public.a/[b%2Ec"; want != (table.KeySpace == "tree") || want != slices.Equal(table.Routing, []int{1}) {
			t.Errorf("%s: key space %s, routed by %v", glob, table.KeySpace, table.Routing)
		}
	}
}
