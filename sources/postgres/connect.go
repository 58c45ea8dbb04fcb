package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leat-cdc/leat/pipeline"
)

// setting is one of the session's settings that change the text of values. They are set when connecting and
// read back, on stream and catalogue connections alike (and later on those of snapshots).
type setting struct{ name, value, reads string }

// Settings: reads is what pg_settings shows, where that is not the value.
var sessionSettings = []setting{
	{"TimeZone", "UTC", "UTC"},
	{"DateStyle", "ISO, MDY", "ISO, MDY"},
	{"IntervalStyle", "postgres", "postgres"},
	{"extra_float_digits", "1", "1"},
	{"bytea_output", "hex", "hex"},
	{"client_encoding", "UTF8", "UTF8"},
	{"search_path", "pg_catalog", "pg_catalog"},
}

const connectTimeout = 30 * time.Second

// parseURL makes the configurations of both connections.
func (s *Source) parseURL() error {
	plain, err := pgx.ParseConfig(s.cfg.URL)
	if err != nil { // pgx's own text may hold parts of the URL
		if what := badParameter(err); what != "" {
			return fmt.Errorf("source %s: its url: %s", s.cfg.Name, what)
		}
		return fmt.Errorf("source %s: its url cannot be read; want postgres://user:password@host:port/database?sslmode=…", s.cfg.Name)
	}
	s.mask.add(plain.Password)
	for _, set := range sessionSettings {
		plain.RuntimeParams[set.name] = set.value
	}
	if plain.RuntimeParams["application_name"] == "" {
		plain.RuntimeParams["application_name"] = "leat " + s.cfg.Name
	}
	if plain.ConnectTimeout == 0 {
		plain.ConnectTimeout = connectTimeout
	}
	// Simple statements only: nothing stays prepared on the server, and nothing breaks when a table changes.
	plain.DefaultQueryExecMode = pgx.QueryExecModeExec
	s.plain = plain
	s.conn = plain.Config.Copy()
	s.conn.RuntimeParams["replication"] = "database"
	s.conn.DialFunc = dialer(s.conn.DialFunc, s.cfg.Pause)
	return nil
}

// badParameter tells which parameter of a URL cannot be used, "" when that is not known. Nothing of pgx's text
// is told but what it says of files for TLS.
func badParameter(err error) string {
	if cause := errors.Unwrap(err); cause != nil {
		for start, parameter := range map[string]string{
			"unable to read CA file": "sslrootcert", "unable to add CA": "sslrootcert", "unable to read sslkey": "sslkey", "failed to decode sslkey": "sslkey",
			"unable to read cert": "sslcert", "unable to load cert": "sslcert and sslkey", `both "sslcert"`: "sslcert and sslkey", "sslmode is invalid": "sslmode",
		} {
			if strings.HasPrefix(cause.Error(), start) {
				return parameter + ": " + cause.Error()
			}
		}
	}
	text := err.Error()
	text = text[strings.LastIndex(text, "`: ")+1:]
	for parameter, want := range map[string]string{
		"invalid connect_timeout": "connect_timeout: want seconds, such as 10", "invalid port": "port: want a number from 1 to 65535",
		"target_session_attrs": "target_session_attrs: want any, read-write, primary, …", "invalid sslcertmode": "sslcertmode: want disable, allow or require",
		"channel_binding": "channel_binding: want disable, prefer or require", "invalid require_auth": "require_auth: not a list of methods that are known",
	} {
		if strings.HasPrefix(text, ": "+parameter) || strings.HasPrefix(text, ": unknown "+parameter) {
			return want
		}
	}
	return ""
}

// server is what a replication connection says about its server.
type server struct {
	pglogrepl.IdentifySystemResult
	version       int // server_version_num / 10000
	senderTimeout time.Duration
}

// connect opens the stream's connection and checks its session.
func (s *Source) connect(ctx context.Context) (*pgconn.PgConn, *server, error) {
	conn, err := pgconn.ConnectConfig(ctx, s.conn)
	if err != nil {
		return nil, nil, s.failure("connect", err)
	}
	srv, err := s.identify(ctx, conn)
	if err != nil {
		closeConn(conn)
		return nil, nil, err
	}
	return conn, srv, nil
}

func (s *Source) identify(ctx context.Context, conn *pgconn.PgConn) (srv *server, err error) {
	ctx, end := s.limited(ctx, "identify the server")
	defer end(&err)
	srv = &server{}
	// A pooler may have let "replication" through unread: then this is no command.
	if srv.IdentifySystemResult, err = pglogrepl.IdentifySystem(ctx, conn); err != nil {
		return nil, s.failure("identify the server", err)
	}
	names := []string{"'server_version_num'", "'wal_sender_timeout'"}
	for _, set := range sessionSettings {
		names = append(names, "'"+set.name+"'")
	}
	results, err := conn.Exec(ctx, "select name, setting from pg_catalog.pg_settings where name in ("+strings.Join(names, ",")+")").ReadAll()
	if err != nil {
		return nil, s.failure("read the session's settings", err)
	}
	have := map[string]string{}
	for _, r := range results {
		for _, row := range r.Rows {
			have[string(row[0])] = string(row[1])
		}
	}
	if err := s.checkSettings(have); err != nil {
		return nil, err
	}
	num, err := strconv.Atoi(have["server_version_num"])
	if err != nil {
		return nil, s.stopped(CodeVersion, "the server does not tell its version", "read a PostgreSQL server, 15 or later")
	}
	if srv.version = num / 10000; srv.version < 15 {
		return nil, s.stopped(CodeVersion, fmt.Sprintf("the server is PostgreSQL %d", srv.version), "15 or later is needed: upgrade the server")
	}
	if ms, err := strconv.Atoi(have["wal_sender_timeout"]); err == nil {
		srv.senderTimeout = time.Duration(ms) * time.Millisecond
	}
	return srv, nil
}

// checkSettings refuses a session whose settings are not the ones that were asked for: values would be read
// wrongly, not fail.
func (s *Source) checkSettings(have map[string]string) error {
	for _, set := range sessionSettings {
		if !strings.EqualFold(have[set.name], set.reads) {
			return s.stopped(CodeSettings, fmt.Sprintf("the session's %s is %q though %q was asked for", set.name, have[set.name], set.reads),
				"something between (a pooler) or a trigger at login changes it: connect to the server itself")
		}
	}
	return nil
}

func closeConn(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // of no more use, whatever it says
}

// startReplication asks for the stream from start on; the answer is read by the stream itself.
func startReplication(slot, publication, protocol string, start pglogrepl.LSN) string {
	names := strings.ReplaceAll(quote(publication), "'", "''")
	return fmt.Sprintf("START_REPLICATION SLOT %s LOGICAL %s (%s, publication_names '%s', messages 'true', binary 'false')",
		quote(slot), start, protocol, names)
}

// quote quotes an identifier.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func quoteTable(schema, name string) string { return quote(schema) + "." + quote(name) }

var _ pipeline.Source = (*Source)(nil)
