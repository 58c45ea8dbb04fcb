package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"

	"github.com/leat-cdc/leat/bench/process"
	"github.com/leat-cdc/leat/internal/servers"
)

// workload is a backlog that stands in the database.
type workload struct {
	name   string // table's name, too
	table  string // with its schema
	rows   int    // row changes
	mixed  bool   // half of them are updates
	begin  string // where it begins: a slot to copy, or a GTID set
	binlog string // the binlog file it begins in
	pace   int    // of PostgreSQL's large transaction, rows per second; 0: as fast as can be
	end    string // LSN
}

// database is what the bench needs of a server.
type database interface {
	// fill makes the table and the backlog, 100 row changes in a transaction.
	fill(ctx context.Context, w *workload) error
	// source returns the YAML of a source that reads a workload from its beginning, or only what comes
	// from now on, and what undoes the preparations.
	source(ctx context.Context, w *workload, run string, now bool) (yaml string, undo func(context.Context) error, err error)
	// calm lets a source that has read everything tell the server so: a later start then costs it nothing.
	calm(ctx context.Context) error
	// own is the database's own client, reading a workload into nothing; nil when there is none.
	own(ctx context.Context, w *workload, run, dir string) (cmd *exec.Cmd, undo func(context.Context) error, err error)
	// writer returns a connection that inserts (id, sent) into a table.
	writer(ctx context.Context, table string) (insert func(id, sent int64) error, end func() error, err error)
	// large makes a table `large` beside w's, which the sources of w read too, and returns what inserts so many rows of
	// about 180 bytes into it, in a transaction that is left open for its commit.
	large(ctx context.Context, w *workload, rows int) (begin func(context.Context) (commit func() error, err error), err error)
	// tables makes so many tables in a schema of that name, and returns the YAML of a source that reads them, what inserts
	// a row into each, and what undoes the preparations.
	tables(ctx context.Context, schema string, n int) (yaml string, insert, undo func(context.Context) error, err error)
	// floor returns the arguments of the role binlog-floor; nil where there is no such reader.
	floor(ctx context.Context, w *workload) (args []string, err error)
	// version of the server.
	version() string
	stop(ctx context.Context) error
}

var starters = map[string]func(ctx context.Context) (database, error){
	"postgres": startPostgres,
	"mariadb":  func(ctx context.Context) (database, error) { return startMySQL(ctx, servers.MariaDB) },
	"mysql":    func(ctx context.Context) (database, error) { return startMySQL(ctx, servers.MySQL) },
}

func telling(s string) { process.Say("%s", s) }

func nothing(context.Context) error { return nil }

// transaction of 100 row changes, on average.
const transaction = 100

type postgres struct{ s *servers.Server }

func startPostgres(ctx context.Context) (database, error) {
	s, err := servers.Postgres(ctx, servers.PostgresOptions{Say: telling})
	if err != nil {
		return nil, err
	}
	return &postgres{s}, nil
}

func (p *postgres) version() string                { return "PostgreSQL " + p.s.Version }
func (p *postgres) stop(ctx context.Context) error { return p.s.Stop(ctx) }

func (p *postgres) fill(ctx context.Context, w *workload) error {
	t := w.name
	w.begin, w.table = "bench_"+t, "public."+t
	columns := "(id bigint primary key, namespace_id bigint, path text, size bigint, deleted boolean, hash text, modified timestamptz)"
	if w.rows == 0 {
		columns = "(id bigint primary key, sent bigint)"
	}
	if err := p.s.Exec(ctx, "create table "+t+columns, "create publication leat_"+t+" for table "+t,
		"select pg_create_logical_replication_slot('"+w.begin+"', 'pgoutput')"); err != nil {
		return err
	}
	rows := func(from, n string) string {
		return "insert into " + t + " select " + from + "+g, g % 97, '/home/user' || g % 31 || '/projects/alpha/file-' || lpad((" + from + "+g)::text, 8, '0') || '.txt', " +
			"g * 37, false, md5((" + from + "+g)::text) || md5((g)::text), clock_timestamp() from generate_series(1, " + n + ") g; "
	}
	body := rows("i*100", "100")
	if w.mixed {
		body = rows("i*50", "50") + "update " + t + " set size = size + 1, modified = clock_timestamp() where id > i*50 and id <= i*50+50; "
	}
	for part := range 10 {
		n := w.rows / transaction
		q := fmt.Sprintf("do $$ begin set synchronous_commit = off; for i in %d..%d loop %scommit; end loop; end $$", n*part/10, n*(part+1)/10-1, body)
		if err := p.s.Exec(ctx, q); err != nil {
			return err
		}
	}
	if err := p.s.Exec(ctx, "checkpoint"); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, p.s.URL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return conn.QueryRow(ctx, "select pg_current_wal_lsn()::text").Scan(&w.end)
}

