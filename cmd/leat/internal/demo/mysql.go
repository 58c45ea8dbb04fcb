package demo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/leat-cdc/leat/cmd/leat/internal/demo/workload"
)

// mariaDB and MySQL alike.
type mysqlDB struct {
	db   *sql.DB
	lock *sql.Conn // holds the lock that keeps other demos out
}

func openMySQL(ctx context.Context, from string) (_ database, name string, err error) {
	u, err := url.Parse(from)
	if err != nil || u.Host == "" {
		return nil, "", errors.New("want mysql://USER:PASSWORD@HOST:PORT/")
	}
	c := mysql.NewConfig()
	c.Net, c.Addr, c.User = "tcp", u.Host, u.User.Username()
	if u.Port() == "" {
		c.Addr = u.Hostname() + ":3306"
	}
	c.Passwd, _ = u.User.Password()
	c.TLSConfig = "preferred"
	c.InterpolateParams = true
	c.Logger = mysql.Logger(&mysql.NopLogger{}) // every error is returned as well
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, "", err
	}
	m := &mysqlDB{db: sql.OpenDB(connector)}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close(ctx))
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if m.lock, err = m.db.Conn(ctx); err != nil {
		return nil, "", err
	}
	var version string
	var alone sql.NullInt64
	if err := m.lock.QueryRowContext(ctx, "select version(), get_lock('leat demo', 0)").Scan(&version, &alone); err != nil {
		return nil, "", err
	}
	if alone.Int64 != 1 {
		return nil, "", errAnother
	}
	name = "MySQL "
	if strings.Contains(version, "MariaDB") {
		name = "MariaDB "
	}
	version, _, _ = strings.Cut(version, "-")
	return m, name + version, nil
}

// marker is a table that says whose the database is.
const marker = "made_by_leat_demo"

func (m *mysqlDB) setup(ctx context.Context) error {
	var there, mine int
	err := m.db.QueryRowContext(ctx, "select (select count(*) from information_schema.schemata where schema_name = '"+space+"'), (select count(*) from information_schema.tables where table_schema = '"+
		space+"' and table_name = '"+marker+"')").Scan(&there, &mine)
	if err != nil {
		return fmt.Errorf("look for database %s: %w", space, err)
	}
	if there > 0 && mine == 0 {
		return errNotOurs("database")
	}
	if err := m.drop(ctx); err != nil {
		return err
	}
	statements := []string{"create database " + space + " character set utf8mb4", "create table " + space + "." + marker + " (id int primary key) comment '" + ours + "'"}
	for _, t := range tables {
		var columns []string
		for _, c := range t.first() {
			columns = append(columns, c.name+" "+c.mysql)
		}
		columns = append(columns, t.primaryKey())
		if t.name == "files" {
			columns = append(columns, "key (folder_id)")
		}
		statements = append(statements, fmt.Sprintf("create table %s.%s (%s)", space, t.name, strings.Join(columns, ", ")))
	}
	for _, s := range statements {
		if _, err := m.db.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("make database %s: %w; the user needs the right to create it", space, err)
		}
	}
	return nil
}

func (m *mysqlDB) drop(ctx context.Context) error {
	if _, err := m.db.ExecContext(ctx, "drop database if exists "+space); err != nil {
		return fmt.Errorf("drop database %s: %w", space, err)
	}
	return nil
}

func (m *mysqlDB) rows(ctx context.Context, t *table, f func([]string) error) (err error) {
	var exprs []string
	for _, c := range t.columns {
		expr := "cast(" + c.name + " as char)"
		if c.kind == instant {
			expr = "cast(cast(unix_timestamp(" + c.name + ") * 1000000 as signed) as char)"
		}
		exprs = append(exprs, expr)
	}
	rows, err := m.db.QueryContext(ctx, "select "+strings.Join(exprs, ", ")+" from "+space+"."+t.name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
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

// held: MySQL keeps its binlog by age, whoever reads it.
func (m *mysqlDB) held(context.Context) (int64, bool) { return 0, false }

// source has a server_id of its own: the one derived from the name "files" may be that of a Leat which reads
// the user's server.
func (m *mysqlDB) source() string {
	return fmt.Sprintf("    mysql: {url: '%%s', server_id: %d}\n", 1<<24+rand.IntN(1<<30))
}

func (m *mysqlDB) close(context.Context) error {
	var err error
	if m.lock != nil {
		err = m.lock.Close()
	}
	return errors.Join(err, m.db.Close())
}

func (m *mysqlDB) session(ctx context.Context) (workload.Session, error) {
	conn, err := m.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := conn.ExecContext(ctx, "use "+space); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &mysqlSession{conn: conn}, nil
}

type mysqlSession struct {
	conn *sql.Conn
	tx   *sql.Tx
}

func (s *mysqlSession) Begin(ctx context.Context) (err error) {
	s.tx, err = s.conn.BeginTx(ctx, nil)
	return err
}

func (s *mysqlSession) Commit(context.Context) error { return s.tx.Commit() }

func (s *mysqlSession) Close(context.Context) error { return s.conn.Close() }

func (s *mysqlSession) Exec(ctx context.Context, statement string, args ...any) (int64, error) {
	r, err := s.tx.ExecContext(ctx, strings.ReplaceAll(statement, "{now}", "now(6)"), args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}
