package app

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

// kind is a column: its type and a value as SQL, and what a reader of each form has of it, as JSON; an empty protobuf is
// as avro, an empty json as protobuf. odd is a value that the type's class has no form for, and its text.
type kind struct {
	sql, in        string
	avro, protobuf string
	json           string
	odd, oddText   string
}

// kindBase is a database with a table of kinds.
type kindBase struct {
	name, source, table string
	kinds               []kind
	// minimal makes images as small as they can be, whole has all again.
	minimal, whole string
	// left is what minimal images leave out, where they have no row before; empty: all but the key.
	left string
	run  func(ctx context.Context, statements ...string) error
}

func kindBases(t *testing.T) []*kindBase {
	pg := servertest.Postgres(t, servers.PostgresOptions{})
	slot := "leat_" + pg.Name + "_kinds"
	identity := "ALTER TABLE public.kinds REPLICA IDENTITY "
	list := []*kindBase{{
		name: "pg", table: "public.kinds", kinds: kindsOfPostgres, minimal: identity + "DEFAULT", left: column(len(kindsOfPostgres) - 1), whole: identity + "FULL",
		source: fmt.Sprintf("  pg:\n    postgres: {url: '%s', slot: %s, publication: %s}\n    tables: [public.kinds]\n", pg.URL, slot, slot),
		run: func(ctx context.Context, q ...string) error {
			return (&servers.Server{Kind: servers.KindPostgres, URL: pg.URL}).Exec(ctx, q...)
		},
	}}
	for name, start := range map[string]func(testing.TB, servers.MySQLOptions) *servertest.Database{"mariadb": servertest.MariaDB, "mysql": servertest.MySQL} {
		db := start(t, servers.MySQLOptions{})
		b := &kindBase{name: name, table: db.Name + ".kinds", kinds: slices.Clone(kindsOfMySQLFamily), minimal: "SET SESSION binlog_row_image = MINIMAL", whole: "SET SESSION binlog_row_image = FULL",
			source: fmt.Sprintf("  %s:\n    mysql: {url: '%s', server_id: %d}\n    tables: [%s.kinds]\n", name, db.URL, 1<<20+rand.IntN(1<<30), db.Name), run: db.Server.Exec}
		if b.kinds = append(b.kinds, kindsOfMySQL...); name == "mariadb" {
			b.kinds = append(slices.Clone(kindsOfMySQLFamily), kindsOfMariaDB...)
		}
		list = append(list, b)
	}
	return list
}

func (b *kindBase) exec(t *testing.T, statements ...string) {
	t.Helper()
	if err := b.run(t.Context(), statements...); err != nil {
		t.Fatal(err)
	}
}

func column(i int) string { return fmt.Sprintf("c%d", i) }

func (b *kindBase) create() string {
	lines := []string{"id bigint PRIMARY KEY", "n int"}
	for i := range b.kinds {
		lines = append(lines, column(i)+" "+b.kinds[i].sql)
	}
	return "CREATE TABLE " + b.table + " (" + strings.Join(lines, ", ") + ")"
}

// writes are an insert of all values and one of the odd ones, an update with whole images and one with minimal ones, and a
// delete.
func (b *kindBase) writes() []string {
	var names, values, odds, oddities []string
	for i := range b.kinds {
		k := &b.kinds[i]
		if k.in != "" {
			names, values = append(names, column(i)), append(values, k.in)
		}
		if k.odd != "" {
			odds, oddities = append(odds, column(i)), append(oddities, k.odd)
		}
	}
	insert := func(id int, names, values []string) string {
		return fmt.Sprintf("INSERT INTO %s (id, n, %s) VALUES (%d, 1, %s)", b.table, strings.Join(names, ", "), id, strings.Join(values, ", "))
	}
	update := func(n int) string { return fmt.Sprintf("UPDATE %s SET n = %d WHERE id = 1", b.table, n) }
	q := []string{b.whole, insert(1, names, values), insert(2, odds, oddities), update(2), b.minimal, update(3), b.whole, "DELETE FROM " + b.table + " WHERE id = 1"}
	if strings.Contains(b.minimal, "binlog") {
		q = append([]string{"SET SESSION sql_mode = '', time_zone = '+00:00'"}, q...)
	}
	return q
}

// image is a row as its reader has it, by column; a column that is null is left out.
type image map[string]string

// change is one that is expected.
type change struct {
	op                   string
	before, after        image
	absent, beforeAbsent []string
}

