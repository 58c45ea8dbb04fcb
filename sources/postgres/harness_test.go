package postgres

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m, goleak.IgnoreCurrent())) }

// versions are those that every property is tried on: the oldest and the newest.
var versions = []int{15, 18}

// eachVersion runs f for each of those, side by side.
func eachVersion(t *testing.T, f func(t *testing.T, db *db)) { onVersions(t, versions, f) }

// allVersions runs f for every version that is supported: what a server's release may change.
func allVersions(t *testing.T, f func(t *testing.T, db *db)) {
	onVersions(t, servers.PostgresVersions(), f)
}

func onVersions(t *testing.T, versions []int, f func(t *testing.T, db *db)) {
	for _, v := range versions {
		t.Run(fmt.Sprintf("postgres%d", v), func(t *testing.T) {
			t.Parallel()
			f(t, newDB(t, v))
		})
	}
}

// db is a database of the test's own with a connection to it.
type db struct {
	*servertest.Database
	t       *testing.T
	conn    *pgx.Conn
	version int
}

func newDB(t *testing.T, version int) *db {
	t.Helper()
	d := &db{Database: servertest.Postgres(t, servers.PostgresOptions{Version: version}), t: t, version: version}
	d.conn = d.connect()
	return d
}

func (d *db) connect() *pgx.Conn {
	d.t.Helper()
	conn, err := pgx.Connect(d.t.Context(), d.URL)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (d *db) exec(statements ...string) {
	d.t.Helper()
	for _, q := range statements {
		if _, err := d.conn.Exec(d.t.Context(), q); err != nil {
			d.t.Fatalf("%s: %v", q, err)
		}
	}
}

func (d *db) text(query string, args ...any) string {
	d.t.Helper()
	var s *string
	if err := d.conn.QueryRow(d.t.Context(), query, args...).Scan(&s); err != nil {
		d.t.Fatalf("%s: %v", query, err)
	}
	return deref(s)
}

// config is one whose intervals suit tests; the slot is unlike that of others on the server.
func (d *db) config() Config {
	return Config{
		Name: "files", URL: d.URL, Slot: d.Name, Create: true, StatusInterval: 100 * time.Millisecond,
		CatalogInterval: 50 * time.Millisecond,
		Observer:        pipeline.Observer{Warned: func(place, what, cure string) { d.t.Log("warned: ", place, what, cure) }},
	}
}

func (d *db) source(change ...func(*Config)) *Source {
	d.t.Helper()
	c := d.config()
	for _, f := range change {
		f(&c)
	}
	s, err := New(c)
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

// partLine is a line of an open transaction, with the subtransaction that wrote it.
type partLine struct {
	part uint32
	line string
}

// reading is a stream with what came out of it, as lines.
type reading struct {
	t       *testing.T
	stream  pipeline.Stream
	last    pipeline.Position
	lines   []string
	notices []pipeline.Notice
	open    map[string][]partLine
	tables  map[string]*schemas.Table
	batches []pipeline.BatchKind
	err     error
}

func (d *db) open(s *Source, after pipeline.Position) *reading {
	d.t.Helper()
	st, err := s.Open(d.t.Context(), after)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = st.Close() })
	return &reading{t: d.t, stream: st, last: after, open: map[string][]partLine{}, tables: map[string]*schemas.Table{}}
}

const patience = time.Minute

// next takes one batch.
func (r *reading) next() error {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	b, err := r.stream.Next(ctx)
	if err != nil {
		return err
	}
	defer b.Release()
	r.take(b)
	return nil
}

func (r *reading) take(b *pipeline.Batch) {
	r.t.Helper()
	if err := pipetest.CheckBatch(b, pgtext.Form); err != nil {
		r.t.Fatalf("batch is not well formed: %v", err)
	}
	r.batches = append(r.batches, b.Kind)
	lines := linesOf(r.t, b)
	for _, tab := range b.Tables {
		r.tables[tab.Subject()] = tab
	}
	switch b.Kind {
	case pipeline.BatchRows:
		r.lines = append(r.lines, lines...)
	case pipeline.BatchChunk:
		for i, l := range lines {
			r.open[b.Open] = append(r.open[b.Open], partLine{b.Txs[b.Events[i].Tx].Part, l})
		}
	case pipeline.BatchCommit:
		for _, l := range r.open[b.Open] {
			if !slices.Contains(b.Without, l.part) {
				r.lines = append(r.lines, l.line)
			}
		}
		delete(r.open, b.Open)
	case pipeline.BatchAbort:
		delete(r.open, b.Open)
	}
	r.notices = append(r.notices, b.Notices...)
	if !b.End.Zero() {
		if b.End.Counter <= r.last.Counter && r.last.Token != "" {
			r.t.Errorf("position went from %v to %v", r.last, b.End)
		}
		r.last = b.End
	}
}

// until takes batches until ok.
func (r *reading) until(ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if err := r.next(); err != nil {
			r.t.Fatalf("after %d lines %q: %v", len(r.lines), tail(r.lines, 5), err)
		}
		if time.Now().After(end) {
			r.t.Fatalf("did not come; last lines %q, notices %v", tail(r.lines, 5), r.notices)
		}
	}
}

// want takes batches until the given lines have come, and forgets them.
func (r *reading) want(lines ...string) {
	r.t.Helper()
	r.until(func() bool { return len(r.lines) >= len(lines) })
	got := r.lines
	r.lines = nil
	if a, b := strings.Join(got, "\n"), strings.Join(lines, "\n"); a != b {
		r.t.Fatalf("got:\n%s\nwant:\n%s", a, b)
	}
}

func tail(s []string, n int) []string { return s[max(0, len(s)-n):] }

// linesOf writes each event as "op table {before} {after}"; absent cells are left out.
func linesOf(t *testing.T, b *pipeline.Batch) []string {
	t.Helper()
	var lines []string
	for i := range b.Events {
		e := &b.Events[i]
		if e.Op == pipeline.OpMessage {
			lines = append(lines, fmt.Sprintf("message %s %s", b.Bytes(e.Before), b.Bytes(e.After)))
			continue
		}
		tab := b.TableOf(i)
		line := e.Op.String() + " " + tab.Subject()
		if e.Op == pipeline.OpSchema {
			lines = append(lines, line)
			continue
		}
		for _, image := range []pipeline.Span{e.Before, e.After} {
			if image.Present() {
				line += " " + rowText(t, tab, b.Bytes(image))
			} else if e.Op.Row() {
				line += " -"
			}
		}
		lines = append(lines, line)
	}
	return lines
}

func rowText(t *testing.T, tab *schemas.Table, image []byte) string {
	t.Helper()
	refs, err := pgtext.Form(tab).Walk(image, nil, len(tab.Columns))
	if err != nil {
		t.Fatalf("row of %s: %v", tab.Subject(), err)
	}
	var parts []string
	for i, ref := range refs {
		parts = append(parts, cellText(tab.Columns[i].Name, ref, image)...)
	}
	return "{" + strings.Join(parts, " ") + "}"
}

func cellText(name string, ref cell.Ref, image []byte) []string {
	switch {
	case ref.Absent():
		return nil
	case ref.Null():
		return []string{name + "=NULL"}
	}
	v := string(ref.Of(image))
	if len(v) > 40 {
		v = fmt.Sprintf("<%d>", len(v))
	}
	return []string{name + "=" + v}
}
