package servers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leat-cdc/leat/internal/servers/process"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// PostgresOptions says what kind of PostgreSQL to start. The zero value is a server of
// DefaultPostgres that trusts everybody on 127.0.0.1 and syncs its writes.
type PostgresOptions struct {
	// Version is the major version, one of PostgresVersions; 0 is DefaultPostgres.
	Version int
	// Params are settings ("name": "value"), over those for logical decoding.
	Params map[string]string
	// NoSync turns fsync off: faster, and the data survives a crash of the server but not of the machine.
	NoSync bool
	// Password is the superuser's; when set everybody needs a password (SCRAM-SHA-256).
	Password string
	// TLS refuses connections without TLS; certificates are made for the server.
	TLS bool
	// ClientCert refuses connections without a client certificate whose name is the user's. It implies
	// TLS. Without a Password the certificate alone is enough.
	ClientCert bool
	// HBA replaces the lines of pg_hba.conf that the options above make.
	HBA []string
	// Say is told about what takes long (downloads); may be nil.
	Say func(string)
}

// DefaultPostgres is the major version when none is asked for.
const DefaultPostgres = 17

// postgresReleases are the releases of the embedded binaries, by major version.
var postgresReleases = map[int]string{15: "15.19.0", 16: "16.15.0", 17: "17.11.0", 18: "18.6.0"}

// PostgresVersions are the major versions that can be started, ascending.
func PostgresVersions() []int {
	return slices.Sorted(maps.Keys(postgresReleases))
}

// postgresParams: logical decoding, enough slots for tests side by side, nothing but loopback TCP.
func postgresParams() map[string]string {
	return map[string]string{
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": "",
		"wal_level":               "logical",
		"max_wal_senders":         "20",
		"max_replication_slots":   "20",
		"timezone":                "UTC",
		"log_timezone":            "UTC",
		"max_wal_size":            "4GB",
	}
}

// Postgres starts a PostgreSQL server and returns when it answers. The first start of a version
// downloads it (15 MB) into the cache. The superuser is postgres. The server ends with Stop or with
// this process.
func Postgres(ctx context.Context, o PostgresOptions) (*Server, error) {
	if o.Version == 0 {
		o.Version = DefaultPostgres
	}
	as := process.Unprivileged()
	home, err := postgresPrograms(ctx, o.Version, o.Say)
	if err != nil {
		return nil, err
	}
	template, err := postgresTemplate(ctx, home, o.Version, as)
	if err != nil {
		return nil, err
	}
	s, err := newServer(KindPostgres, template, as)
	if err != nil {
		return nil, err
	}
	s.BinDir = filepath.Join(home, "bin")
	s.Version = strings.TrimSuffix(postgresReleases[o.Version], ".0")
	params := postgresParams()
	if o.NoSync {
		params["fsync"], params["full_page_writes"] = "off", "off"
	}
	params["hba_file"] = filepath.Join(s.Dir, "pg_hba.conf")
	if o.TLS || o.ClientCert {
		if s.Certs, err = newCerts(filepath.Join(s.Dir, "certs"), "postgres", as); err != nil {
			return s.fail(err)
		}
		params["ssl"], params["ssl_ca_file"] = "on", s.Certs.CA
		params["ssl_cert_file"], params["ssl_key_file"] = s.Certs.ServerCert, s.Certs.ServerKey
	}
	maps.Copy(params, o.Params)
	if err := s.startPostgres(ctx, o, params, as); err != nil {
		return s.fail(err)
	}
	return s, nil
}

