package app

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/go-sql-driver/mysql"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// lines of a query's answer; what is in the way of it is one too.
func (db *pg) lines(t *testing.T, query string) string {
	t.Helper()
	rows, err := db.conn.Query(t.Context(), query)
	if err != nil {
		return err.Error()
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprint(values...))
	}
	if err := rows.Err(); err != nil {
		return err.Error()
	}
	return strings.Join(all, "\n")
}

// own is a client of a MySQL or MariaDB.
func own(t *testing.T, d *servertest.Database) *sql.DB {
	t.Helper()
	u, err := url.Parse(d.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := mysql.NewConfig()
	c.Net, c.Addr, c.User, c.DBName, c.TLSConfig = "tcp", u.Host, u.User.Username(), d.Name, "preferred"
	c.Passwd, _ = u.User.Password()
	c.Params = map[string]string{"time_zone": "'+00:00'", "sql_mode": "''"}
	db, err := sql.Open("mysql", c.FormatDSN())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() }) // only read from
	return db
}

func told(t *testing.T, db *sql.DB, query string) string {
	t.Helper()
	rows, err := db.QueryContext(context.WithoutCancel(t.Context()), query)
	if err != nil {
		return err.Error()
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	var all []string
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		var line []string
		for _, v := range values {
			if !v.Valid {
				v.String = "NULL"
			}
			line = append(line, v.String)
		}
		all = append(all, strings.Join(line, "|"))
	}
	if err := rows.Err(); err != nil {
		return err.Error()
	}
	return strings.Join(all, "\n")
}

// A replica in another PostgreSQL is what the source is, row by row: filled by a backfill, kept over restarts and schema
// changes, and leat verify finds nothing.
func TestTablePostgres(t *testing.T) {
	t.Parallel()
	db, there, dir := newPG(t), newPG(t), t.TempDir()
	there.exec(t, "DROP TABLE files")
	db.exec(t, "CREATE TYPE mood AS ENUM ('sad', 'it''s')", `CREATE TABLE kinds (k text, n numeric(12,3), b bool, i2 smallint, num numeric, f real, g double precision, v varchar(20), c char(5), y bytea, j json, jb jsonb,
		da date, ti time, tt timetz, ts timestamp, tz timestamptz, u uuid, a int[], ta text[], bi bit(3), vb bit varying, ip inet, r int4range, m mood, iv interval, mo money, PRIMARY KEY (k, n))`,
		"INSERT INTO files SELECT i, 'old ' || i, i FROM generate_series(1, 300) i")
	yaml := db.yaml(fmt.Sprintf("a: {source: files, tables: ['public.files', 'public.kinds'], deliver: {table: {url: '%s'}}}", there.URL))
	yaml = strings.Replace(yaml, "public.files", "public.*", 1)
	in := install(t, dir, yaml)
	in.streaming(t, "files")
	db.exec(t, `INSERT INTO kinds VALUES ('it''s "\ ü', 1.500, true, -32768, 123456789012345678901234567890.12345678901234567890, 1.5, 'NaN', 'v', 'c', '\x00ff27', '{"a": 1.10}', '{"b":[1,null]}',
		'infinity', '23:59:59.999999', '10:00:00+02', '0044-03-15 00:00:00 BC', '2026-11-22 01:02:03.456789+00', gen_random_uuid(), '{{1,2},{3,NULL}}', '{"a,b","q\"x",NULL}', '101', '1', '10.0.0.0/8', '[1,5)', 'it''s', '1 year -2 days 03:04:05.6', '1234.56')`,
		"INSERT INTO kinds (k, n) VALUES ('', 0)", "UPDATE files SET name = 'new' WHERE id <= 20", "DELETE FROM files WHERE id = 7", "UPDATE files SET id = 1000 + id WHERE id BETWEEN 10 AND 12")
	if _, err := in.admin.Backfill(t.Context(), connect.NewRequest(&leatv1.BackfillRequest{Subscription: "a", Tables: []string{"public.files"}})); err != nil {
		t.Fatal(err)
	}
	const files, kinds = "SELECT id, name, size FROM files ORDER BY id", "SELECT t::text FROM (SELECT k, n, b, i2, num, f, g, v, c, y, j::text, jb, da, ti, tt, ts, tz, u, a, ta, bi, vb, ip, r, m::text, iv, mo FROM kinds) t ORDER BY 1"
	same := func(query string) {
		t.Helper()
		want := db.lines(t, query)
		if strings.Contains(want, "ERROR") {
			t.Fatal(want)
		}
		until(t, "the copy: "+query+"\n"+want, func() bool { return there.lines(t, query) == want })
	}
	same(files)
	same(kinds)
	request := &leatv1.VerifyRequest{Subscription: "a", Tables: []string{"public.files"}, Target: there.URL}
	if r := in.verify(t, request); r.Error != "" || r.Different != 0 || r.Compared != 299 {
		t.Fatalf("%v", r)
	}
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	db.exec(t, "ALTER TABLE files ADD COLUMN note varchar(30)", "UPDATE files SET note = 'wide' WHERE id = 1", "DELETE FROM kinds WHERE k = ''", "INSERT INTO files VALUES (2000, 'x', 1, 'y')")
	in = install(t, dir, yaml)
	same("SELECT id, name, size, note FROM files ORDER BY id")
	same(kinds)
	if r := in.verify(t, request); r.Error != "" || r.Different != 0 || r.Compared != 300 {
		t.Fatalf("%v", r)
	}
	db.exec(t, "TRUNCATE files", "INSERT INTO files VALUES (1, 'first', 1, NULL)")
	same("SELECT id, name, size, note FROM files ORDER BY id")
	// A row that does not fit parks its key; redriven when the table was mended it is there.
	there.exec(t, "ALTER TABLE files ADD CHECK (size < 100)")
	db.exec(t, "INSERT INTO files VALUES (2, 'huge', 1000), (3, 'small', 1)", "UPDATE files SET name = 'huger' WHERE id = 2")
	until(t, "the key to be parked", func() bool { return in.subscription(t, "a").Parked == 1 })
	until(t, "the other row", func() bool { return there.lines(t, "SELECT id FROM files ORDER BY id") == "1\n3" })
	there.exec(t, "ALTER TABLE files DROP CONSTRAINT files_size_check")
	if _, err := in.admin.Redrive(t.Context(), connect.NewRequest(&leatv1.RedriveRequest{Subscription: "a", All: true})); err != nil {
		t.Fatal(err)
	}
	same("SELECT id, name, size, note FROM files ORDER BY id")
}

