package mysql

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// Columns of both servers; values of every type are the matter of package binlog's tests.
var everyType = []string{
	"tinyint", "tinyint unsigned", "smallint", "mediumint unsigned", "int", "int unsigned zerofill", "bigint", "bigint unsigned", "bool",
	"decimal(10,2)", "decimal(65,30)", "decimal(5,0) unsigned", "float", "float unsigned", "float(7,3)", "double", "real", "bit(1)", "bit(9)", "bit(64)", "year",
	"date", "time", "time(3)", "datetime", "datetime(6)", "timestamp null", "timestamp(1) null",
	"char(10)", "char(255)", "char(20) character set latin1", "char(5) character set ucs2", "binary(4)", "binary(255)", "varchar(10)", "varchar(2000)",
	"varchar(50) character set gbk", "varbinary(300)", "varchar(20) collate utf8mb4_bin", "nchar(3)",
	"tinytext", "text", "mediumtext", "longtext character set latin1", "tinyblob", "blob", "mediumblob", "longblob",
	"enum('a','b,c','(d)','''','','Ä')", "enum('Ä','x') character set latin1", "set('a','b c','''','Ä')", "set('Ä','x') character set latin1 collate latin1_german2_ci",
	"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geometrycollection", "json",
}

var everyMySQL = []string{"vector(3)", "varchar(10) collate utf8mb4_0900_as_cs", "enum('😀','b')"}

var everyMariaDB = []string{
	"uuid", "inet6", "inet4", "varchar(10) compressed", "varchar(2000) compressed", "text compressed", "longblob compressed", "varchar(10) character set utf8mb4 collate uca1400_ai_ci",
	"decimal(65,38)", "enum('😀','b')",
}

// watched is a stream beside a snapshot's database.
type watched struct {
	*reading
	s     *Source
	st    pipeline.Stream
	marks []string
	snap  *Snapshots
}

func watch(t *testing.T, cfg Config, from pipeline.Position) *watched {
	t.Helper()
	w := &watched{reading: newReading(t), s: source(t, cfg)}
	var err error
	if w.st, err = w.s.Open(within(t), from); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.st.Close() })
	w.snap = w.s.Snapshots()
	t.Cleanup(func() { _ = w.snap.Close() })
	return w
}

// next takes a batch.
func (w *watched) next(ctx context.Context) {
	w.t.Helper()
	b, err := w.st.Next(ctx)
	if err != nil {
		w.t.Fatalf("%v (%d records, %+v)", err, len(w.records), w.notices)
	}
	for _, m := range b.Watermarks {
		w.marks = append(w.marks, m.ID)
	}
	w.take(b)
}

func (w *watched) session() snapshot.Session {
	w.t.Helper()
	s, err := w.snap.Session(within(w.t))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = s.Close() })
	return s
}

func (w *watched) read(s snapshot.Session, q snapshot.Query) *snapshot.Chunk {
	w.t.Helper()
	c := &snapshot.Chunk{}
	if err := s.Read(within(w.t), q, c); err != nil {
		w.t.Fatalf("read %+v: %v", q, err)
	}
	return c
}

// cells writes a row's cells as the wire has them, those whose form is not one only as values.
func cells(t testing.TB, table *schemas.Table, image []byte) [][]byte {
	t.Helper()
	f := binlog.Form(table)
	refs, err := f.Walk(image, nil, len(table.Columns))
	if err != nil {
		t.Fatal(err)
	}
	out := make([][]byte, len(refs))
	for i, r := range refs {
		switch {
		case r.Absent():
			out[i] = []byte("absent")
			continue
		case r.Null():
			out[i] = []byte("null")
			continue
		}
		var v cell.Value
		if err := f.Decode[i](&v, r.Of(image), &cell.Scratch{}); err != nil {
			t.Fatalf("%s: %v", table.Columns[i].Type.Name, err)
		}
		switch table.Columns[i].Type.Code {
		case binlog.TypeJSON, binlog.TypeBlobCompressed, binlog.TypeVarcharCompressed:
			out[i] = append([]byte("value "), v.B...)
		default:
			out[i] = r.Of(image)
		}
	}
	return out
}

