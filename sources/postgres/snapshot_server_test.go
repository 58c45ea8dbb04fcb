package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// A transaction that waits for a synchronous standby stands in the log, and in the stream, but is not visible: a chunk
// read meanwhile is read again until it is. Also when it has waited since before the snapshot began.
func TestSnapshotStandbyAway(t *testing.T) {
	t.Parallel()
	srv := servertest.ExclusivePostgres(t, servers.PostgresOptions{})
	d := &db{Database: &servertest.Database{Server: srv, Name: "leat_away", URL: srv.URL}, t: t, version: servers.DefaultPostgres}
	d.conn = d.connect()
	d.exec(`set synchronous_commit = local`, `create table f (id int primary key, v int)`, `insert into f values (1, 0), (2, 0)`,
		`create table g (id int primary key)`, `insert into g select generate_series(1, 5000)`)
	c := d.copying(nil, snapshot.Config{}, "", pipeline.SnapshotJob{ID: "g1", Tables: []string{"public.g"}})
	c.open(true)
	snapshotter := c.stream.(pipeline.Snapshotter)
	c.until("some of g", func() bool { return c.rows > 0 })
	snapshotter.Pace("g1", 0, "a test") // it stays, and with it what the stream has brought is remembered

	for v, name := range []string{"f1", "f2"} {
		d.exec(`alter system set synchronous_standby_names = 'nobody'`, `select pg_reload_conf()`)
		d.eventually("the server waits for a standby", func() bool { return d.text(`show synchronous_standby_names`) == "nobody" })
		waiting, done := d.connect(), make(chan error, 1)
		if v == 1 {
			snapshotter.Stop("g1") // now nothing is remembered
			c.job.ID, c.mark = "g1", nil
			c.until("the end of g1", c.done)
		}
		go func() {
			_, err := waiting.Exec(context.WithoutCancel(t.Context()), `update f set v = v + 1 where id = 1`)
			done <- err
		}()
		c.until("the update", func() bool { return c.tables["public.f"]["1"]["v"] == fmt.Sprint(v+1) })
		if got := d.text(`select v::text from f where id = 1`); got != fmt.Sprint(v) {
			t.Fatalf("the update is visible: %s", got)
		}
		c.job, c.mark = pipeline.SnapshotJob{ID: name, Tables: []string{"public.f"}}, nil
		c.start()
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end) && !c.done(); { // time for many attempts
			c.catchUp(d)
		}
		if c.done() {
			t.Errorf("%s: ended though a transaction was not visible", name)
		}
		d.exec(`alter system reset synchronous_standby_names`, `select pg_reload_conf()`)
		c.until("the end of "+name, c.done)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		c.catchUp(d)
		c.same(d, "f", "public.f", "id")
		if c.mark.State != pipeline.JobDone {
			t.Errorf("%s ended as %s: %s", name, c.mark.State, c.mark.Reason)
		}
	}
}

// A value of each type is the same from a snapshot as from the stream, byte for byte, and so is the table's shape.
func TestSnapshotTypes(t *testing.T) {
	allVersions(t, func(t *testing.T, d *db) {
		d.exec(`create type mood as enum ('sad', 'ok, "fine"')`, `create domain small as int check (value < 10)`,
			`create domain smaller as small`, `create type pair as (a int, b text)`, `create domain ints as int[]`)
		all := samples()
		var columns []string
		for i, s := range all {
			columns = append(columns, fmt.Sprintf("c%d %s", i, s.typ))
		}
		d.exec(`create table v (id int primary key, ` + strings.Join(columns, ", ") + `)`)
		c := d.copying(nil, snapshot.Config{Max: true}, "", pipeline.SnapshotJob{ID: "v1", Tables: []string{"public.v"}})
		c.open(false)
		id := 0
		for i, s := range all {
			for _, v := range append(append([]string(nil), s.values...), s.textual...) {
				id++
				d.exec(fmt.Sprintf(`insert into v (id, c%d) values (%d, %s)`, i, id, v))
			}
		}
		streamed, shapes := map[string][]byte{}, map[string]uint64{}
		take := func(ok func(n int) bool) {
			for n := 0; !ok(n); {
				b, err := c.stream.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for i, e := range b.Events {
					n++
					tab := b.TableOf(i)
					shapes[e.Op.String()] = tab.ShapeHash()
					image := b.Bytes(e.After)
					refs, err := pgtext.Form(tab).Walk(image, nil, len(tab.Columns))
					if err != nil {
						t.Fatal(err)
					}
					key := string(refs[0].Of(image))
					if e.Op == pipeline.OpInsert {
						streamed[key] = append([]byte(nil), image...)
					} else if string(streamed[key]) != string(image) {
						t.Errorf("row %s: the stream says %q, the snapshot %q", key, streamed[key], image)
					}
				}
				if b.Snapshot != nil {
					c.mark = b.Snapshot
				}
				b.Release()
			}
		}
		take(func(n int) bool { return n == id })
		c.start()
		take(func(int) bool { return c.done() })
		if shapes["insert"] != shapes["snapshot"] {
			t.Error("the snapshot describes the table in another way than the stream")
		}
	})
}

