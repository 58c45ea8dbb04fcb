package servers

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers/process"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

// childEnv makes this test binary a process that starts servers and waits to be killed.
const childEnv = "LEAT_SERVERS_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := beChild(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

type starter struct {
	name  string
	start func(context.Context) (*Server, error)
}

// starters is one server of each kind.
func starters() []starter {
	my := MySQLOptions{NoSync: true}
	return []starter{
		{"postgres", func(ctx context.Context) (*Server, error) { return Postgres(ctx, PostgresOptions{NoSync: true}) }},
		{"mysql", func(ctx context.Context) (*Server, error) { return MySQL(ctx, my) }},
		{"mariadb", func(ctx context.Context) (*Server, error) { return MariaDB(ctx, my) }},
	}
}

// begin starts a server and stops it with the test.
func begin(t *testing.T, start func(context.Context) (*Server, error)) *Server {
	t.Helper()
	s, err := start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, s.Stop(context.Background())) })
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ask returns the one value of a query.
func ask(t *testing.T, s *Server, url, query string) string {
	t.Helper()
	v, err := tryAsk(t.Context(), s, url, query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func tryAsk(ctx context.Context, s *Server, url, query string) (v string, err error) {
	if s.Kind == KindPostgres {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return "", err
		}
		err = conn.QueryRow(ctx, query).Scan(&v)
		return v, errors.Join(err, conn.Close(ctx))
	}
	var db *sql.DB
	if db, err = (&Server{Kind: s.Kind, URL: url}).dialMySQL(); err != nil {
		return "", err
	}
	err = db.QueryRowContext(ctx, query).Scan(&v)
	return v, errors.Join(err, db.Close())
}

// eventually polls ok; the deadline only bounds a test that fails.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !ok() {
		if process.Pause(ctx, 10*time.Millisecond) != nil {
			t.Fatalf("never came true: %s", what)
		}
	}
}

func listening(port int) bool {
	c, err := net.Dial("tcp4", "127.0.0.1:"+strconv.Itoa(port))
	if err == nil {
		c.Close()
	}
	return err == nil
}

func TestLife(t *testing.T) {
	for _, k := range starters() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			s := begin(t, k.start)
			url, err := s.CreateDatabase(ctx, "life")
			must(t, err)
			insert := func(v string) {
				t.Helper()
				own := &Server{Kind: s.Kind, URL: url}
				must(t, own.Exec(ctx, "create table if not exists t (v varchar(20))", "insert into t values ('"+v+"')"))
			}
			rows := func() string { t.Helper(); return ask(t, s, url, "select cast(count(*) as char(9)) from t") }

			insert("a")
			first := s.Pid()
			must(t, s.Restart(ctx))
			if s.Pid() == first || strings.TrimSpace(rows()) != "1" {
				t.Fatalf("after a restart: pid %d as before, %s rows", s.Pid(), rows())
			}
			insert("b")
			must(t, s.Kill())
			if s.Pid() != 0 || listening(s.Port) {
				t.Fatal("still there after Kill")
			}
			must(t, s.Restart(ctx))
			if got := strings.TrimSpace(rows()); got != "2" {
				t.Fatalf("%s rows after a crash, want 2", got)
			}
			must(t, s.Shutdown(ctx))
			l, err := net.Listen("tcp4", "127.0.0.1:"+strconv.Itoa(s.Port))
			must(t, err)
			if err := s.Restart(ctx); !errors.Is(err, errPortTaken) {
				t.Fatalf("restart on a taken port: %v", err)
			}
			must(t, l.Close())
			must(t, s.Restart(ctx))
			must(t, s.DropDatabase(ctx, "life"))
			must(t, s.Stop(ctx))
			must(t, s.Stop(ctx))
			if listening(s.Port) || process.Exists(s.Dir) || process.Exists(s.Dir+".lock") {
				t.Fatal("something is left after Stop")
			}
		})
	}
}

