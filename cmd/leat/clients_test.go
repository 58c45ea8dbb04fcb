package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/client"
	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

// TestClients runs the client libraries on a real Leat that reads a real database: this one's rows are what the
// tests of clients/python compare with too.
func TestClients(t *testing.T) {
	t.Parallel()
	db := servertest.Postgres(t, servers.PostgresOptions{})
	conn := openDB(t, db.URL, "CREATE TABLE files (id bigint PRIMARY KEY, n integer, path text)", `CREATE TABLE kinds (id integer PRIMARY KEY, yes boolean, small smallint,
		money numeric(12,3), free numeric, real4 real, real8 double precision, words text, raw bytea, flags bit(5), doc jsonb, day date, clock time, naive timestamp,
		aware timestamptz, list integer[], date real[], one uuid, endless date)`, "ALTER TABLE kinds REPLICA IDENTITY FULL")
	dir, addr := t.TempDir(), freeAddr(t)
	config := fmt.Sprintf("data: ./data\nlisten: %s\nsources:\n  files:\n    postgres: {url: '%s', slot: %s}\n    tables: ['public.*']\nsubscriptions:\n", addr, db.URL, db.Name)
	for _, name := range []string{"go", "sync", "async", "each", "nack", "arrow", "left", "closed"} {
		lease := "1m"
		if name == "nack" { // a client that works for longer keeps it
			lease = "4s"
		}
		config += "  " + name + ": {source: files, from: earliest, retry: {initial: 10ms}, deliver: {pull: {lease: " + lease + "}}}\n"
	}
	config += "  lake: {source: files, from: earliest, resolved: 100ms, deliver: {parquet: {path: ./lake, roll: {age: 1s}}}}\n"
	config += "  lines: {source: files, from: earliest, resolved: 100ms, deliver: {file: {path: ./lines.jsonl}}}\n"
	writeConfig(t, dir, config)
	p := startLeat(t, leatBinary(t), dir)
	p.ready()
	execAll(t, conn, "INSERT INTO files SELECT i, 0, '/ä/' || i FROM generate_series(1, 2000) i", "UPDATE files SET n = n + 1", "DELETE FROM files WHERE id > 1990",
		`INSERT INTO kinds VALUES (1, true, -32768, 123456789.125, 'NaN', 1.5, 1e300, 'naïve', '\x00ff', '10110', '{"a": [1, 2.50]}', '2026-11-21', '23:59:59.000001',
		'2026-11-21 10:15:30.5', '2026-11-21 10:15:30.5+02', '{1,NULL,3}', '{1.5}', '6ba7b810-9dad-11d1-80b4-00c04fd430c8', 'infinity'), (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
		NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)`, "UPDATE kinds SET words = 'other' WHERE id = 1")

	t.Run("Go", func(t *testing.T) { goClient(t, p, "http://"+addr, dir) })
	t.Run("Python", func(t *testing.T) {
		python := withPython(t)
		if python == "" {
			return
		}
		cmd := exec.CommandContext(t.Context(), python, "-m", "pytest", "-q", "--durations=3", "-p", "no:cacheprovider", "tests")
		cmd.Dir = filepath.Join("..", "..", "clients", "python")
		cmd.Env = append(os.Environ(), "PYTHONPATH=src", "PYTHONDONTWRITEBYTECODE=1", "LEAT_URL=http://"+addr, "LEAT_LAKE="+filepath.Join(dir, "lake"))
		out, err := cmd.CombinedOutput()
		if t.Log(string(out)); err != nil {
			t.Errorf("%v\n%s", err, p.log())
		}
	})
	lines := eventsOfEachKind(t, p, conn, filepath.Join(dir, "lines.jsonl"))
	t.Run("CloudEvents", func(t *testing.T) { readByOthers(t, lines) })
	t.Run("TypeScript", func(t *testing.T) { typed(t, dir, addr, lines) })
}

// kinds is a row of the table, as a program would have it.
type kinds struct {
	ID    int32          `leat:"id"`
	Yes   *bool          `leat:"yes"`
	Small int16          `leat:"small"`
	Money client.Decimal `leat:"money"`
	Free  string         `leat:"free"`
	Real4 float32        `leat:"real4"`
	Real8 float64        `leat:"real8"`
	Words string         `leat:"words"`
	Raw   []byte         `leat:"raw"`
	Flags client.Bits    `leat:"flags"`
	Doc   map[string]any `leat:"doc"`
	Day   time.Time      `leat:"day"`
	Clock time.Duration  `leat:"clock"`
	Naive time.Time      `leat:"naive"`
	Aware time.Time      `leat:"aware"`
	List  []*int64       `leat:"list"`
	One   string         `leat:"one"`
	Never any            `leat:"endless"`
	Other struct{}       `leat:"no_such_column"`
}

