package table

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
)

// What arrives is noted by a trigger, so that the suite sees each row that was written, in order.
func TestTableConforms(t *testing.T) {
	each(t, func(t *testing.T, at *there) {
		at.exec(t, "CREATE TABLE files (id bigint PRIMARY KEY, namespace_id bigint, path text, leat_offset bigint NOT NULL DEFAULT 0)")
		if at.kind == "postgres" {
			at.exec(t, "CREATE TABLE came (n bigserial PRIMARY KEY, o bigint)", "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO came (o) VALUES (NEW.leat_offset); RETURN NEW; END'",
				"CREATE TRIGGER note AFTER INSERT OR UPDATE ON files FOR EACH ROW EXECUTE FUNCTION note()")
		} else {
			at.exec(t, "CREATE TABLE came (n bigint AUTO_INCREMENT PRIMARY KEY, o bigint)", "CREATE TRIGGER note BEFORE INSERT ON files FOR EACH ROW INSERT INTO came (o) VALUES (NEW.leat_offset)")
		}
		pipetest.TestSink(t, func(t *testing.T) pipetest.SinkRig {
			if at.kind == "postgres" {
				at.exec(t, "TRUNCATE came", "TRUNCATE files")
			} else {
				at.exec(t, "DELETE FROM came", "DELETE FROM files")
			}
			return pipetest.SinkRig{Sink: at.sink(t, func(o *Options) { o.Name = at.schema + ".files"; o.Create, o.Evolve = false, false }),
				Received: func() (all []pipeline.Offset) {
					for line := range strings.Lines(at.rows(t, "SELECT o FROM came ORDER BY n")) {
						o, err := strconv.ParseUint(strings.TrimSpace(line), 10, 64)
						if err != nil {
							t.Fatal(err)
						}
						all = append(all, pipeline.Offset(o))
					}
					return all
				},
				Hang: func() { lock(t, at, "files") }}
		})
	})
}

// lock holds a table until the test ends.
func lock(t testing.TB, at *there, table string) {
	t.Helper()
	conn, err := at.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	statements := []string{"BEGIN", "LOCK TABLE " + table + " IN ACCESS EXCLUSIVE MODE"}
	if at.kind != "postgres" {
		statements = []string{"LOCK TABLES " + table + " WRITE"}
	}
	for _, q := range statements {
		if _, err := conn.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if at.kind == "postgres" {
			_, err = conn.ExecContext(context.Background(), "ROLLBACK")
		} else {
			_, err = conn.ExecContext(context.Background(), "UNLOCK TABLES")
		}
		if err = errors.Join(err, conn.Close()); err != nil {
			t.Error(err)
		}
	})
}

// history is random changes of a few rows, and what the rows are after each.
type history struct {
	changes []pipetest.Change
	states  []string
}

func random(r *rand.Rand, table *schemas.Table, n int) (h history) {
	rows := map[int][2]string{}
	for range n {
		id := r.IntN(8)
		text := strconv.Itoa(id)
		old, is := rows[id]
		namespace, path := strconv.Itoa(r.IntN(100)), fmt.Sprintf("p %d 'ü\\ \"x", r.IntN(1000))
		if r.IntN(5) == 0 {
			path = pipetest.Null
		}
		switch {
		case r.IntN(40) == 0:
			clear(rows)
			h.changes = append(h.changes, truncate(table))
		case is && r.IntN(4) == 0:
			delete(rows, id)
			h.changes = append(h.changes, del(table, text))
		case is && r.IntN(2) == 0:
			rows[id] = [2]string{namespace, old[1]}
			h.changes = append(h.changes, put(table, text, namespace, pipetest.Absent))
		default:
			rows[id] = [2]string{namespace, path}
			h.changes = append(h.changes, put(table, text, namespace, path))
		}
		var lines []string
		for id := range 8 {
			if row, is := rows[id]; is {
				lines = append(lines, fmt.Sprintf("%d %s %s", id, row[0], strings.Replace(row[1], pipetest.Null, "NULL", 1)))
			}
		}
		h.states = append(h.states, strings.Join(lines, "\n"))
	}
	return h
}