// Tables are paged by keys of every type that can be ordered, in the database's order, and by several columns.
func TestSnapshotKeys(t *testing.T) {
	eachVersion(t, func(t *testing.T, d *db) {
		d.exec(`create extension citext`, `create type mood as enum ('b', 'a', 'c')`, `create domain word as text`,
			`create collation nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`)
		keys := []struct{ columns, key, value string }{
			{"a text, b int", "a, b", "'k' || n % 40, n"},
			{"a citext", "a", "case when n % 2 = 0 then 'K' else 'k' end || n"},
			{"a citext, b int", "a, b", "'x' || n % 7, n"},
			{"a int, b citext", "a, b", "n % 7, 'x' || n"},
			{"a mood, b int", "b, a", "(array['b', 'a', 'c'])[n % 3 + 1]::mood, n"},
			{`a text collate "C", b text collate nocase`, "a, b", "chr(200 + n % 50), 'Ä' || n"},
			{"a numeric", "a", "n / 7.0"}, {"a float8", "a", "n / 7.0::float8"}, {"a float4, b int", "a, b", "n / 7.0::float4, n"},
			{"a timestamptz", "a", "'2000-01-01'::timestamptz + n * interval '1.000001 s'"}, {"a date, b int", "a, b", "'2000-01-01'::date + n % 9, n"},
			{"a uuid", "a", "md5(n::text)::uuid"}, {"a bytea", "a", "decode(md5(n::text), 'hex')"}, {"a interval", "a", "n * interval '1 day 1 s'"},
			{`a char(9)`, "a", "'k' || n"}, {`a "char", b int`, "a, b", `chr(65 + n % 20)::"char", n`}, {"a int[]", "a", "array[n % 5, n]"},
			{"a int4range", "a", "int4range(n, n + 5)"}, {"a inet", "a", "'10.0.0.0'::inet + n"}, {"a varbit", "a", "n::bit(12)::varbit"}, {"a word", "a", "'w' || n"},
			{"a bool, b bool, c int", "c, a, b", "n % 2 = 0, n % 3 = 0, n"}, {"a jsonb", "a", "to_jsonb(n)"}, {"a oid", "a", "n::oid"}, {"a name", "a", "'n' || n"},
			{"a money", "a", "n::money"}, {"a tsvector", "a", "('w' || n)::tsvector"}, {"a pg_lsn", "a", "'0/1'::pg_lsn + n"}, {"a time, b macaddr", "a, b", "'10:00'::time + n * interval '1 s', '08:00:2b:01:02:03'::macaddr"},
		}
		for i, k := range keys {
			d.exec(fmt.Sprintf(`create table k%d (x int, %s, "Y z" text, primary key (%s))`, i, k.columns, k.key),
				fmt.Sprintf(`insert into k%d select n, %s, 'v' || n from generate_series(1, 1600) n`, i, k.value))
		}
		d.exec(`create table ident (a text not null, b int not null, c int)`, `create unique index by_ab on ident (b desc, a)`, `alter table ident replica identity using index by_ab`,
			`insert into ident select 'x' || n, n % 9, n from generate_series(1, 1600) n`)
		// Each chunk takes too long, so that they become small.
		c := d.copying(nil, snapshot.Config{Max: true, Workers: 1 + d.version%2, Chunk: 1}, "", pipeline.SnapshotJob{ID: "k1", Tables: []string{"public.*"}})
		c.open(true)
		c.until("the job's end", c.done)
		for i, k := range keys {
			c.same(d, fmt.Sprintf("k%d", i), fmt.Sprintf("public.k%d", i), strings.Split(k.key, ", ")...)
		}
		c.same(d, "ident", "public.ident", "a", "b")
		for _, p := range c.mark.Tables {
			if p.Fault != "" || p.Rows != 1600 || p.Whole {
				t.Errorf("table %s: %+v", p.Table, p)
			}
		}
	})
}

// Killed again and again, at any batch, under load, a snapshot goes on where the log ends and the copy ends equal.
func TestSnapshotResumed(t *testing.T) {
	eachVersion(t, func(t *testing.T, d *db) {
		d.exec(`create table files (id int primary key, v int, big text)`, `alter table files alter big set storage external`,
			`insert into files select n, 0, repeat(md5(n::text), 80) from generate_series(1, 6000) n`,
			`create table loose (a int, b text)`, `alter table loose replica identity full`, `insert into loose select n % 300, 'x' from generate_series(1, 900) n`)
		c := d.copying(nil, snapshot.Config{Max: true, Workers: 2}, "", pipeline.SnapshotJob{ID: "r1", Tables: []string{"public.*"}})
		stop := d.write(t, func(exec func(string, ...any), n int) {
			exec(`update files set v = v + 1 where id = $1`, n*37%6000+1)
			exec(`update files set id = id + 10000 where id = $1`, n*91%6000+1)
			exec(`delete from files where id = $1`, n*53%6000+1)
			exec(`update loose set b = $1 where a = $2`, fmt.Sprint(n), n*7%300)
			exec(`insert into loose values ($1, 'new')`, n%300)
		})
		r := rand.New(rand.NewPCG(1, 2))
		crashes := 0
		for ; crashes < 8 && !c.done(); crashes++ {
			c.open(true)
			for range 2 + r.IntN(12) {
				if c.next(); c.done() {
					break
				}
			}
			c.close()
			d.free()
		}
		if !c.done() {
			c.open(true)
			c.until("the job's end", c.done)
		} else {
			c.open(false)
		}
		stop()
		c.catchUp(d)
		c.same(d, "files", "public.files", "id")
		c.same(d, "loose", "public.loose")
		t.Logf("%d rows came, over %d crashes", c.rows, crashes)
	})
}
