package postgres

import (
	"context"
	"errors"
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

// standbyAway makes commits wait for a standby that is not there. A session that sees the setting is not enough: they
// wait once the server's checkpointer has seen it, too.
func (d *db) standbyAway() {
	d.t.Helper()
	d.exec(`alter system set synchronous_standby_names = 'nobody'`, `select pg_reload_conf()`)
	probe, ended := d.connect(), make(chan error, 1)
	ended <- nil
	d.eventually("no commit waits for a standby", func() bool {
		select {
		case err := <-ended:
			if err != nil {
				d.t.Fatal(err)
			}
			go func() {
				_, err := probe.Exec(context.WithoutCancel(d.t.Context()), `select pg_logical_emit_message(true, 'probe', '')`)
				ended <- err
			}()
		default:
		}
		return d.text(waitForStandby) == "1"
	})
	d.exec(`select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'`) // it has committed
	if err := <-ended; err != nil {
		d.t.Fatal(err)
	}
}

const waitForStandby = `select count(*)::text from pg_stat_activity where wait_event = 'SyncRep'`

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
		d.standbyAway()
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

// While a synchronous standby is away watermarks are written all the same, and who waits for it is told why it takes long.
func TestSnapshotSettle(t *testing.T) {
	t.Parallel()
	srv := servertest.ExclusivePostgres(t, servers.PostgresOptions{})
	d := &db{Database: &servertest.Database{Server: srv, Name: "leat_settle", URL: srv.URL}, t: t, version: servers.DefaultPostgres}
	d.conn = d.connect()
	d.standbyAway()
	open := func(limit time.Duration) *Snapshots {
		reader, err := d.source(func(c *Config) { c.LookupTimeout = limit }).Snapshots("")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = reader.Close() })
		return reader
	}
	reader := open(time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	settled, marked := make(chan error, 1), make(chan error, 1)
	go func() { settled <- reader.Settle(ctx) }()
	d.eventually("somebody waits for the standby", func() bool {
		return d.text(waitForStandby) == "1"
	})
	go func() { marked <- reader.Mark(t.Context(), "a.1") }()
	select {
	case err := <-marked:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("a standby that is away holds a watermark")
	}
	cancel()
	if err := <-settled; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	err := open(time.Second).Settle(t.Context())
	if se := (*pipeline.SourceError)(nil); !errors.As(err, &se) || se.Class != pipeline.Transient || !strings.Contains(err.Error(), "(nobody)") {
		t.Errorf("a standby that is away: %v", err)
	}
	d.eventually("nobody waits for the standby", func() bool {
		return d.text(waitForStandby) == "0"
	})
}

// A value of each type is the same from a snapshot as from the stream, byte for byte, and so is the table's shape.
func TestSnapshotTypes(t *testing.T) {
	t.Parallel()
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
		c.compare(id)
	})
}

// compare takes that many inserts from the stream, then the snapshot, which has to say the same of each row.
func (c *copying) compare(inserts int) {
	c.t.Helper()
	streamed, shapes, came := map[string][]byte{}, map[string]uint64{}, 0
	for started := false; !c.done(); {
		if len(streamed) == inserts && !started {
			started = true
			c.start()
		}
		b, err := c.stream.Next(c.t.Context())
		if err != nil {
			c.t.Fatal(err)
		}
		for i, e := range b.Events {
			tab, image := b.TableOf(i), b.Bytes(e.After)
			if !e.Op.Row() {
				continue
			}
			refs, err := pgtext.Form(tab).Walk(image, nil, len(tab.Columns))
			if err != nil {
				c.t.Fatal(err)
			}
			key := tab.Subject() + " " + string(refs[tab.Identity[0]].Of(image))
			switch e.Op {
			case pipeline.OpInsert:
				streamed[key], shapes[tab.Subject()] = append([]byte(nil), image...), tab.ShapeHash()
			case pipeline.OpSnapshot:
				if came++; string(streamed[key]) != string(image) {
					c.t.Errorf("row %s: the stream says %q, the snapshot %q", key, streamed[key], image)
				}
				if shapes[tab.Subject()] != tab.ShapeHash() {
					c.t.Fatalf("the snapshot describes table %s in another way than the stream: %+v", tab.Subject(), tab)
				}
			}
		}
		if b.Snapshot != nil {
			c.mark = b.Snapshot
		}
		b.Release()
	}
	if came != inserts || c.mark.State != pipeline.JobDone {
		c.t.Errorf("%d rows came from the stream, %d from the snapshot, which ended as %s %s: %+v", inserts, came, c.mark.State, c.mark.Reason, c.mark.Tables)
	}
}

