package binlog_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/schemas/cell/binlog"
)

// TestJSONDiff updates documents in part and compares what the diffs make with what the server has.
func TestJSONDiff(t *testing.T) {
	s := open(t, false, nil)
	s.exec(t, "set session binlog_row_value_options='PARTIAL_JSON'",
		"create table j (id int primary key, a json, n int, b json, c json)")
	r := rand.New(rand.NewPCG(5, 6))
	const rows = 8
	key := func() string { // as a path has it
		return [...]string{"$.k", "$.k.x", `$."a b"`, `$."é\\"q"`, "$.list[0]", "$.list[1]", "$.list[last]", "$.list[7]", "$.k.deep.er", `$."😀"`, "$.list[0].x", `$.""`, "$.k[0]", "$.k[last]", "$.k[1]", "$.list[last-1]", "$[0].n"}[r.IntN(17)]
	}
	value := func() string {
		switch r.IntN(5) {
		case 0:
			return "null"
		case 1:
			return fmt.Sprint(r.IntN(1<<20) - 1<<19)
		case 2:
			return fmt.Sprintf("repeat('%c', %d)", 'a'+rune(r.IntN(26)), r.IntN(300))
		case 3:
			return "cast(1.25 as decimal(10,2))"
		}
		return "cast(" + randomJSON(r) + " as json)"
	}
	change := func(column string) string {
		switch r.IntN(3) {
		case 0:
			return fmt.Sprintf("%s = json_remove(%s, '%s')", column, column, strings.ReplaceAll(key(), `\\`, `\`))
		case 1:
			return fmt.Sprintf("%s = json_replace(%s, '%s', %s)", column, column, strings.ReplaceAll(key(), `\\`, `\`), value())
		}
		return fmt.Sprintf("%s = json_set(%s, '%s', %s, '%s', %s)", column, column, strings.ReplaceAll(key(), `\\`, `\`), value(), strings.ReplaceAll(key(), `\\`, `\`), value())
	}
	row := func(id int) []string { return s.text(t, fmt.Sprint("select * from j where id=", id))[0] }
	var want [][]string
	got := s.record(t, nil, func() {
		for id := range rows {
			doc := fmt.Sprintf(`json_set('{"k":{"x":1,"deep":{"er":[]}},"list":[{"x":1},2,3],"a b":1.5}', '$.pad', repeat('p', %d))`, []int{10, 65300, 70000}[id%3]+id)
			s.exec(t, fmt.Sprintf("insert into j values (%d, %s, 1, null, %s)", id, doc, doc))
			want = append(want, row(id))
		}
		for range 300 {
			id := r.IntN(rows)
			set := change("a")
			switch r.IntN(6) {
			case 0:
				set += ", " + change("c")
			case 1:
				set = change("c") + ", n=n+1"
			case 2:
				set = "a = json_object('k', json_array(n), 'list', json_array(1, 2)), n=n+1, " + change("c")
			}
			before := row(id)
			s.exec(t, fmt.Sprintf("update j set %s where id=%d", set, id))
			if after := row(id); fmt.Sprint(before) != fmt.Sprint(after) {
				want = append(want, after)
			}
		}
	})
	if len(got) != len(want) {
		t.Fatalf("%d changes, want %d", len(got), len(want))
	}
	partial := 0
	for i, c := range got {
		cells, errs := read(t, binlog.Form(c.table), c.table, c.after)
		if c.partial {
			partial++
		}
		for k := range cells {
			if errs[k] != nil || cells[k] != want[i][k] {
				t.Errorf("change %d (partial: %v), column %d: got %.200q (%v), want %.200q", i, c.partial, k, cells[k], errs[k], want[i][k])
			}
		}
	}
	if partial < 100 {
		t.Errorf("only %d updates were sent in part", partial)
	}
}

// FuzzJSONDiff applies any bytes to any bytes.
func FuzzJSONDiff(f *testing.F) {
	doc := []byte{0, 1, 0, 13, 0, 11, 0, 1, 0, 5, 1, 0, 'a', 0}
	f.Add(doc, []byte{0, 3, '$', '.', 'a', 3, 5, 2, 0})
	f.Add(doc, []byte{1, 3, '$', '.', 'b', 3, 5, 2, 0, 2, 3, '$', '.', 'a'})
	f.Add([]byte{2, 0, 0, 4, 0}, []byte{1, 4, '$', '[', '0', ']', 3, 5, 2, 0})
	f.Fuzz(func(t *testing.T, doc, diffs []byte) {
		out, err := binlog.ApplyJSONDiff(doc[:len(doc):len(doc)], diffs[:len(diffs):len(diffs)])
		if err != nil {
			return
		}
		again, err := binlog.ApplyJSONDiff(out, nil)
		if err != nil || string(again) != string(out) {
			t.Errorf("a result of %x and %x cannot be read again: %v", doc, diffs, err)
		}
	})
}
