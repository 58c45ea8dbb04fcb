package table

import (
	"context"
	"database/sql"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	_ "github.com/lib/pq"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/form"
	"github.com/leat-cdc/leat/sinks/encode"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

// there is a target, and another client of it.
type there struct {
	kind, url, schema string
	db                *sql.DB
}

var kinds = map[string]func(t testing.TB) *servertest.Database{
	"postgres": func(t testing.TB) *servertest.Database { return servertest.Postgres(t, servers.PostgresOptions{}) },
	"mysql":    func(t testing.TB) *servertest.Database { return servertest.MySQL(t, servers.MySQLOptions{}) },
	"mariadb":  func(t testing.TB) *servertest.Database { return servertest.MariaDB(t, servers.MySQLOptions{}) },
}

// each runs a test on each kind of target.
func each(t *testing.T, test func(*testing.T, *there)) {
	for kind, start := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, reach(t, kind, start(t)))
		})
	}
}

func reach(t testing.TB, kind string, d *servertest.Database) *there {
	t.Helper()
	at := &there{kind: kind, url: d.URL, schema: "public"}
	if kind == "postgres" {
		db, err := sql.Open("postgres", d.URL)
		if err != nil {
			t.Fatal(err)
		}
		at.db = db
	} else {
		u, err := url.Parse(d.URL)
		if err != nil {
			t.Fatal(err)
		}
		c := mysql.NewConfig()
		c.Net, c.Addr, c.User, c.DBName, c.TLSConfig = "tcp", u.Host, u.User.Username(), d.Name, "preferred"
		c.Passwd, _ = u.User.Password()
		at.schema = d.Name
		if at.db, err = sql.Open("mysql", c.FormatDSN()); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := at.db.Close(); err != nil {
			t.Error(err)
		}
	})
	return at
}

func (at *there) exec(t testing.TB, statements ...string) {
	t.Helper()
	for _, q := range statements {
		if _, err := at.db.ExecContext(t.Context(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

// rows of a query, a line each.
func (at *there) rows(t testing.TB, query string) string {
	t.Helper()
	rows, err := at.db.QueryContext(context.WithoutCancel(t.Context()), query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	var lines []string
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		var line []string
		for _, v := range values {
			if !v.Valid {
				v.String = "NULL"
			}
			line = append(line, v.String)
		}
		lines = append(lines, strings.Join(line, " "))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func (at *there) files(t testing.TB, table string) string {
	t.Helper()
	return at.rows(t, "SELECT id, namespace_id, path FROM "+table+" ORDER BY id")
}

func (at *there) sink(t testing.TB, change ...func(*Options)) *Sink {
	t.Helper()
	o := Options{URL: at.url, Name: at.schema + ".{table}", Create: true, Evolve: true, Guard: "leat_offset", Connections: 4, Timeout: time.Minute,
		Encoding: encode.Options{Source: "files", Form: form.Of}}
	for _, f := range change {
		f(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// batch is a batch of single changes from an offset on.
func batch(o pipeline.Offset, changes ...pipetest.Change) *pipeline.Batch {
	b := pipetest.Build(pipeline.Position{Counter: uint64(o), Token: "t"}, time.Unix(1, 0), changes)
	b.Base = o
	return b
}

func deliver(t testing.TB, s *Sink, b *pipeline.Batch) (pipeline.Outcomes, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n := len(b.Events)
	return s.Deliver(ctx, &pipeline.Delivery{Subscription: "s", Source: "files", Attempt: 1, Deadline: time.Now().Add(time.Minute), Runs: []pipeline.Run{{Batch: b, To: uint32(n)}}, Events: n})
}

func done(t testing.TB, s *Sink, o pipeline.Offset, changes ...pipetest.Change) {
	t.Helper()
	b := batch(o, changes...)
	defer b.Release()
	out, err := deliver(t, s, b)
	if err != nil || len(out) > 0 {
		t.Fatalf("%v %v", out, err)
	}
}

// refused returns the outcomes of events of which one fails.
func refused(t testing.TB, s *Sink, o pipeline.Offset, changes ...pipetest.Change) string {
	t.Helper()
	b := batch(o, changes...)
	defer b.Release()
	out, err := deliver(t, s, b)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, o := range out {
		all = append(all, strings.TrimSuffix(o.Class.String()+" "+o.Reason, " "))
	}
	return strings.Join(all, "|")
}

func put(table *schemas.Table, cells ...string) pipetest.Change {
	return pipetest.Change{Op: pipeline.OpUpdate, Table: table, After: cells}
}

func del(table *schemas.Table, id string) pipetest.Change {
	row := pipetest.Row{id}
	for range table.Columns[1:] {
		row = append(row, pipetest.Absent)
	}
	return pipetest.Change{Op: pipeline.OpDelete, Table: table, Before: row}
}

func truncate(table *schemas.Table) pipetest.Change {
	return pipetest.Change{Op: pipeline.OpTruncate, Table: table}
}

// wider is a version of the table with one more column.
func wider(table *schemas.Table, name string, t schemas.Type) *schemas.Table {
	w := *pipetest.FilesTable(table.Name)
	w.Version = 2
	w.Columns = append(w.Columns, schemas.Column{Name: name, Type: t, Nullable: true})
	return w.Seal()
}

var bigint = schemas.Type{Kind: schemas.KindInt, Bits: 64, Name: "bigint", OID: 20, Mod: -1}
