package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leat-cdc/leat/cmd/leat/internal/demo/workload"
)

type postgres struct {
	url  string
	conn *pgx.Conn
	slot string // of this database alone: slots are the cluster's
}

func dialPostgres(ctx context.Context, url string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // one round trip, and literals find their type
	cfg.RuntimeParams["application_name"] = "leat demo"
	cfg.RuntimeParams["search_path"] = space
	return pgx.ConnectConfig(ctx, cfg)
}

func openPostgres(ctx context.Context, url string) (database, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := dialPostgres(ctx, url)
	if err != nil {
		return nil, "", err
	}
	p := &postgres{url: url, conn: conn}
	var version, oid string
	var alone bool
	err = conn.QueryRow(ctx, "select current_setting('server_version'), (select oid::text from pg_database where datname = current_database()), pg_try_advisory_lock(hashtext('leat demo'))").
		Scan(&version, &oid, &alone)
	if err == nil && !alone {
		err = errAnother
	}
	if err != nil {
		return nil, "", errors.Join(err, p.close(ctx))
	}
	p.slot = space + "_" + oid
	version, _, _ = strings.Cut(version, " ")
	return p, "PostgreSQL " + version, nil
}

func (p *postgres) setup(ctx context.Context) error {
	var there, mine bool
	err := p.conn.QueryRow(ctx, "select count(*) > 0, coalesce(bool_or(obj_description(oid, 'pg_namespace') = '"+ours+"'), false) from pg_namespace where nspname = '"+space+"'").Scan(&there, &mine)
	if err != nil {
		return fmt.Errorf("look for schema %s: %w", space, err)
	}
	if there && !mine {
		return errNotOurs("schema")
	}
	if err := p.drop(ctx); err != nil {
		return err
	}
	statements := []string{"create schema " + space, "comment on schema " + space + " is '" + ours + "'"}
	for _, t := range tables {
		var columns []string
		for _, c := range t.first() {
			columns = append(columns, c.name+" "+c.postgres)
		}
		columns = append(columns, t.primaryKey())
		statements = append(statements, fmt.Sprintf("create table %s.%s (%s)", space, t.name, strings.Join(columns, ", ")))
	}
	statements = append(statements, "create index on "+space+".files (folder_id)", "alter table "+space+".files alter preview set storage external")
	for _, s := range statements {
		if _, err := p.conn.Exec(ctx, s); err != nil {
			return fmt.Errorf("make schema %s: %w; the user needs the right to create schemas in the database, and REPLICATION", space, err)
		}
	}
	return nil
}

func (p *postgres) drop(ctx context.Context) error {
	for { // the slot is free a moment after Leat ended
		_, err := p.conn.Exec(ctx, "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '"+p.slot+"'")
		if err == nil {
			break
		}
		var busy *pgconn.PgError
		if !errors.As(err, &busy) || busy.Code != "55006" {
			return fmt.Errorf("drop replication slot %s: %w", p.slot, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("drop replication slot %s: %w", p.slot, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	for _, s := range []string{"drop publication if exists " + p.slot, "drop schema if exists " + space + " cascade"} {
		if _, err := p.conn.Exec(ctx, "set client_min_messages = warning; "+s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

func (p *postgres) rows(ctx context.Context, t *table, f func([]string) error) error {
	var exprs []string
	for _, c := range t.columns {
		expr := c.name + "::text"
		if c.kind == instant {
			expr = "(extract(epoch from " + c.name + ") * 1000000)::bigint::text"
		}
		exprs = append(exprs, expr)
	}
	rows, err := p.conn.Query(ctx, "select "+strings.Join(exprs, ", ")+" from "+space+"."+t.name)
	if err != nil {
		return err
	}
	defer rows.Close()
	values, into := make([]*string, len(exprs)), make([]any, len(exprs))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		row, err := comparableRow(t, values)
		if err != nil {
			return err
		}
		if err := f(row); err != nil {
			return err
		}
	}
	return rows.Err()
}

func comparableRow(t *table, values []*string) ([]string, error) {
	row := make([]string, len(values))
	for i, v := range values {
		if v == nil {
			row[i] = null
			continue
		}
		var err error
		if row[i], err = t.columns[i].kind.comparable(*v); err != nil {
			return nil, err
		}
	}
	return row, nil
}

func (p *postgres) held(ctx context.Context) (int64, bool) {
	var n int64
	err := p.conn.QueryRow(ctx, "select coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)), 0)::bigint from pg_replication_slots where slot_name = '"+p.slot+"'").Scan(&n)
	return n, err == nil
}

func (p *postgres) source() string {
	return "    postgres: {url: '%s', slot: " + p.slot + ", publication: " + p.slot + "}\n"
}

func (p *postgres) close(ctx context.Context) error { return p.conn.Close(ctx) }

func (p *postgres) session(ctx context.Context) (workload.Session, error) {
	conn, err := dialPostgres(ctx, p.url)
	if err != nil {
		return nil, err
	}
	return &pgSession{conn: conn, statements: map[string]string{}}, nil
}

type pgSession struct {
	conn       *pgx.Conn
	tx         pgx.Tx
	statements map[string]string
}

func (s *pgSession) Begin(ctx context.Context) (err error) {
	s.tx, err = s.conn.Begin(ctx)
	return err
}

func (s *pgSession) Commit(ctx context.Context) error { return s.tx.Commit(ctx) }

func (s *pgSession) Close(ctx context.Context) error { return s.conn.Close(ctx) }

func (s *pgSession) Exec(ctx context.Context, statement string, args ...any) (int64, error) {
	own, known := s.statements[statement]
	if !known {
		parts := strings.Split(strings.ReplaceAll(statement, "{now}", "clock_timestamp()"), "?")
		own = parts[0]
		for i, part := range parts[1:] {
			own += fmt.Sprintf("$%d%s", i+1, part)
		}
		s.statements[statement] = own
	}
	tag, err := s.tx.Exec(ctx, own, args...)
	return tag.RowsAffected(), err
}