// Each database's types come into each other kind.
func TestTableAcross(t *testing.T) {
	t.Parallel()
	db := newPG(t)
	my, maria := servertest.MySQL(t, servers.MySQLOptions{}), servertest.MariaDB(t, servers.MySQLOptions{})
	db.exec(t, `CREATE TABLE kinds (k text, n numeric(12,3), b bool, i bigint, num numeric, g double precision, v varchar(20), y bytea, jb jsonb, da date, ti time, tz timestamptz, u uuid, a int[], bi bit(3), ip inet, PRIMARY KEY (k, n))`)
	if err := my.Server.Exec(t.Context(), "CREATE TABLE "+my.Name+`.things (k varchar(20) COLLATE utf8mb4_0900_ai_ci, d decimal(9,3), b bit(10), one bit(1), e enum('x','it''s'), s set('p','q'), u bigint unsigned, f float, t time(2), dt datetime(3), ts timestamp(6) NULL, y year, v varbinary(9), j json, l longtext, PRIMARY KEY (k, d))`); err != nil {
		t.Fatal(err)
	}
	table := func(u, name string) string {
		return fmt.Sprintf("deliver: {table: {url: '%s', name: '%s.{table}'}}", u, name)
	}
	in := install(t, t.TempDir(), strings.Replace(strings.Replace(db.yaml("a: {source: files, "+table(my.URL, my.Name)+"}", "b: {source: files, "+table(maria.URL, maria.Name)+"}",
		"c: {source: shop, "+table(db.URL, "copies")+"}", "d: {source: shop, "+table(maria.URL, maria.Name)+"}"), "public.files", "public.*", 1),
		"subscriptions:", fmt.Sprintf("  shop:\n    mysql: {url: '%s', server_id: %d}\n    tables: ['%s.things']\nsubscriptions:", my.URL, 1<<20+rand.IntN(1<<30), my.Name), 1))
	in.streaming(t, "files")
	in.streaming(t, "shop")
	db.exec(t, `INSERT INTO kinds VALUES ('a', 1.5, true, -9223372036854775808, 123456789012345678901234567890.123456789012345678901234567890, 1e-300, 'it''s \ ü', '\x00ff27', '{"b": [1, null]}', '2026-02-28', '23:59:59.999999',
		'2026-11-22 03:02:03.456789+02', '6f9619ff-8b86-d011-b42d-00c04fc964ff', '{{1,2},{3,NULL}}', '101', '10.0.0.1')`, "INSERT INTO kinds (k, n) VALUES ('a ', 1.5), ('A', 1.5)",
		"UPDATE kinds SET i = 7 WHERE k = 'A'", "DELETE FROM kinds WHERE k = 'a '", "INSERT INTO kinds (k, n) VALUES ('a ', 2)")
	if err := my.Server.Exec(t.Context(), "USE "+my.Name, "SET time_zone = '+00:00'", `INSERT INTO things VALUES ('a', 1.5, b'1000000001', 1, 'it''s', 'p,q', 18446744073709551615, 1.5, '-838:59:58.25', '2026-01-02 03:04:05.678', '2026-01-02 03:04:05.678901', 2001, x'00ff27', '{"a": [1, null]}', 'ü\\'), ('b', 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)`,
		"UPDATE things SET k = 'A', u = 1 WHERE k = 'a'", "UPDATE things SET l = 'x' WHERE k = 'b'"); err != nil {
		t.Fatal(err)
	}
	const kinds = "SELECT concat('[', k, ']'), n, b, i, num, g, v, hex(y), replace(jb, ' ', ''), da, ti, tz, u, replace(a, ' ', ''), bin(bi), ip FROM kinds ORDER BY hex(k), n"
	want := "[A]|1.500|NULL|7" + strings.Repeat("|NULL", 12) + "\n[a]|1.500|1|-9223372036854775808|123456789012345678901234567890.123456789012345678901234567890|1e-300|it's \\ ü|00FF27|{\"b\":[1,null]}|2026-02-28|23:59:59.999999|2026-11-22 01:02:03.456789|6f9619ff-8b86-d011-b42d-00c04fc964ff|[[1,2],[3,null]]|101|10.0.0.1" +
		"\n[a ]|2.000" + strings.Repeat("|NULL", 14)
	for _, d := range []*servertest.Database{my, maria} {
		have, c := "", own(t, d)
		until(t, string(d.Server.Kind)+"'s copy", func() bool {
			have = told(t, c, kinds)
			return strings.Count(have, "\n") == 2 && strings.Contains(have, "[A]|1.500|NULL|7") && !strings.Contains(have, "[a ]|1.500") && strings.Contains(have, "[a]|1.500|1")
		})
		if have != want {
			t.Errorf("%s has\n%s\nwant\n%s", d.Server.Kind, have, want)
		}
	}
	have := ""
	until(t, "the copy in PostgreSQL", func() bool {
		have = db.lines(t, "SELECT concat_ws('|', k, d, b, one, e, s, u, f, t, dt, ts AT TIME ZONE 'UTC', y, v, j, l) FROM copies.things ORDER BY k COLLATE \"C\"")
		return strings.HasSuffix(have, "b|1.000|x") && strings.HasPrefix(have, "A|")
	})
	if want := "A|1.500|1000000001|t|it's|p,q|1|1.5|-838:59:58.25|2026-01-02 03:04:05.678|2026-01-02 03:04:05.678901|2001|\\x00ff27|{\"a\": [1, null]}|ü\\\nb|1.000|x"; have != want {
		t.Errorf("has\n%s\nwant\n%s", have, want)
	}
	const things = "SELECT k, d, bin(b), bin(one), e, s, u, f, t, dt, ts, y, hex(v), replace(j, ' ', ''), l FROM things ORDER BY k"
	src, c := own(t, my), own(t, maria)
	until(t, "the copy in MariaDB", func() bool { return told(t, c, things) == told(t, src, things) })
}