// However often a stretch is delivered again, in whatever pieces, the table is in the end what the source's is; with a
// guard no row that is there goes back.
func TestHistories(t *testing.T) {
	each(t, func(t *testing.T, at *there) {
		for _, guard := range []string{"leat_offset", ""} {
			t.Run("guard "+guard, func(t *testing.T) {
				t.Parallel()
				table := pipetest.FilesTable(servertest.Name())
				seed := uint64(len(guard)) + 7
				r := rand.New(rand.NewPCG(seed, 1))
				h := random(r, table, 300)
				s := at.sink(t, func(o *Options) { o.Guard = guard })
				best := 0
				for from := 0; from < len(h.changes); {
					to := min(len(h.changes), from+1+r.IntN(30))
					b := batch(pipeline.Offset(1000+from), h.changes[from:to]...)
					out, err := deliver(t, s, b)
					b.Release()
					if err != nil || len(out) > 0 && guard != "" {
						t.Fatalf("seed %d, %d to %d: %v %v", seed, from, to, out, err)
					}
					best = max(best, to)
					want := strings.Split(h.states[best-1], "\n")
					have := strings.Split(at.files(t, table.Name), "\n")
					if guard != "" && to < best { // a row that was deleted since may be there until that comes again
						have = slices.DeleteFunc(have, func(line string) bool { return !slices.Contains(want, line) })
					}
					if !slices.Equal(have, want) && (guard != "" || to == best) && h.states[best-1] != "" {
						t.Fatalf("seed %d, %d to %d, behind %d:\n%q\nwant\n%q", seed, from, to, best, have, want)
					}
					if from = to; r.IntN(4) == 0 { // a crash before the cursor was saved
						from = max(0, from-r.IntN(60))
					}
				}
			})
		}
	})
}

// Several writers beside one another, of different keys, are not in one another's way.
func TestBeside(t *testing.T) {
	each(t, func(t *testing.T, at *there) {
		table := pipetest.FilesTable(servertest.Name())
		s := at.sink(t)
		var all sync.WaitGroup
		for n := range 4 {
			all.Go(func() {
				for round := range 8 {
					var changes []pipetest.Change
					for i := range 100 {
						id := strconv.Itoa(i*4 + n)
						if (round+i)%3 == 2 {
							changes = append(changes, del(table, id))
						} else {
							changes = append(changes, put(table, id, strconv.Itoa(round), "x"))
						}
					}
					b := batch(pipeline.Offset(1000*(round+1)+100*n), changes...)
					if out, err := deliver(t, s, b); err != nil || len(out) > 0 {
						t.Errorf("%v %v", out, err)
					}
					b.Release()
				}
			})
		}
		all.Wait()
		if n := at.rows(t, "SELECT count(*) FROM "+table.Name+" WHERE namespace_id = 7"); n != "268" { // (7+i)%3 < 2
			t.Error(n)
		}
	})
}

