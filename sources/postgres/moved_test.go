package postgres

import (
	"slices"
	"testing"

	"github.com/leat-cdc/leat/pipeline"
)

// TestMovedRows: the WAL does not say that a table was renamed, or rows came with a partition.
func TestMovedRows(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, d *db) {
		d.exec(`create schema other`, `create table a (id int primary key, v text)`, `create table empty (id int primary key)`,
			`create table p (id int, k int, primary key (id, k)) partition by list (k)`,
			`create table p1 partition of p for values in (1)`, `create table p2 (id int, k int, primary key (id, k))`)
		s := d.source()
		r := d.open(s, pipeline.Position{})
		d.exec(`insert into a values (1, 'x')`, `insert into p values (1, 1)`, `insert into p2 values (1, 2)`)
		r.want("insert public.a - {id=1 v=x}", "insert public.p - {id=1 k=1}", "insert public.p2 - {id=1 k=2}")
		step := func(want []string, statements ...string) {
			t.Helper()
			r.notices = nil
			d.exec(statements...)
			r.until(func() bool { return len(r.notices) >= len(want) })
			var got []string
			for _, n := range r.notices {
				if n.Kind != pipeline.NoticeGap || n.Cure == "" {
					t.Errorf("%+v", n)
				}
				got = append(got, n.Table+" "+n.Code)
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("%v, want %v: %+v", got, want, r.notices)
			}
		}
		step([]string{"public.b renamed"}, `alter table a rename to b`)
		step([]string{"other.b renamed"}, `alter table empty rename to full_`, `alter table b set schema other`)
		step([]string{"public.p partition"}, `create table p3 partition of p for values in (3)`, `insert into p values (7, 3)`,
			`alter table p attach partition p2 for values in (2)`)
		step([]string{"public.p partition"}, `begin; create table p4 (id int, k int, primary key (id, k)); insert into p4 values (1, 4);
			alter table p attach partition p4 for values in (4); commit`)
		step([]string{"public.p partition"}, `drop table p1`)
		step([]string{"public.p partition", "public.p2 partition"}, `alter table p detach partition p2`)
	})
}
