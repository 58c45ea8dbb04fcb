package search

import (
	"net/http"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/sinks/encode"
)

// A rebuild: both indices get what comes, the alias moves in one step, the old index goes.
func TestRebuild(t *testing.T) {
	t.Parallel()
	base := servertest.OpenSearch(t).URL
	table := pipetest.FilesTable(servertest.Name())
	own := func(o *Options) {
		o.Index = strings.Replace(table.Name, "_", "_{source}_", 1) + "{table}"
		o.Encoding.Source = "x"
	}
	index := AliasOf(strings.Replace(table.Name, "_", "_{source}_", 1)+"{table}", "x", "public", table.Name)
	s := newSink(t, base, own)
	done(t, s, 10, put(table, "1", "1", "a"), put(table, "2", "1", "b"))
	if all, err := s.Pending(t.Context()); len(all) > 0 || err != nil {
		t.Fatal(all, err)
	}
	for generation := 2; generation <= 3; generation++ {
		if _, err := s.Begin(t.Context(), table); err != nil {
			t.Fatal(err)
		}
		r, err := s.Begin(t.Context(), table) // anew
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Name(t.Context(), r, "job"); err != nil {
			t.Fatal(err)
		}
		s = newSink(t, base, own) // after a restart
		all, err := s.Pending(t.Context())
		if err != nil || len(all) != 1 || all[0] != *r {
			t.Fatalf("%+v, want %+v: %v", all, r, err)
		}
		again := &all[0]
		o := pipeline.Offset(100 * generation)
		done(t, s, o, put(table, "3", "1", "c"), pipetest.Change{Op: pipeline.OpSnapshot, Table: table, After: pipetest.Row{"1", "1", "a"}})
		if all := documents(t, base, index); len(all) != 5-generation && generation == 2 {
			t.Fatal(all)
		}
		if err := s.Switch(t.Context(), again); err != nil {
			t.Fatal(err)
		}
		if all := documents(t, base, index); len(all) != 2 || all["2"] != nil {
			t.Fatal(all)
		}
		if status := ask(t, base, "GET", "/"+r.Old, "", nil); status != http.StatusNotFound {
			t.Errorf("the old index: %d", status)
		}
		done(t, s, o+10, put(table, "3", "1", "d"))
	}
	if r, err := s.Begin(t.Context(), pipetest.FilesTable(servertest.Name())); r != nil || err != nil {
		t.Error("of what is not there", r, err)
	}
}

// A column whose type in documents changed, by the subscription's mapping or with a table that begins at version 1
// again, is mapped anew by a rebuild, which is what its dead letters advise.
func TestRebuildRetypes(t *testing.T) {
	t.Parallel()
	base := servertest.OpenSearch(t).URL
	table := pipetest.FilesTable(servertest.Name())
	later := *table
	later.Version = 7
	done(t, newSink(t, base), 10, put((&later).Seal(), "1", "1", "a"))
	s := newSink(t, base, func(o *Options) {
		o.Encoding.Mapping = map[string]encode.Mapping{"public.*": {Mask: map[string]string{"namespace_id": encode.MaskHash}, Salt: "s"}}
	})
	b := batch(11, put(table, "1", "2", "a"))
	defer b.Release()
	if out, err := deliver(t, s, b); err != nil || len(out) != 1 || out[0].Class != pipeline.Fatal || !strings.Contains(out[0].Reason, "--rebuild") {
		t.Fatalf("%v %v", out, err)
	}
	r, err := s.Begin(t.Context(), table)
	if err != nil {
		t.Fatal(err)
	}
	done(t, s, 12, put(table, "1", "2", "a"))
	if err := s.Switch(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	done(t, s, 13, put(table, "2", "2", "b"))
	if all := documents(t, base, table.Name); len(all) != 2 {
		t.Fatal(all)
	}
	var found map[string]struct {
		Mappings struct {
			Properties map[string]struct{ Type string }
		}
	}
	ask(t, base, "GET", "/"+table.Name+"/_mapping", "", &found)
	if have := found[r.New].Mappings.Properties["namespace_id"].Type; have != "text" {
		t.Errorf("mapped as %q", have)
	}
}
