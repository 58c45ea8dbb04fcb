package postgres

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
)

// streaming runs f on servers that send a transaction when it has made 64 kB.
func streaming(t *testing.T, f func(t *testing.T, d *db)) {
	for _, v := range versions {
		t.Run(fmt.Sprintf("postgres%d", v), func(t *testing.T) {
			t.Parallel()
			d := &db{t: t, version: v, Database: servertest.Postgres(t, servers.PostgresOptions{Version: v,
				Params: map[string]string{"logical_decoding_work_mem": "64kB", "max_prepared_transactions": "20"}})}
			d.conn = d.connect()
			f(t, d)
		})
	}
}

const manyRows = 1200 // of 100 bytes: more than the server keeps

func fillRows(from int) string {
	return fmt.Sprintf(`insert into f select n, repeat('x', 100) from generate_series(%d, %d) n`, from, from+manyRows-1)
}

func rowLines(from int) (lines []string) {
	for n := from; n < from+manyRows; n++ {
		lines = append(lines, fmt.Sprintf("insert public.f - {id=%d v=<100>}", n))
	}
	return lines
}

func run(t *testing.T, c *pgx.Conn, statements ...string) {
	t.Helper()
	for _, q := range statements {
		if _, err := c.Exec(t.Context(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

// A transaction that runs is read while it runs, others go on, and what it rolled back never happened.
func TestRunningTransactions(t *testing.T) {
	t.Parallel()
	streaming(t, func(t *testing.T, d *db) {
		d.exec(`create table f (id int primary key, v text)`)
		r := d.open(d.source(), pipeline.Position{})
		large := d.connect()
		run(t, large, `begin`, fillRows(0), `savepoint a`, fillRows(10_000), `savepoint b`, fillRows(20_000), `rollback to a`, fillRows(30_000), `savepoint c`, fillRows(40_000))
		d.exec(`insert into f values (-1, 'meanwhile')`)
		r.want("insert public.f - {id=-1 v=meanwhile}")
		r.until(func() bool { return len(r.open) == 1 })
		run(t, large, `release c`, `insert into f values (-2, 'last')`, `commit`)
		d.exec(`insert into f values (-3, 'after')`)
		want := slices.Concat(rowLines(0), rowLines(30_000), rowLines(40_000), []string{"insert public.f - {id=-2 v=last}", "insert public.f - {id=-3 v=after}"})
		r.want(want...)

		run(t, large, `begin`, fillRows(100_000))
		r.until(func() bool { return len(r.open) == 1 })
		run(t, large, `rollback`)
		r.until(func() bool { return len(r.open) == 0 })
		d.exec(`insert into f values (-4, 'end')`)
		r.want("insert public.f - {id=-4 v=end}")
	})
}

// A prepared transaction comes once, when and where it commits, also when Leat or the server began again between; one
// that is rolled back does not come.
func TestPreparedTransactions(t *testing.T) {
	t.Parallel()
	streaming(t, func(t *testing.T, d *db) {
		d.exec(`create table f (id int primary key, v text)`)
		s := d.source()
		r := d.open(s, pipeline.Position{})
		d.exec(`begin`, fillRows(0), `prepare transaction '`+d.Name+`large'`, `begin`, `insert into f values (-1, 'small')`, `prepare transaction '`+d.Name+`small'`,
			`begin`, fillRows(10_000), `prepare transaction '`+d.Name+`gone'`, `insert into f values (-2, 'meanwhile')`)
		r.want("insert public.f - {id=-2 v=meanwhile}")
		again := func() {
			r.stream.Confirm(r.last)
			at := r.last
			if err := r.stream.Close(); err != nil {
				t.Fatal(err)
			}
			d.free()
			r = d.open(s, at)
		}
		again()
		d.exec(`commit prepared '` + d.Name + `small'`)
		r.want("insert public.f - {id=-1 v=small}")
		again()
		d.exec(`rollback prepared '`+d.Name+`gone'`, `commit prepared '`+d.Name+`large'`, `insert into f values (-3, 'after')`)
		r.want(append(rowLines(0), "insert public.f - {id=-3 v=after}")...)
		if len(r.open) != 0 {
			t.Errorf("%d transactions are left open", len(r.open))
		}
	})
}

// reopened reads until the stream asks to be opened again, and opens it; what it sent stands in the new one's lines.
func (d *db) reopened(s *Source, r *reading) *reading {
	d.t.Helper()
	for {
		err := r.next()
		if err == nil {
			continue
		}
		var se *pipeline.SourceError
		if !errors.As(err, &se) || se.Code != CodeReopened || se.Class != pipeline.Transient {
			d.t.Fatalf("got %v", err)
		}
		break
	}
	lines, at := r.lines, r.last
	if err := r.stream.Close(); err != nil {
		d.t.Fatal(err)
	}
	d.free()
	r = d.open(s, at)
	r.lines = lines
	return r
}

// A transaction that makes the table it fills is read at its commit, others before it; then transactions are read
// while they run again.
func TestRunningMakesTables(t *testing.T) {
	t.Parallel()
	streaming(t, func(t *testing.T, d *db) {
		d.exec(`create table f (id int primary key, v text)`, `create schema s`, `create publication all_of_it for all tables`)
		s := d.source(func(c *Config) { c.Publication, c.Create = "all_of_it", true })
		r := d.open(s, pipeline.Position{})
		large := d.connect()
		run(t, large, `begin`, `create table g (a int primary key, b text)`, `insert into g select n, repeat('y', 100) from generate_series(1, 1500) n`)
		r = d.reopened(s, r)
		d.exec(`insert into f values (-1, 'meanwhile')`)
		r.want("insert public.f - {id=-1 v=meanwhile}")
		run(t, large, `alter table f add column w int default 7`, `insert into f select n, repeat('x', 100) from generate_series(1, 1500) n`, `commit`)
		var want []string
		for n := range 1500 {
			want = append(want, fmt.Sprintf("insert public.g - {a=%d b=<100>}", n+1))
		}
		want = append(want, "schema public.f")
		for n := range 1500 {
			want = append(want, fmt.Sprintf("insert public.f - {id=%d v=<100> w=7}", n+1))
		}
		// A commit that is read may not be seen in the catalogue yet: then what it says of g comes behind some rows.
		r.until(func() bool { return slices.Contains(r.lines, want[len(want)-1]) })
		r.lines = slices.DeleteFunc(r.lines, func(l string) bool { return l == "schema public.g" })
		r.want(want...)
		if g := r.tables["public.g"]; g == nil || len(g.Identity) != 1 {
			t.Errorf("table g was read as %+v", g)
		}
		r = d.reopened(s, r)
		run(t, large, `begin`, `truncate g`, `insert into g select n, repeat('y', 100) from generate_series(1, 1500) n`)
		r.until(func() bool { return len(r.open) == 1 })
		run(t, large, `rollback`)
		r.until(func() bool { return len(r.open) == 0 })
		d.exec(`insert into f values (-2, 'end')`)
		r.want("insert public.f - {id=-2 v=end w=7}")
	})
}

// A transaction that idles is left to the server when it is told to: it comes at its commit, others before it.
func TestRunningIsLeftToTheServer(t *testing.T) {
	t.Parallel()
	streaming(t, func(t *testing.T, d *db) {
		d.exec(`create table f (id int primary key, v text)`)
		s := d.source()
		r := d.open(s, pipeline.Position{})
		large := d.connect()
		run(t, large, `begin`, fillRows(0))
		d.exec(`insert into f values (-1, 'meanwhile')`)
		r.want("insert public.f - {id=-1 v=meanwhile}")
		r.until(func() bool { return len(r.open) == 1 })
		spill := r.stream.(pipeline.Spiller).Spill
		if err := spill("another"); err != nil {
			t.Errorf("one that is not open: %v", err)
		}
		var se *pipeline.SourceError
		for open := range r.open {
			if err := spill(open); !errors.As(err, &se) || se.Code != CodeReopened || se.Class != pipeline.Transient {
				t.Fatalf("got %v", err)
			}
		}
		at := r.last
		if err := r.stream.Close(); err != nil {
			t.Fatal(err)
		}
		d.free()
		r = d.open(s, at)
		d.exec(`insert into f values (-2, 'beside')`)
		r.want("insert public.f - {id=-2 v=beside}")
		if len(r.open) > 0 {
			t.Error("it is read while it runs")
		}
		run(t, large, `commit`)
		r = d.reopened(s, r) // once it is over, running ones are read again
		d.exec(`insert into f values (-3, 'after')`)
		r.want(append(rowLines(0), "insert public.f - {id=-3 v=after}")...)
	})
}

// Random transactions side by side, with savepoints, PREPARE and a stream that is opened again at any step: each commit
// once, in order.
func TestRunningHistories(t *testing.T) {
	t.Parallel()
	streaming(t, func(t *testing.T, d *db) {
		d.exec(`create table f (id int primary key, v text)`)
		s := d.source(func(c *Config) { c.BatchBytes, c.BatchEvents = 20_000, 300 })
		r := d.open(s, pipeline.Position{})
		rng := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
		type session struct {
			conn     *pgx.Conn
			levels   [][]string // lines by open savepoint; none: no transaction
			prepared string
			lines    []string // of the prepared one
		}
		var sessions []*session
		for range 3 {
			sessions = append(sessions, &session{conn: d.connect()})
		}
		var want []string
		id := 0
		commits := func(lines []string) { want = append(want, lines...) }
		for step := range 120 {
			x := sessions[rng.IntN(len(sessions))]
			n := len(x.levels)
			switch what := rng.IntN(8); {
			case x.prepared != "":
				if what < 4 {
					break
				}
				if what == 4 {
					run(t, x.conn, fmt.Sprintf(`rollback prepared '%s'`, x.prepared))
				} else {
					run(t, x.conn, fmt.Sprintf(`commit prepared '%s'`, x.prepared))
					commits(x.lines)
				}
				x.prepared = ""
			case n == 0:
				run(t, x.conn, `begin`)
				x.levels = [][]string{nil}
			case what == 0:
				run(t, x.conn, fmt.Sprintf(`savepoint s%d`, n))
				x.levels = append(x.levels, nil)
			case what == 1 && n > 1:
				k := 1 + rng.IntN(n-1)
				run(t, x.conn, fmt.Sprintf(`rollback to s%d`, k))
				x.levels = append(x.levels[:k], nil)
			case what == 2:
				run(t, x.conn, `commit`)
				commits(slices.Concat(x.levels...))
				x.levels = nil
			case what == 3 && rng.IntN(2) == 0:
				run(t, x.conn, `rollback`)
				x.levels = nil
			case what == 3:
				x.prepared = fmt.Sprint(d.Name, step)
				run(t, x.conn, fmt.Sprintf(`prepare transaction '%s'`, x.prepared))
				x.lines, x.levels = slices.Concat(x.levels...), nil
			default:
				rows := []int{1, 30, 700}[rng.IntN(3)]
				run(t, x.conn, fmt.Sprintf(`insert into f select n, repeat('x', 100) from generate_series(%d, %d) n`, id, id+rows-1))
				for range rows {
					x.levels[n-1] = append(x.levels[n-1], fmt.Sprintf("insert public.f - {id=%d v=<100>}", id))
					id++
				}
			}
			if rng.IntN(10) == 0 {
				if rng.IntN(2) == 0 {
					r.until(func() bool { return len(r.lines) > 0 || len(want) == 0 })
				}
				lines, at := r.lines, r.last
				if rng.IntN(2) == 0 {
					r.stream.Confirm(at)
				}
				if err := r.stream.Close(); err != nil {
					t.Fatal(err)
				}
				d.free()
				r = d.open(s, at)
				r.lines = lines
			}
		}
		for _, x := range sessions { // a slot of another test would wait for them
			switch {
			case x.prepared != "":
				run(t, x.conn, fmt.Sprintf(`rollback prepared '%s'`, x.prepared))
			case x.levels != nil:
				run(t, x.conn, `rollback`)
			}
		}
		r.want(want...)
	})
}