func (b *kindBase) row(form string, id, n int, odd bool) image {
	m := image{"id": fmt.Sprint(id), "n": fmt.Sprint(n)}
	if form == "protobuf" {
		m["id"] = fmt.Sprintf("%q", m["id"])
	}
	for i := range b.kinds {
		k := &b.kinds[i]
		text := k.avro
		switch {
		case odd && k.in == "": // generated
		case odd && k.odd == "":
			text = ""
		case odd:
			text = k.oddText
		case form == "json_schema" && k.json != "":
			text = k.json
		case form != "avro" && k.protobuf != "":
			text = k.protobuf
		}
		if text != "" {
			m[column(i)] = text
		}
	}
	return m
}

// expect is what the writes give.
func (b *kindBase) expect(form string) []change {
	row := func(n int) image { return b.row(form, 1, n, false) }
	small := row(3)
	var lacking []string
	for i := range b.kinds {
		if name := column(i); b.left == "" || b.left == name {
			lacking = append(lacking, name)
			delete(small, name)
		}
	}
	list := []change{
		{op: "insert", after: row(1)}, {op: "insert", after: b.row(form, 2, 1, true)}, {op: "update", before: row(1), after: row(2)},
		{op: "update", after: small, absent: lacking}, {op: "delete", before: row(3)}, {op: "tombstone"},
	}
	if b.left == "" {
		list[3].before, list[3].beforeAbsent = image{"id": small["id"]}, append([]string{"n"}, lacking...)
		if form == "json_schema" { // which has what was sent, and no names of what was not sent before
			list[3].absent, list[3].beforeAbsent = append([]string{"id"}, lacking...), nil
			delete(small, "id")
		}
	}
	return list
}

// compare holds what was read against what is expected. The order is that of each key.
func (b *kindBase) compare(t *testing.T, form string, all []record) {
	want := b.expect(form)
	var got, others []record
	for _, r := range all {
		if id := strings.Trim(string(r.Key["id"]), `"`); id == "1" {
			got = append(got, r)
		} else if id == "2" {
			others = append(others, r)
		}
	}
	if len(others) != 1 || len(got) == 0 || len(all) != len(want) || len(got)+1 != len(all) {
		t.Fatalf("%d records, of them %d of the one row and %d of the other; not %d", len(all), len(got), len(others), len(want))
	}
	got = slices.Insert(got, 1, others[0])
	for i, w := range want {
		g := got[i]
		if g.Value == nil {
			if w.op != "tombstone" {
				t.Errorf("record %d is a tombstone, not %s", i, w.op)
			}
			continue
		}
		v := g.Value
		if op := strings.TrimPrefix(strings.ToLower(v.Op), "op_"); op != w.op {
			t.Errorf("record %d: %s, not %s", i, op, w.op)
		}
		b.same(t, fmt.Sprintf("record %d before", i), v.Before, w.before)
		b.same(t, fmt.Sprintf("record %d after", i), v.After, w.after)
		if !slices.Equal(v.Absent, w.absent) || !slices.Equal(v.BeforeAbsent, w.beforeAbsent) {
			t.Errorf("record %d: absent %v, not %v; before %v, not %v", i, v.Absent, w.absent, v.BeforeAbsent, w.beforeAbsent)
		}
	}
}

func (b *kindBase) same(t *testing.T, what string, got map[string]json.RawMessage, want image) {
	t.Helper()
	for i := -2; i < len(b.kinds); i++ {
		name, sql := []string{"id", "n"}[max(0, min(1, i+2))], ""
		if i >= 0 {
			name, sql = column(i), b.kinds[i].sql
		}
		text := string(got[name])
		if text == "null" {
			text = ""
		}
		if text != want[name] {
			t.Errorf("%s: %s %s is %s, not %s", what, name, sql, text, want[name])
		}
	}
}

