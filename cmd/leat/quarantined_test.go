package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

// Who backfills a quarantined table is told that it brings nothing, why and the cure; beside others it ends with a fault.
func TestBackfillOfAQuarantinedTable(t *testing.T) {
	t.Parallel()
	db := servertest.MariaDB(t, servers.MySQLOptions{})
	c := openSQL(t, "mysql", mysqlDSN(t, db), "CREATE TABLE torn (id bigint PRIMARY KEY)", "CREATE TABLE whole (id bigint PRIMARY KEY)", "INSERT INTO whole VALUES (1)")
	c.SetMaxOpenConns(1) // the format is a session's
	dir := t.TempDir()
	to := newReplica(t)
	writeConfig(t, dir, fmt.Sprintf("data: ./data\nlisten: %s\nsources:\n  files:\n    mysql: {url: '%s', server_id: 90003}\n    tables: ['%s.*']\nsubscriptions:\n  all: {source: files, %s}\n",
		freeAddr(t), db.URL, db.Name, to.deliver()))
	p := startLeat(t, leatBinary(t), dir)
	run := func(args ...string) string {
		cmd := exec.Command(leatBinary(t), append(args, "-c", filepath.Join(dir, "leat.yaml"))...)
		out, _ := cmd.CombinedOutput() // how it ends is in the words
		return fmt.Sprintf("%s(code %d)", out, cmd.ProcessState.ExitCode())
	}
	ask(t, p, "the stream", func() bool { return strings.Contains(run("status"), "streaming") })
	execAll(t, c, "INSERT INTO torn VALUES (1)", "SET SESSION binlog_format = 'STATEMENT'", "INSERT INTO torn VALUES (2)", "SET SESSION binlog_format = 'ROW'")
	ask(t, p, "the quarantine", func() bool { return strings.Contains(run("status"), "quarantined") })
	torn := db.Name + ".torn"
	for _, dry := range []string{"--yes", "--dry-run"} {
		out := run("backfill", "all", "--table", torn, dry)
		for _, want := range []string{"table " + torn + " is quarantined", "without row events", "binlog_format='ROW'", "nothing was changed", "(code 1)"} {
			if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
				t.Fatalf("%s is not in:\n%s", want, out)
			}
		}
	}
	if j := jobsOf(t, dir); len(j) != 0 {
		t.Fatalf("%+v", j)
	}
	out := run("backfill", "all", "--yes")
	t.Log(out)
	for _, want := range []string{"table " + torn + " is quarantined", "quarantined: rows were changed by a statement"} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("%s is not in:\n%s", want, out)
		}
	}
	ask(t, p, "its end", func() bool { j := jobsOf(t, dir); return len(j) == 1 && j[0].State == "done" })
	for _, table := range jobsOf(t, dir)[0].Tables {
		if (table.Table == torn) != strings.HasPrefix(table.Fault, "quarantined: ") {
			t.Errorf("%+v", table)
		}
	}
	if p.terminate() != 0 {
		t.Error(p.log())
	}
}
