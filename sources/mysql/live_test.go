package mysql

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/rough"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "leat-mysql-*")
	if err != nil {
		panic(err)
	}
	keyFile = filepath.Join(dir, "keys")
	if err := os.WriteFile(keyFile, []byte("1;"+strings.Repeat("a7", 16)+"\n"), 0o600); err != nil {
		panic(err)
	}
	code := servertest.Main(m)
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

const patience = time.Minute

// within bounds a whole test that hangs.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	t.Cleanup(cancel)
	return ctx
}

// flavors runs a test against both kinds of server.
func flavors(t *testing.T, o servers.MySQLOptions, test func(t *testing.T, db *servertest.Database)) {
	t.Run("mysql", func(t *testing.T) { t.Parallel(); test(t, servertest.MySQL(t, o)) })
	t.Run("mariadb", func(t *testing.T) { t.Parallel(); test(t, servertest.MariaDB(t, o)) })
}

func addr(t testing.TB, raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

func source(t testing.TB, cfg Config) *Source {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sqlClient is one connection for statements.
type sqlClient struct {
	t testing.TB
	c *conn
}

func login(t testing.TB, raw, db string) *sqlClient {
	t.Helper()
	c, err := source(t, Config{URL: raw}).connect(within(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	cl := &sqlClient{t, c}
	if db != "" {
		cl.do("use `" + db + "`")
	}
	return cl
}

func (c *sqlClient) do(statements ...string) {
	c.t.Helper()
	for _, s := range statements {
		if _, err := c.c.exec(context.Background(), s); err != nil {
			c.t.Fatalf("%.200s: %v", s, err)
		}
	}
}

func (c *sqlClient) rows(sql string) [][]string {
	c.t.Helper()
	rows, err := c.c.rows(context.Background(), sql)
	if err != nil {
		c.t.Fatalf("%s: %v", sql, err)
	}
	return rows
}

// url of a database's server without the database.
func base(raw string) string {
	u, _ := url.Parse(raw)
	u.Path = "/"
	return u.String()
}

// record is one event, as text, in full.
type record struct {
	what, tx string
	seq      uint32
	last     bool
}

// reading collects what a stream hands over, as the log would keep it: chunks appear with their commit.
type reading struct {
	t       testing.TB
	records []record
	notices []pipeline.Notice
	// statements of schema events
	statements []string
	end        pipeline.Position
	open       map[string][]record
	waiting    map[string]bool // prepared ones of them
	tables     map[string]*schemas.Table
	chunks     int
	said       int // notices that came with a transaction's commit
	// sought is the last text that has was asked for, in the first `looked` records.
	sought string
	looked int
	found  bool
}

func newReading(t testing.TB) *reading {
	return &reading{t: t, open: map[string][]record{}, waiting: map[string]bool{}, tables: map[string]*schemas.Table{}}
}

func (r *reading) take(b *pipeline.Batch) {
	r.t.Helper()
	defer b.Release()
	for _, n := range b.Notices {
		if n.Table == "transactions" { // of another test on this server, prepared before this one began to read
			continue
		}
		r.notices = append(r.notices, n)
		if b.Kind == pipeline.BatchCommit {
			r.said++
		}
	}
	list := make([]record, 0, len(b.Events))
	for i := range b.Events {
		list = append(list, r.record(b, i))
	}
	switch b.Kind {
	case pipeline.BatchChunk:
		r.chunks++
		r.open[b.Open] = append(r.open[b.Open], list...)
	case pipeline.BatchAbort:
		delete(r.open, b.Open)
		delete(r.waiting, b.Open)
	case pipeline.BatchCommit:
		list = r.open[b.Open]
		for i := range list {
			list[i].tx = string(b.Bytes(b.Txs[0].ID))
		}
		delete(r.open, b.Open)
		delete(r.waiting, b.Open)
		fallthrough
	default:
		if b.Kind == pipeline.BatchPrepared {
			if r.waiting[b.Open] = true; len(r.open[b.Open]) == 0 {
				r.t.Fatalf("%s is prepared without chunks", b.Open)
			}
		}
		r.records = append(r.records, list...)
		if !b.End.Zero() {
			if b.End.Counter < r.end.Counter {
				r.t.Fatalf("the position went back: %v after %v", b.End, r.end)
			}
			r.end = b.End
		}
	}
}

func (r *reading) record(b *pipeline.Batch, i int) record {
	r.t.Helper()
	e := &b.Events[i]
	rec := record{tx: string(b.Bytes(b.Txs[e.Tx].ID))}
	rec.seq, rec.last = b.Seq(i)
	rec.what = e.Op.String()
	if e.Table == pipeline.NoTable {
		return rec
	}
	rec.what += " " + b.Tables[e.Table].Subject()
	r.tables[b.Tables[e.Table].Subject()] = b.Tables[e.Table]
	if e.Op == pipeline.OpSchema {
		text, statement := shapeText(r.t, b.Bytes(e.After))
		rec.what += " " + text
		r.statements = append(r.statements, statement)
	}
	if !e.Op.Row() {
		return rec
	}
	rec.what += " " + r.image(b, e, e.Before) + " -> " + r.image(b, e, e.After)
	return rec
}

// shapeText is what a schema event says: the columns, and whether rows changed without events.
func shapeText(t testing.TB, content []byte) (text, statement string) {
	t.Helper()
	var c pipeline.SchemaChange
	if err := json.Unmarshal(content, &c); err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(c.Columns))
	for i := range names {
		names[i] = c.Columns[i].Name
	}
	text = "(" + strings.Join(names, ",") + ")"
	if c.Rewrites {
		text += " rewrites"
	}
	return text, c.Statement
}

// image writes a row as col=value pairs, ~ for absent columns.
func (r *reading) image(b *pipeline.Batch, e *pipeline.Event, s pipeline.Span) string {
	img := b.Bytes(s)
	if img == nil {
		return "-"
	}
	t := b.Tables[e.Table]
	f := binlog.Form(t)
	refs, err := f.Walk(img, nil, len(t.Columns))
	if err != nil {
		r.t.Fatalf("%s: %v", t.Subject(), err)
	}
	var out []string
	for i, ref := range refs {
		text := ""
		switch {
		case ref.Absent():
			text = "~"
		case ref.Null():
			text = "NULL"
		default:
			var v cell.Value
			if err := f.Decode[i](&v, ref.Of(img), &cell.Scratch{}); err != nil {
				r.t.Fatalf("%s.%s: %v", t.Subject(), t.Columns[i].Name, err)
			}
			if v.B != nil {
				text = string(v.B)
			} else {
				text = fmt.Sprint(int64(v.N))
			}
		}
		out = append(out, t.Columns[i].Name+"="+text)
	}
	return strings.Join(out, " ")
}

// drop does what ingest and log do with the chunks of a stream that ended.
func (r *reading) drop() {
	for open := range r.open {
		if !r.waiting[open] {
			delete(r.open, open)
		}
	}
}

// until reads one stream until stop or the stream's error.
func (r *reading) until(st pipeline.Stream, ctx context.Context, stop func() bool) error {
	for !stop() {
		b, err := st.Next(ctx)
		if err != nil {
			return err
		}
		r.take(b)
	}
	return nil
}

// follow reads from a position on until the marker row comes by.
func (r *reading) follow(s *Source, marker string) {
	r.t.Helper()
	ctx := within(r.t)
	st, err := s.Open(ctx, r.end)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	if err := r.until(st, ctx, func() bool { return r.has(marker) }); err != nil {
		r.t.Fatalf("%v (of %d records, %+v)", err, len(r.records), r.notices)
	}
}

// has is asked after each batch: it looks at each record once for a text.
func (r *reading) has(text string) bool {
	if r.sought != text || r.looked > len(r.records) {
		r.sought, r.looked, r.found = text, 0, false
	}
	for ; r.looked < len(r.records) && !r.found; r.looked++ {
		r.found = strings.Contains(r.records[r.looked].what, text)
	}
	return r.found
}

func (r *reading) texts() []string {
	out := make([]string, len(r.records))
	for i := range r.records {
		out[i] = r.records[i].what
	}
	return out
}

// finish ends a prepared transaction: the session that made it may not be gone yet for the server.
func (c *sqlClient) finish(how, name string, xa int) {
	c.t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		_, err := c.c.exec(context.Background(), fmt.Sprintf("xa %s '%s%d'", how, name, xa))
		if err == nil {
			return
		}
		if time.Now().After(end) {
			c.t.Fatal(err)
		}
	}
}

// workload does random transactions and returns the statement that ends it.
func workload(t testing.TB, c *sqlClient, seed uint64, transactions int, raw, name string) {
	t.Helper()
	xa, waiting := 0, []int(nil)
	c.do("create table xa (x int, n int, primary key (x, n))", "create table digits (a int)", "insert into digits values (0),(1),(2),(3),(4),(5),(6),(7),(8)")
	defer func() {
		for _, x := range waiting {
			c.finish("rollback", name, x)
		}
	}()
	rnd := rand.New(rand.NewPCG(seed, 7))
	c.do("create table w (id int primary key, n bigint, name varchar(200), body text, at datetime(6))",
		"create table nokey (a int, b varchar(20))")
	for range transactions {
		switch rnd.IntN(14) {
		case 12: // prepared by a session that goes
			xa++
			x := login(t, base(raw), "")
			x.do("use `"+name+"`", fmt.Sprintf("xa start '%s%d'", name, xa), fmt.Sprintf("insert into xa select %d, seq from (select 1 as seq union select 2 union select 3) s", xa))
			if xa%3 == 0 {
				x.do(fmt.Sprintf("insert into xa select %d, 1000+x.a*9+y.a from (select a from digits) x, (select a from digits) y", xa))
			}
			x.do(fmt.Sprintf("xa end '%s%d'", name, xa), fmt.Sprintf("xa prepare '%s%d'", name, xa))
			_ = x.c.Close()
			waiting = append(waiting, xa)
		case 13:
			if len(waiting) > 0 {
				i := rnd.IntN(len(waiting))
				c.finish([]string{"commit", "commit", "rollback"}[rnd.IntN(3)], name, waiting[i])
				waiting = slices.Delete(waiting, i, i+1)
			}
		case 0:
			c.do("flush binary logs")
		case 1: // larger than a batch
			c.do("begin")
			for range 3 {
				var b strings.Builder
				for i := range 60 {
					fmt.Fprintf(&b, ",(%d,%d,'n%d',repeat('x',%d),'2026-01-02 03:04:05.678901')", rnd.IntN(3000), i, i, rnd.IntN(300))
				}
				c.do("replace into w values " + b.String()[1:])
			}
			c.do("commit")
		case 2:
			c.do("begin", fmt.Sprintf("replace into w (id,n) values (%d,1)", rnd.IntN(3000)), "savepoint s",
				fmt.Sprintf("replace into w (id,n) values (%d,2)", rnd.IntN(3000)), "rollback to s", "insert into nokey values (1,'q')", "commit")
		case 3:
			c.do("begin", "delete from w", "rollback")
		case 4:
			id := rnd.IntN(3000)
			c.do(fmt.Sprintf("update ignore w set id=id+1 where id=%d", id))
		case 5:
			c.do(fmt.Sprintf("delete from w where id between %d and %[1]d+50", rnd.IntN(3000)))
		case 6:
			c.do(fmt.Sprintf("alter table w comment '%d'", rnd.IntN(9)))
		default:
			c.do(fmt.Sprintf("replace into w values (%d,%d,'häß %d',null,now(6))", rnd.IntN(3000), rnd.Int64(), rnd.IntN(100)),
				fmt.Sprintf("update w set n=n+1, name=concat(left(name,50),'!') where id %% 17 = %d", rnd.IntN(17)))
		}
	}
	c.do("insert into nokey values (42,'the end')")
}

// content applies records of table w and compares with what the table holds.
func content(t testing.TB, r *reading, c *sqlClient, db string) {
	t.Helper()
	got := map[string]string{}
	value := func(image, column string) string {
		_, rest, _ := strings.Cut(" "+image, " "+column+"=")
		v, _, _ := strings.Cut(rest, " name=")
		v, _, _ = strings.Cut(v, " ")
		return v
	}
	for _, rec := range r.records {
		op, rest, _ := strings.Cut(rec.what, " ")
		table, images, _ := strings.Cut(rest, " ")
		if table != db+".w" {
			continue
		}
		before, after, _ := strings.Cut(images, " -> ")
		if op != "insert" {
			delete(got, value(before, "id"))
		}
		if op != "delete" {
			got[value(after, "id")] = value(after, "n")
		}
	}
	want := c.rows("select id, coalesce(n,'NULL') from w")
	if len(want) != len(got) {
		t.Fatalf("%d rows from the events, %d in the table", len(got), len(want))
	}
	for _, row := range want {
		if got[row[0]] != row[1] {
			t.Fatalf("row %s: %q from the events, %q in the table", row[0], got[row[0]], row[1])
		}
	}
}

// place asks the server for the place to begin at.
func now(t testing.TB, raw string) pipeline.Position {
	t.Helper()
	s := source(t, Config{URL: raw})
	ctx := within(t)
	st, err := s.Open(ctx, pipeline.Position{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	b, err := st.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	return b.End
}

// A stream that is cut at random places and resumed at its last position gives exactly what one gives
// that is not: nothing lost, nothing twice, and together the table's content.
func TestResumeIsExact(t *testing.T) {
	t.Parallel()
	t.Run("plain", func(t *testing.T) {
		flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) { exact(t, db) })
	})
	t.Run("compressed", func(t *testing.T) {
		t.Run("mysql", func(t *testing.T) {
			t.Parallel()
			exact(t, servertest.MySQL(t, servers.MySQLOptions{}), "set session binlog_transaction_compression=on")
		})
		t.Run("mariadb", func(t *testing.T) {
			t.Parallel()
			db := servertest.MariaDB(t, odd())
			exact(t, db)
			encrypted(t, db)
		})
	})
}

// odd is a MariaDB with what is off by default: its binlog is compressed and, on its disk, encrypted.
func odd() servers.MySQLOptions {
	return servers.MySQLOptions{Params: map[string]string{"log-bin-compress": "ON", "log-bin-compress-min-len": "10",
		"plugin-load-add": "file_key_management", "file-key-management-filename": keyFile, "encrypt-binlog": "ON"}}
}

var keyFile string

// encrypted sees that the server's binlog is, and that check says what that means.
func encrypted(t *testing.T, db *servertest.Database) {
	files, err := filepath.Glob(filepath.Join(db.Server.DataDir, "binlog.0*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte(db.Name)) {
			t.Errorf("%s is not encrypted", f)
		}
	}
	for _, f := range source(t, Config{URL: db.URL}).Check(within(t)) {
		if f.Code == "binlog_encrypted" && f.Cure != "" {
			return
		}
	}
	t.Error("check does not say that the binlog is encrypted")
}

func exact(t *testing.T, db *servertest.Database, extra ...string) {
	raw := base(db.URL)
	c := login(t, raw, db.Name)
	c.do(extra...)
	from := now(t, raw)
	workload(t, c, 1, 170, raw, db.Name)
	cfg := Config{URL: raw, Tables: []string{db.Name + ".*"}, BatchBytes: 8 << 10, BatchEvents: 100}
	whole := newReading(t)
	whole.end = from
	whole.follow(source(t, cfg), "the end")
	content(t, whole, c, db.Name)
	if whole.chunks == 0 {
		t.Fatal("no transaction came in chunks")
	}
	rnd := rand.New(rand.NewPCG(8, 3))
	stalls := 0
	p := rough.New(t, addr(t, raw), func(int) rough.Trouble {
		tr := rough.Trouble{Delay: time.Duration(rnd.IntN(2)) * time.Millisecond, Reset: 40<<10 + rnd.Int64N(60<<10)}
		if stalls < 2 && rnd.IntN(2) == 0 {
			stalls++
			tr.Reset, tr.Stall = 0, tr.Reset
		}
		return tr
	})
	u, _ := url.Parse(raw)
	u.Host = p.Addr
	cfg.URL, cfg.Silence = u.String()+"?tls=disable", 600*time.Millisecond
	s := source(t, cfg)
	cut := newReading(t)
	cut.end = from
	ctx := within(t)
	for !cut.has("the end") {
		st, err := s.Open(ctx, cut.end)
		if err != nil {
			var se *pipeline.SourceError
			if errors.As(err, &se) && se.Class == pipeline.Transient && ctx.Err() == nil {
				continue
			}
			t.Fatal(err)
		}
		cut.drop()
		err = cut.until(st, ctx, func() bool { return cut.has("the end") })
		_ = st.Close()
		var se *pipeline.SourceError
		if err != nil && (!errors.As(err, &se) || se.Class != pipeline.Transient) {
			t.Fatal(err)
		}
	}
	if _, resets, stalls := p.Counts(); resets+stalls < 1 {
		t.Fatalf("%d resets, %d stalls", resets, stalls)
	}
	compare(t, whole, cut)
}

func compare(t testing.TB, want, got *reading) {
	t.Helper()
	for i := range want.records {
		if i >= len(got.records) || want.records[i] != got.records[i] {
			var g record
			if i < len(got.records) {
				g = got.records[i]
			}
			t.Fatalf("record %d: got %+v\nwant %+v", i, g, want.records[i])
		}
	}
	if len(got.records) > len(want.records) {
		t.Fatalf("%d records, want %d", len(got.records), len(want.records))
	}
}