var kindsOfPostgres = []kind{
	{sql: "boolean", in: "true", avro: "true"},
	{sql: "smallint", in: "-32768", avro: "-32768"},
	{sql: "integer", in: "-2147483648", avro: "-2147483648"},
	{sql: "bigint", in: "-9223372036854775808", avro: "-9223372036854775808", protobuf: `"-9223372036854775808"`, json: "-9223372036854775808"},
	{sql: "oid", in: "4294967295", avro: "4294967295", protobuf: `"4294967295"`, json: "4294967295"},
	{sql: "real", in: "0.1", avro: "0.10000000149011612", protobuf: "0.1"},
	{sql: "double precision", in: "-1.5e-300", avro: "-1.5e-300"},
	{sql: "numeric(20,4)", in: "-1234567890123456.7891", avro: `"-1234567890123456.7891"`, odd: "'NaN'", oddText: `"NaN"`},
	{sql: "numeric", in: "1.50", avro: `"1.50"`},
	{sql: "money", in: "12.34", avro: `"$12.34"`},
	{sql: "char(5)", in: "'ab'", avro: `"ab   "`},
	{sql: "varchar(20)", in: `E'a\n😀'`, avro: `"a\n\ud83d\ude00"`},
	{sql: "bytea", in: `'\x00ff'`, avro: `"AP8="`},
	{sql: "date", in: "'2026-11-21'", avro: `"2026-11-21"`, odd: "'0044-03-15 BC'", oddText: `"0044-03-15 BC"`},
	{sql: "time(3)", in: "'10:15:30.5'", avro: `"10:15:30.500000"`, protobuf: `"10:15:30.5"`, odd: "'24:00:00'", oddText: `"24:00:00"`},
	{sql: "timetz", in: "'10:15:30+02'", avro: `"10:15:30+02"`},
	{sql: "timestamp", in: "'2026-11-21 10:15:30.123456'", avro: `"2026-11-21T10:15:30.123456"`, odd: "'infinity'", oddText: `"infinity"`},
	{sql: "timestamptz", in: "'2026-11-21 10:15:30.123456+00'", avro: `"2026-11-21T10:15:30.123456+00:00"`, protobuf: `"2026-11-21T10:15:30.123456Z"`, odd: "'-infinity'", oddText: `"-infinity"`},
	{sql: "interval", in: "'1 day 2 hours'", avro: `"1 day 02:00:00"`},
	{sql: "uuid", in: "'0198f0c2-0000-7000-8000-000000000000'", avro: `"0198f0c2-0000-7000-8000-000000000000"`},
	{sql: "json", in: `'{"n": 1.50}'`, avro: `"{\"n\": 1.50}"`, json: `{"n": 1.5}`},
	{sql: "jsonb", in: `'{"n": 1.50}'`, avro: `"{\"n\": 1.50}"`, json: `{"n": 1.5}`},
	{sql: "xml", in: "'<a/>'", avro: `"<a/>"`},
	{sql: "inet", in: "'10.0.0.1/8'", avro: `"10.0.0.1/8"`},
	{sql: "macaddr", in: "'08:00:2b:01:02:03'", avro: `"08:00:2b:01:02:03"`},
	{sql: "bit(3)", in: "B'101'", avro: `"101"`},
	{sql: "varbit", in: "B'1'", avro: `"1"`},
	{sql: "text[]", in: `'{a,NULL,"c d"}'`, avro: `["a", null, "c d"]`},
	{sql: "int[]", in: "'{1,2}'", avro: "[1, 2]", protobuf: "[1.0, 2.0]", json: "[1, 2]"},
	{sql: "timestamptz[]", in: "'{2026-11-21 10:15:30+00}'", avro: `["2026-11-21T10:15:30+00:00"]`, protobuf: `["2026-11-21T10:15:30Z"]`},
	{sql: "int4range", in: "'[1,5)'", avro: `"[1,5)"`},
	{sql: "point", in: "'(1,2)'", avro: `"(1,2)"`},
	{sql: "tsvector", in: "'a b'", avro: `"'a' 'b'"`},
	{sql: "int GENERATED ALWAYS AS (7) STORED"},                                                          // the stream has it from version 18 on, where it is asked for
	{sql: "text STORAGE EXTERNAL", in: "repeat('x', 3000)", avro: `"` + strings.Repeat("x", 3000) + `"`}, // the last: what is not sent where it does not change
}