// Tables are made and widened; without leave to do so the reason names what is missing, and it goes on when it is there.
func TestShapes(t *testing.T) {
	each(t, func(t *testing.T, at *there) {
		table := pipetest.FilesTable(servertest.Name())
		more := wider(table, "size", bigint)
		strict := at.sink(t, func(o *Options) { o.Create, o.Evolve = false, false })
		held := func(s *Sink, c pipetest.Change, words ...string) {
			t.Helper()
			b := batch(5, c)
			defer b.Release()
			out, err := deliver(t, s, b)
			de := pipeline.AsDeliveryError(err)
			if err == nil || de.Class != pipeline.Unavailable {
				t.Fatalf("%v %v", out, err)
			}
			for _, w := range words {
				if !strings.Contains(de.Reason, w) {
					t.Errorf("%q does not say %q", de.Reason, w)
				}
			}
		}
		held(strict, put(table, "1", "1", "a"), "no table", table.Name, "create: true")
		at.exec(t, "CREATE TABLE "+table.Name+" (id bigint NOT NULL, namespace_id bigint, path varchar(99))")
		held(strict, put(table, "1", "1", "a"), "leat_offset", "evolve: true")
		at.exec(t, "ALTER TABLE "+table.Name+" ADD COLUMN leat_offset bigint NOT NULL DEFAULT 0")
		held(strict, put(table, "1", "1", "a"), "no primary key or unique index of just id")
		at.exec(t, "CREATE UNIQUE INDEX "+table.Name+"_id ON "+table.Name+" (id)")
		done(t, strict, 10, put(table, "1", "1", "a"))
		held(strict, put(more, "1", "1", "b", "7"), "no column size", "evolve: true")
		s := at.sink(t)
		done(t, s, 11, put(more, "1", "1", "b", "7"), put(more, "2", "1", "c", "8"))
		done(t, strict, 13, put(more, "1", "1", "d", "9"), put(table, "3", "1", "e")) // of the old shape, late
		if have := at.rows(t, "SELECT id, path, size FROM "+table.Name+" ORDER BY id"); have != "1 d 9\n2 c 8\n3 e NULL" {
			t.Fatal(have)
		}
		// Somebody changes the target while we write.
		at.exec(t, "ALTER TABLE "+table.Name+" DROP COLUMN size")
		held(s, put(more, "1", "1", "x", "1"), "size")
		done(t, s, 20, put(more, "1", "1", "f", "10"))
		at.exec(t, "DROP TABLE "+table.Name)
		held(s, put(more, "1", "1", "x", "1"), table.Name)
		done(t, s, 21, put(more, "1", "1", "g", "11"))
		if have := at.rows(t, "SELECT * FROM "+table.Name); !strings.HasPrefix(have, "1 1 g 11") {
			t.Fatal(have)
		}
		// Two tables are not one.
		one := at.sink(t, func(o *Options) { o.Name = at.schema + "." + table.Name })
		done(t, one, 30, put(more, "4", "1", "h", "1"))
		held(one, put(pipetest.FilesTable("other"), "1", "1", "x"), "public.other", "{schema}")
		// A column of the guard's name.
		held(at.sink(t), put(wider(pipetest.FilesTable(servertest.Name()), "leat_offset", bigint), "1", "1", "x", "1"), "leat_offset too")
	})
}

// A row that does not fit is refused alone, with its column or constraint and without its values; later events of it
// wait, all others are written.
func TestRefused(t *testing.T) {
	each(t, func(t *testing.T, at *there) {
		table := pipetest.FilesTable(servertest.Name())
		at.exec(t, "CREATE TABLE "+table.Name+" (id bigint PRIMARY KEY, namespace_id smallint NOT NULL, path varchar(8), leat_offset bigint NOT NULL DEFAULT 0, CONSTRAINT "+table.Name+"_even CHECK (namespace_id <> 13))",
			"CREATE UNIQUE INDEX "+table.Name+"_path ON "+table.Name+" (path)")
		s := at.sink(t)
		for reason, c := range map[string]pipetest.Change{
			"namespace_id": put(table, "2", pipetest.Null, "b"), "out of range": put(table, "2", "70000", "b"), "too long": put(table, "2", "1", "secrets beyond"), table.Name + "_even": put(table, "2", "13", "b"),
		} {
			have := refused(t, s, 10, put(table, "1", "1", "a"), c, c, put(table, "3", "1", "c"), put(table, "3", "2", "c"))
			classes := strings.Split(have, "|")
			if len(classes) != 5 || classes[0] != "ok" || !strings.HasPrefix(classes[1], "fatal") || !strings.Contains(classes[1], reason) || strings.Contains(have, "secret") || strings.Contains(have, "70000") ||
				!strings.HasPrefix(classes[2], "retry") || classes[3] != "ok" || classes[4] != "ok" {
				t.Errorf("%s: %s", reason, have)
			}
			if have := at.files(t, table.Name); have != "1 1 a\n3 2 c" {
				t.Errorf("%s: %s", reason, have)
			}
		}
		// A value of a unique index that another row still has: it is not that row which is overwritten.
		have := refused(t, s, 20, put(table, "4", "1", "a"), put(table, "5", "1", "e"))
		if classes := strings.Split(have, "|"); len(classes) != 2 || !strings.HasPrefix(classes[0], "retry") || strings.Contains(have, "'a'") || classes[1] != "ok" {
			t.Error(have)
		}
		if have := at.files(t, table.Name); have != "1 1 a\n3 2 c\n5 1 e" {
			t.Error(have)
		}
		// Within one Delivery the value may pass from one row to another, whatever the statement's order.
		done(t, s, 30, put(table, "1", "1", "z"), put(table, "4", "1", "a"), del(table, "3"), put(table, "6", "1", "c"))
		if have := at.files(t, table.Name); have != "1 1 z\n4 1 a\n5 1 e\n6 1 c" {
			t.Error(have)
		}
		// What did not come whole and is not there: a row that is made is refused, one that is changed is not made of a part.
		done(t, s, 40, put(table, "7", "1", pipetest.Absent))
		part := put(table, "7", "1", pipetest.Absent)
		part.Op = pipeline.OpInsert
		have = refused(t, s, 42, part, put(table, "4", "5", pipetest.Absent))
		if classes := strings.Split(have, "|"); len(classes) != 2 || !strings.HasPrefix(classes[0], "fatal") || !strings.Contains(classes[0], "column path") || !strings.Contains(classes[0], "leat backfill") || classes[1] != "ok" {
			t.Error(have)
		}
		if have := at.files(t, table.Name); have != "1 1 z\n4 5 a\n5 1 e\n6 1 c" {
			t.Error(have)
		}
	})
}

