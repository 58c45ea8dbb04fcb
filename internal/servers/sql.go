package servers

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
)

// ping says whether the server answers.
func (s *Server) ping(ctx context.Context) error {
	switch s.Kind {
	case KindPostgres:
		return pingPostgres(ctx, s.URL, s.DataDir)
	case KindKafka:
		return pingKafka(ctx, s.Listeners[ListenerPlain])
	case KindOpenSearch:
		return pingOpenSearch(ctx, s.URL)
	case KindRegistry:
		return pingRegistry(ctx, s.URL)
	case KindValkey:
		return pingValkey(ctx, local(s.Port), s.DataDir)
	case KindNATS:
		return pingNATS(ctx, local(s.Port), s.natsName())
	}
	dir, err := s.askMySQL(ctx, "select @@datadir")
	if err == nil && filepath.Clean(dir) != s.DataDir {
		err = errStranger
	}
	return err
}

// errStranger is not final: ours says by itself that the port is taken, and ends.
var errStranger = errors.New("another server answers on the port")

// Exec runs statements one after the other, as superuser on the default database.
func (s *Server) Exec(ctx context.Context, statements ...string) error {
	if s.Kind == KindPostgres {
		conn, err := pgx.Connect(ctx, s.URL)
		if err != nil {
			return fmt.Errorf("connect to %s: %w", s.Kind, err)
		}
		for _, q := range statements {
			if _, err := conn.Exec(ctx, q); err != nil {
				return errors.Join(fmt.Errorf("statement to %s: %w", s.Kind, err), conn.Close(ctx))
			}
		}
		return conn.Close(ctx)
	}
	db, err := s.dialMySQL()
	if err != nil {
		return err
	}
	for _, q := range statements {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return errors.Join(fmt.Errorf("statement to %s: %w", s.Kind, err), db.Close())
		}
	}
	return db.Close()
}

// CreateDatabase makes the empty database called name and returns its URL.
func (s *Server) CreateDatabase(ctx context.Context, name string) (string, error) {
	if err := s.Exec(ctx, "create database "+s.quote(name)); err != nil {
		return "", fmt.Errorf("create database %s: %w", name, err)
	}
	return s.DatabaseURL(name), nil
}

// DropDatabase removes the database called name, with the connections to it and, on PostgreSQL, its
// replication slots. A slot in use is taken from its user.
func (s *Server) DropDatabase(ctx context.Context, name string) error {
	statements := []string{"drop database if exists " + s.quote(name)}
	if s.Kind == KindPostgres {
		lit := "'" + strings.ReplaceAll(name, "'", "''") + "'"
		statements = []string{
			"select pg_terminate_backend(active_pid, 5000) from pg_replication_slots where database = " + lit + " and active",
			"select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = " + lit,
			"drop database if exists " + s.quote(name) + " with (force)",
		}
	}
	if err := s.Exec(ctx, statements...); err != nil {
		return fmt.Errorf("drop database %s: %w", name, err)
	}
	return nil
}

func (s *Server) quote(name string) string {
	if s.Kind == KindPostgres {
		return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
	}
	return "`" + strings.ReplaceAll(name, "`", "``") + "`"
}

// dialMySQL opens one connection's worth of a MySQL client, without TLS unless the URL's server asks
// for it: it is our own loopback or a given test server.
func (s *Server) dialMySQL() (*sql.DB, error) {
	u, err := url.Parse(s.URL)
	if err != nil || u.Host == "" {
		return nil, errors.New("the server's URL is not one: want mysql://USER:PASSWORD@HOST:PORT/")
	}
	c := mysql.NewConfig()
	c.Net, c.Addr, c.User, c.DBName = "tcp", u.Host, u.User.Username(), strings.TrimPrefix(u.Path, "/")
	c.Passwd, _ = u.User.Password()
	c.TLSConfig = "preferred"
	c.Logger = mysql.Logger(&mysql.NopLogger{}) // "busy connection" notes while a server starts
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, fmt.Errorf("read the URL of %s: %w", s.Kind, err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	return db, nil
}

// askMySQL returns the one value of a query.
func (s *Server) askMySQL(ctx context.Context, query string) (string, error) {
	db, err := s.dialMySQL()
	if err != nil {
		return "", err
	}
	var v string
	err = db.QueryRowContext(ctx, query).Scan(&v)
	return v, errors.Join(err, db.Close())
}
