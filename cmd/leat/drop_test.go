package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

// TestDropOnAServer: what the file no longer names is kept until --drop, which takes from the database what Leat
// made there and nothing else, and is audited.
func TestDropOnAServer(t *testing.T) {
	t.Parallel()
	db := servertest.Postgres(t, servers.PostgresOptions{})
	conn := openDB(t, db.URL, "CREATE TABLE files (id bigint PRIMARY KEY)", "CREATE PUBLICATION given FOR TABLE files",
		"SELECT pg_create_logical_replication_slot('"+db.Name+"_given', 'pgoutput')", "CREATE PUBLICATION others FOR TABLE files",
		"SELECT pg_create_logical_replication_slot('"+db.Name+"_others', 'pgoutput')")
	dir, addr := t.TempDir(), freeAddr(t)
	base := fmt.Sprintf("data: ./data\nlisten: %s\nsources:\n", addr)
	source := func(name, more string) string {
		return fmt.Sprintf("  %[1]s:\n    postgres: {url: '%[2]s', slot: %[3]s_%[1]s, publication: %[1]s%[4]s}\n", name, db.URL, db.Name, more)
	}
	writeConfig(t, dir, base+source("made", "")+source("given", ", create: false")+"subscriptions:\n  a: {source: made, deliver: {pull: {}}}\n")
	p := startLeat(t, leatBinary(t), dir)
	until(t, p, "both sources", func() bool { return strings.Count(p.log(), `"state":"streaming"`) == 2 })
	have := []string{"given " + db.Name + "_given", "made " + db.Name + "_made", "others " + db.Name + "_others"}
	there(t, conn, db.Name, have...)

	run := func(code int, say string, args ...string) {
		t.Helper()
		if out, got := leat(t, dir, append(args, "--addr", "http://"+addr)...); got != code || !strings.Contains(out, say) {
			t.Errorf("leat %v: exit code %d, want %d and %q: %s", args, got, code, say, out)
		}
	}
	run(2, "", "apply", "--drop", "made") // still in the file
	writeConfig(t, dir, base[:len(base)-len("sources:\n")])
	run(0, "made", "apply")
	run(0, "gone", "status", "made")
	there(t, conn, db.Name, have...)
	if _, err := os.Stat(filepath.Join(dir, "data", "logs", "made")); err != nil {
		t.Errorf("the log of a source that is kept: %v", err)
	}

	run(0, "slot "+db.Name+"_made dropped", "apply", "--drop", "made", "--drop", "a")
	there(t, conn, db.Name, have[0], have[2])
	run(0, "create: false", "apply", "--drop", "given")
	there(t, conn, db.Name, have[0], have[2])
	for _, name := range []string{"made", "given"} {
		if _, err := os.Stat(filepath.Join(dir, "data", "logs", name)); !os.IsNotExist(err) {
			t.Errorf("the log of %s: %v", name, err)
		}
		run(1, "", "status", name)
	}
	run(1, "", "apply", "--drop", "nobody")
	audited(t, dir, addr, db.Name)
}

// there compares the publications and slots of the database.
func there(t *testing.T, conn *sql.DB, database string, want ...string) {
	t.Helper()
	var got string
	err := conn.QueryRow(`SELECT string_agg(p.pubname || ' ' || coalesce(s.slot_name, '-'), ',' ORDER BY p.pubname) FROM pg_publication p
		FULL JOIN pg_replication_slots s ON s.slot_name = $1 || '_' || p.pubname AND s.database = $1 WHERE p.pubname IS NOT NULL OR s.database = $1`, database).Scan(&got)
	if err != nil {
		t.Fatal(err)
	}
	if got != strings.Join(want, ",") {
		t.Errorf("publications and slots: %s, want %s", got, want)
	}
}

// audited: the drops stand in the audit log, with what they did.
func audited(t *testing.T, dir, addr, database string) {
	t.Helper()
	out, code := leat(t, dir, "audit", "--json", "--addr", "http://"+addr)
	var doc struct {
		Entries []struct{ Action, Outcome, Detail string }
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil || code != 0 {
		t.Fatalf("audit: %d %v: %s", code, err, out)
	}
	text := ""
	for _, e := range doc.Entries {
		text += fmt.Sprintf("%s %s: %s\n", e.Action, e.Outcome, e.Detail)
	}
	for _, want := range []string{"dropped source made: log removed; slot " + database + "_made dropped", "dropped subscription a", "dropped source given: log removed; slot " + database + "_given", `apply refused: nothing called "nobody"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not audited:\n%s", want, text)
		}
	}
}