// slot copies the one that stands at the backlog's beginning.
func (p *postgres) slot(ctx context.Context, w *workload, run string, now bool) (string, func(context.Context) error, error) {
	name := "run_" + strings.ReplaceAll(run, "-", "_")
	make := "select pg_copy_logical_replication_slot('" + w.begin + "', '" + name + "')"
	if now {
		make = "select pg_create_logical_replication_slot('" + name + "', 'pgoutput')"
	}
	if err := p.s.Exec(ctx, make); err != nil {
		return "", nil, err
	}
	return name, func(ctx context.Context) error {
		return p.s.Exec(ctx, "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots where slot_name = '"+name+"' and active",
			"select pg_drop_replication_slot('"+name+"')")
	}, nil
}

func (p *postgres) source(ctx context.Context, w *workload, run string, now bool) (string, func(context.Context) error, error) {
	slot, undo, err := p.slot(ctx, w, run, now)
	yaml := fmt.Sprintf("    postgres: {url: %q, slot: %s, publication: leat_%s, create: false}\n    tables: [\"public.%s\"]\n", p.s.URL, slot, w.name, w.name)
	return yaml, undo, err
}

// calm logs which transactions run: a slot can only advance to such a record.
func (p *postgres) calm(ctx context.Context) error {
	for range 3 {
		if err := p.s.Exec(ctx, "select pg_log_standby_snapshot()"); err != nil {
			return err
		}
		settle(ctx)
	}
	return nil
}

func (p *postgres) own(ctx context.Context, w *workload, run, _ string) (*exec.Cmd, func(context.Context) error, error) {
	slot, undo, err := p.slot(ctx, w, run, false)
	if err != nil {
		return nil, nil, err
	}
	cmd, err := servers.PostgresCommand(ctx, telling, "pg_recvlogical", "--dbname", p.s.URL, "--slot", slot, "--start", "--no-loop", "--endpos", w.end,
		"--file", "/dev/null", "--option", "proto_version=1", "--option", "publication_names=leat_"+w.name)
	return cmd, undo, err
}

func (p *postgres) writer(ctx context.Context, table string) (func(id, sent int64) error, func() error, error) {
	conn, err := pgx.Connect(ctx, p.s.URL)
	if err != nil {
		return nil, nil, err
	}
	insert := func(id, sent int64) error {
		_, err := conn.Exec(ctx, "insert into "+table+" values ($1, $2)", id, sent)
		return err
	}
	return insert, func() error { return conn.Close(context.WithoutCancel(ctx)) }, nil
}

func (p *postgres) large(ctx context.Context, w *workload, rows int) (func(context.Context) (func() error, error), error) {
	err := p.s.Exec(ctx, "create table large (id bigint primary key, path text)", "alter publication leat_"+w.name+" add table large")
	return func(ctx context.Context) (func() error, error) {
		conn, err := pgx.Connect(ctx, p.s.URL)
		if err != nil {
			return nil, err
		}
		step := rows
		if w.pace > 0 {
			step = max(1, w.pace/10)
		}
		_, err = conn.Exec(ctx, "begin")
		tick := time.NewTicker(time.Second / 10)
		defer tick.Stop()
		for from := 1; from <= rows && err == nil; from += step {
			_, err = conn.Exec(ctx, fmt.Sprintf("insert into large select n, repeat('x', 160) from generate_series(%d, %d) n", from, min(rows, from+step-1)))
			if w.pace > 0 {
				<-tick.C
			}
		}
		if err != nil {
			return nil, errors.Join(err, conn.Close(ctx))
		}
		telling(fmt.Sprintf("postgres: large: %d rows took the session %.1f s of CPU", rows, process.CPUTime(int(conn.PgConn().PID())).Seconds()))
		return func() error {
			_, err := conn.Exec(ctx, "commit")
			return errors.Join(err, conn.Close(ctx))
		}, nil
	}, err
}

