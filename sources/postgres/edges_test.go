package postgres

import (
	"fmt"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/pipeline"
)

func TestReplicaIdentities(t *testing.T) {
	t.Parallel()
	allVersions(t, func(t *testing.T, d *db) {
		d.exec(
			`create table def (id int primary key, v int, body text)`,
			`create table ful (id int primary key, v int, body text)`,
			`alter table ful replica identity full`,
			`create table idx (id int primary key, code int not null, v int, body text)`,
			`create unique index idx_code on idx (code)`,
			`alter table idx replica identity using index idx_code`,
			`create table both_keys (b int, a int, v int, primary key (b, a))`,
			`create table none (v int)`,
			`alter table none replica identity nothing`,
			`create table nokey (v int)`,
		)
		for _, n := range []string{"def", "ful", "idx"} {
			d.exec(`alter table ` + n + ` alter body set storage external`)
		}
		r := d.open(d.source(), pipeline.Position{})
		big := `repeat('x', 5000)`
		d.exec(
			`insert into def values (1, 1, `+big+`)`, `update def set v = 2`, `update def set id = 2`, `delete from def`,
			`insert into ful values (1, 1, `+big+`)`, `update ful set v = 2`, `update ful set id = 2`, `delete from ful`,
			`insert into idx values (1, 1, 1, `+big+`)`, `update idx set v = 2`, `update idx set code = 2`, `delete from idx`,
			`insert into both_keys values (1, 2, 3)`, `update both_keys set a = 3`, `delete from both_keys`,
			`insert into none values (1)`, `insert into nokey values (1)`,
		)
		r.want(
			"insert public.def - {id=1 v=1 body=<5000>}",
			"update public.def - {id=1 v=2}",
			"update public.def {id=1} {id=2 v=2}",
			"delete public.def {id=2} -",
			"insert public.ful - {id=1 v=1 body=<5000>}",
			"update public.ful {id=1 v=1 body=<5000>} {id=1 v=2 body=<5000>}",
			"update public.ful {id=1 v=2 body=<5000>} {id=2 v=2 body=<5000>}",
			"delete public.ful {id=2 v=2 body=<5000>} -",
			"insert public.idx - {id=1 code=1 v=1 body=<5000>}",
			"update public.idx - {id=1 code=1 v=2}",
			"update public.idx {code=1} {id=1 code=2 v=2}",
			"delete public.idx {code=2} -",
			"insert public.both_keys - {b=1 a=2 v=3}",
			"update public.both_keys {b=1 a=2} {b=1 a=3 v=3}",
			"delete public.both_keys {b=1 a=3} -",
			"insert public.none - {v=1}",
			"insert public.nokey - {v=1}",
		)
		for name, want := range map[string]string{"def": "[0]", "ful": "[0]", "idx": "[1]", "both_keys": "[0 1]", "none": "[]", "nokey": "[]"} {
			tab := r.tables["public."+name]
			if got := fmt.Sprint(tab.Identity); got != want || tab.FullBefore != (name == "ful") {
				t.Errorf("%s: identity %s, full %v; want %s", name, got, tab.FullBefore, want)
			}
		}
	})
}

func TestTransactions(t *testing.T) {
	t.Parallel()
	allVersions(t, func(t *testing.T, d *db) {
		d.exec(`create table a (id int primary key)`, `create table b (id int primary key)`, `create unlogged table u (id int)`)
		r := d.open(d.source(), pipeline.Position{})
		d.exec(
			`begin; insert into a values (1); savepoint s; insert into a values (2); rollback to s; insert into a values (3); commit`,
			`begin; insert into a values (4); rollback`,
			`truncate a, b`,
			`select pg_logical_emit_message(false, 'alone', 'no transaction')`,
			`begin; insert into b values (1); select pg_logical_emit_message(true, 'inside', 'é'); commit`,
			`insert into u values (1)`,
		)
		r.want(
			"insert public.a - {id=1}", "insert public.a - {id=3}",
			"truncate public.a", "truncate public.b",
			"message alone no transaction",
			"insert public.b - {id=1}", "message inside é",
		)
		if _, err := d.conn.PgConn().CopyFrom(t.Context(), strings.NewReader("10\n11\n12\n"), "copy a from stdin"); err != nil {
			t.Fatal(err)
		}
		r.want("insert public.a - {id=10}", "insert public.a - {id=11}", "insert public.a - {id=12}")
	})
}