// Tables are paged by keys of every type that can be ordered, in the database's order, and by several columns.
func TestSnapshotKeys(t *testing.T) {
	t.Parallel()
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
				fmt.Sprintf(`insert into k%d select n, %s, 'v' || n from generate_series(1, 600) n`, i, k.value))
		}
		d.exec(`create table ident (a text not null, b int not null, c int)`, `create unique index by_ab on ident (b desc, a)`, `alter table ident replica identity using index by_ab`,
			`insert into ident select 'x' || n, n % 9, n from generate_series(1, 600) n`)
		d.exec(`create table pattern (a text collate "und-x-icu" not null, b int)`, `create unique index by_pattern on pattern (a text_pattern_ops)`, `alter table pattern replica identity using index by_pattern`,
			`insert into pattern select (array['a', 'B', 'c', 'ä'])[n % 4 + 1] || n, n from generate_series(1, 600) n`)
		// Each chunk takes too long, so that they become small.
		c := d.copying(nil, snapshot.Config{Max: true, Workers: 1 + d.version%2, Chunk: 1}, "", pipeline.SnapshotJob{ID: "k1", Tables: []string{"public.*"}})
		c.open(true)
		c.until("the job's end", c.done)
		for i, k := range keys {
			c.same(d, fmt.Sprintf("k%d", i), fmt.Sprintf("public.k%d", i), strings.Split(k.key, ", ")...)
		}
		c.same(d, "ident", "public.ident", "a", "b")
		c.same(d, "pattern", "public.pattern", "a")
		for _, p := range c.mark.Tables {
			if p.Fault != "" || p.Rows != 600 || p.Whole {
				t.Errorf("table %s: %+v", p.Table, p)
			}
		}
	})
}

// Killed again and again, at any batch, under load, a snapshot goes on where the log ends and the copy ends equal.
func TestSnapshotResumed(t *testing.T) {
	t.Parallel()
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

// Column lists, row filters, partitions and generated columns: a snapshot brings what the stream would.
func TestSnapshotPublished(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, d *db) {
		d.exec(`create table listed (id int primary key, a text, secret text, twice int generated always as (id * 2) stored)`,
			`create table filtered (id int primary key, a text)`, `create table part (id int, day date, extra text, primary key (day, id)) partition by range (day)`,
			`create table part_1 partition of part for values from ('2026-01-01') to ('2026-02-01')`,
			`create table part_2 (extra text, id int not null, day date not null)`, `alter table part attach partition part_2 for values from ('2026-02-01') to ('2026-03-01')`,
			`create table parent (id int primary key)`, `create table child (primary key (id)) inherits (parent)`, `create table dropped (gone int, id int primary key, b text)`, `alter table dropped drop column gone`)
		for i, root := range []bool{true, false} {
			pub := fmt.Sprintf("pub%d", i)
			list := "part"
			if !root {
				list = "part_1, part_2"
			}
			d.exec(fmt.Sprintf(`create publication %s for table listed (id, a), filtered where (id %% 2 = 0 and a <> 'no'), %s, only parent, only child, dropped with (publish_via_partition_root = %v)`, pub, list, root),
				fmt.Sprintf(`select pg_create_logical_replication_slot('%s_%d', 'pgoutput')`, d.Name, i))
			c := d.copying(func(c *Config) {
				c.Create, c.Publication, c.Slot = false, pub, fmt.Sprintf("%s_%d", d.Name, i)
				c.Columns = map[string][]string{"public.dropped": {"!b"}}
			}, snapshot.Config{Max: true}, "", pipeline.SnapshotJob{ID: "p1", Tables: []string{"public.*"}})
			c.open(false)
			d.exec(`truncate listed, filtered, part, parent, child, dropped`, `insert into listed select n, 'a' || n, 's' from generate_series(1, 20) n`,
				`insert into filtered select n, case when n < 5 then 'no' else 'yes' end from generate_series(1, 20) n`,
				`insert into part select n, '2026-01-20'::date + n, 'e' from generate_series(1, 20) n`,
				`insert into parent select generate_series(1, 20)`, `insert into child select generate_series(21, 40)`, `insert into dropped select n, 'b' from generate_series(1, 20) n`)
			c.compare(20 + 8 + 20 + 20 + 20 + 20)
			c.close()
		}
	})
}