func TestPostgresVersions(t *testing.T) {
	for _, v := range PostgresVersions() {
		t.Run(strconv.Itoa(v), func(t *testing.T) {
			t.Parallel()
			s := begin(t, func(ctx context.Context) (*Server, error) {
				return Postgres(ctx, PostgresOptions{Version: v, Params: map[string]string{"max_wal_senders": "7"}})
			})
			want := map[string]string{
				"server_version": s.Version, "wal_level": "logical", "max_wal_senders": "7", "max_replication_slots": "20",
				"fsync": "on", "listen_addresses": "127.0.0.1", "TimeZone": "UTC", "server_encoding": "UTF8",
			}
			for name, value := range want {
				if got := ask(t, s, s.URL, "show "+name); got != value {
					t.Errorf("%s = %s, want %s", name, got, value)
				}
			}
			if !strings.HasPrefix(s.Version, strconv.Itoa(v)+".") {
				t.Errorf("version %s", s.Version)
			}
			must(t, s.Exec(t.Context(), "select pg_create_logical_replication_slot('s', 'pgoutput')"))
		})
	}
	_, err := Postgres(t.Context(), PostgresOptions{Version: 9})
	if err == nil || !strings.Contains(err.Error(), "[15 16 17 18]") {
		t.Errorf("PostgreSQL 9: %v", err)
	}
}

func TestPostgresDoors(t *testing.T) {
	const secret = "it's p@ss/word"
	replace := func(url, old, new string) string { return strings.ReplaceAll(url, old, new) }
	for name, o := range map[string]PostgresOptions{
		"password":          {Password: secret},
		"tls":               {TLS: true},
		"clientcert":        {ClientCert: true},
		"password and cert": {Password: secret, ClientCert: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o.NoSync = true
			s := begin(t, func(ctx context.Context) (*Server, error) { return Postgres(ctx, o) })
			tls := ask(t, s, s.URL, "select ssl::text from pg_stat_ssl where pid = pg_backend_pid()")
			if want := fmt.Sprint(o.TLS || o.ClientCert); tls != want {
				t.Errorf("TLS %s, want %s", tls, want)
			}
			refused := map[string]string{}
			if o.TLS || o.ClientCert {
				refused["without TLS"] = replace(s.URL, "sslmode=verify-full", "sslmode=disable")
			}
			if o.Password != "" {
				refused["wrong password"] = replace(s.URL, "p%40ss", "other")
			}
			if o.ClientCert {
				cert, key, err := s.Certs.Client("somebody")
				must(t, err)
				refused["another's certificate"] = replace(replace(s.URL, "client-postgres.pem", filepath.Base(cert)), "client-postgres-key.pem", filepath.Base(key))
				refused["no certificate"] = s.URL[:strings.Index(s.URL, "sslcert=")] + "sslmode=require"
			}
			for what, url := range refused {
				if _, err := tryAsk(t.Context(), s, url, "select 'in'"); err == nil {
					t.Errorf("let in: %s", what)
				}
			}
			log, err := os.ReadFile(s.LogFile)
			must(t, err)
			if strings.Contains(string(log), "p@ss") {
				t.Error("the password is in the server's log")
			}
			must(t, s.Restart(t.Context()))
			ask(t, s, s.URL, "select 'in'")
		})
	}
}