func TestSchemaChanges(t *testing.T) {
	t.Parallel()
	allVersions(t, func(t *testing.T, d *db) {
		d.exec(`create table f (id int primary key, "Weird.Näme" int)`)
		r := d.open(d.source(), pipeline.Position{})
		// Step by step: a catalogue that is ahead of the rows makes the reader say that more may have changed.
		for _, step := range []struct {
			do   []string
			want []string
		}{
			{[]string{`insert into f values (1, 1)`}, []string{`insert public.f - {id=1 Weird.Näme=1}`}},
			{[]string{`begin; insert into f values (2, 2); alter table f add c text default 'x'; insert into f values (3, 3, 'y'); commit`},
				[]string{`insert public.f - {id=2 Weird.Näme=2}`, `schema public.f`, `insert public.f - {id=3 Weird.Näme=3 c=y}`}},
			{[]string{`alter table f rename c to d`, `insert into f values (4, 4, 'z')`}, []string{`schema public.f`, `insert public.f - {id=4 Weird.Näme=4 d=z}`}},
			{[]string{`alter table f drop d`, `analyze f` /* sends the relation again, unchanged */, `insert into f values (5, 5)`},
				[]string{`schema public.f`, `insert public.f - {id=5 Weird.Näme=5}`}},
			{[]string{`alter table f alter "Weird.Näme" type text`, `insert into f values (6, 'six')`}, []string{`schema public.f`, `insert public.f - {id=6 Weird.Näme=six}`}},
		} {
			d.exec(step.do...)
			r.want(step.want...)
		}
	})
}

func TestPartitions(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, d *db) {
		d.exec(
			`create table p (id int, at int, v text, primary key (id, at)) partition by range (at)`,
			`create table p1 partition of p for values from (0) to (10)`,
			`create table p2 (v text, at int not null, id int not null) `, // another order of columns
			`alter table p attach partition p2 for values from (10) to (20)`,
			`create table p3 partition of p for values from (20) to (40) partition by list (id)`,
			`create table p3a partition of p3 default`,
		)
		r := d.open(d.source(), pipeline.Position{})
		d.exec(
			`insert into p values (1, 1, 'a'), (2, 11, 'b'), (3, 21, 'c')`,
			`update p set at = 12 where id = 1`, // moves between partitions
			`delete from p where id = 3`,
			`truncate p`,
			`alter table p detach partition p1`,
		)
		r.want(
			"insert public.p - {id=1 at=1 v=a}", "insert public.p - {id=2 at=11 v=b}", "insert public.p - {id=3 at=21 v=c}",
			"delete public.p {id=1 at=1} -", "insert public.p - {id=1 at=12 v=a}",
			"delete public.p {id=3 at=21} -", "truncate public.p",
		)
		d.exec(`create publication parts for table p`)
		r2 := d.open(d.source(func(c *Config) { c.Publication, c.Slot = "parts", d.Name+"_parts" }), pipeline.Position{})
		d.exec(`insert into p values (7, 12, 'x')`)
		r2.want("insert public.p2 - {v=x at=12 id=7}")
	})
}

