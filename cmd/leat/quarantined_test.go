package main

import (
	"database/sql"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

// quarantine is a database with two tables, torn and hidden, that are going to be quarantined.
type quarantine struct {
	conn   *sql.DB
	schema string
	// source is its part of the configuration; bad is what of it quarantines, until it is taken out.
	source, bad string
	// tear quarantines torn, of which it writes the rows 1 to 3.
	tear []string
	code string // of torn
	// mend is what ends the cause, beside the configuration.
	mend []string
}

func TestQuarantinesEndMariaDB(t *testing.T) {
	t.Parallel()
	db := servertest.MariaDB(t, servers.MySQLOptions{})
	quarantinesEnd(t, mysqlQuarantine(t, db))
}

func TestQuarantinesEndMySQL(t *testing.T) {
	t.Parallel()
	db := servertest.MySQL(t, servers.MySQLOptions{})
	quarantinesEnd(t, mysqlQuarantine(t, db))
}

func mysqlQuarantine(t *testing.T, db *servertest.Database) *quarantine {
	q := &quarantine{conn: openSQL(t, "mysql", mysqlDSN(t, db), "CREATE TABLE torn (id bigint PRIMARY KEY, n bigint)", "CREATE TABLE hidden (id bigint PRIMARY KEY, n bigint)"),
		schema: db.Name, source: fmt.Sprintf("mysql: {url: '%s', server_id: %s}", db.URL, randomID()), bad: "    columns: {'" + db.Name + ".hidden': ['!id']}\n", code: "statement",
		tear: []string{"INSERT INTO torn VALUES (1, 1)", "SET SESSION binlog_format = 'STATEMENT'", "INSERT INTO torn VALUES (2, 1)", "SET SESSION binlog_format = 'ROW'", "INSERT INTO torn VALUES (3, 1)"}}
	q.conn.SetMaxOpenConns(1) // the format is a session's
	return q
}

func TestQuarantinesEndPostgres(t *testing.T) {
	t.Parallel()
	db := servertest.Postgres(t, servers.PostgresOptions{})
	quarantinesEnd(t, &quarantine{conn: openDB(t, db.URL, "CREATE TABLE torn (id bigint PRIMARY KEY, n bigint)", "CREATE TABLE hidden (id bigint PRIMARY KEY, n bigint)"),
		schema: "public", source: "postgres: {url: '" + db.URL + "', slot: " + db.Name + "}", bad: "    keys: {'public.torn': [n]}\n    columns: {'public.hidden': ['!id']}\n", code: "route",
		tear: []string{"INSERT INTO torn VALUES (1, 1)", "INSERT INTO torn VALUES (2, 1)", "INSERT INTO torn VALUES (3, 1)"}})
}

// A quarantine lasts through kill -9; who asks for the table's rows ends it, also through kill -9, and gets the rows that
// were missed and then the changes; where the shape could not be had it ends by itself once it can, and the gap names
// the command that brings the rows.
func quarantinesEnd(t *testing.T, q *quarantine) {
	bin, dir := leatBinary(t), t.TempDir()
	torn, hidden := newReplica(t), newReplica(t)
	config := func(bad string) {
		writeConfig(t, dir, fmt.Sprintf("data: ./data\nlisten: %s\nsources:\n  files:\n    %s\n    tables: ['%s.*']\n%ssubscriptions:\n  torn: {source: files, tables: ['%s.torn'], %s}\n  hidden: {source: files, tables: ['%s.hidden'], %s}\n",
			freeAddr(t), q.source, q.schema, bad, q.schema, torn.deliver(), q.schema, hidden.deliver()))
	}
	run := func(args ...string) string { return all(t, dir, args...) }
	names := func(text string, want ...string) bool {
		for _, w := range want {
			if !strings.Contains(text, w) {
				return false
			}
		}
		return true
	}
	config(q.bad)
	p := startLeat(t, bin, dir)
	ask(t, p, "the stream", func() bool { return strings.Contains(run("status"), "streaming") })
	execAll(t, q.conn, append(q.tear, "INSERT INTO hidden VALUES (1, 1)")...)
	both := []string{q.schema + ".torn is quarantined", q.schema + ".hidden is quarantined", "leat backfill torn --table '" + q.schema + ".torn'", "leat backfill hidden --table '" + q.schema + ".hidden'"}
	ask(t, p, "both quarantines", func() bool { return names(run("status"), both...) })
	t.Log(run("status"))
	p.kill()
	p = startLeat(t, bin, dir)
	ask(t, p, "both quarantines, after a kill", func() bool { return names(run("status"), both...) })
	execAll(t, q.conn, append(q.mend, "INSERT INTO torn VALUES (4, 1)")...)
	config("")
	p.kill()
	p = startLeat(t, bin, dir)
	ask(t, p, "the stream", func() bool { return strings.Contains(run("status"), "streaming") })
	if out := run("backfill", "torn", "--table", q.schema+".torn", "--yes", "--detach"); !strings.Contains(out, "(code 0)") {
		t.Fatal(out)
	}
	p.kill()
	p = startLeat(t, bin, dir)
	torn.equals(t, p, map[int64]int64{1: 1, 2: 1, 3: 1, 4: 1})
	execAll(t, q.conn, "UPDATE torn SET n = 2 WHERE id = 2", "DELETE FROM torn WHERE id = 3", "INSERT INTO torn VALUES (5, 1)")
	torn.equals(t, p, map[int64]int64{1: 1, 2: 2, 4: 1, 5: 1})
	ask(t, p, "no word of it", func() bool { return !strings.Contains(run("status"), q.schema+".torn") })

	execAll(t, q.conn, "INSERT INTO hidden VALUES (2, 1)")
	gap := []string{q.schema + ".hidden has changes that did not enter the log", "leat backfill hidden --table '" + q.schema + ".hidden'"}
	ask(t, p, "the gap", func() bool { return names(run("status"), gap...) })
	hidden.equals(t, p, map[int64]int64{2: 1})
	if out := run("backfill", "hidden", "--table", q.schema+".hidden", "--yes"); !strings.Contains(out, "(code 0)") {
		t.Fatal(out)
	}
	hidden.equals(t, p, map[int64]int64{1: 1, 2: 1})
	ask(t, p, "no word of it", func() bool { return !strings.Contains(run("status"), q.schema+".hidden") })
	p.signal(syscall.SIGTERM)
	if _ = p.cmd.Wait(); p.cmd.ProcessState.ExitCode() != 0 {
		t.Error(p.log())
	}
}

// While a prepared transaction waits, of which rows may have been left out, a quarantine does not end.
func TestQuarantineAndPreparedTransactions(t *testing.T) {
	t.Parallel()
	db := servertest.MariaDB(t, servers.MySQLOptions{})
	q := mysqlQuarantine(t, db)
	dir, to := t.TempDir(), newReplica(t)
	writeConfig(t, dir, fmt.Sprintf("data: ./data\nlisten: %s\nsources:\n  files:\n    %s\n    tables: ['%s.*']\nsubscriptions:\n  torn: {source: files, %s}\n",
		freeAddr(t), q.source, q.schema, to.deliver()))
	p := startLeat(t, leatBinary(t), dir)
	ask(t, p, "the stream", func() bool { return strings.Contains(all(t, dir, "status"), "streaming") })
	execAll(t, q.conn, append(q.tear, "CREATE TABLE other (id bigint PRIMARY KEY, n bigint)", "XA START 'x'", "INSERT INTO torn VALUES (4, 1)", "INSERT INTO other VALUES (14, 1)", "XA END 'x'", "XA PREPARE 'x'")...)
	has := func(key int64) bool { to.mu.Lock(); defer to.mu.Unlock(); return to.rows[key] == 1 }
	until(t, p, "the first row", func() bool { return has(1) })
	var out string
	ask(t, p, "the refusal", func() bool {
		out = all(t, dir, "backfill", "torn", "--table", q.schema+".torn", "--yes")
		return strings.Contains(out, "XA RECOVER") && strings.Contains(out, "nothing was changed (code 1)")
	})
	execAll(t, q.conn, "XA COMMIT 'x'", "INSERT INTO other VALUES (15, 1)")
	until(t, p, "the commit", func() bool { return has(14) && has(15) })
	if out = all(t, dir, "backfill", "torn", "--table", q.schema+".torn", "--dry-run"); !strings.Contains(out, "is quarantined (rows were changed by a statement") || !strings.Contains(out, "(code 0)") {
		t.Fatal(out)
	}
	if out = all(t, dir, "backfill", "torn", "--table", q.schema+".torn", "--yes"); !strings.Contains(out, "(code 0)") {
		t.Fatal(out)
	}
	t.Log(out)
	to.equals(t, p, map[int64]int64{1: 1, 2: 1, 3: 1, 4: 1, 14: 1, 15: 1})
	if p.terminate() != 0 {
		t.Error(p.log())
	}
}

// all is what a command says, in one line, and how it ends.
func all(t *testing.T, dir string, args ...string) string {
	cmd := exec.Command(leatBinary(t), append(args, "-c", filepath.Join(dir, "leat.yaml"))...)
	out, _ := cmd.CombinedOutput() // how it ends is in the words
	return strings.Join(strings.Fields(string(out)), " ") + fmt.Sprintf(" (code %d)", cmd.ProcessState.ExitCode())
}
