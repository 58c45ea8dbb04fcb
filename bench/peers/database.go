package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/leat-cdc/leat/internal/servers"
)

// database is what differs between servers.
type database interface {
	tables() []string
	// fill writes rows, 100 in a transaction.
	fill(ctx context.Context, s *servers.Server, rows int) error
	// source is Leat's, as YAML; each has a name of its own.
	source(s *servers.Server, name string) string
	// properties are Debezium's of its connector; topic is where the table's records come.
	properties(s *servers.Server) map[string]string
	topic() string
}

func start(ctx context.Context, name string) (*servers.Server, database, error) {
	switch name {
	case "postgres":
		s, err := servers.Postgres(ctx, servers.PostgresOptions{Say: say})
		return s, &postgres{}, err
	case "mysql":
		s, err := servers.MySQL(ctx, servers.MySQLOptions{Say: say})
		return s, &mysql{connector: "io.debezium.connector.mysql.MySqlConnector", id: 5001}, err
	case "mariadb":
		s, err := servers.MariaDB(ctx, servers.MySQLOptions{Say: say})
		return s, &mysql{connector: "io.debezium.connector.mariadb.MariaDbConnector", id: 5001}, err
	}
	return nil, nil, fmt.Errorf("no such database: postgres, mysql, mariadb")
}

type postgres struct{ from int }

func (*postgres) tables() []string {
	return []string{"create table files (id bigint primary key, namespace_id bigint, path text, size bigint, deleted boolean, hash text, modified timestamptz)",
		"create publication peers for table files"}
}

func (p *postgres) fill(ctx context.Context, s *servers.Server, rows int) error {
	from := p.from / 100
	p.from += rows
	return s.Exec(ctx, fmt.Sprintf("do $$ begin set synchronous_commit = off; for i in %d..%d loop insert into files select i*100+g, g %% 97, "+
		"'/home/user' || g %% 31 || '/projects/alpha/file-' || lpad((i*100+g)::text, 8, '0') || '.txt', g * 37, false, md5((i*100+g)::text) || md5(g::text), clock_timestamp() "+
		"from generate_series(1, 100) g; commit; end loop; end $$", from, from+rows/100-1), "checkpoint")
}

func (*postgres) source(s *servers.Server, name string) string {
	return fmt.Sprintf("    postgres: {url: %q, slot: peers_%s, publication: peers}\n    tables: [\"public.files\"]\n", s.URL, name)
}

func (*postgres) properties(s *servers.Server) map[string]string {
	return map[string]string{"connector.class": "io.debezium.connector.postgresql.PostgresConnector", "database.hostname": "127.0.0.1", "database.port": fmt.Sprint(s.Port),
		"database.user": "postgres", "database.password": "none", "database.dbname": "postgres", "plugin.name": "pgoutput", "slot.name": "peers_debezium",
		"publication.name": "peers", "publication.autocreate.mode": "disabled", "table.include.list": "public.files"}
}

func (*postgres) topic() string { return "dbz.public.files" }

type mysql struct {
	connector string
	id, from  int
}

func (*mysql) tables() []string {
	return []string{"create database peers",
		"create table peers.files (id bigint primary key, namespace_id bigint, path text, size bigint, deleted boolean, hash text, modified timestamp(6) null)"}
}

func (m *mysql) fill(ctx context.Context, s *servers.Server, rows int) error {
	var statements []string
	for i := m.from / 100; i < (m.from+rows)/100; i++ {
		var b strings.Builder
		b.WriteString("insert into peers.files values ")
		for g := range 100 {
			if g > 0 {
				b.WriteByte(',')
			}
			id := i*100 + g + 1
			fmt.Fprintf(&b, "(%d,%d,'/home/user%d/projects/alpha/file-%08d.txt',%d,0,'%064x','2026-11-21 10:15:30.123456')", id, g%97, g%31, id, g*37, id*7919)
		}
		statements = append(statements, b.String())
	}
	m.from += rows
	return s.Exec(ctx, statements...)
}

func (*mysql) source(s *servers.Server, name string) string {
	return fmt.Sprintf("    mysql: {url: %q, server_id: %d}\n    tables: [\"peers.*\"]\n", s.URL, 6000+len(name))
}

func (m *mysql) properties(s *servers.Server) map[string]string {
	u, err := url.Parse(s.URL)
	if err != nil { // it was parsed before
		return nil
	}
	return map[string]string{"connector.class": m.connector, "database.hostname": "127.0.0.1", "database.port": u.Port(), "database.user": "repl", "database.password": "repl",
		"database.server.id": fmt.Sprint(m.id), "database.include.list": "peers", "table.include.list": "peers.files", "snapshot.locking.mode": "none",
		"schema.history.internal": "io.debezium.storage.file.history.FileSchemaHistory", "schema.history.internal.file.filename": "schema.dat"}
}

func (*mysql) topic() string { return "dbz.peers.files" }
