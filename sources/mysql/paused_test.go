package mysql

import (
	"testing"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

// TestPausedStaysConnected: a reader that is paused for several times net_write_timeout, with more written
// than the sockets hold, keeps its connection and reads all of it afterwards.
func TestPausedStaysConnected(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{Params: map[string]string{"net-write-timeout": "1"}}, func(t *testing.T, db *servertest.Database) {
		raw := base(db.URL)
		c := login(t, raw, db.Name)
		c.do("create table files (id int primary key auto_increment, body longblob)")
		s := source(t, Config{URL: raw, Tables: []string{db.Name + ".*"}})
		r := newReading(t)
		r.end = now(t, raw)
		st, err := s.Open(within(t), r.end)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = st.Close() }()
		for range 30 {
			c.do("insert into files (body) values (repeat('x', 1000000))")
		}
		c.do("select sleep(4)") // the server's own timeout cannot be had in virtual time
		if err := r.until(st, within(t), func() bool { return len(r.records) == 30 }); err != nil {
			t.Fatal(err)
		}
	})
}
