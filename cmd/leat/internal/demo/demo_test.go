package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-cdc/leat/cmd/leat/internal/app"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli"
	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

// TestMain is also the `leat run` that the demo starts: it starts the program it is in.
func TestMain(m *testing.M) {
	if os.Getenv(envChild) == "" {
		os.Exit(servertest.Main(m))
	}
	ctx, cancel := Attached(context.Background())
	defer cancel()
	err := cli.Run(ctx, cli.Deps{Version: "test", Run: func(ctx context.Context, o cli.RunOptions) error {
		return app.Run(ctx, app.Options{Config: o.Config, Version: o.Version, Stdout: o.Stdout, Stderr: o.Stderr, LogFormat: o.LogFormat, LogLevel: o.LogLevel})
	}}, os.Args[1:])
	cli.Report(os.Stderr, err)
	os.Exit(cli.ExitCode(err))
}

// show runs a demo of some seconds on a database of the test's own.
func show(t *testing.T, o *options) (out, errOut string, err error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	o.Stdout, o.Stderr, o.seed = &stdout, &stderr, defaultSeed
	err = run(t.Context(), o)
	t.Logf("%s\n%s", &stdout, &stderr)
	return stdout.String(), stderr.String(), err
}

func TestPostgresComplete(t *testing.T) {
	db := servertest.Postgres(t, servers.PostgresOptions{})
	out, errOut, err := show(t, &options{DemoOptions: cli.DemoOptions{Seconds: 3, Rate: 1000, URL: db.URL, JSON: true}})
	if err != nil {
		t.Fatal(err)
	}
	var s summary
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	if !s.Complete || s.Rows == 0 || s.Events <= s.Changes || s.SlotBytes == nil || len(s.Subscribers) != 3 {
		t.Errorf("%+v", s)
	}
	for _, x := range s.Subscribers {
		if !x.Equal || x.Delivered != s.Events || x.P99 <= 0 {
			t.Errorf("%+v", x)
		}
	}
	if slow := s.Subscribers[2]; slow.Refused == 0 || slow.Behind == 0 {
		t.Errorf("the slow one never was: %+v", slow)
	}
	if !strings.Contains(errOut, "everybody catches up") || strings.Contains(errOut, "\x1b[") {
		t.Errorf("%q", errOut)
	}
	nothingLeft(t, db)
}

// nothingLeft of the demo, in the database and in the temporary folder.
func nothingLeft(t *testing.T, db *servertest.Database) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var n int
	err = conn.QueryRow(t.Context(), "select (select count(*) from pg_namespace where nspname = 'leat_demo') + (select count(*) from pg_publication) + (select count(*) from pg_replication_slots where database = current_database())").Scan(&n)
	if err != nil || n != 0 {
		t.Errorf("%d things are left in the database, %v", n, err)
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), folderPrefix+strconv.Itoa(os.Getpid())+"-*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A subscriber that loses one event is found out, and who it is.
func TestLostEventIsFound(t *testing.T) {
	db := servertest.Postgres(t, servers.PostgresOptions{})
	lost := false
	out, _, err := show(t, &options{DemoOptions: cli.DemoOptions{Seconds: 1, Rate: 500, URL: db.URL}, lose: func(name string, c *change) bool {
		if name == "search" && !lost && tables[c.table].name == "folders" {
			lost = true
			return true
		}
		return false
	}})
	if err == nil || !strings.Contains(err.Error(), "not complete") {
		t.Errorf("err %v", err)
	}
	if !strings.Contains(out, "events came") || strings.Contains(out, "Complete:") || strings.Count(out, " differences") != 1 {
		t.Error("the summary does not say who lost what")
	}
	nothingLeft(t, db)
}

func TestMySQLComplete(t *testing.T) {
	db := servertest.MariaDB(t, servers.MySQLOptions{})
	out, _, err := show(t, &options{DemoOptions: cli.DemoOptions{Seconds: 2, Rate: 500, URL: db.Server.URL}})
	if err != nil || !strings.Contains(out, "Complete:") {
		t.Errorf("err %v", err)
	}
}

