package mysql

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// copying is a subscriber that keeps tables up to date from a stream with snapshots.
type copying struct {
	t      *testing.T
	stream pipeline.Stream
	end    pipeline.Position
	mark   *pipeline.SnapshotMark
	marks  int
	tables map[string]map[string][]string // by subject, then key: cells
	bag    map[string]map[string]int      // of tables without a key: how often each row is there
	read   map[string]int64               // of those: when the latest read was
}

func newCopying(t *testing.T) *copying {
	return &copying{t: t, tables: map[string]map[string][]string{}, bag: map[string]map[string]int{}, read: map[string]int64{}}
}

// row reads an image: its key, and the cells, "\x00" for absent ones.
func (c *copying) row(t *schemas.Table, image []byte) (key string, row []string) {
	c.t.Helper()
	f := binlog.Form(t)
	refs, err := f.Walk(image, nil, len(t.Columns))
	if err != nil {
		c.t.Fatal(err)
	}
	list := cells(c.t, t, image)
	for i := range list {
		if row = append(row, string(list[i])); refs[i].Absent() {
			row[i] = "\x00"
		}
	}
	var k []string
	for _, i := range t.Identity {
		k = append(k, row[i])
	}
	return strings.Join(k, "\x01"), row
}

func (c *copying) next(ctx context.Context) {
	c.t.Helper()
	b, err := c.stream.Next(ctx)
	if err != nil {
		c.t.Fatalf("%v; mark %+v", err, c.mark)
	}
	defer b.Release()
	for _, n := range b.Notices {
		c.t.Fatalf("%+v", n)
	}
	for i := range b.Events {
		c.apply(b, i)
	}
	if !b.End.Zero() {
		c.end = b.End
	}
	if b.Snapshot != nil {
		var was []pipeline.SnapshotMark
		if c.mark != nil {
			was = append(was, *c.mark)
		}
		c.mark = &pipeline.FoldMarks(was, *b.Snapshot)[0]
		c.marks++
	}
}

func (c *copying) apply(b *pipeline.Batch, i int) {
	c.t.Helper()
	e, t := &b.Events[i], b.TableOf(i)
	if !e.Op.Row() {
		return
	}
	rows, bag := c.tables[t.Subject()], c.bag[t.Subject()]
	if rows == nil {
		rows, bag = map[string][]string{}, map[string]int{}
		c.tables[t.Subject()], c.bag[t.Subject()] = rows, bag
	}
	var oldKey, key string
	var old, row []string
	if e.Before.Present() {
		oldKey, old = c.row(t, b.Bytes(e.Before))
	}
	if e.After.Present() {
		key, row = c.row(t, b.Bytes(e.After))
	}
	if len(t.Identity) == 0 {
		if at := b.Txs[0].Time; e.Op == pipeline.OpSnapshot && c.read[t.Subject()] != at { // what came before stands in the snapshot
			clear(bag)
			c.read[t.Subject()] = at
		}
		if old != nil {
			bag[fmt.Sprint(old)]--
		}
		if row != nil {
			bag[fmt.Sprint(row)]++
		}
		return
	}
	if row == nil {
		delete(rows, oldKey)
		return
	}
	if old != nil { // an after image may leave out what did not change
		for n, v := range old {
			if row[n] == "\x00" && v != "\x00" {
				row[n] = v
			}
		}
		var k []string
		for _, n := range t.Identity {
			k = append(k, row[n])
		}
		key = strings.Join(k, "\x01")
		for n, v := range rows[oldKey] {
			if row[n] == "\x00" {
				row[n] = v
			}
		}
		if oldKey != key {
			delete(rows, oldKey)
		}
	}
	rows[key] = row
}

// same compares the copies with the tables as they are now.
func (c *copying) same(db snapshot.Database, globs string) {
	c.t.Helper()
	tables, err := db.Tables(within(c.t), []string{globs})
	if err != nil || len(tables) == 0 {
		c.t.Fatal(err, len(tables))
	}
	s, err := db.Session(within(c.t))
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for _, table := range tables {
		chunk := &snapshot.Chunk{}
		if err := s.Read(within(c.t), snapshot.Query{Table: table}, chunk); err != nil {
			c.t.Fatal(err)
		}
		subject := schemas.Subject(table.Schema, table.Name)
		want, bag := map[string][]string{}, map[string]int{}
		for i := range chunk.Rows {
			key, row := c.row(chunk.Shape, chunk.Row(i))
			want[key] = row
			bag[fmt.Sprint(row)]++
		}
		if len(table.Key) == 0 {
			maps.DeleteFunc(c.bag[subject], func(_ string, n int) bool { return n == 0 })
			if !maps.Equal(bag, c.bag[subject]) {
				c.t.Errorf("%s: the copy has %d different rows, want %d", table.Name, len(c.bag[subject]), len(bag))
				for row := range bag {
					if got := c.bag[subject][row]; got != bag[row] {
						c.t.Errorf("%q: %d times, want %d", row, got, bag[row])
					}
				}
			}
			continue
		}
		bad := 0
		for key, row := range want {
			if got := c.tables[subject][key]; fmt.Sprint(got) != fmt.Sprint(row) {
				if bad++; bad < 5 {
					c.t.Errorf("%s, key %q: the copy has %.200q, want %.200q", table.Name, key, got, row)
				}
			}
		}
		for key := range c.tables[subject] {
			if want[key] == nil {
				if bad++; bad < 5 {
					c.t.Errorf("%s, key %q: only the copy has it", table.Name, key)
				}
			}
		}
		c.t.Logf("%s: %d rows, %d differ", table.Name, len(want), bad)
	}
}