// maria is a MariaDB or MySQL server.
type maria struct {
	s  *servers.Server
	db *sql.DB
}

func startMySQL(ctx context.Context, start func(context.Context, servers.MySQLOptions) (*servers.Server, error)) (database, error) {
	// Durable, as a primary is run; MariaDB's default for the binlog is not.
	s, err := start(ctx, servers.MySQLOptions{Say: telling, Params: map[string]string{"sync-binlog": "1", "innodb-flush-log-at-trx-commit": "1"}})
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(s.URL)
	if err != nil {
		return nil, errors.Join(err, s.Stop(ctx))
	}
	c := mysql.NewConfig()
	c.Net, c.Addr, c.User, c.InterpolateParams = "tcp", u.Host, u.User.Username(), true
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, errors.Join(err, s.Stop(ctx))
	}
	m := &maria{s: s, db: sql.OpenDB(connector)}
	return m, s.Exec(ctx, "create database bench")
}

func (m *maria) mariadb() bool { return m.s.Kind == servers.KindMariaDB }

func (m *maria) version() string {
	if m.mariadb() {
		return "MariaDB " + m.s.Version
	}
	return "MySQL " + m.s.Version
}

func (m *maria) stop(ctx context.Context) error { return errors.Join(m.db.Close(), m.s.Stop(ctx)) }

func (m *maria) fill(ctx context.Context, w *workload) (err error) {
	w.table = "bench." + w.name
	columns := "(id bigint primary key, namespace_id bigint, path varchar(200), size bigint, deleted boolean, hash char(64) character set ascii, modified timestamp(6) not null default current_timestamp(6))"
	if w.rows == 0 {
		columns = "(id bigint primary key, sent bigint)"
	}
	if err := m.s.Exec(ctx, "create table bench."+w.name+columns, "flush binary logs"); err != nil {
		return err
	}
	gtid, status := "select @@gtid_binlog_pos", "show master status"
	if !m.mariadb() {
		gtid, status = "select @@global.gtid_executed", "show binary log status"
	}
	if err := m.db.QueryRowContext(ctx, gtid).Scan(&w.begin); err != nil {
		return err
	}
	w.begin = strings.Join(strings.Fields(w.begin), "")
	at, err := m.row(ctx, status, 1)
	if err != nil {
		return err
	}
	if w.binlog = at[0]; w.rows == 0 {
		return nil
	}
	if err := m.s.Exec(ctx, "set global sync_binlog = 0", "set global innodb_flush_log_at_trx_commit = 0"); err != nil {
		return err
	}
	if err := m.write(ctx, w); err != nil {
		return err
	}
	return m.s.Exec(ctx, "set global sync_binlog = 1", "set global innodb_flush_log_at_trx_commit = 1", "flush binary logs")
}

// row returns the first n columns of a query's first row.
func (m *maria) row(ctx context.Context, query string, n int) ([]string, error) {
	rows, err := m.db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil || len(names) < n || !rows.Next() {
		return nil, errors.Join(fmt.Errorf("%s: no row of %d columns", query, n), err, rows.Err())
	}
	values := make([]sql.RawBytes, len(names))
	into := make([]any, len(names))
	for i := range values {
		into[i] = &values[i]
	}
	if err := rows.Scan(into...); err != nil {
		return nil, err
	}
	out := make([]string, n)
	for i := range out {
		out[i] = string(values[i])
	}
	return out, nil
}