// What is wrong with one table ends that table alone, with its cure.
func TestSnapshotFaults(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, d *db) {
		role := d.Name + "_r"
		d.exec(`create role ` + role + ` login replication`)
		t.Cleanup(func() { d.dropRole(role) })
		d.exec(`create table fine (id int primary key, v int)`, `insert into fine select n, n from generate_series(1, 3000) n`, `create table gone (id int primary key, v int)`, `insert into gone select n, n from generate_series(1, 5000) n`,
			`create table forbidden (id int primary key, v int)`, `create table hidden (id int primary key, v int)`, `alter table hidden enable row level security`,
			`create table other (id int primary key, w int)`, `grant select on fine, gone, hidden, other to `+role, `create publication p for all tables`,
			`select pg_create_logical_replication_slot('`+d.Name+`', 'pgoutput')`)
		c := d.copying(func(c *Config) {
			c.Create, c.Publication, c.URL = false, "p", strings.Replace(d.URL, "postgres@", role+"@", 1)
		}, snapshot.Config{}, "", pipeline.SnapshotJob{ID: "f1", Tables: []string{"public.*"}, Where: "v % 2 = 0 -- even"})
		c.open(true)
		snapshotter := c.stream.(pipeline.Snapshotter)
		rows := func(name string) (p pipeline.TableProgress) {
			if c.mark != nil {
				for _, p := range c.mark.Tables {
					if p.Table == name {
						return p
					}
				}
			}
			return p
		}
		c.until("some of it", func() bool { return rows("public.gone").Rows > 0 })
		snapshotter.Pace("f1", 0, "a test")
		d.exec(`drop table gone`)
		snapshotter.Pace("f1", 1, "")
		c.until("the job's end", c.done)
		for name, want := range map[string]string{"fine": "", "gone": "not there any more", "forbidden": "grant select on", "hidden": "BYPASSRLS", "other": `column "v" does not exist`} {
			if p := rows("public." + name); !strings.Contains(p.Fault+" "+p.Cure, want) || want == "" && (p.Fault != "" || !p.Done || p.Rows != 1500) {
				t.Errorf("%s: %+v, want %q", name, p, want)
			} else if want != "" && p.Fault == "" {
				t.Errorf("%s has no fault", name)
			}
		}
		c.job, c.mark = pipeline.SnapshotJob{ID: "f2", Tables: []string{"public.fine"}, Where: "false) union all select id, 7 from other where (true"}, nil
		c.start()
		c.until("the job's end", c.done)
		if p := rows("public.fine"); !strings.Contains(p.Fault, "brackets") {
			t.Errorf("a condition that leaves its brackets: %+v", p)
		}
		for id, job := range map[string]pipeline.SnapshotJob{
			"no table of the source": {Tables: []string{"public.nothing"}},
			"is no glob":             {Tables: []string{"nothing"}},
		} {
			c.job, c.mark = job, nil
			c.job.ID = "x" + fmt.Sprint(len(id))
			c.start()
			c.until("the job's end", c.done)
			if c.mark.State != pipeline.JobFailed || !strings.Contains(c.mark.Reason, id) {
				t.Errorf("%v ended as %s %q, want %q", job.Tables, c.mark.State, c.mark.Reason, id)
			}
		}
	})
}

func (d *db) dropRole(role string) {
	for _, q := range []string{"drop owned by " + role, "drop role " + role} {
		if _, err := d.conn.Exec(context.Background(), q); err != nil { // the test's own context has ended
			d.t.Error(err)
		}
	}
}

// Rows come from a replica once it has replayed what they have to hold; tables without a key from the primary.
func TestSnapshotReplica(t *testing.T) {
	t.Parallel()
	primary := servertest.ExclusivePostgres(t, servers.PostgresOptions{})
	standby := servertest.Standby(t, primary, nil)
	open := func(srv *servers.Server) *db {
		d := &db{Database: &servertest.Database{Server: srv, Name: "leat_replica", URL: srv.URL}, t: t, version: servers.DefaultPostgres}
		d.conn = d.connect()
		return d
	}
	d, behind := open(primary), open(standby)
	d.exec(`create table f (id int primary key, v int)`, `insert into f select n, 0 from generate_series(1, 3000) n`,
		`create table loose (a int)`, `alter table loose replica identity full`, `insert into loose select generate_series(1, 500)`)
	d.eventually("the standby follows", func() bool {
		return behind.text(`select (pg_last_wal_replay_lsn() >= $1::text::pg_lsn)::text`, d.text("select pg_current_wal_lsn()::text")) == "true"
	})
	behind.exec(`select pg_wal_replay_pause()`)
	d.exec(`update f set v = 1 where id % 2 = 0`)
	c := d.copying(nil, snapshot.Config{Max: true, Workers: 1}, standby.URL, pipeline.SnapshotJob{ID: "f1", Tables: []string{"public.*"}})
	c.open(true)
	d.exec(`update f set v = 2 where id % 5 = 0`)
	c.catchUp(d)
	d.eventually("somebody waits on the standby", func() bool {
		return behind.text(`select count(*)::text from pg_stat_activity where query like '%pg_last_wal_replay_lsn%' and pid <> pg_backend_pid()`) != "0"
	})
	if c.rows > 0 {
		t.Errorf("%d rows came from a replica that is behind", c.rows)
	}
	impatient, err := d.source(func(c *Config) { c.LookupTimeout = time.Second }).Snapshots(standby.URL)
	if err != nil {
		t.Fatal(err)
	}
	impatient.wal.Store(1 << 62)
	session, err := impatient.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	err = session.Read(t.Context(), snapshot.Query{Table: snapshot.Table{Schema: "public", Name: "f", Key: []string{"id"}}, Limit: 1}, &snapshot.Chunk{})
	if se := (*pipeline.SourceError)(nil); !errors.As(err, &se) || se.Class != pipeline.Transient || !strings.Contains(err.Error(), "the replica is behind") {
		t.Errorf("a replica that replays nothing: %v", err)
	}
	behind.exec(`select pg_wal_replay_resume()`)
	c.until("the job's end", c.done)
	c.catchUp(d)
	c.same(d, "f", "public.f", "id")
	c.same(d, "loose", "public.loose")
	if c.mark.State != pipeline.JobDone {
		t.Errorf("ended as %s: %s", c.mark.State, c.mark.Reason)
	}
}