// The shape that the catalogue gives is the shape that the stream gives, for every type and every way that the server
// tells of columns; and so are the rows.
func TestSnapshotShapes(t *testing.T) {
	t.Parallel()
	for name, params := range map[string]map[string]string{"full": nil, "minimal": {"binlog-row-metadata": "MINIMAL", "binlog-row-image": "MINIMAL"}} {
		t.Run("mysql "+name, func(t *testing.T) {
			t.Parallel()
			sameShapes(t, servertest.MySQL(t, servers.MySQLOptions{Params: params}), append(everyMySQL, everyType...))
		})
		t.Run("mariadb "+name, func(t *testing.T) {
			t.Parallel()
			sameShapes(t, servertest.MariaDB(t, servers.MySQLOptions{Params: params}), append(everyMariaDB, everyType...))
		})
	}
	t.Run("mariadb old times", func(t *testing.T) {
		t.Parallel()
		sameShapes(t, servertest.MariaDB(t, servers.MySQLOptions{Params: map[string]string{"mysql56-temporal-format": "OFF"}}),
			[]string{"time", "time(3)", "datetime", "datetime(6)", "timestamp null", "timestamp(1) null"})
	})
}

func sameShapes(t *testing.T, db *servertest.Database, types []string) {
	cfg := Config{URL: base(db.URL), Tables: []string{db.Name + ".*"}, Columns: map[string][]string{db.Name + ".gen": {"!secret"}}}
	c := login(t, cfg.URL, db.Name)
	start := now(t, cfg.URL)
	for i, ty := range types {
		c.do(fmt.Sprintf("create table t%d (id int primary key, v %s, w int not null)", i, ty), fmt.Sprintf("insert into t%d (id, w) values (1, 2)", i))
	}
	c.do("create table gen (b varchar(10), a int, v int generated always as (a+1) virtual, s int generated always as (a+2) stored, secret varchar(30), h int invisible default 5, primary key (b, a))",
		"insert into gen (a, b, secret) values (1, 'x', 'nobody must see this')", "create table nokey (a int, b varchar(10))", "insert into nokey values (1, 'x')",
		"create table uq (a int not null unique)", "insert into uq values (1)", "create table z (id int primary key)", "insert into z values (77)")
	w := watch(t, cfg, start)
	last := map[string][][]byte{}
	ctx := within(t)
	for !w.has("id=77") {
		b, err := w.st.Next(ctx)
		if err != nil {
			t.Fatal(err, w.notices)
		}
		for i := range b.Events {
			if e := &b.Events[i]; e.Op == pipeline.OpInsert {
				last[b.TableOf(i).Name] = cells(t, b.TableOf(i), bytes.Clone(b.Bytes(e.After)))
			}
		}
		w.take(b)
	}
	if len(w.notices) > 0 {
		t.Fatalf("%+v", w.notices)
	}
	fresh := source(t, cfg).Snapshots()
	t.Cleanup(func() { _ = fresh.Close() })
	for _, from := range []*Snapshots{w.snap, fresh} {
		tables, err := from.Tables(ctx, []string{db.Name + ".*"})
		if err != nil || len(tables) != len(last) {
			t.Fatalf("%d tables, %d in the stream: %v", len(tables), len(last), err)
		}
		s, err := from.Session(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, table := range tables {
			chunk := &snapshot.Chunk{}
			if err := s.Read(ctx, snapshot.Query{Table: table, Limit: 10}, chunk); err != nil {
				if from == fresh && strings.Contains(err.Error(), "a label has ?") {
					continue // that only the stream can tell
				}
				t.Fatalf("%s: %v", table.Name, err)
			}
			want := w.tables[db.Name+"."+table.Name]
			if chunk.Shape.ShapeHash() != want.ShapeHash() {
				a, _ := json.Marshal(chunk.Shape)
				b, _ := json.Marshal(want)
				t.Errorf("the catalogue says\n%s\nthe stream\n%s", a, b)
			}
			if from == w.snap && chunk.Shape != want {
				t.Errorf("%s: the stream's shape is another pointer", table.Name)
			}
			if len(chunk.Rows) != 1 || bytes.Contains(chunk.Arena, []byte("nobody")) {
				t.Fatalf("%s: %d rows", table.Name, len(chunk.Rows))
			}
			got := cells(t, chunk.Shape, chunk.Row(0))
			for i := range got {
				if sent := last[table.Name][i]; !bytes.Equal(got[i], sent) && string(sent) != "absent" { // defaults are not sent where images are minimal
					t.Errorf("%s column %d: %x, in the stream %x", table.Name, i, got[i], sent)
				}
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