func TestExcludedColumns(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, d *db) {
		d.exec(
			`create table users (id int primary key, password text, name text)`,
			`create table fully (id int primary key, password text, name text)`,
			`alter table fully replica identity full`,
			`create table keyed (password text primary key, name text)`,
		)
		s := d.source(func(c *Config) {
			c.Columns = map[string][]string{"public.users": {"!password"}, "public.fully": {"id", "name"}, "public.keyed": {"!password"}}
		})
		r := d.open(s, pipeline.Position{})
		if got := d.text(`select attnames::text from pg_publication_tables where tablename = 'users'`); got != "{id,name}" {
			t.Errorf("published columns: %s", got)
		}
		d.exec(
			`insert into users values (1, 'secret', 'a')`,
			`insert into fully values (1, 'secret', 'a')`,
			`update fully set name = 'b'`,
			`insert into keyed values ('secret', 'a')`,
			`delete from fully`,
		)
		r.want(
			"insert public.users - {id=1 name=a}",
			"insert public.fully - {id=1 name=a}",
			"update public.fully {id=1 name=a} {id=1 name=b}",
			"delete public.fully {id=1 name=b} -",
		)
		r.until(func() bool { return len(r.notices) > 0 })
		if n := r.notices[0]; n.Kind != pipeline.NoticeQuarantined || n.Table != "public.keyed" {
			t.Errorf("notice %+v", n)
		}
	})
}

func TestLateTables(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, d *db) {
		d.exec(`create table early (id int primary key)`)
		s := d.source(func(c *Config) { c.Tables = []string{"public.*", "!public.tmp_*"} })
		r := d.open(s, pipeline.Position{})
		published := func(name string) bool {
			return d.text(`select count(*)::text from pg_publication_tables where pubname = 'leat_files' and tablename = $1`, name) == "1"
		}
		d.exec(`create table tmp_x (id int primary key)`, `create table late (id int primary key)`)
		r.until(func() bool { return published("late") })
		d.exec(`insert into late values (1)`, `insert into tmp_x values (1)`)
		r.want("insert public.late - {id=1}")
		d.exec(`begin; create table full_ (id int primary key); insert into full_ values (1); commit`)
		r.until(func() bool { return len(r.notices) > 0 })
		if n := r.notices[0]; n.Kind != pipeline.NoticeGap || n.Table != "public.full_" || len(r.notices) > 1 {
			t.Errorf("notices %+v", r.notices)
		}
		if published("tmp_x") {
			t.Error("tmp_x was published")
		}
	})
}

func TestHugeTransaction(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, d *db) {
		d.exec(`create table h (id int primary key, v text)`)
		r := d.open(d.source(func(c *Config) { c.BatchBytes, c.BatchEvents = 4096, 1000 }), pipeline.Position{})
		d.exec(`insert into h values (0, 'before')`, `insert into h select n, 'row ' || n from generate_series(1, 3000) n`, `insert into h values (9999, 'after')`)
		want := []string{"insert public.h - {id=0 v=before}"}
		for n := 1; n <= 3000; n++ {
			want = append(want, fmt.Sprintf("insert public.h - {id=%d v=row %d}", n, n))
		}
		r.want(append(want, "insert public.h - {id=9999 v=after}")...)
		chunks, commits := 0, 0
		for _, k := range r.batches {
			if k == pipeline.BatchChunk {
				chunks++
			}
			if k == pipeline.BatchCommit {
				commits++
			}
		}
		if chunks < 10 || commits != 1 {
			t.Errorf("%d chunks, %d commits", chunks, commits)
		}
	})
}

// New labels of an enum are no event of the stream; the catalogue is watched for them.
func TestEnumLabels(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, d *db) {
		d.exec(`create type mood as enum ('sad')`, `create table f (id int primary key, m mood)`)
		r := d.open(d.source(), pipeline.Position{})
		d.exec(`insert into f values (1, 'sad')`)
		r.want("insert public.f - {id=1 m=sad}")
		d.exec(`alter type mood add value 'glad'`)
		n := 1
		r.until(func() bool {
			n++
			d.exec(fmt.Sprintf(`insert into f values (%d, 'glad')`, n))
			return len(r.tables["public.f"].Columns[1].Type.Labels) == 2
		})
	})
}