func (m *maria) write(ctx context.Context, w *workload) error {
	insert := transaction
	if w.mixed {
		insert /= 2
	}
	var q []byte
	for i := range w.rows / transaction {
		q = append(q[:0], "insert into bench."+w.name+" (id, namespace_id, path, size, deleted, hash) values "...)
		for g := range insert {
			if g > 0 {
				q = append(q, ',')
			}
			id := i*insert + g + 1
			q = fmt.Appendf(q, "(%d,%d,'/home/user%d/projects/alpha/file-%08d.txt',%d,0,'%064x')", id, g%97, g%31, id, g*37, id*7919)
		}
		tx, err := m.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, string(q))
		if err == nil && w.mixed {
			_, err = tx.ExecContext(ctx, fmt.Sprintf("update bench.%s set size = size + 1, modified = now(6) where id > %d and id <= %d", w.name, i*insert, (i+1)*insert))
		}
		if err != nil {
			return errors.Join(err, tx.Rollback())
		}
		if err := tx.Commit(); err != nil {
			return err
		}
	}
	return nil
}

func (m *maria) calm(context.Context) error { return nil }

func (m *maria) source(ctx context.Context, w *workload, _ string, now bool) (string, func(context.Context) error, error) {
	if err := m.undump(ctx); err != nil {
		return "", nil, err
	}
	start := w.begin
	if now {
		start = "now"
	}
	return fmt.Sprintf("    mysql: {url: %q}\n    tables: [\"bench.%s\"]\n    start: %q\n", m.s.URL+"?tls=disable", w.name, start), nothing, nil
}

// undump ends the dumps that earlier runs left behind and waits until they are gone: a run pays 100 ms for one of its
// own server id, so two programs in turn would pay for each other's manners.
func (m *maria) undump(ctx context.Context) error {
	for {
		left, err := m.dumps(ctx)
		if err != nil || len(left) == 0 {
			return err
		}
		for _, id := range left {
			_, _ = m.db.ExecContext(ctx, fmt.Sprintf("kill %d", id)) // it may have ended meanwhile
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// dumps are the connections that read the binlog.
func (m *maria) dumps(ctx context.Context) (ids []uint64, err error) {
	rows, err := m.db.QueryContext(ctx, "select id from information_schema.processlist where command like 'Binlog Dump%'")
	if err != nil {
		return nil, fmt.Errorf("list the readers of the binlog: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id uint64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

func (m *maria) large(ctx context.Context, _ *workload, rows int) (func(context.Context) (func() error, error), error) {
	err := m.s.Exec(ctx, "create table bench.large (id bigint primary key auto_increment, path varchar(200))")
	return func(ctx context.Context) (func() error, error) {
		tx, err := m.db.BeginTx(ctx, nil)
		if err != nil {
			return nil, err
		}
		const at, row = 1000, ",(repeat('x', 160))"
		for n := 0; n < rows; n += at {
			if _, err := tx.ExecContext(ctx, "insert into bench.large (path) values "+strings.Repeat(row, min(at, rows-n))[1:]); err != nil {
				return nil, errors.Join(err, tx.Rollback())
			}
		}
		return tx.Commit, nil
	}, err
}

// own is mariadb-binlog --raw. It names its files itself, so the names are links to /dev/null.
func (m *maria) own(ctx context.Context, w *workload, _, dir string) (*exec.Cmd, func(context.Context) error, error) {
	if !m.mariadb() {
		return nil, nothing, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	base, number, ok := strings.Cut(w.binlog, ".")
	var from int
	if _, err := fmt.Sscanf(number, "%d", &from); err != nil || !ok {
		return nil, nil, fmt.Errorf("the binlog's name %q ends in no number", w.binlog)
	}
	for i := range 20 {
		if err := os.Symlink(os.DevNull, filepath.Join(dir, fmt.Sprintf("%s.%06d", base, from+i))); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, nil, err
		}
	}
	cmd, err := m.s.Command(ctx, "mariadb-binlog", "--no-defaults", "--raw", "--read-from-remote-server", "--host=127.0.0.1", fmt.Sprintf("--port=%d", m.s.Port),
		"--user=root", "--to-last-log", "--result-file="+dir+"/", w.binlog)
	return cmd, nothing, err
}

func (m *maria) writer(ctx context.Context, table string) (func(id, sent int64) error, func() error, error) {
	conn, err := m.db.Conn(ctx)
	if err != nil {
		return nil, nil, err
	}
	insert := func(id, sent int64) error {
		_, err := conn.ExecContext(ctx, "insert into bench."+table+" values (?, ?)", id, sent)
		return err
	}
	return insert, conn.Close, nil
}

// settle lets the database finish what a workload left behind.
func settle(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
}
