package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"strings"

	_ "github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"

	"github.com/leat-cdc/leat/bench/process"
	"github.com/leat-cdc/leat/internal/servers"
)

// database is a server with the tables files (of so many rows), accounts and beat.
type database struct {
	server   *servers.Server
	db       *sql.DB // nil of PostgreSQL
	postgres bool
	schema   string
}

// session is a connection.
type session interface {
	exec(ctx context.Context, q string) error
	query(ctx context.Context, q string, each func(scan func(...any) error) error) error
	close()
}

type pgSession struct{ c *pgx.Conn }

func (s pgSession) close() { _ = s.c.Close(context.Background()) } // of no more use
func (s pgSession) exec(ctx context.Context, q string) error {
	_, err := s.c.Exec(ctx, q)
	return err
}

func (s pgSession) query(ctx context.Context, q string, each func(scan func(...any) error) error) error {
	rows, err := s.c.Query(ctx, q)
	if err != nil {
		return err
	}
	defer rows.Close()
	for err == nil && rows.Next() {
		err = each(rows.Scan)
	}
	return errors.Join(err, rows.Err())
}

type mySession struct{ c *sql.Conn }

func (s mySession) close() { _ = s.c.Close() } // of no more use
func (s mySession) exec(ctx context.Context, q string) error {
	_, err := s.c.ExecContext(ctx, q)
	return err
}

func (s mySession) query(ctx context.Context, q string, each func(scan func(...any) error) error) error {
	rows, err := s.c.QueryContext(ctx, q)
	if err != nil {
		return err
	}
	defer rows.Close()
	for err == nil && rows.Next() {
		err = each(rows.Scan)
	}
	return errors.Join(err, rows.Err())
}

