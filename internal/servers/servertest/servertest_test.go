package servertest_test

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

// Each test has a database of its own on one server; slots it leaves are dropped with the database,
// also while they are in use.
func TestPostgres(t *testing.T) {
	var first string
	t.Run("leaves a slot", func(t *testing.T) {
		db := servertest.Postgres(t, servers.PostgresOptions{})
		first = db.Name
		conn, err := pgx.Connect(t.Context(), db.URL)
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range []string{"create table t ()", "select pg_create_logical_replication_slot('left_'||current_database(), 'pgoutput')"} {
			if _, err := conn.Exec(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		// the connection is left open too
	})
	db := servertest.Postgres(t, servers.PostgresOptions{Version: servers.DefaultPostgres})
	conn, err := pgx.Connect(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	var name string
	var slots, tables, others int
	err = conn.QueryRow(t.Context(), `select current_database(), (select count(*) from pg_replication_slots where database = $1),
		(select count(*) from pg_tables where schemaname = 'public'), (select count(*) from pg_database where datname = $1)`, first).
		Scan(&name, &slots, &tables, &others)
	if err != nil {
		t.Fatal(err)
	}
	if name != db.Name || name == first || slots != 0 || tables != 0 || others != 0 {
		t.Errorf("in %s (wanted %s): %d slots and %d databases of %s, %d tables", name, db.Name, slots, others, first, tables)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestServersAreShared(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *servertest.Database{
		"postgres": func(t testing.TB) *servertest.Database {
			return servertest.Postgres(t, servers.PostgresOptions{})
		},
		"mysql":   func(t testing.TB) *servertest.Database { return servertest.MySQL(t, servers.MySQLOptions{}) },
		"mariadb": func(t testing.TB) *servertest.Database { return servertest.MariaDB(t, servers.MySQLOptions{}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := start(t), start(t)
			if a.Name == b.Name || a.URL == b.URL || a.Server.URL != b.Server.URL {
				t.Errorf("%+v, %+v", a, b)
			}
			own := &servers.Server{Kind: b.Server.Kind, URL: b.URL}
			if err := own.Exec(t.Context(), "create table t (a int)"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestExclusive(t *testing.T) {
	t.Setenv(servers.EnvPostgres, "postgres://nobody-home.invalid/")
	s := servertest.ExclusivePostgres(t, servers.PostgresOptions{})
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}
