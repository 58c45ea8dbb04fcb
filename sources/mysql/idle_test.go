package mysql

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/sources/mysql/internal/gtid"
)

// While only tables are written that are not wanted, also of other databases, the position goes on.
func TestIdleTablesAdvance(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		raw := base(db.URL)
		c := login(t, raw, db.Name)
		c.do("create table wanted (id int primary key)", "create table other (id int primary key)")
		st, err := source(t, Config{URL: raw, Tables: []string{db.Name + ".wanted"}, StatusInterval: 50 * time.Millisecond}).Open(within(t), now(t, raw))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = st.Close() }()
		c.do("insert into other values (1)", "insert into other values (2)")
		target := executed(c, db.Server.Kind)
		for ctx := within(t); ; {
			b, err := st.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			at, err := parseToken(b.End.Token)
			if err != nil || len(b.Events) > 0 {
				t.Fatalf("%+v: %v", b, err)
			}
			b.Release()
			if reached(t, at, target) {
				return
			}
		}
	})
}

// reached reports whether a place holds all GTIDs of target.
func reached(t *testing.T, at *place, target string) bool {
	t.Helper()
	if at.mariadb {
		seq := func(s string) int { n, _ := strconv.Atoi(s[strings.LastIndexByte(s, '-')+1:]); return n }
		return seq(at.last.String()) >= seq(target) // the servers of tests write one domain
	}
	want, err := gtid.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	want.Union(at.set)
	return want.String() == at.set.String()
}