// session connects. The statements differ all the time: nothing is prepared.
func (d *database) session(ctx context.Context) (session, error) {
	if !d.postgres {
		c, err := d.db.Conn(ctx)
		return mySession{c}, err
	}
	config, err := pgx.ParseConfig(d.server.URL)
	if err != nil {
		return nil, err
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	c, err := pgx.ConnectConfig(ctx, config)
	return pgSession{c}, err
}

var starters = map[string]func(ctx context.Context) (*database, error){
	"postgres": startPostgres,
	"mariadb":  func(ctx context.Context) (*database, error) { return startMySQL(ctx, servers.MariaDB) },
	"mysql":    func(ctx context.Context) (*database, error) { return startMySQL(ctx, servers.MySQL) },
}

func telling(s string) { process.Say("%s", s) }

func startPostgres(ctx context.Context) (*database, error) {
	s, err := servers.Postgres(ctx, servers.PostgresOptions{Say: telling})
	if err != nil {
		return nil, err
	}
	return &database{server: s, postgres: true, schema: "public"}, nil
}

func startMySQL(ctx context.Context, start func(context.Context, servers.MySQLOptions) (*servers.Server, error)) (*database, error) {
	// Durable, as a primary is run.
	s, err := start(ctx, servers.MySQLOptions{Say: telling, Params: map[string]string{"sync-binlog": "1", "innodb-flush-log-at-trx-commit": "1"}})
	if err != nil {
		return nil, err
	}
	d := &database{server: s, schema: "bench"}
	u, err := url.Parse(s.URL)
	if err == nil {
		err = s.Exec(ctx, "create database bench")
	}
	if err == nil {
		d.db, err = sql.Open("mysql", u.User.Username()+"@tcp("+u.Host+")/bench")
	}
	if err != nil {
		return nil, errors.Join(err, s.Stop(ctx))
	}
	return d, nil
}

func (d *database) stop(ctx context.Context) error {
	var err error
	if d.db != nil {
		err = d.db.Close()
	}
	return errors.Join(err, d.server.Stop(ctx))
}

// exec runs statements on one connection.
func (d *database) exec(ctx context.Context, statements ...string) error {
	c, err := d.session(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	for _, q := range statements {
		if err := c.exec(ctx, q); err != nil {
			return fmt.Errorf("%.80s: %w", q, err)
		}
	}
	return nil
}

// fill makes the tables. What is in them before the source begins stands in no log.
func (d *database) fill(ctx context.Context, rows int) error {
	if d.postgres {
		err := d.exec(ctx, "create table files (id bigint primary key, v bigint, path text, size bigint, owner text, hash text, modified timestamptz)",
			"create table accounts (id bigint primary key, v bigint)", "create table beat (id bigint primary key, sent bigint)",
			"insert into accounts select g, 0 from generate_series(1, 100000) g", "set synchronous_commit = off")
		for from := 0; err == nil && from < rows; from += 500_000 {
			err = d.exec(ctx, fmt.Sprintf("insert into files select g, 0, '/home/user' || g %% 31 || '/projects/alpha/file-' || lpad(g::text, 8, '0'), g * 37, 'owner' || g %% 997, "+
				"md5(g::text) || md5((g+1)::text), now() from generate_series(%d, %d) g", from+1, min(rows, from+500_000)))
		}
		return errors.Join(err, d.exec(ctx, "vacuum analyze files", "vacuum analyze accounts", "checkpoint"))
	}
	insert := "insert into files select id + %d, 0, concat('/home/user', id %% 31, '/projects/alpha/file-', lpad(id + %d, 8, '0')), id * 37, concat('owner', id %% 997), concat(md5(id), md5(id + %d)), now(6) from files where id <= %d"
	list := []string{"set sql_log_bin = 0", "create table files (id bigint primary key, v bigint, path varchar(200), size bigint, owner varchar(40), hash char(64) character set ascii, modified datetime(6)) character set utf8mb4",
		"create table accounts (id bigint primary key, v bigint)", "create table beat (id bigint primary key, sent bigint)", "insert into files values (1, 0, '', 0, '', '', now(6))"}
	for n := 1; n < rows; {
		part := min(n, rows-n, 1<<19) // in parts: one statement is one transaction
		list = append(list, fmt.Sprintf(insert, n, n, n, part))
		n += part
	}
	list = append(list, "insert into accounts select id, 0 from files where id <= 100000", "analyze table files", "set sql_log_bin = 1", "flush binary logs")
	return d.exec(ctx, list...)
}

// own is the database's own client, which reads the table into nothing.
func (d *database) own(ctx context.Context) (*exec.Cmd, error) {
	if d.postgres {
		return servers.PostgresCommand(ctx, telling, "psql", "-X", "-q", d.server.URL, "-c", `\copy files to /dev/null`)
	}
	client := d.server
	u, err := url.Parse(d.server.URL)
	if err != nil {
		return nil, err
	}
	args := []string{"--no-defaults", "--quick", "--skip-ssl", "-h", u.Hostname(), "-P", u.Port(), "-u", u.User.Username(), "bench", "-e", "select * from files"}
	if client.Kind != servers.KindMariaDB {
		return nil, errors.New("MySQL's package has no client: use -databases mariadb for speed")
	}
	return client.Command(ctx, "mariadb", args...)
}

// source is the YAML of a source of these tables.
func (d *database) source(name, snapshot string, tables ...string) string {
	list := make([]string, len(tables))
	for i, t := range tables {
		list[i] = fmt.Sprintf("%q", d.schema+"."+t)
	}
	at := fmt.Sprintf("    postgres: {url: %q, slot: %s, publication: %s}\n", d.server.URL, name, name)
	if !d.postgres {
		at = fmt.Sprintf("    mysql: {url: %q}\n", d.server.URL+"?tls=disable")
	}
	return at + "    tables: [" + strings.Join(list, ", ") + "]\n    snapshot: " + snapshot + "\n"
}

// drop takes away what a source made. It has ended.
func (d *database) drop(ctx context.Context, name string) error {
	if !d.postgres {
		return nil
	}
	return d.exec(ctx, "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots where slot_name = '"+name+"' and active",
		"select pg_drop_replication_slot('"+name+"') from pg_replication_slots where slot_name = '"+name+"'", "drop publication if exists "+name)
}

// read counts the rows that anybody has read: of PostgreSQL those of files by its index, of the others all of InnoDB's.
func (d *database) read(ctx context.Context) (n int64, err error) {
	c, err := d.session(ctx)
	if err != nil {
		return 0, err
	}
	defer c.close()
	one := func(scan func(...any) error) error { return scan(&n) }
	switch {
	case d.postgres:
		err = c.query(ctx, "select coalesce(idx_tup_fetch, 0) from pg_stat_user_tables where relname = 'files'", one)
	case d.server.Kind == servers.KindMariaDB:
		err = c.query(ctx, "select variable_value from information_schema.global_status where variable_name = 'innodb_rows_read'", one)
	default:
		err = c.query(ctx, "select variable_value from performance_schema.global_status where variable_name = 'Innodb_rows_read'", one)
	}
	return n, err
}
