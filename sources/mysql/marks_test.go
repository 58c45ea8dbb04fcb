package mysql

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// marking gives the source one watermark while its stream is read, and tells when it came: behind which events.
func (w *watched) marking(id string) (before int) {
	w.t.Helper()
	done := make(chan error, 1)
	ctx := within(w.t)
	go func() { done <- w.snap.Mark(ctx, id) }()
	for !slices.Contains(w.marks, id) {
		w.next(ctx)
	}
	if err := <-done; err != nil {
		w.t.Fatal(err)
	}
	return len(w.records)
}

// Watermarks come in the stream, in their place, also when nothing else happens; they are never events, whatever the
// configuration says of tables.
func TestWatermarks(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"written", "unwritten", "files"} {
		params := map[string]string(nil)
		if way == "files" {
			params = map[string]string{"gtid-mode": "OFF", "enforce-gtid-consistency": "OFF"}
		}
		test := func(t *testing.T, db *servertest.Database) {
			t.Parallel()
			raw := base(db.URL)
			c := login(t, raw, db.Name)
			c.do("create table a (id int primary key)")
			table := "leat_" + db.Name + ".watermark"
			if way == "unwritten" {
				table = "-"
			}
			cfg := Config{URL: raw, Tables: []string{db.Name + ".*", "leat_" + db.Name + ".*"}, WatermarkTable: table, BatchBytes: 4096, BatchEvents: 50}
			w := watch(t, cfg, now(t, raw))
			for i := range 5 {
				c.do(fmt.Sprintf("insert into a values (%d)", i))
				at := w.marking(fmt.Sprintf("m%d", i))
				mine := slices.DeleteFunc(w.texts()[:at], func(s string) bool { return !strings.Contains(s, db.Name+".a ") })
				if len(mine) != i+1 {
					t.Fatalf("watermark %d stands behind %d rows: %v", i, len(mine), mine)
				}
			}
			w.marking("idle1")
			w.marking("idle2")
			// In the middle of a long transaction's batches.
			c.do("begin", "insert into a select 100 + @n := @n + 1 from information_schema.COLUMNS, (select @n := 0) x limit 300", "commit")
			w.marking("behind")
			mine := 0
			for _, s := range w.texts() {
				if strings.Contains(s, db.Name+".a ") {
					mine++
				}
				if strings.Contains(s, "watermark") || strings.Contains(s, "m1") {
					t.Fatalf("a watermark is an event: %s", s)
				}
			}
			if want := []string{"m0", "m1", "m2", "m3", "m4", "idle1", "idle2", "behind"}; !slices.Equal(w.marks, want) || mine != 305 {
				t.Fatalf("%v, %d rows", w.marks, mine)
			}
			for _, n := range w.notices {
				if strings.Contains(n.Table, "watermark") {
					t.Fatalf("%+v", n)
				}
			}
		}
		t.Run("mysql "+way, func(t *testing.T) { test(t, servertest.MySQL(t, servers.MySQLOptions{Params: params})) })
		if way != "files" {
			t.Run("mariadb "+way, func(t *testing.T) { test(t, servertest.MariaDB(t, servers.MySQLOptions{})) })
		}
	}
}

// A user who may not write gets watermarks all the same.
func TestWatermarksWithoutRight(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		raw := base(db.URL)
		c := login(t, raw, db.Name)
		user := strings.ReplaceAll(db.Name, "leat_", "w")
		c.do("create table a (id int primary key)", "insert into a values (1)", "create user "+user+"@'%' identified by 'secret-pw'",
			"grant select, replication slave, replication client on *.* to "+user+"@'%'")
		warned := make(chan string, 10)
		cfg := Config{URL: "mysql://" + user + ":secret-pw@" + addr(t, raw) + "/", Tables: []string{db.Name + ".*"}, WatermarkTable: "leat_" + db.Name + ".watermark",
			Observer: pipeline.Observer{Warned: func(_, what, cure string) { warned <- what + "; " + cure }}}
		w := watch(t, cfg, now(t, raw))
		w.marking("m1")
		w.marking("m2")
		found := false
		for len(warned) > 0 {
			s := <-warned
			found = found || strings.Contains(s, "GRANT CREATE, INSERT, UPDATE ON")
			if strings.Contains(s, "secret-pw") {
				t.Fatal(s)
			}
		}
		if !found {
			t.Fatal("no one was told")
		}
		// The password that is no secret of ours: a stream that ended takes no watermark.
		if err := w.st.Close(); err != nil {
			t.Fatal(err)
		}
		if err := w.snap.Mark(within(t), "m3"); err == nil || code(err) != "no_stream" {
			t.Fatalf("%v", err)
		}
	})
}