var kindsOfMySQLFamily = []kind{
	{sql: "tinyint(1)", in: "1", avro: "1"},
	{sql: "tinyint", in: "-128", avro: "-128"},
	{sql: "tinyint unsigned", in: "255", avro: "255"},
	{sql: "smallint", in: "-32768", avro: "-32768"},
	{sql: "smallint unsigned", in: "65535", avro: "65535"},
	{sql: "mediumint", in: "-8388608", avro: "-8388608"},
	{sql: "mediumint unsigned", in: "16777215", avro: "16777215"},
	{sql: "int", in: "-2147483648", avro: "-2147483648"},
	{sql: "int unsigned", in: "4294967295", avro: "4294967295", protobuf: `"4294967295"`, json: "4294967295"},
	{sql: "bigint", in: "-9223372036854775808", avro: "-9223372036854775808", protobuf: `"-9223372036854775808"`, json: "-9223372036854775808"},
	{sql: "bigint unsigned", in: "18446744073709551615", avro: `"18446744073709551615"`, json: "18446744073709551615"},
	{sql: "decimal(20,4)", in: "-1234567890123456.7891", avro: `"-1234567890123456.7891"`},
	{sql: "decimal(65,30)", in: "0.000000000000000000000000000001", avro: `"1E-30"`, protobuf: `"0.000000000000000000000000000001"`},
	{sql: "decimal(5,0) unsigned", in: "99999", avro: `"99999"`},
	{sql: "float", in: "0.1", avro: "0.10000000149011612", protobuf: "0.1"},
	{sql: "double", in: "-1.5e-300", avro: "-1.5e-300"},
	{sql: "bit(1)", in: "b'1'", avro: "true"},
	{sql: "bit(10)", in: "b'1000000001'", avro: `"1000000001"`},
	{sql: "date", in: "'2026-11-21'", avro: `"2026-11-21"`, odd: "'0000-00-00'", oddText: `"0000-00-00"`},
	{sql: "time(3)", in: "'-838:59:58.5'", avro: "-3020398500000", protobuf: `"-838:59:58.5"`},
	{sql: "datetime(6)", in: "'2026-11-21 10:15:30.123456'", avro: `"2026-11-21T10:15:30.123456"`, odd: "'2026-00-00 00:00:00'", oddText: `"2026-00-00 00:00:00.000000"`},
	{sql: "timestamp(6) NULL", in: "'2026-11-21 10:15:30.123456'", avro: `"2026-11-21T10:15:30.123456+00:00"`, protobuf: `"2026-11-21T10:15:30.123456Z"`, odd: "'0000-00-00'", oddText: `"0000-00-00 00:00:00.000000"`},
	{sql: "year", in: "2026", avro: "2026"},
	{sql: "char(5)", in: "'ab'", avro: `"ab"`},
	{sql: "varchar(20) CHARACTER SET latin1", in: "'é'", avro: `"\u00e9"`},
	{sql: "text CHARACTER SET utf8mb4", in: `'a\nb😀'`, avro: `"a\nb\ud83d\ude00"`},
	{sql: "longtext", in: "''", avro: `""`},
	{sql: "enum('a','b,c')", in: "'b,c'", avro: `"b,c"`},
	{sql: "set('x','y','z')", in: "'x,z'", avro: `"x,z"`},
	{sql: "binary(4)", in: "x'00ff'", avro: `"AP8AAA=="`},
	{sql: "varbinary(9)", in: "x'00ff'", avro: `"AP8="`},
	{sql: "blob", in: "x'00ff'", avro: `"AP8="`},
	{sql: "point", in: "st_geomfromtext('point(1 2)')", avro: `"AQEAAAAAAAAAAADwPwAAAAAAAABA"`},
}

var kindsOfMySQL = []kind{
	{sql: "json", in: `'{"n": 1, "s": ["x"]}'`, avro: `"{\"n\": 1, \"s\": [\"x\"]}"`, json: `{"n": 1, "s": ["x"]}`},
	{sql: "vector(3)", in: "to_vector('[1,0.5,-2]')", avro: "[1.0, 0.5, -2.0]", json: "[1, 0.5, -2]"},
	{sql: "int AS (7) STORED", avro: "7"}, // MariaDB sends it in minimal images too
}

var kindsOfMariaDB = []kind{
	{sql: "json", in: `'{"n": 1, "s": ["x"]}'`, avro: `"{\"n\": 1, \"s\": [\"x\"]}"`}, // text
	{sql: "uuid", in: "'0198f0c2-0000-7000-8000-000000000000'", avro: `"0198f0c2-0000-7000-8000-000000000000"`},
	{sql: "inet6", in: "'2001:db8::1'", avro: `"2001:db8::1"`},
	{sql: "inet4", in: "'10.0.0.1'", avro: `"10.0.0.1"`},
	{sql: "varchar(30) compressed", in: "'packed'", avro: `"packed"`},
}