// startPostgres starts s open to everybody on loopback, sets the password, then closes the doors.
func (s *Server) startPostgres(ctx context.Context, o PostgresOptions, params map[string]string, as *process.Identity) error {
	hba := params["hba_file"]
	if err := writeHBA(hba, []string{"host all all 127.0.0.1/32 trust"}, as); err != nil {
		return err
	}
	s.tmpl = process.Launch{As: as, Clean: os.Interrupt, Quick: process.SignalQuit, Death: process.SignalQuit}
	err := s.firstStart(ctx, func(port int) {
		s.URL = fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", port)
		s.tmpl.Args = postgresArgs(s, port, params)
	})
	if err != nil {
		return err
	}
	lines := o.hba()
	if len(lines) == 0 {
		return nil
	}
	var statements []string
	if o.Password != "" {
		statements = append(statements, "set log_statement = none", "alter role postgres password '"+strings.ReplaceAll(o.Password, "'", "''")+"'")
	}
	if err := writeHBA(hba, lines, as); err != nil {
		return err
	}
	mark := s.logSize()
	if err := s.Exec(ctx, append(statements, "select pg_reload_conf()")...); err != nil {
		return err
	}
	s.URL = s.postgresURL(o)
	// The doors close a moment after the reload was asked for; until then a caller could still pass.
	return s.waitForHBA(ctx, mark)
}

func postgresArgs(s *Server, port int, params map[string]string) []string {
	args := []string{filepath.Join(s.BinDir, "postgres"), "-D", s.DataDir, "-p", strconv.Itoa(port)}
	for _, k := range slices.Sorted(maps.Keys(params)) {
		args = append(args, "-c", k+"="+params[k])
	}
	return args
}

// hba is nil when everybody is trusted.
func (o PostgresOptions) hba() []string {
	if o.HBA != nil {
		return o.HBA
	}
	if o.Password == "" && !o.TLS && !o.ClientCert {
		return nil
	}
	typ, method := "host", "trust"
	if o.TLS || o.ClientCert {
		typ = "hostssl"
	}
	switch {
	case o.Password != "" && o.ClientCert:
		method = "scram-sha-256 clientcert=verify-full"
	case o.Password != "":
		method = "scram-sha-256"
	case o.ClientCert:
		method = "cert"
	}
	return []string{typ + " all all 127.0.0.1/32 " + method, typ + " replication all 127.0.0.1/32 " + method}
}

func writeHBA(path string, lines []string, as *process.Identity) error {
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	return process.Chown(path, as)
}

func (s *Server) postgresURL(o PostgresOptions) string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: "127.0.0.1:" + strconv.Itoa(s.Port), Path: "/postgres"}
	if o.Password != "" {
		u.User = url.UserPassword("postgres", o.Password)
	}
	q := url.Values{"sslmode": {"disable"}}
	if s.Certs != nil {
		q = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {s.Certs.CA}}
	}
	if o.ClientCert {
		q.Set("sslcert", s.Certs.ClientCert)
		q.Set("sslkey", s.Certs.ClientKey)
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// waitForHBA returns when the postmaster has read its new pg_hba.conf. It logs that it does so before
// it reads, and reads before it accepts another connection.
func (s *Server) waitForHBA(ctx context.Context, mark int64) error {
	for !strings.Contains(s.logFrom(mark), "reloading configuration files") {
		if err := process.Pause(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("wait for pg_hba.conf to be read: %w", err)
		}
	}
	return nil
}

// pingPostgres: any answer but "starting up" (SQLSTATE 57P03) means that the server is up, unless it is
// seen to be another one, on a port it took before us.
func pingPostgres(ctx context.Context, dsn, dataDir string) error {
	conn, err := pgx.Connect(ctx, dsn)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code != "57P03" {
		return nil
	}
	if err != nil {
		return err
	}
	var dir string
	err = conn.QueryRow(ctx, "show data_directory").Scan(&dir)
	if err == nil && dir != dataDir {
		err = errStranger
	}
	return errors.Join(err, conn.Close(ctx))
}

// TestParams are settings for a PostgreSQL that many tests share: room for their slots and connections.
func TestParams() map[string]string {
	return map[string]string{"max_replication_slots": "100", "max_wal_senders": "100", "max_connections": "300"}
}