// A signal table whose database the server keeps out of the binlog is found when the first watermark is written, not
// waited for; where nothing else can be done, the reason and a cure are told.
func TestSignalTableOutOfTheBinlog(t *testing.T) {
	t.Parallel()
	hidden := map[string]string{"binlog-ignore-db": "leat_hidden"}
	test := func(t *testing.T, db *servertest.Database) {
		t.Parallel()
		raw := base(db.URL)
		warned := make(chan string, 10)
		cfg := Config{URL: raw, Tables: []string{db.Name + ".*"}, WatermarkTable: "leat_hidden.watermark",
			Observer: pipeline.Observer{Warned: func(_, what, cure string) { warned <- what + "; " + cure }}}
		w := watch(t, cfg, now(t, raw))
		w.marking("m1")
		for s := range warned {
			if strings.Contains(s, "binlog_ignore_db keeps the database leat_hidden out") && strings.Contains(s, "snapshot.signal") {
				return
			}
			if len(warned) == 0 {
				t.Fatal(s)
			}
		}
	}
	t.Run("mysql", func(t *testing.T) { test(t, servertest.MySQL(t, servers.MySQLOptions{Params: hidden})) })
	t.Run("mariadb", func(t *testing.T) { test(t, servertest.MariaDB(t, servers.MySQLOptions{Params: hidden})) })
	t.Run("without GTIDs", func(t *testing.T) {
		t.Parallel()
		db := servertest.MySQL(t, servers.MySQLOptions{Params: map[string]string{"binlog-ignore-db": "leat_hidden", "gtid-mode": "OFF", "enforce-gtid-consistency": "OFF"}})
		raw := base(db.URL)
		w := watch(t, Config{URL: raw, Tables: []string{db.Name + ".*"}, WatermarkTable: "leat_hidden.watermark"}, now(t, raw))
		for range 2 {
			if err := w.snap.Mark(within(t), "m1"); err == nil || code(err) != "watermark_table" || !strings.Contains(err.Error(), "binlog_ignore_db") {
				t.Fatalf("%v", err)
			}
		}
	})
}

