package postgres

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// copying is a subscriber that keeps tables up to date from a decorated stream.
type copying struct {
	t      *testing.T
	src    pipeline.Source
	stream pipeline.Stream
	job    pipeline.SnapshotJob
	end    pipeline.Position
	mark   *pipeline.SnapshotMark
	// tables: by subject, then by the row's key, columns.
	tables map[string]map[string]map[string]string
	bag    map[string]map[string]int // of tables without a key: how often each row is there
	read   map[string]int64          // when the latest read of a table was
	rows   int
	seen   map[string]int // marks of interest by state
}

func (d *db) copying(change func(*Config), sc snapshot.Config, replica string, job pipeline.SnapshotJob) *copying {
	d.t.Helper()
	if change == nil {
		change = func(*Config) {}
	}
	s := d.source(change)
	reader, err := s.Snapshots(replica)
	if err != nil {
		d.t.Fatal(err)
	}
	return &copying{t: d.t, src: snapshot.New(s, reader, sc), job: job,
		tables: map[string]map[string]map[string]string{}, bag: map[string]map[string]int{}, read: map[string]int64{}, seen: map[string]int{}}
}

// open begins a stream where the last one ended; start has the job go on there.
func (c *copying) open(start bool) {
	c.t.Helper()
	st, err := c.src.Open(c.t.Context(), c.end)
	if err != nil {
		c.t.Fatal(err)
	}
	c.stream = st
	c.t.Cleanup(func() { _ = st.Close() })
	if start {
		c.start()
	}
}

func (c *copying) start() {
	j := c.job
	j.Mark = c.mark
	c.stream.(pipeline.Snapshotter).Start(j)
}

func (c *copying) close() {
	c.t.Helper()
	if err := c.stream.Close(); err != nil {
		c.t.Fatal(err)
	}
}

// next takes a batch and applies it.
func (c *copying) next() {
	c.t.Helper()
	b, err := c.stream.Next(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	defer b.Release()
	if b.Snapshot == nil {
		if err := pipetest.CheckBatch(b, pgtext.Form); err != nil {
			c.t.Fatal(err)
		}
	}
	if b.Snapshot != nil && len(b.Events) > 0 { // a copy of a table without a key begins anew with each read, which has one time
		if name, at := b.TableOf(0).Subject(), b.Txs[0].Time; at != c.read[name] {
			c.read[name] = at
			clear(c.bag[name])
		}
	}
	for i := range b.Events {
		c.apply(b, i)
	}
	if !b.End.Zero() {
		c.end = b.End
		c.stream.Confirm(b.End)
	}
	if b.Snapshot != nil && b.Snapshot.Job == c.job.ID {
		var was []pipeline.SnapshotMark
		if c.mark != nil {
			was = append(was, *c.mark)
		}
		c.mark = &pipeline.FoldMarks(was, *b.Snapshot)[0]
		c.seen[string(b.Snapshot.State)]++
		if b.Snapshot.Reason != "" {
			c.t.Logf("%s: %s", b.Snapshot.State, b.Snapshot.Reason)
		}
	}
}

func (c *copying) apply(b *pipeline.Batch, i int) {
	c.t.Helper()
	e := &b.Events[i]
	tab := b.TableOf(i)
	if tab == nil {
		return
	}
	name := tab.Subject()
	rows := c.tables[name]
	if rows == nil {
		rows = map[string]map[string]string{}
		c.tables[name], c.bag[name] = rows, map[string]int{}
	}
	read := func(s pipeline.Span) (string, map[string]string) {
		if !s.Present() {
			return "", nil
		}
		image := b.Bytes(s)
		refs, err := pgtext.Form(tab).Walk(image, nil, len(tab.Columns))
		if err != nil {
			c.t.Fatal(err)
		}
		var key []string
		for _, k := range tab.Identity {
			key = append(key, string(refs[k].Of(image)))
		}
		m := map[string]string{}
		for n, ref := range refs {
			if ref.Null() {
				m[tab.Columns[n].Name] = "\x00null"
			} else if !ref.Absent() {
				m[tab.Columns[n].Name] = string(ref.Of(image))
			}
		}
		return strings.Join(key, "\x01"), m
	}
	oldKey, old := read(e.Before)
	key, row := read(e.After)
	if e.Op == pipeline.OpSnapshot {
		c.rows++
	}
	if len(tab.Identity) == 0 {
		if old != nil {
			c.bag[name][fmt.Sprint(old)]--
		}
		if row != nil {
			c.bag[name][fmt.Sprint(row)]++
		}
		if e.Op == pipeline.OpTruncate {
			clear(c.bag[name])
		}
		return
	}
	switch {
	case e.Op == pipeline.OpTruncate:
		clear(rows)
	case e.Op == pipeline.OpDelete:
		delete(rows, oldKey)
	case row != nil && e.Op.Row():
		full := map[string]string{}
		if old != nil && oldKey != key {
			maps.Copy(full, rows[oldKey])
			delete(rows, oldKey)
		} else if e.Op == pipeline.OpUpdate || e.Op == pipeline.OpSnapshot {
			maps.Copy(full, rows[key])
		}
		maps.Copy(full, row)
		rows[key] = full
	}
}

// until takes batches until ok, for up to a minute.
func (c *copying) until(what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); c.next() {
		if time.Now().After(end) {
			c.t.Fatalf("did not come: %s; mark %+v", what, c.mark)
		}
	}
}