// Ctrl-C ends the workload; then everybody catches up, too.
func TestInterrupted(t *testing.T) {
	db := servertest.Postgres(t, servers.PostgresOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stdout, stderr bytes.Buffer
	o := &options{DemoOptions: cli.DemoOptions{Rate: 500, URL: db.URL, Stdout: &stdout, Stderr: &stderr}, seed: defaultSeed,
		lose: func(string, *change) bool { cancel(); return false }}
	if err := run(ctx, o); err != nil || !strings.Contains(stdout.String(), "Complete:") {
		t.Errorf("%v\n%s%s", err, &stdout, &stderr)
	}
	nothingLeft(t, db)
}

// What a stranger has under our name stays.
func TestStrangersSchemaStays(t *testing.T) {
	db := servertest.Postgres(t, servers.PostgresOptions{})
	conn, err := pgx.Connect(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "create schema leat_demo"); err != nil {
		t.Fatal(err)
	}
	_, _, err = show(t, &options{DemoOptions: cli.DemoOptions{Seconds: 1, URL: db.URL}})
	if err == nil || !strings.Contains(err.Error(), "did not make") {
		t.Errorf("err %v", err)
	}
	if _, err := conn.Exec(t.Context(), "drop schema leat_demo"); err != nil {
		t.Error(err)
	}
}

// A database that cannot be read says why, at once, and is left as it was.
func TestDatabaseThatCannotBeRead(t *testing.T) {
	db := servertest.Postgres(t, servers.PostgresOptions{Params: map[string]string{"wal_level": "replica"}})
	_, _, err := show(t, &options{DemoOptions: cli.DemoOptions{Seconds: 1, URL: db.URL}})
	if err == nil || !strings.Contains(err.Error(), "wal_level") {
		t.Errorf("err %v", err)
	}
	nothingLeft(t, db)
}

func TestErrorsNameTheCure(t *testing.T) {
	const password = "hunter2hunter2"
	for _, c := range []struct{ name, url, want string }{
		{"scheme", "sqlite://x", "want postgres://"},
		{"nobody there", "postgres://u:" + password + "@127.0.0.1:1/x", "connect to the database"},
		{"nobody there, MySQL", "mysql://u:" + password + "@127.0.0.1:1/", "connect to the database"},
		{"no URL", "postgres://u:" + password + "@[::1/%zz", "--url"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := show(t, &options{DemoOptions: cli.DemoOptions{Seconds: 1, URL: c.url}})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), password) {
				t.Errorf("err %v", err)
			}
		})
	}
	t.Run("no folder", func(t *testing.T) {
		t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "missing"))
		if _, _, err := show(t, &options{}); err == nil || !strings.Contains(err.Error(), "set TMPDIR") {
			t.Errorf("err %v", err)
		}
	})
	t.Run("no network", func(t *testing.T) {
		cache := t.TempDir()
		if err := os.Chmod(filepath.Dir(cache), 0o711); err != nil { // root's servers run as nobody
			t.Fatal(err)
		}
		t.Setenv("LEAT_CACHE", cache)
		t.Setenv("LEAT_MAVEN_URL", "http://127.0.0.1:1")
		if _, _, err := show(t, &options{}); err == nil || !strings.Contains(err.Error(), "LEAT_MAVEN_URL") || !strings.Contains(err.Error(), "--url") {
			t.Errorf("err %v", err)
		}
	})
}

// The copy notices each way in which events can be wrong.
func TestReplicaNotices(t *testing.T) {
	const files = 2
	row := func() []string { return make([]string, len(tables[files].columns)) }
	insert := func(offset uint64, key string) change {
		return change{offset: offset, table: files, op: "insert", key: key, after: row(), commit: time.Now()}
	}
	as := func(c change, op string) change {
		c.op = op
		if op == "delete" {
			c.after = nil
		}
		return c
	}
	for _, c := range []struct {
		name   string
		events []change
		want   string
	}{
		{"fine", []change{insert(100, "1"), insert(7, "2"), as(insert(101, "1"), "update"), as(insert(102, "1"), "delete"), insert(103, "1")}, ""},
		{"out of order", []change{insert(100, "1"), as(insert(102, "1"), "update"), as(insert(101, "1"), "update")}, "came after event 102"},
		{"insert again", []change{insert(1, "1"), insert(2, "1")}, "already has"},
		{"update of nothing", []change{as(insert(1, "1"), "update")}, "lacks"},
		{"delete of nothing", []change{as(insert(1, "1"), "delete")}, "never came"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newReplica()
			r.take(c.events)
			r.take(c.events) // all are duplicates now
			if n, again := r.counts(); n != int64(len(c.events)) || again != n {
				t.Errorf("%d events, %d duplicates", n, again)
			}
			if got := strings.Join(r.wrong, "; "); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("noticed %q", got)
			}
		})
	}
}

// A row that changes its key keeps what the insert leaves out.
func TestMovedRowKeepsAbsentColumns(t *testing.T) {
	const files = 2
	r := newReplica()
	after := make([]string, len(tables[files].columns))
	preview := tables[files].column("preview")
	after[preview] = "long"
	absent := make([]bool, len(after))
	absent[preview] = true
	r.take([]change{
		{offset: 1, table: files, op: "insert", key: "9", after: after},
		{offset: 2, table: files, op: "delete", key: "9", other: 3},
		{offset: 3, table: files, op: "insert", key: "9", other: 2, after: make([]string, len(after)), absent: absent},
	})
	if got := r.rows[rowKey{files, "9"}][preview]; got != "long" || r.broken != 0 || len(r.moving) != 0 {
		t.Errorf("%q, %v", got, r.wrong)
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	for i := 1; i <= 1000; i++ {
		h.add(time.Duration(i) * time.Millisecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Millisecond, 0.99: 990 * time.Millisecond} {
		if got := h.quantile(q); got < want || got > want*11/10 {
			t.Errorf("%v: %v", q, got)
		}
	}
	var empty histogram
	if empty.quantile(0.5) != 0 {
		t.Error("an empty one has a median")
	}
}
