package binlog_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/leat-cdc/leat/schemas/cell/binlog"
)

// TestOldTemporals reads MariaDB's formats from before MySQL 5.6's, with and without a fraction. Only the
// catalogue tells their digits.
func TestOldTemporals(t *testing.T) {
	s := open(t, true, map[string]string{"mysql56-temporal-format": "OFF"})
	var cases []typeCase
	for d := range 7 {
		for _, c := range clockCases(d, fmt.Sprintf("(%d)", d)) {
			c.declared = c.sql
			cases = append(cases, c)
		}
	}
	cases = append(cases, typeCase{sql: "date", kind: cases[0].kind, values: nil})
	cases = cases[:len(cases)-1]
	s.compare(t, cases)
}

// TestImages reads updates and deletes under each form of row image: what is sent is right, what is
// not is absent, never NULL.
func TestImages(t *testing.T) {
	for _, image := range []string{"FULL", "NOBLOB", "MINIMAL"} {
		t.Run(image, func(t *testing.T) { both(t, func(t *testing.T, s *server) { s.testImages(t, image) }) })
	}
}

func (s *server) testImages(t *testing.T, image string) {
	s.exec(t, "set session binlog_row_image="+image)
	const columns = 19 // more than two bytes of bitmap
	ddl, names := "id int primary key, t text, b blob", []string{"id", "t", "b"}
	for i := range columns - 3 {
		kind := [...]string{"int", "varchar(300)", "char(3)", "datetime(3)", "decimal(20,5)"}[i%5]
		ddl += fmt.Sprintf(", c%d %s", i, kind)
		names = append(names, fmt.Sprintf("c%d", i))
	}
	s.exec(t, "create table r ("+ddl+")")
	value := func(r *rand.Rand, name string) string {
		if r.IntN(3) == 0 {
			return "null"
		}
		switch name {
		case "t", "b":
			return fmt.Sprintf("repeat('x',%d)", r.IntN(600))
		}
		return fmt.Sprintf("%d", 100+r.IntN(900))
	}
	r := rand.New(rand.NewPCG(1, 2))
	const rows = 40
	model := map[string][]string{}
	row := func(id string) []string { return s.text(t, "select * from r where id="+id)[0] }
	var befores, afters [][]string
	got := s.record(t, nil, func() {
		for id := range rows {
			values := fmt.Sprint(id)
			for _, n := range names[1:] {
				v := value(r, n)
				if len(n) > 1 && (n[1]-'0')%5 == 3 { // a datetime
					v = "'2026-11-21 10:15:30.125'"
				}
				values += ", " + v
			}
			s.exec(t, "insert into r values ("+values+")")
			model[fmt.Sprint(id)] = row(fmt.Sprint(id))
			befores, afters = append(befores, nil), append(afters, model[fmt.Sprint(id)])
		}
		for range 100 {
			id, n := fmt.Sprint(r.IntN(rows)), names[1+r.IntN(2)]
			if r.IntN(2) == 0 {
				n = []string{"c0", "c1", "c2", "c15"}[r.IntN(4)]
			}
			old := row(id)
			s.exec(t, "update r set "+n+"="+value(r, n)+" where id="+id)
			now := row(id)
			if fmt.Sprint(old) != fmt.Sprint(now) {
				befores, afters = append(befores, old), append(afters, now)
			}
		}
		old := row("0")
		s.exec(t, "delete from r where id=0")
		befores, afters = append(befores, old), append(afters, nil)
	})
	if len(got) != len(befores) {
		t.Fatalf("%d changes, want %d", len(got), len(befores))
	}
	for i, c := range got {
		s.compareImage(t, image, c, c.before, befores[i], befores[i], afters[i])
		s.compareImage(t, image, c, c.after, afters[i], befores[i], afters[i])
	}
}

// compareImage checks one image against the row that it shows.
func (s *server) compareImage(t *testing.T, kind string, c change, image []byte, want, before, after []string) {
	t.Helper()
	if (image == nil) != (want == nil) {
		t.Fatal("an image is missing or too many")
	}
	if image == nil {
		return
	}
	cells, errs := read(t, binlog.Form(c.table), c.table, image)
	absent := 0
	for i := range want {
		switch {
		case errs[i] != nil:
			t.Error(errs[i])
		case cells[i] == "<ABSENT>":
			absent++
			changed := before != nil && after != nil && before[i] != after[i]
			if kind == "FULL" || changed && &want[0] == &after[0] {
				t.Errorf("column %d is absent", i)
			}
		case i == 2 && want[i] != null:
			if cells[i] != fmt.Sprintf("%X", want[i]) {
				t.Errorf("column %d: got %q, want %q", i, cells[i], want[i])
			}
		case cells[i] != want[i]:
			t.Errorf("column %d: got %q, want %q", i, cells[i], want[i])
		}
	}
	if kind == "MINIMAL" && before != nil && after != nil && absent < 10 {
		t.Errorf("only %d columns are absent", absent)
	}
}
