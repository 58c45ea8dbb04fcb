package mysql

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/sources/mysql/internal/statement"
)

// However a name is written, it is the one that the PREPARE's event has.
func TestXANamesHaveOneForm(t *testing.T) {
	quote := func(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(s) + "'" }
	forms := map[string]func(string) string{
		"X'hex'": func(s string) string { return "X'" + strings.ToUpper(hex.EncodeToString([]byte(s))) + "'" },
		"x'hex'": func(s string) string { return "x'" + hex.EncodeToString([]byte(s)) + "'" },
		"text":   quote,
		"double": func(s string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"` },
		"0xhex":  func(s string) string { return "0x" + hex.EncodeToString([]byte(s)) },
	}
	rapid.Check(t, func(t *rapid.T) {
		gtrid := string(rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(t, "gtrid"))
		bqual := string(rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(t, "bqual"))
		format := rapid.IntRange(0, 1<<31-1).Draw(t, "format")
		of := func(label string) func(string) string {
			return forms[rapid.SampledFrom([]string{"X'hex'", "x'hex'", "text", "double", "0xhex"}).Draw(t, label)]
		}
		verb := rapid.SampledFrom([]string{"XA COMMIT ", "xa rollback\t", "XA COMMIT/* late */"}).Draw(t, "verb")
		end := rapid.SampledFrom([]string{"", ";", " ONE PHASE", " -- done"}).Draw(t, "end")
		first, second := of("first")(gtrid), of("second")(bqual)
		g, b := hex.EncodeToString([]byte(gtrid)), hex.EncodeToString([]byte(bqual))
		for text, want := range map[string]string{
			fmt.Sprintf("%s%s,%s,%d%s", verb, first, second, format, end):     nameXA(g, b, format),
			fmt.Sprintf("%s%s , %s, %#x%s", verb, first, second, format, end): nameXA(g, b, format),
			verb + first + "," + second + end:                                 nameXA(g, b, 1),
			verb + first + end:                                                nameXA(g, "", 1),
		} {
			if got := xidOf(text); got != want {
				t.Fatalf("%q is %s, want %s", text, got, want)
			}
		}
	})
	for _, none := range []string{"", "XA COMMIT", "XA COMMIT 'open", "XA COMMIT 'a','b',many"} {
		if got := xidOf(none); got != "" && none != "XA COMMIT 'a','b',many" {
			t.Errorf("%q: %s", none, got)
		}
	}
}

func FuzzXAName(f *testing.F) {
	f.Add("XA COMMIT X'6162',X'',1")
	f.Add(`xa rollback "a\"b", 0x41, 0x7`)
	f.Fuzz(func(t *testing.T, text string) {
		if name := xidOf(text); strings.Trim(name, "0123456789abcdef-") != "" {
			t.Errorf("%q gives %q, which a position cannot hold", text, name)
		}
	})
}

// A position keeps what waits, whatever the tables are called.
func TestAPositionKeepsWhatWaits(t *testing.T) {
	names := rapid.Custom(func(t *rapid.T) statement.Name {
		return statement.Name{Schema: rapid.String().Draw(t, "schema"), Table: rapid.String().Draw(t, "table")}
	})
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) waitingXA {
			return waitingXA{rapid.StringMatching("[0-9a-f]*-[0-9a-f]*-[0-9]+").Draw(t, "xid"), rapid.StringMatching("([0-9-]+#[0-9a-f]+-[0-9]+)?").Draw(t, "open"),
				rapid.SliceOfN(names, 0, 3).Draw(t, "left")}
		}), 1, 4).Draw(t, "waiting")
		rest, got, err := cutXA(string(appendXA([]byte("mysql gtid 1"), want)))
		if err != nil || rest != "mysql gtid 1" || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("want %q, got %q %q %v", want, rest, got, err)
		}
	})
}

// A transaction that is prepared while a table is quarantined lacks its rows: its commit says so, also on a stream that knows
// nothing of the quarantine, as it ended before.
func TestACommitTellsWhatWasLeftOut(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		raw := base(db.URL)
		c := login(t, raw, db.Name)
		c.do("create table x (id int primary key)", "create table y (id int primary key)")
		r := newReading(t)
		r.end = now(t, raw)
		c.do("set session binlog_format='STATEMENT'", "insert into x values (0)", "set session binlog_format='ROW'")
		for n, rows := range []string{"insert into x values (1)", "insert into x values (2)", "insert into y values (3)"} {
			xid := fmt.Sprintf("'%s%d'", db.Name, n)
			other := login(t, raw, db.Name)
			other.do("xa start "+xid, rows)
			if n == 1 {
				other.do("insert into y values (2)")
			}
			other.do("xa end "+xid, "xa prepare "+xid)
			_ = other.c.Close() // anybody may end it
		}
		c.do("insert into y values (4)")
		cfg := Config{URL: raw, Tables: []string{db.Name + ".*"}}
		r.follow(source(t, cfg), "id=4")
		for n := range 3 {
			c.finish("commit", db.Name, n)
			c.do(fmt.Sprintf("insert into y values (%d)", 10+n))
		}
		c.do("insert into x values (5)")
		r.follow(source(t, cfg), "id=5")
		expect(t, r, db.Name, "insert y - -> id=4", "insert y - -> id=10", "insert y - -> id=2", "insert y - -> id=11", "insert y - -> id=3",
			"insert y - -> id=12", "insert x - -> id=5")
		expectNotices(t, r, db.Name, "1 statement x", "3 xa x", "3 xa x")
		if r.said != 1 { // the other has no chunks
			t.Fatalf("%d notices came with a commit: in a batch of their own they are lost where the stream ends between", r.said)
		}
	})
}