// While others write, a snapshot of tables with keys of many kinds, and of one without, ends with copies equal to the
// tables; with whole and with minimal images, with and without the right to write watermarks.
func TestSnapshotWhileWriting(t *testing.T) {
	t.Parallel()
	for name, way := range map[string]struct {
		image, table string
		rows         int // where images lack columns, rows are read again one by one
	}{"full": {"FULL", "", 3000}, "minimal": {"MINIMAL", "", 600}, "unwritten": {"FULL", "-", 3000}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flavors(t, servers.MySQLOptions{Params: map[string]string{"binlog-row-image": way.image}}, func(t *testing.T, db *servertest.Database) {
				if way.table == "" {
					way.table = "leat_" + db.Name + ".watermark"
				}
				copied(t, db, way.table, way.rows)
			})
		})
	}
}

func copied(t *testing.T, db *servertest.Database, watermarks string, rows int) {
	raw := base(db.URL)
	c := login(t, raw, db.Name)
	c.do("create table words (w varchar(20) character set utf8mb4 collate utf8mb4_unicode_ci, e enum('z','a','m'), v int, body text, primary key (e, w))",
		"create table numbers (id bigint unsigned primary key, v int, j json, d decimal(10,2), at timestamp(3) null)", "create table moments (a datetime(6), b binary(4), v int, primary key (a, b))",
		"create table bag (v int, w varchar(20))")
	fill := func(n int) (words, numbers, moments, bag []string) {
		for i := range n {
			words = append(words, fmt.Sprintf("('w%04d', %d, %d, repeat('x', %d))", i, i%3+1, i, i%100))
			numbers = append(numbers, fmt.Sprintf("(%d, %d, '{\"a\": 1.0, \"b\": [1, %d]}', %d.25, '2026-01-02 03:04:05.678')", uint64(i)<<50+uint64(i), i, i, i))
			moments = append(moments, fmt.Sprintf("('2026-01-01 00:00:%02d.%06d', x'%08x', %d)", i%60, i, i<<8, i))
			bag = append(bag, fmt.Sprintf("(%d, 'b%d')", i, i%10))
		}
		return words, numbers, moments, bag
	}
	words, numbers, moments, bag := fill(rows)
	c.do("insert into words values "+strings.Join(words, ","), "insert into numbers values "+strings.Join(numbers, ","),
		"insert into moments values "+strings.Join(moments, ","), "insert into bag values "+strings.Join(bag, ","))
	src := source(t, Config{URL: raw, Tables: []string{db.Name + ".*"}, WatermarkTable: watermarks})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	database := src.Snapshots()
	t.Cleanup(func() { _ = database.Close() })
	cp := newCopying(t)
	var err error
	if cp.stream, err = snapshot.New(src, database, snapshot.Config{Max: true, Workers: 2}).Open(ctx, now(t, raw)); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cp.stream.Close() }()
	stop := writing(t, raw, db.Name, rows)
	cp.stream.(pipeline.Snapshotter).Start(pipeline.SnapshotJob{ID: "j1", Tables: []string{db.Name + ".*"}})
	for cp.mark == nil || !cp.mark.State.Ended() {
		cp.next(ctx)
	}
	stop()
	if cp.mark.State != pipeline.JobDone {
		t.Fatalf("%+v", cp.mark)
	}
	for _, p := range cp.mark.Tables {
		if !p.Done || p.Fault != "" {
			t.Errorf("%+v", p)
		}
	}
	c.do("insert into bag values (-1, 'the end')")
	for len(cp.bag[db.Name+".bag"]) == 0 || !ended(cp.bag[db.Name+".bag"]) {
		cp.next(ctx)
	}
	cp.same(database, db.Name+".*")
}

func ended(bag map[string]int) bool {
	for row, n := range bag {
		if n > 0 && strings.Contains(row, "the end") {
			return true
		}
	}
	return false
}

// writing changes all tables until it is stopped.
func writing(t *testing.T, raw, name string, rows int) (stop func()) {
	done := make(chan struct{})
	var join sync.WaitGroup
	for seed := range uint64(2) {
		c := login(t, raw, name)
		join.Go(func() {
			r := rand.New(rand.NewPCG(seed, 1))
			for {
				select {
				case <-done:
					return
				default:
				}
				i := r.IntN(rows)
				id := uint64(i)<<50 + uint64(i)
				for _, q := range []string{
					fmt.Sprintf("update words set v = v + 1 where w = 'w%04d'", i), fmt.Sprintf("update ignore words set w = concat(w, 'X') where w = 'w%04d'", r.IntN(rows)),
					fmt.Sprintf("update words set w = upper(w) where w = 'w%04d'", r.IntN(rows)), fmt.Sprintf("delete from words where w = 'w%04d'", r.IntN(rows)),
					fmt.Sprintf("insert ignore into words values ('W%04d', 2, 1, 'new')", r.IntN(rows*4/3)),
					fmt.Sprintf("update numbers set v = v + 1 where id = %d", id), fmt.Sprintf("update ignore numbers set id = id + %d where id = %d", r.IntN(1<<20), id),
					fmt.Sprintf("replace into numbers values (%d, 0, '[]', 0, null)", id), fmt.Sprintf("delete from moments where b = x'%08x'", i<<8),
					fmt.Sprintf("update ignore moments set a = a + interval 1 minute where b = x'%08x'", r.IntN(rows)<<8), "insert into bag values (7, 'new')", fmt.Sprintf("delete from bag where v = %d limit 1", r.IntN(rows)),
				} {
					if _, err := c.c.exec(context.Background(), q); err != nil && !bytes.Contains([]byte(err.Error()), []byte("Deadlock")) {
						t.Errorf("%s: %v", q, err)
						return
					}
				}
			}
		})
	}
	return sync.OnceFunc(func() { close(done); join.Wait() })
}
