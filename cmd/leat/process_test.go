package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

// leat runs a command to its end.
func leat(t *testing.T, dir string, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.Command(leatBinary(t), append(args, "-c", filepath.Join(dir, "leat.yaml"))...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if stderr.Len() > 0 {
		t.Logf("leat %s: %s", args[0], stderr.String())
	}
	return stdout.String(), cmd.ProcessState.ExitCode()
}

func writeConfig(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "leat.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func openDB(t *testing.T, url string, statements ...string) *sql.DB {
	t.Helper()
	db, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	execAll(t, db, statements...)
	return db
}

func execAll(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, q := range statements {
		if _, err := db.Exec(q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

// newReceiver is a webhook endpoint that takes everything.
func newReceiver(t *testing.T) (*receiver, string) {
	r := &receiver{ids: map[string]uint64{}, last: map[int64]string{}, rows: map[int64]int64{}}
	hook := httptest.NewServer(r)
	t.Cleanup(hook.Close)
	return r, fmt.Sprintf("webhook: {url: '%s', secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}", hook.URL)
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ids)
}

// SIGHUP applies the file, a bad one changes nothing; SIGTERM ends with 0; nothing comes again.
func TestSignals(t *testing.T) {
	t.Parallel()
	db := servertest.Postgres(t, servers.PostgresOptions{})
	conn := openDB(t, db.URL, "CREATE TABLE files (id bigint PRIMARY KEY, n bigint)")
	a, toA := newReceiver(t)
	b, toB := newReceiver(t)
	dir, addr := t.TempDir(), freeAddr(t)
	head := fmt.Sprintf("data: ./data\nlisten: %s\nsources:\n  files:\n    postgres: {url: '%s', slot: %s}\n    tables: ['public.*']\nsubscriptions:\n  a: {source: files, deliver: {%s}}\n", addr, db.URL, db.Name, toA)
	writeConfig(t, dir, head)
	p := startLeat(t, leatBinary(t), dir)
	p.ready()
	execAll(t, conn, "INSERT INTO files VALUES (1, 1)")
	until(t, p, "an event", func() bool { return a.count() == 1 })

	writeConfig(t, dir, head+"  b: {source: nowhere}\n")
	p.signal(syscall.SIGHUP)
	until(t, p, "the refusal", func() bool { return strings.Contains(p.log(), "reload refused") })
	writeConfig(t, dir, head+"  b: {source: files, deliver: {"+toB+"}}\n")
	p.signal(syscall.SIGHUP)
	until(t, p, "the new subscription", func() bool { return b.count() == 1 })

	out, code := leat(t, dir, "status", "--json", "--addr", "http://"+addr)
	var doc struct {
		Sources []struct {
			State    string
			LogBytes int `json:"log_bytes"`
		}
		Subscriptions []struct{ Name, State string }
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil || code != 0 {
		t.Fatalf("status: %d %v: %s", code, err, out)
	}
	if len(doc.Subscriptions) != 2 || len(doc.Sources) != 1 || doc.Sources[0].LogBytes == 0 || doc.Subscriptions[1].State != "running" {
		t.Errorf("status: %s", out)
	}
	if out, code := leat(t, dir, "parked", "a", "--json", "--addr", "http://"+addr); code != 0 || strings.Join(strings.Fields(out), "") != `{"parked":[],"dead":[]}` {
		t.Errorf("parked: %d %s", code, out)
	}

	if code := p.terminate(); code != 0 {
		t.Errorf("SIGTERM ends with %d\n%s", code, p.log())
	}
	if strings.Contains(strings.ReplaceAll(p.log(), `"message":"reload refused`, ""), `"level":"error","subscription"`) {
		t.Errorf("an ordinary stop is told as an error:\n%s", p.log())
	}
	if _, code := leat(t, dir, "status", "--addr", "http://"+addr); code != 3 {
		t.Errorf("status of a stopped server: %d, want 3", code)
	}
	execAll(t, conn, "INSERT INTO files VALUES (2, 1)")
	p = startLeat(t, leatBinary(t), dir)
	until(t, p, "what was written meanwhile", func() bool { return a.count() == 2 && b.count() == 2 })
	if a.again+b.again > 0 {
		t.Errorf("%d events came again after an ordinary stop", a.again+b.again)
	}
	a.fine(t)
	b.fine(t)
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// terminate ends it by SIGTERM and returns the exit code.
func (p *process) terminate() int {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	_ = p.cmd.Wait() // the code says it
	p.out.Close()
	return p.cmd.ProcessState.ExitCode()
}

// A transaction far larger than the memory budget stays within it.
func TestLargeTransactionInLittleMemory(t *testing.T) {
	t.Parallel()
	const rows, budget, over = 300_000, 64, 150
	db := servertest.Postgres(t, servers.PostgresOptions{})
	conn := openDB(t, db.URL, "CREATE TABLE files (id bigint PRIMARY KEY, n bigint, path text)")
	dir, addr := t.TempDir(), freeAddr(t)
	_, hook := newReceiver(t)
	writeConfig(t, dir, fmt.Sprintf("data: ./data\nlisten: %s\nmemory: %dMiB\nsources:\n  files:\n    postgres: {url: '%s', slot: %s}\n    tables: ['public.*']\nsubscriptions:\n"+
		"  out: {source: files, deliver: {file: {path: ./out.jsonl}}}\n  waits: {source: files, deliver: {pull: {}}}\n  filtered: {source: files, filter: 'after.id == 77', deliver: {%s}}\n", addr, budget, db.URL, db.Name, hook))
	p := startLeat(t, leatBinary(t), dir)
	p.ready()
	execAll(t, conn, fmt.Sprintf("INSERT INTO files SELECT i, 1, repeat('x', 200) FROM generate_series(1, %d) i", rows))
	most := 0
	until(t, p, "all rows in the file", func() bool {
		most = max(most, anonymous(t, p.cmd.Process.Pid))
		return p.delivered(t, addr, "out") >= rows
	})
	http.DefaultClient.CloseIdleConnections()
	t.Logf("%d MiB of %d", most>>20, budget+over)
	if most > (budget+over)<<20 {
		t.Errorf("%d MiB of anonymous memory", most>>20)
	}
}

// delivered is what status says of a subscription, as any client may ask by JSON.
func (p *process) delivered(t *testing.T, addr, name string) int {
	t.Helper()
	resp, err := http.Post("http://"+addr+"/leat.v1.AdminService/Status", "application/json", strings.NewReader(`{"name":"`+name+`"}`))
	if err != nil {
		t.Fatalf("%v\n%s", err, p.log())
	}
	defer resp.Body.Close()
	var doc struct {
		Subscriptions []struct {
			Delivered int `json:",string"`
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil || len(doc.Subscriptions) != 1 {
		t.Fatalf("status: %v %v", err, doc)
	}
	return doc.Subscriptions[0].Delivered
}

// anonymous is the anonymous resident memory of a process in bytes; 0 where the system does not tell.
func anonymous(t *testing.T, pid int) int {
	t.Helper()
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, ok := strings.Cut(string(text), "RssAnon:")
	if !ok {
		return 0
	}
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

// findings of `leat check --json`, as "code place", with the exit code; each has a cure unless it is for
// information.
func findings(t *testing.T, dir string) (codes []string, out string, code int) {
	t.Helper()
	out, code = leat(t, dir, "check", "--json")
	var doc struct {
		Findings []struct{ Level, Code, Place, What, Cure string }
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, f := range doc.Findings {
		codes = append(codes, f.Code+" "+f.Place)
		if f.Cure == "" && f.Level != "info" {
			t.Errorf("%s at %s has no cure: %s", f.Code, f.Place, f.What)
		}
	}
	return codes, out, code
}

func names(t *testing.T, codes []string, out string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !slices.ContainsFunc(codes, func(c string) bool {
			return strings.HasPrefix(c, strings.Fields(w)[0]+" ") && strings.Contains(c, strings.Join(strings.Fields(w)[1:], " "))
		}) {
			t.Errorf("%s is not named in %s", w, out)
		}
	}
}

func TestCheckNamesAllThatIsWrongPostgres(t *testing.T) {
	t.Parallel()
	db := servertest.Postgres(t, servers.PostgresOptions{Params: map[string]string{"wal_level": "replica", "wal_sender_timeout": "2s",
		"synchronous_standby_names": "*", "synchronous_commit": "local"}})
	role := db.Name + "_weak"
	conn := openDB(t, db.URL, "CREATE ROLE "+role+" LOGIN", "REVOKE CREATE ON DATABASE "+db.Name+" FROM PUBLIC",
		"CREATE TABLE files (id bigint PRIMARY KEY, ns bigint, path text)", "CREATE TABLE nothing (id bigint PRIMARY KEY)", "ALTER TABLE nothing REPLICA IDENTITY NOTHING",
		"CREATE TABLE people (id bigint PRIMARY KEY, ns bigint)", "CREATE TABLE users (id bigint PRIMARY KEY, ns bigint)", "ALTER TABLE users REPLICA IDENTITY FULL")
	t.Cleanup(func() { execAll(t, conn, "DROP ROLE "+role) })
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(role)
	dir := t.TempDir()
	writeConfig(t, dir, fmt.Sprintf("data: ./leat.yaml/data\nlisten: 127.0.0.1:7070\nsources:\n  files:\n    postgres: {url: '%s', slot: %s}\n    tables: ['public.*']\n"+
		"    keys: {'public.files': [ns], 'public.people': [absent]}\n    columns: {'public.users': ['!id']}\nsubscriptions:\n"+
		"  a: {source: files, deliver: {webhook: {url: 'http://%s', secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}}}\n"+
		"  b: {source: files, deliver: {pull: {}}}\n", u, db.Name, freeAddr(t)))
	codes, out, code := findings(t, dir)
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	names(t, codes, out, "wal_level", "sender_timeout", "synchronous_standby", "permission role "+role, "publication_rights role "+role, "replica_identity public.nothing",
		"key_not_in_identity public.files", "key_unknown public.people", "key_excluded public.users", "publication_rights table", "folder data", "unreachable subscriptions.a")
}

func TestCheckNamesAllThatIsWrongMariaDB(t *testing.T) {
	t.Parallel()
	db := servertest.MariaDB(t, servers.MySQLOptions{Params: map[string]string{"binlog_format": "MIXED", "binlog_row_image": "MINIMAL", "binlog_row_metadata": "NO_LOG",
		"expire_logs_days": "0.01", "binlog_ignore_db": "left_out", "log_slave_updates": "OFF"}})
	checkNamesAll(t, db, "change master to master_host='127.0.0.1', master_port=1, master_user='nobody'", "cascade "+db.Name+".children")
}

func TestCheckNamesAllThatIsWrongMySQL(t *testing.T) {
	t.Parallel()
	db := servertest.MySQL(t, servers.MySQLOptions{Params: map[string]string{"binlog_format": "MIXED", "binlog_row_image": "MINIMAL", "binlog_row_metadata": "MINIMAL",
		"binlog_expire_logs_seconds": "3600", "binlog_ignore_db": "left_out", "gtid_mode": "OFF", "enforce_gtid_consistency": "OFF",
		"binlog_row_value_options": "PARTIAL_JSON", "log_replica_updates": "OFF"}})
	checkNamesAll(t, db, "change replication source to source_host='127.0.0.1', source_port=1, source_user='nobody'", "gtid_mode", "binlog_row_value_options")
}

// checkNamesAll runs `leat check` on a server with everything wrong at once; replica is the statement that makes
// it a replica.
func checkNamesAll(t *testing.T, db *servertest.Database, replica string, more ...string) {
	t.Helper()
	for _, q := range []string{"CREATE TABLE %s.parents (id int PRIMARY KEY, ns int)",
		"CREATE TABLE %[1]s.children (id int PRIMARY KEY, parent int, FOREIGN KEY (parent) REFERENCES %[1]s.parents (id) ON DELETE CASCADE)",
		"CREATE TABLE %s.old (id int PRIMARY KEY) ENGINE=MyISAM", "CREATE TABLE %s.keyless (a int)", "CREATE USER %[1]s_weak IDENTIFIED BY 'weak-secret'",
		"GRANT SELECT ON %[1]s.* TO %[1]s_weak"} {
		if err := db.Server.Exec(context.Background(), fmt.Sprintf(q, db.Name)); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	if err := db.Server.Exec(context.Background(), replica); err != nil {
		t.Fatal(err)
	}
	id := openMySQL(t, db, "SELECT @@server_id")
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := func() string {
		return fmt.Sprintf("data: ./leat.yaml/data\nlisten: 127.0.0.1:7070\nsources:\n  orders:\n    mysql: {url: '%[1]s', server_id: %[4]s}\n    tables: ['%[2]s.*']\n"+
			"    keys: {'%[2]s.parents': [absent]}\n    columns: {'%[2]s.parents': ['!nix'], '%[2]s.children': ['!id']}\nsubscriptions:\n"+
			"  a: {source: orders, deliver: {webhook: {url: 'http://%[3]s', secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}}}\n"+
			"  b: {source: orders, deliver: {pull: {}}}\n", u, db.Name, freeAddr(t), id)
	}
	writeConfig(t, dir, config())
	codes, out, code := findings(t, dir)
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	want := append([]string{"binlog_format", "binlog_row_image", "binlog_row_metadata", "binlog_expiry", "binlog_ignore_db", "replica_updates", "server_id_clash",
		"engine " + db.Name + ".old", "no_primary_key " + db.Name + ".keyless", "keys_unknown", "columns_unknown", "columns " + db.Name + ".children",
		"folder data", "unreachable subscriptions.a"}, more...)
	names(t, codes, out, want...)
	u.User = url.UserPassword(db.Name+"_weak", "weak-secret")
	writeConfig(t, dir, config())
	codes, out, _ = findings(t, dir)
	names(t, codes, out, "right_missing REPLICATION SLAVE", "right_missing REPLICATION CLIENT", "right_missing SELECT")
	u.User = url.UserPassword(db.Name+"_weak", "wrong-secret")
	writeConfig(t, dir, config())
	codes, denied, _ := findings(t, dir)
	names(t, codes, denied, "access_denied")
	if strings.Contains(out+denied, "-secret") {
		t.Errorf("a password is shown: %s", out+denied)
	}
}

// openMySQL asks for one value.
func openMySQL(t *testing.T, db *servertest.Database, query string) (v string) {
	t.Helper()
	conn, err := sql.Open("mysql", mysqlDSN(t, db))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.QueryRow(query).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}