// A replay's copies change nothing; nor does what is no row.
func TestCopies(t *testing.T) {
	each(t, func(t *testing.T, at *there) {
		table := pipetest.FilesTable(servertest.Name())
		s := at.sink(t)
		done(t, s, 10, put(table, "1", "1", "a"), del(table, "2"))
		b := batch(5, put(table, "2", "1", "old"))
		defer b.Release()
		out, err := s.Deliver(t.Context(), &pipeline.Delivery{Replay: "job", Runs: []pipeline.Run{{Batch: b, To: 1}}, Events: 1})
		if err != nil || len(out) > 0 {
			t.Fatal(out, err)
		}
		done(t, s, 20, pipetest.Change{Op: pipeline.OpMessage}, pipetest.Change{Op: pipeline.OpSchema, Table: table})
		if have := at.files(t, table.Name); have != "1 1 a" {
			t.Fatal(have)
		}
	})
}

// A key that changes within a Delivery: what was written by the old one is not lost, and the order is kept.
func TestKeyOfOtherColumns(t *testing.T) {
	each(t, func(t *testing.T, at *there) {
		table := pipetest.FilesTable(servertest.Name())
		other := *pipetest.FilesTable(table.Name)
		other.Version, other.Identity = 2, []int{1}
		other.Seal()
		s := at.sink(t)
		done(t, s, 1, put(table, "1", "9", "a"), put(table, "2", "5", "b"))
		at.exec(t, "CREATE UNIQUE INDEX "+table.Name+"_n ON "+table.Name+" (namespace_id)")
		if at.kind != "postgres" {
			at.exec(t, "ALTER TABLE "+table.Name+" MODIFY namespace_id bigint NOT NULL")
		}
		gone := pipetest.Change{Op: pipeline.OpDelete, Table: &other, Before: pipetest.Row{pipetest.Absent, "5", pipetest.Absent}}
		done(t, s, 10, put(table, "9", "7", "new"), put(&other, "1", "9", "last"), put(table, "2", "5", "c"), gone)
		if have := at.files(t, table.Name); have != "1 9 last\n9 7 new" {
			t.Fatal(have)
		}
	})
}

// A key that lets NULL in does not tell rows apart: one row would be overwritten by another.
func TestKeyOfNulls(t *testing.T) {
	each(t, func(t *testing.T, at *there) {
		table := pipetest.FilesTable(servertest.Name())
		at.exec(t, "CREATE TABLE "+table.Name+" (id bigint NULL UNIQUE, namespace_id bigint, path varchar(8) UNIQUE, leat_offset bigint NOT NULL DEFAULT 0)")
		s := at.sink(t)
		if at.kind != "postgres" {
			if why := unavailable(t, s, 1, put(table, "1", "1", "a")); !strings.Contains(why, "NOT NULL") {
				t.Error(why)
			}
			return
		}
		done(t, s, 1, put(table, "1", "1", "a"))
		if have := refused(t, s, 2, put(table, "2", "1", "a")); !strings.HasPrefix(have, "retry") || at.files(t, table.Name) != "1 1 a" {
			t.Error(have, at.files(t, table.Name))
		}
	})
}