// What stands before a watermark in the binlog is read behind it, whoever writes meanwhile, in both ways.
func TestMarkIsVisible(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"", "-", "unordered"} {
		params := map[string]string(nil)
		if way == "unordered" {
			params = map[string]string{"binlog-order-commits": "OFF"}
		}
		test := func(t *testing.T, db *servertest.Database) {
			raw := base(db.URL)
			c := login(t, raw, db.Name)
			c.do("create table a (id int primary key auto_increment)")
			table := way
			if table != "-" {
				table = "leat_" + db.Name + ".watermark"
			}
			w := watch(t, Config{URL: raw, Tables: []string{db.Name + ".*"}, WatermarkTable: table}, now(t, raw))
			ctx := within(t)
			stop, stopped := make(chan struct{}), make(chan error, 3)
			for range 3 {
				writer := login(t, raw, db.Name)
				go func() {
					for {
						select {
						case <-stop:
							stopped <- nil
							return
						default:
						}
						if _, err := writer.c.exec(ctx, "insert into a values ()"); err != nil {
							stopped <- err
							return
						}
					}
				}()
			}
			s := w.session()
			type seen struct {
				id     string
				unseen func([]byte) bool
				rows   int
			}
			reads := make(chan seen, 200)
			go func() {
				defer close(reads)
				for i := range 100 {
					id := fmt.Sprintf("r%d", i)
					if err := w.snap.Mark(ctx, id); err != nil {
						t.Error(err)
						return
					}
					c := &snapshot.Chunk{}
					if err := s.Read(ctx, snapshot.Query{Table: snapshot.Table{Schema: db.Name, Name: "a", Key: []string{"id"}}}, c); err != nil {
						t.Error(err)
						return
					}
					reads <- seen{id, c.Unseen, len(c.Rows)}
				}
			}()
			var got []seen
			counts, open := map[string]int{}, true
			ids := []string{}
			before := 0
			for open || len(counts) < len(got) {
				select {
				case r, ok := <-reads:
					if open = ok; ok {
						got = append(got, r)
					} else {
						reads = nil
					}
					continue
				default:
				}
				b, err := w.st.Next(ctx)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range b.Watermarks {
					counts[m.ID] = before + int(m.Event)
				}
				for i := range b.Events {
					ids = append(ids, string(b.Bytes(b.Txs[b.Events[i].Tx].ID)))
				}
				before += len(b.Events)
				b.Release()
			}
			close(stop)
			for range 3 {
				if err := <-stopped; err != nil {
					t.Error(err)
				}
			}
			for _, r := range got {
				lacks := 0
				for _, id := range ids[:counts[r.id]] {
					if r.unseen != nil && r.unseen([]byte(id)) {
						lacks++
					}
				}
				if r.rows+lacks < counts[r.id] {
					t.Errorf("%s stands behind %d rows, %d were read, %d of the others are known to be unseen", r.id, counts[r.id], r.rows, lacks)
				}
			}
		}
		t.Run("mysql "+way, func(t *testing.T) { t.Parallel(); test(t, servertest.MySQL(t, servers.MySQLOptions{Params: params})) })
		if way != "unordered" { // which MariaDB does not know
			t.Run("mariadb "+way, func(t *testing.T) { t.Parallel(); test(t, servertest.MariaDB(t, servers.MySQLOptions{})) })
		}
	}
}

// A table without a key is read whole, at a place that is known, while others write.
func TestWholeTable(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		raw := base(db.URL)
		c := login(t, raw, db.Name)
		c.do("create table n (v int, w varchar(10))", "insert into n values (1,'a'),(1,'a'),(2,null),(3,'b'),(4,'c')")
		w := watch(t, Config{URL: raw, Tables: []string{db.Name + ".*"}, WatermarkTable: "leat_" + db.Name + ".watermark"}, now(t, raw))
		tables, err := w.snap.Tables(within(t), []string{db.Name + ".n"})
		if err != nil || len(tables) != 1 || len(tables[0].Key) != 0 || tables[0].Why == "" {
			t.Fatalf("%+v: %v", tables, err)
		}
		w.marking("low")
		s := w.session()
		var rows int
		var unseen func([]byte) bool
		for rest := false; ; rest = true {
			ch := w.read(s, snapshot.Query{Table: tables[0], Limit: 2, Rest: rest})
			if !rest {
				unseen = ch.Unseen
				c.do("insert into n values (5,'later')", "delete from n where v = 4")
			}
			rows += len(ch.Rows)
			if !ch.More {
				break
			}
		}
		if rows != 5 {
			t.Errorf("%d rows, want the 5 that there were", rows)
		}
		w.marking("high")
		last := w.records[len(w.records)-1]
		if unseen == nil || !strings.Contains(last.what, "v=4") || !unseen([]byte(last.tx)) {
			t.Errorf("%+v: not told as unseen (%t)", last, unseen != nil)
		}
		// The session is good for another read.
		if ch := w.read(s, snapshot.Query{Table: tables[0]}); len(ch.Rows) != 5 || ch.Unseen == nil || ch.Unseen([]byte(last.tx)) {
			t.Errorf("%d rows, %s unseen", len(ch.Rows), last.tx)
		}
	})
}
