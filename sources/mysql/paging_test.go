package mysql

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/sources/mysql/internal/chunks"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// keyTypes are columns that can stand in a key, and values for them.
func keyTypes(mariadb bool) map[string]func(r *rand.Rand) string {
	number := func(low, span int64) func(*rand.Rand) string {
		return func(r *rand.Rand) string { return strconv.FormatInt(low+r.Int64N(span), 10) }
	}
	word := func(letters string, most int) func(*rand.Rand) string {
		runes := []rune(letters)
		return func(r *rand.Rand) string {
			b := []rune{}
			for range r.IntN(most + 1) {
				b = append(b, runes[r.IntN(len(runes))])
			}
			return "'" + strings.NewReplacer("'", "''", `\`, `\\`).Replace(string(b)) + "'"
		}
	}
	hex := func(most int) func(*rand.Rand) string {
		return func(r *rand.Rand) string {
			b := make([]byte, r.IntN(most+1))
			for i := range b {
				b[i] = []byte{0, 1, 0x20, 0x7f, 0xff, 'a', 'A', '\'', '\\'}[r.IntN(9)]
			}
			return fmt.Sprintf("x'%x'", b)
		}
	}
	dates := []string{"'0000-00-00'", "'2026-00-00'", "'2026-11-00'", "'0000-01-01'", "'1000-01-01'", "'1969-12-31'", "'1970-01-01'", "'2024-02-29'", "'9999-12-31'"}
	oneOf := func(list ...string) func(*rand.Rand) string {
		return func(r *rand.Rand) string { return list[r.IntN(len(list))] }
	}
	clock := func(format string) func(*rand.Rand) string {
		return func(r *rand.Rand) string { return fmt.Sprintf(format, r.IntN(28)+1, r.IntN(24), r.IntN(4)*250000) }
	}
	types := map[string]func(*rand.Rand) string{
		"tinyint": number(-128, 256), "bigint unsigned": func(r *rand.Rand) string { return strconv.FormatUint(r.Uint64(), 10) }, "bigint": number(-1<<62, 1<<62),
		"decimal(20,5)": func(r *rand.Rand) string { return fmt.Sprintf("%d.%05d", r.IntN(200)-100, r.IntN(100000)) },
		"float":         func(r *rand.Rand) string { return strconv.FormatFloat(float64(float32(r.NormFloat64())), 'e', -1, 32) },
		"double":        func(r *rand.Rand) string { return strconv.FormatFloat(r.NormFloat64()*1e10, 'e', -1, 64) },
		"bit(40)":       number(0, 1<<40), "bit(1)": number(0, 2), "year": oneOf("0", "1901", "1970", "2000", "2026", "2155"),
		"date": oneOf(dates...), "datetime": oneOf(dates...), "datetime(6)": clock("'2026-03-%02d %02d:00:00.%06d'"), "timestamp(3)": clock("'2026-03-%02d %02d:00:00.%06d'"),
		"time(6)": func(r *rand.Rand) string {
			return fmt.Sprintf("'%s%02d:00:%02d.%06d'", strings.Repeat("-", r.IntN(2)), r.IntN(838), r.IntN(60), r.IntN(4)*250000)
		},
		"char(4)": word("aAbB äÄzZ", 4), "varchar(6) character set utf8mb4 collate utf8mb4_general_ci": word("aAbBäÄßsS😀漢 '\\", 6),
		"varchar(6) character set utf8mb4 collate utf8mb4_bin": word("aAbBäÄßsS😀漢 '\\", 6), "varchar(6) character set latin1 collate latin1_german2_ci": word("aAäÄßsSuü'\\", 6),
		"varchar(6) character set ucs2": word("aAäÄ漢字", 6), "varchar(6) character set sjis": word("aAｱ漢字ソ表", 6), "varchar(6) character set utf8mb4 collate utf8mb4_unicode_ci": word("aAbBäÄßsSæ漢", 6),
		"binary(3)": hex(3), "varbinary(5)": hex(5),
		// The order of their labels is not that of the alphabet.
		"enum('z','a','m','','Ä')": oneOf("'z'", "'a'", "'m'", "''", "'Ä'"), "set('z','a','m','b')": number(0, 16),
	}
	if mariadb {
		types["uuid"] = func(r *rand.Rand) string {
			return fmt.Sprintf("'%08x-%04x-%x%03x-%x%03x-%012x'", r.Uint32(), r.Uint32()&0xffff, r.IntN(8), r.Uint32()&0xfff, r.IntN(16), r.Uint32()&0xfff, r.Uint64()>>16)
		}
		types["inet6"] = oneOf("'::'", "'::1'", "'::ffff:1.2.3.4'", "'2001:db8::1'", "'ff02::1'")
		types["varchar(6) character set utf8mb4 collate utf8mb4_nopad_bin"] = word("ab ", 6)
	} else {
		types["varchar(6) character set utf8mb4 collate utf8mb4_0900_ai_ci"] = word("aAbBäÄßsSæ😀漢 ", 6)
		types["varchar(6) character set utf8mb4 collate utf8mb4_ja_0900_as_cs_ks"] = word("aAあア漢字", 6)
	}
	return types
}

// Every table whose key can be ordered comes whole, each row once, in the order of the database, whatever the size of
// the chunks; and no chunk reads much more than it gives.
func TestPaging(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		raw := base(db.URL)
		c := login(t, raw, db.Name)
		mariadb := strings.Contains(c.rows("select version()")[0][0], "MariaDB")
		types := keyTypes(mariadb)
		names := make([]string, 0, len(types))
		for name := range types {
			names = append(names, name)
		}
		slices.Sort(names)
		r := rand.New(rand.NewPCG(7, 7))
		src := source(t, Config{URL: raw, Tables: []string{db.Name + ".*"}})
		w := &watched{reading: newReading(t), s: src, snap: src.Snapshots()}
		t.Cleanup(func() { _ = w.snap.Close() })
		for i, name := range names {
			second, third := names[(i+5)%len(names)], names[(i+11)%len(names)]
			c.do(fmt.Sprintf("create table k%d (v int, c %s, b %s, a %s, primary key (a, b, c))", i, third, second, name))
			var rows []string
			for j := range 60 {
				// Few values in front, so that chunks end within them.
				front := types[name](rand.New(rand.NewPCG(uint64(j%7), uint64(i))))
				middle := types[second](rand.New(rand.NewPCG(uint64(j%11), uint64(i))))
				rows = append(rows, fmt.Sprintf("(%d,%s,%s,%s)", j, types[third](r), middle, front))
			}
			c.do(fmt.Sprintf("insert ignore into k%d values %s", i, strings.Join(rows, ",")), fmt.Sprintf("analyze table k%d", i))
		}
		tables, err := w.snap.Tables(within(t), []string{db.Name + ".k*"})
		if err != nil || len(tables) != len(names) {
			t.Fatalf("%d tables: %v", len(tables), err)
		}
		s := w.session()
		for _, table := range tables {
			i, _ := strconv.Atoi(table.Name[1:])
			want := []string{}
			for _, row := range c.rows("select v from " + table.Name + " order by a, b, c") {
				want = append(want, row[0])
			}
			for _, limit := range []int{7, 1000} {
				if got := w.page(s, table, limit, r); !slices.Equal(got, want) {
					t.Errorf("key (%s, ...) by %d:\n got %v\nwant %v", names[i], limit, got, want)
				}
			}
		}
	})
}

// page reads a table to its end and returns the numbers in its column v.
func (w *watched) page(s snapshot.Session, table snapshot.Table, limit int, r *rand.Rand) (got []string) {
	w.t.Helper()
	var after []byte
	for range 1000 {
		q := snapshot.Query{Table: table, After: after, Limit: limit}
		c := w.read(s, q)
		for i := range c.Rows {
			cell := cells(w.t, c.Shape, c.Row(i))[0]
			got = append(got, strconv.Itoa(int(uint32(cell[0])|uint32(cell[1])<<8)))
		}
		if c.More != (len(c.Rows) == limit) && len(c.Rows) == limit && c.More {
			w.t.Fatalf("%d rows of %d: more is %t", len(c.Rows), limit, c.More)
		}
		if len(c.Rows) == 0 {
			return got
		}
		key, err := w.snap.Key(c.Shape, c.Row(len(c.Rows)-1))
		if err != nil {
			w.t.Fatal(err)
		}
		if r != nil && r.IntN(8) == 0 {
			w.sameRows(s, q, c, key)
		}
		if after = key; !c.More {
			return got
		}
	}
	w.t.Fatalf("%s does not end", table.Name)
	return nil
}

// sameRows reads a chunk again, by its end, by its keys and by its scout.
func (w *watched) sameRows(s snapshot.Session, q snapshot.Query, c *snapshot.Chunk, until []byte) {
	w.t.Helper()
	by := q
	by.Until, by.Limit = until, 0
	if again := w.read(s, by); !bytes.Equal(again.Arena, c.Arena) || again.More {
		w.t.Errorf("%s: up to its last key the chunk has %d rows, not %d", q.Table.Name, len(again.Rows), len(c.Rows))
	}
	by = snapshot.Query{Table: q.Table}
	for i := range c.Rows {
		key, err := w.snap.Key(c.Shape, c.Row(i))
		if err != nil {
			w.t.Fatal(err)
		}
		by.Keys = append(by.Keys, key)
	}
	if again := w.read(s, by); !bytes.Equal(again.Arena, c.Arena) {
		w.t.Errorf("%s: by its keys the chunk has %d rows, not %d", q.Table.Name, len(again.Rows), len(c.Rows))
	}
	if !c.More {
		return
	}
	q.Scout = true
	scout := w.read(s, q)
	if len(scout.Rows) != 1 {
		w.t.Fatalf("%s: the scout found %d rows", q.Table.Name, len(scout.Rows))
	}
	if key, err := w.snap.Key(scout.Shape, scout.Row(0)); err != nil || !bytes.Equal(key, until) {
		w.t.Errorf("%s: the scout found %q (%v), want %q", q.Table.Name, key, err, until)
	}
}

// A chunk costs what it gives, wherever in the table it stands.
func TestPagingUsesTheIndex(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		raw := base(db.URL)
		c := login(t, raw, db.Name)
		c.do("create table big (v int, a enum('x','y','z'), b varchar(20), c int, primary key (a, b, c))",
			"insert into big select n, 1 + n % 3, concat('key', n % 50), n from (select x.n + 10*y.n + 100*z.n + 1000*u.n as n from "+
				strings.Join([]string{"(select 0 n union select 1 union select 2 union select 3 union select 4 union select 5 union select 6 union select 7 union select 8 union select 9) x",
					"(select 0 n union select 1 union select 2 union select 3 union select 4 union select 5 union select 6 union select 7 union select 8 union select 9) y",
					"(select 0 n union select 1 union select 2 union select 3 union select 4 union select 5 union select 6 union select 7 union select 8 union select 9) z",
					"(select 0 n union select 1 union select 2) u"}, ", ")+") numbers", "analyze table big")
		src := source(t, Config{URL: raw, Tables: []string{db.Name + ".*"}})
		cfg := src.chunks()
		connect := cfg.Connect
		var conn chunks.Conn // the last one made: the session's
		cfg.Connect = func(ctx context.Context, replica bool) (chunks.Conn, chunks.Server, error) {
			c, v, err := connect(ctx, replica)
			conn = c
			return c, v, err
		}
		w := &watched{reading: newReading(t), s: src, snap: &Snapshots{chunks.New(cfg)}}
		t.Cleanup(func() { _ = w.snap.Close() })
		table := snapshot.Table{Schema: db.Name, Name: "big", Key: []string{"a", "b", "c"}}
		if _, err := w.snap.Tables(within(t), nil); err != nil {
			t.Fatal(err)
		}
		s := w.session()
		counted := func() (n int) {
			list, err := conn.Rows(within(t), "show session status where variable_name in ('Handler_read_key', 'Handler_read_next', 'Handler_read_prev', 'Handler_read_first', 'Handler_read_last')")
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range list {
				k, _ := strconv.Atoi(row[1])
				n += k
			}
			return n
		}
		before := counted()
		const limit = 50
		if n := len(w.page(s, table, limit, nil)); n != 3000 {
			t.Fatalf("%d rows", n)
		}
		if read := counted() - before; read > 3*3000 {
			t.Errorf("%d rows were touched to read 3000", read)
		}
	})
}

// What is wrong with one table is said of that table.
func TestTableErrors(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		raw := base(db.URL)
		c := login(t, raw, db.Name)
		user := strings.ReplaceAll(db.Name, "leat_", "s")
		c.do("create table a (id int primary key, v varchar(10))", "create table b (id int primary key)", "create table old (id int primary key) engine=MyISAM", "insert into a values (1,'x')",
			"create user "+user+"@'%' identified by 'secret-pw'", "grant select, replication client on *.* to "+user+"@'%'")
		src := source(t, Config{URL: raw, Tables: []string{db.Name + ".*"}})
		w := &watched{reading: newReading(t), s: src, snap: src.Snapshots()}
		t.Cleanup(func() { _ = w.snap.Close() })
		s := w.session()
		table := func(name string) snapshot.Table {
			return snapshot.Table{Schema: db.Name, Name: name, Key: []string{"id"}}
		}
		fails := func(s snapshot.Session, q snapshot.Query, code string) {
			t.Helper()
			err := s.Read(within(t), q, &snapshot.Chunk{})
			var te *snapshot.TableError
			if !errors.As(err, &te) || te.Code != code || strings.Contains(err.Error(), "secret-pw") {
				t.Errorf("%s: %v, want code %s", q.Table.Name, err, code)
			}
		}
		fails(s, snapshot.Query{Table: table("nosuch")}, "dropped")
		fails(s, snapshot.Query{Table: table("old")}, "engine")
		for _, where := range []string{"false) union all select id, 7 from b where (true", "nosuch = 1", "id = ", "id = ?", "id = 1)) or ((1", "sleep(", "'"} {
			fails(s, snapshot.Query{Table: table("a"), Where: where}, "where")
		}
		if n := len(w.read(s, snapshot.Query{Table: table("a"), Where: "v = 'x' -- and more"}).Rows); n != 1 {
			t.Errorf("%d rows behind a condition with a comment", n)
		}
		w.read(s, snapshot.Query{Table: table("b")})
		c.do("drop table b")
		fails(s, snapshot.Query{Table: table("b")}, "dropped")
		// Another shape between two chunks is the shape of the second.
		first := w.read(s, snapshot.Query{Table: table("a")}).Shape
		c.do("alter table a add w int default 5 first")
		if now := w.read(s, snapshot.Query{Table: table("a")}); len(now.Rows) != 1 || len(now.Shape.Columns) != 3 || now.Shape == first {
			t.Errorf("%d rows of %d columns", len(now.Rows), len(now.Shape.Columns))
		}
		c.do("alter table a drop v")
		if now := w.read(s, snapshot.Query{Table: table("a")}); len(now.Rows) != 1 || len(now.Shape.Columns) != 2 {
			t.Errorf("%d rows of %d columns", len(now.Rows), len(now.Shape.Columns))
		}
		// A user without the right to read it.
		c.do("create table hidden (id int primary key)", "create user x"+user+"@'%' identified by 'secret-pw'", "grant replication client on *.* to x"+user+"@'%'", "grant select on "+db.Name+".a to x"+user+"@'%'")
		poor := source(t, Config{URL: "mysql://x" + user + ":secret-pw@" + addr(t, raw) + "/", Tables: []string{db.Name + ".*"}}).Snapshots()
		t.Cleanup(func() { _ = poor.Close() })
		ps, err := poor.Session(within(t))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ps.Close() }()
		fails(ps, snapshot.Query{Table: table("hidden")}, "no_right")
		w.read(ps, snapshot.Query{Table: table("a")})
	})
}
