package app

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

func plainOffset(o uint64) string { return strconv.FormatUint(o, 10) }

// After an ordinary stop nothing comes again but what was in flight.
func TestStopAndStart(t *testing.T) {
	t.Parallel()
	db, h, slow, dir := newPG(t), newHook(t), newHook(t), t.TempDir()
	yaml := db.yaml("a: {source: files, batch: {events: 10}, deliver: {"+toHook(h)+"}}",
		"slow: {source: files, flow: {max_in_flight: 1}, batch: {events: 10}, deliver: {"+toHook(slow)+"}}")
	stopped := make(chan struct{})
	arrived := make(chan struct{}, 1)
	slow.answers(func(w http.ResponseWriter, body []byte) bool {
		if !strings.Contains(string(body), `"id":15}`) {
			return true
		}
		arrived <- struct{}{}
		<-stopped
		return false
	})
	in := install(t, dir, yaml)
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files SELECT i FROM generate_series(1,500) i")
	h.waits(t, 500)
	<-arrived
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	close(stopped)
	before := len(slow.got(t))
	slow.answers(nil)
	db.exec(t, "INSERT INTO files VALUES (501)")
	in = install(t, dir, yaml)
	got := ids(h.waits(t, 501))
	if n := len(slices.Compact(slices.Sorted(slices.Values(got)))); n != len(got) || n != 501 {
		t.Errorf("%d events, %d of them different", len(got), n)
	}
	all := ids(slow.waits(t, 501))
	if n := len(slices.Compact(slices.Sorted(slices.Values(all)))); n != 501 || len(all)-before > 501-before+10 {
		t.Errorf("slow: %d events, %d different", len(all), n)
	}
}

// Other tables after a restart, a table that is made later, TRUNCATE and DDL all pass.
func TestTablesChange(t *testing.T) {
	t.Parallel()
	db, h, dir := newPG(t), newHook(t), t.TempDir()
	db.exec(t, "CREATE TABLE second (id int PRIMARY KEY)")
	yaml := func(tables string) string {
		return strings.Replace(db.yaml("a: {source: files, deliver: {"+toHook(h)+"}}"), "tables: ['public.*']", tables, 1)
	}
	in := install(t, dir, yaml("tables: ['public.files', 'public.late*']"))
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO second VALUES (1)", "INSERT INTO files VALUES (1)", "CREATE TABLE late_one (id int PRIMARY KEY)")
	h.waits(t, 1)
	// A table joins after its creation was seen: from then on its rows come.
	n := 0
	until(t, "the late table to join", func() bool {
		n++
		db.exec(t, fmt.Sprintf("INSERT INTO late_one VALUES (%d)", n))
		return slices.ContainsFunc(h.got(t), func(e event) bool { return e.Subject == "public.late_one" && e.Type == "leat.insert" })
	})
	db.exec(t, "ALTER TABLE files ADD COLUMN extra text DEFAULT 'x'", "INSERT INTO files VALUES (2, 'b', 3, 'y')", "TRUNCATE files", "INSERT INTO files VALUES (3, 'c', 4, 'z')")
	var types []string
	until(t, "what followed the DDL", func() bool {
		types = nil
		for _, e := range h.got(t) {
			if e.Subject == "public.files" {
				types = append(types, strings.TrimPrefix(e.Type, "leat."))
			}
		}
		return len(types) >= 5
	})
	if want := []string{"insert", "schema", "insert", "truncate", "insert"}; !slices.Equal(types, want) {
		t.Errorf("of files: %v, want %v", types, want)
	}
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	in = install(t, dir, yaml("tables: ['public.second']"))
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files VALUES (9)", "INSERT INTO second VALUES (2)")
	until(t, "a row of the table that joined", func() bool {
		return slices.ContainsFunc(h.got(t), func(e event) bool { return e.Subject == "public.second" && e.Data.Key["id"] == 2.0 })
	})
	for _, e := range h.got(t) {
		if e.Subject == "public.files" && e.Data.Key["id"] == 9.0 || e.Subject == "public.second" && e.Data.Key["id"] == 1.0 {
			t.Errorf("an event of a table that was not in `tables` then: %+v", e)
		}
	}
}

// The same installation on MariaDB and MySQL: a restart in between, positions as people write them.
func TestMySQLFamily(t *testing.T) {
	t.Parallel()
	for kind, start := range map[string]func(testing.TB, servers.MySQLOptions) *servertest.Database{"mariadb": servertest.MariaDB, "mysql": servertest.MySQL} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			db, h, dir := start(t, servers.MySQLOptions{}), newHook(t), t.TempDir()
			exec := func(q ...string) {
				t.Helper()
				if err := db.Server.Exec(t.Context(), q...); err != nil {
					t.Fatal(err)
				}
			}
			exec("CREATE TABLE " + db.Name + ".files (id bigint PRIMARY KEY, name varchar(40))")
			yaml := fmt.Sprintf("%ssources:\n  files:\n    mysql: {url: '%s', server_id: %d}\n    tables: ['%s.*']\nsubscriptions:\n  a: {source: files, deliver: {%s}}\n  b: {source: files, deliver: {pull: {}}}\n",
				top, db.URL, 1<<20+rand.IntN(1<<30), db.Name, toHook(h))
			in := install(t, dir, yaml)
			in.streaming(t, "files")
			exec("INSERT INTO "+db.Name+".files VALUES (1, 'a'), (2, 'b')", "UPDATE "+db.Name+".files SET name = 'c' WHERE id = 1")
			h.waits(t, 3)
			if err := in.stop(); err != nil {
				t.Fatal(err)
			}
			exec("DELETE FROM "+db.Name+".files WHERE id = 2", "TRUNCATE "+db.Name+".files")
			in = install(t, dir, yaml)
			want := ids(h.waits(t, 5))
			got := in.pull(t, "b", 5)
			if slices.Sort(want); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
				t.Errorf("pull %v, webhook %v", got, want)
			}
			if s := in.source(t, "files"); s.LogBytes == 0 || s.Position == "" || strings.Contains(s.Position, " ") {
				t.Errorf("status: %v", s)
			}
		})
	}
}
