package views_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/views"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/form"
	"github.com/leat-cdc/leat/sinks/encode"
)

// What a person asks for narrows a subscription's own filter, and an event that it fails on is shown with why.
func TestAskedNarrows(t *testing.T) {
	table := (&schemas.Table{Schema: "public", Name: "files", Wire: schemas.WirePGText, Identity: []int{0}, Columns: []schemas.Column{
		{Name: "id", Type: schemas.Type{Kind: schemas.KindInt, Bits: 64, OID: 20}}, {Name: "size", Nullable: true, Type: schemas.Type{Kind: schemas.KindInt, Bits: 64, OID: 20}}}}).Seal()
	log := pipetest.NewMemoryLog("log", 100)
	var changes []pipetest.Change
	for _, r := range []pipetest.Row{{"1", "5"}, {"2", pipetest.Null}, {"3", "50"}, {"4", "500"}} {
		changes = append(changes, pipetest.Change{Op: pipeline.OpInsert, Table: table, After: r})
	}
	if _, err := log.Append(t.Context(), pipetest.Build(pipeline.Position{Counter: 1, Token: "p"}, time.Unix(1, 0), changes)); err != nil {
		t.Fatal(err)
	}
	program := func(expr string) *filter.Program {
		p, err := filter.Compile(filter.Options{Expr: expr, Form: form.Of})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, c := range []struct{ own, asked, want string }{
		{"", "", "100 101 102 103"},
		{"after.id > 1", "", "101 102 103"},
		{"", "after.size > 10", "101: the filter fails on it 102 103"},
		{"after.id > 2", "after.size < 100", "102"},
		{"after.id != 4", "after.nosuch == 1", "100: the filter fails on it 101: the filter fails on it 102: the filter fails on it"},
	} {
		v := views.View{Log: log, Source: "files", From: 100, To: 104, Enc: encode.JSON(encode.Options{Source: "files", Form: form.Of})}
		if c.own != "" {
			v.Filter = program(c.own)
		}
		if c.asked != "" {
			v.Asked = program(c.asked)
		}
		var got []string
		v.Show = func(offsets []pipeline.Offset, events [][]byte) error {
			for i, o := range offsets {
				text := o.String()
				if strings.Contains(string(events[i]), `"error":"the filter fails on it: `) && strings.Contains(string(events[i]), `"id":"files-`+text) {
					text += ": the filter fails on it"
				}
				got = append(got, text)
			}
			return nil
		}
		if err := v.Run(context.Background()); err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("own %q, asked %q: %v, want %s (%v)", c.own, c.asked, got, c.want, err)
		}
	}
}