func (c *copying) done() bool { return c.mark != nil && c.mark.State.Ended() }

// catchUp takes what the database has written so far.
func (c *copying) catchUp(d *db) {
	c.t.Helper()
	lsn := lsnOf(d.text("select pg_current_wal_insert_lsn()::text"))
	d.exec("select pg_logical_emit_message(true, 'leat.watermark', 'unknown')")
	c.until("all that was written", func() bool { return lsnOf(c.end.Token) > lsn })
}

// same compares a table with the copy, text by text.
func (c *copying) same(d *db, table, subject string, key ...string) {
	c.t.Helper()
	d.exec("set timezone = 'UTC'", "set extra_float_digits = 1")
	results, err := d.conn.PgConn().Exec(c.t.Context(), "select * from "+table).ReadAll()
	if err != nil {
		c.t.Fatal(err)
	}
	r := results[0]
	want := map[string]map[string]string{}
	bag := map[string]int{}
	for _, values := range r.Rows {
		m := map[string]string{}
		for i, f := range r.FieldDescriptions {
			m[f.Name] = string(values[i])
			if values[i] == nil {
				m[f.Name] = "\x00null"
			}
		}
		var k []string
		for _, name := range key {
			k = append(k, m[name])
		}
		want[strings.Join(k, "\x01")] = m
		bag[fmt.Sprint(m)]++
	}
	if len(key) == 0 {
		have := c.bag[subject]
		maps.DeleteFunc(have, func(_ string, n int) bool { return n == 0 })
		if !maps.Equal(have, bag) {
			c.t.Errorf("%s: the copy has %d different rows, the database %d", table, len(have), len(bag))
			report(c.t, have, bag)
		}
		return
	}
	have := c.tables[subject]
	bad := 0
	for k, row := range want {
		if !maps.Equal(row, have[k]) {
			if bad++; bad <= 5 {
				c.t.Errorf("%s, key %q: the database has %.300q, the copy %.300q", table, k, row, have[k])
			}
		}
	}
	for _, k := range slices.Sorted(maps.Keys(have)) {
		if want[k] == nil {
			if bad++; bad <= 5 {
				c.t.Errorf("%s, key %q: only the copy has it", table, k)
			}
		}
	}
	if bad > 0 {
		c.t.Errorf("%s: %d rows of %d differ", table, bad, len(want))
	}
}

func report[V comparable](t *testing.T, have, want map[string]V) {
	n := 0
	for _, m := range []map[string]V{have, want} {
		for k := range m {
			if n++; have[k] != want[k] && n < 10 {
				t.Errorf("%q: have %v, want %v", k, have[k], want[k])
			}
		}
	}
}

// While others write, the snapshot of a table ends with the copy equal to the table.
func TestSnapshotWhileWriting(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, d *db) {
		d.exec(`create table files (id int primary key, v int, big text)`,
			`alter table files alter big set storage external`,
			`insert into files select n, 0, repeat(md5(n::text), 80) from generate_series(1, 5000) n`)
		c := d.copying(nil, snapshot.Config{Max: true, Workers: 2}, "", pipeline.SnapshotJob{ID: "a1", Tables: []string{"public.*"}})
		c.open(true)
		stop := d.write(t, func(conn func(string, ...any), n int) {
			conn(`update files set v = v + 1 where id = $1`, n*37%5000+1)
			conn(`update files set id = id + 10000 where id = $1`, n*91%5000+1)
			conn(`delete from files where id = $1`, n*53%5000+1)
			conn(`insert into files values ($1, 1, 'x') on conflict do nothing`, n*71%5000+1)
		})
		c.until("the job's end", c.done)
		stop()
		if c.mark.State != pipeline.JobDone {
			t.Fatalf("ended as %s: %s", c.mark.State, c.mark.Reason)
		}
		c.catchUp(d)
		c.same(d, "files", "public.files", "id")
		t.Logf("%d rows came, %d were overtaken", c.rows, c.mark.Tables[0].Overtaken)
	})
}

// write has another connection change things until the returned func is called.
func (d *db) write(t *testing.T, f func(exec func(string, ...any), n int)) (stop func()) {
	conn := d.connect()
	done := make(chan struct{})
	var join sync.WaitGroup
	join.Go(func() {
		for n := 1; ; n++ {
			select {
			case <-done:
				return
			default:
			}
			f(func(q string, args ...any) {
				if _, err := conn.Exec(t.Context(), q, args...); err != nil && t.Context().Err() == nil {
					t.Errorf("%s: %v", q, err)
				}
			}, n)
		}
	})
	return sync.OnceFunc(func() { close(done); join.Wait() })
}