func goClient(t *testing.T, p *process, url, dir string) {
	c, err := client.New(url, client.Options{Consumer: "a test"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	rows := map[int64]int64{}
	var seen []kinds
	err = c.Handle(ctx, "go", 1, func(_ context.Context, e *client.Event) error {
		if e.Table == "public.kinds" && e.Op != client.Schema {
			var k kinds
			if err := e.After.Scan(&k); err != nil {
				return err
			}
			if seen = append(seen, k); len(seen) == 3 {
				cancel()
			}
			return nil
		}
		var f struct {
			ID int64 `leat:"id"`
			N  int64 `leat:"n"`
		}
		switch e.Op {
		case client.Delete:
			if err := e.Key.Scan(&f); err != nil {
				return err
			}
			delete(rows, f.ID)
		case client.Insert, client.Update:
			if err := e.After.Scan(&f); err != nil {
				return err
			}
			rows[f.ID] = f.N
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || len(seen) != 3 || len(rows) != 1990 || rows[7] != 1 {
		t.Fatalf("%v; %d rows, %d kinds\n%s", err, len(rows), len(seen), p.log())
	}
	yes, one, three := true, int64(1), int64(3)
	want := kinds{1, &yes, math.MinInt16, "123456789.125", "NaN", 1.5, 1e300, "naïve", []byte{0, 255}, "10110", map[string]any{"a": []any{1.0, 2.5}},
		time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC), 24*time.Hour - time.Second + time.Microsecond, time.Date(2026, 11, 21, 10, 15, 30, 5e8, time.UTC),
		time.Date(2026, 11, 21, 8, 15, 30, 5e8, time.UTC), []*int64{&one, nil, &three}, "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "infinity", struct{}{}}
	if !reflect.DeepEqual(seen[0], want) || !reflect.DeepEqual(seen[1], kinds{ID: 2}) || seen[2].Words != "other" {
		t.Errorf("rows:\n%+v\n%+v\n%+v, want\n%+v", seen[0], seen[1], seen[2], want)
	}
	follow(t, c, filepath.Join(dir, "go.cursor"))
}

// follow reads the log by pages, is stopped in the middle, and goes on from its file.
func follow(t *testing.T, c *client.Client, cursor string) {
	enough := errors.New("enough")
	seen := map[uint64]bool{}
	read := func(most int) {
		err := c.Follow(t.Context(), "go", client.FollowOptions{Cursor: cursor, Page: 700, Tables: []string{"*.files"}}, func(page []*client.Event, _ uint64) error {
			if most--; most < 0 {
				return enough
			}
			for _, e := range page {
				if seen[e.Offset] {
					t.Errorf("%s came twice", e.ID)
				}
				seen[e.Offset] = e.Op != client.Schema
			}
			if len(seen) >= 4010 {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) {
			t.Fatal(err)
		}
	}
	read(2)
	half := len(seen)
	read(1 << 30)
	if half == 0 || half >= 4010 || len(seen) < 4010 {
		t.Errorf("%d events of 4010, %d before it was stopped", len(seen), half)
	}
	kept, err := os.ReadFile(cursor)
	if err != nil || !strings.Contains(string(kept), `"source":"files"`) {
		t.Errorf("the cursor file does not name its source: %s %v", kept, err)
	}
	for _, place := range []string{"1", "9000000000000000000"} { // before the log begins, and behind its end
		other := fmt.Sprintf(`{"next":%q,"subscription":"go","source":"orders"}`, place)
		if err := os.WriteFile(cursor, []byte(other), 0o600); err != nil {
			t.Fatal(err)
		}
		err := c.Follow(t.Context(), "go", client.FollowOptions{Cursor: cursor}, func([]*client.Event, uint64) error { return errors.New("it was read") })
		if err == nil || !strings.Contains(err.Error(), "is of the source orders, but the subscription reads files") {
			t.Errorf("a place of another source, %s: %v", place, err)
		}
		if kept, err := os.ReadFile(cursor); err != nil || string(kept) != other {
			t.Errorf("the file was written: %s %v", kept, err)
		}
	}
	if err := os.WriteFile(cursor, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Follow(t.Context(), "go", client.FollowOptions{Cursor: cursor}, nil); err == nil {
		t.Error("a torn cursor file was read")
	}
}