// By the collation of the target's key, rows of the source may be one: they are not written.
func TestKeysThatMerge(t *testing.T) {
	for _, kind := range []string{"mysql", "mariadb"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			at := reach(t, kind, kinds[kind](t))
			table := *pipetest.FilesTable(servertest.Name())
			table.Identity = []int{2}
			table.Seal()
			at.exec(t, "CREATE TABLE "+table.Name+" (id bigint, namespace_id bigint, path varchar(8) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY, leat_offset bigint NOT NULL DEFAULT 0)")
			s := at.sink(t)
			if why := unavailable(t, s, 1, put(&table, "1", "1", "a")); !strings.Contains(why, "utf8mb4_general_ci on path") {
				t.Error(why)
			}
			exact := map[string]string{"mysql": "utf8mb4_0900_bin", "mariadb": "utf8mb4_nopad_bin"}[kind]
			at.exec(t, "ALTER TABLE "+table.Name+" MODIFY path varchar(8) CHARACTER SET utf8mb4 COLLATE "+exact)
			done(t, s, 1, put(&table, "1", "1", "a"), put(&table, "2", "1", "A"), put(&table, "3", "1", "a "))
			if have := at.rows(t, "SELECT COUNT(*) FROM "+table.Name); have != "3" {
				t.Error(have)
			}
		})
	}
}

// A trigger's text may have the row in it, whatever code it gives: it is not shown, and the other rows are written.
func TestTriggersThatTalk(t *testing.T) {
	each(t, func(t *testing.T, at *there) {
		table := pipetest.FilesTable(servertest.Name())
		at.exec(t, "CREATE TABLE "+table.Name+" (id bigint PRIMARY KEY, namespace_id bigint, path varchar(8), leat_offset bigint NOT NULL DEFAULT 0)")
		if at.kind == "postgres" {
			at.exec(t, "CREATE FUNCTION "+table.Name+"_f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id = 2 THEN RAISE EXCEPTION 'no %', NEW.path USING ERRCODE = 'AB123'; END IF; RETURN NEW; END $$",
				"CREATE TRIGGER t BEFORE INSERT OR UPDATE ON "+table.Name+" FOR EACH ROW EXECUTE FUNCTION "+table.Name+"_f()")
		} else {
			at.exec(t, "CREATE TRIGGER "+table.Name+"_t BEFORE INSERT ON "+table.Name+" FOR EACH ROW BEGIN IF NEW.id = 2 THEN SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 31999, MESSAGE_TEXT = 'no hush'; END IF; END")
		}
		have := refused(t, at.sink(t), 1, put(table, "1", "1", "a"), put(table, "2", "1", "hush"), put(table, "3", "1", "c"))
		if classes := strings.Split(have, "|"); len(classes) != 3 || classes[0] != "ok" || !strings.HasPrefix(classes[1], "fatal") || strings.Contains(have, "hush") || classes[2] != "ok" {
			t.Error(have)
		}
	})
}

// keyless tables cannot be upserted: each row says so.
func TestNoKey(t *testing.T) {
	each(t, func(t *testing.T, at *there) {
		table := *pipetest.FilesTable(servertest.Name())
		table.Identity = nil
		table.Seal()
		if have := refused(t, at.sink(t), 1, put(&table, "1", "1", "a")); !strings.HasPrefix(have, "fatal") || !strings.Contains(have, "no key") {
			t.Error(have)
		}
	})
}

func TestNameOf(t *testing.T) {
	for template, want := range map[string]string{"{schema}.{table}": `["a.b" "c.d"]`, "{table}": `["" "c.d"]`, "x.{source}_{schema}_{table}": `["x" "s_a.b_c.d"]`} {
		n := NameOf(template, "s", "a.b", "c.d")
		if have := fmt.Sprintf("%q", []string{n.Schema, n.Table}); have != want {
			t.Errorf("%s: %s, want %s", template, have, want)
		}
	}
}