func TestBinlogServers(t *testing.T) {
	for _, k := range starters()[1:] {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			one := begin(t, k.start)
			o := MySQLOptions{Params: map[string]string{"binlog_row_image": "MINIMAL", "log-bin-trust-function-creators": ""}}
			start := MySQL
			if one.Kind == KindMariaDB {
				start = MariaDB
			}
			two := begin(t, func(ctx context.Context) (*Server, error) { return start(ctx, o) })
			want := map[string]string{"binlog_format": "ROW", "binlog_row_image": "FULL", "binlog_row_metadata": "FULL", "log_bin": "1", "time_zone": "+00:00"}
			if one.Kind == KindMySQL {
				want["gtid_mode"] = "ON"
			} else {
				want["gtid_strict_mode"] = "1"
			}
			for name, value := range want {
				if got := ask(t, one, one.URL, "select @@global."+name); got != value {
					t.Errorf("%s = %s, want %s", name, got, value)
				}
			}
			if got := ask(t, two, two.URL, "select @@global.binlog_row_image"); got != "MINIMAL" {
				t.Errorf("binlog_row_image = %s", got)
			}
			if got := ask(t, two, two.URL, "select @@global.sync_binlog"); one.Kind == KindMySQL && got != "1" {
				t.Errorf("sync_binlog = %s without NoSync", got)
			}
			unique := []string{"server_id"}
			if one.Kind == KindMySQL {
				unique = append(unique, "server_uuid")
			}
			for _, name := range unique {
				if a, b := ask(t, one, one.URL, "select @@global."+name), ask(t, two, two.URL, "select @@global."+name); a == b {
					t.Errorf("both servers have %s %s", name, a)
				}
			}
			repl := strings.Replace(one.URL, "root@", "repl:repl@", 1)
			if got := ask(t, one, repl, "select current_user()"); got != "repl@127.0.0.1" {
				t.Errorf("the user is %s", got)
			}
			if _, err := tryAsk(t.Context(), one, strings.Replace(repl, ":repl", ":other", 1), "select 1"); err == nil {
				t.Error("let in with a wrong password")
			}
		})
	}
}

func TestCommand(t *testing.T) {
	s := begin(t, starters()[2].start)
	cmd, err := s.Command(t.Context(), "mariadb-binlog", "--version")
	must(t, err)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "mariadb-binlog") {
		t.Errorf("%v: %s", err, out)
	}
	cmd, err = PostgresCommand(t.Context(), nil, "pg_recvlogical", "--version")
	must(t, err)
	out, err = cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), fmt.Sprintf("pg_recvlogical (PostgreSQL) %d.", DefaultPostgres)) {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := s.Command(t.Context(), "nothing-like-it"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that is not there: %v", err)
	}
}

type report struct {
	Dir       string
	Port, Pid int
}

// beChild starts one server of each kind, says where, and waits for its end.
func beChild() error {
	var all []*Server // whose locks the collector would close, were they not kept
	for _, k := range starters() {
		s, err := k.start(context.Background())
		if err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(report{s.Dir, s.Port, s.Pid()}); err != nil {
			return err
		}
		all = append(all, s)
	}
	for {
		time.Sleep(time.Hour) // until it is killed
		runtime.KeepAlive(all)
	}
}

// A process that is killed leaves no server behind, and the next start removes what it left on disk.
func TestParentKilled(t *testing.T) {
	t.Setenv("TMPDIR", openTemp(t))
	exe, err := os.Executable()
	must(t, err)
	child := exec.Command(exe)
	child.Env = append(os.Environ(), childEnv+"=1")
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	var left []report
	lines := bufio.NewScanner(out)
	for len(left) < len(starters()) && lines.Scan() {
		var r report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("the child says %s", lines.Text())
		}
		if !process.Exists(r.Dir) || !listening(r.Port) {
			t.Errorf("not there while the child lives: %+v", r)
		}
		left = append(left, r)
	}
	// A start beside it must not take a living one's folder away.
	f, err := process.NewFolder("beside")
	must(t, err)
	must(t, f.Remove())
	for _, r := range left {
		if !process.Exists(r.Dir) {
			t.Errorf("swept while its process lives: %s", r.Dir)
		}
	}
	must(t, child.Process.Kill())
	_ = child.Wait() // "signal: killed"
	if len(left) != len(starters()) {
		t.Fatalf("the child started %d servers", len(left))
	}
	for _, r := range left {
		eventually(t, fmt.Sprintf("server %+v is gone", r), func() bool {
			p, err := os.FindProcess(r.Pid)
			return !listening(r.Port) && (err != nil || p.Signal(signalNone) != nil)
		})
		eventually(t, "swept: "+r.Dir, func() bool {
			f, err := process.NewFolder("next")
			must(t, err)
			must(t, f.Remove())
			return !process.Exists(r.Dir) && !process.Exists(r.Dir+".lock")
		})
	}
}

// openTemp is a temporary folder that the unprivileged user can enter.
func openTemp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "leat-servers-test-")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}
