package mysql

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sources/mysql/internal/gtid"
)

// A stream that begins now, while transactions of several domains commit, brings in each domain what comes right
// behind its position, all of it, and nothing before; and where nothing commits the server need not look for it.
func TestNowIsOneMoment(t *testing.T) {
	t.Parallel()
	db := servertest.MariaDB(t, servers.MySQLOptions{})
	raw := base(db.URL)
	domains := []uint32{71, 72, 73}
	c := login(t, raw, db.Name)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, len(domains))
	for _, d := range domains {
		w := login(t, raw, db.Name)
		w.do(fmt.Sprintf("create table d%d (id int primary key auto_increment, v int)", d), fmt.Sprintf("set gtid_domain_id=%d", d), fmt.Sprintf("insert into d%d (v) values (0)", d))
		go func() {
			var err error
			for err == nil && ctx.Err() == nil {
				_, err = w.c.exec(context.Background(), fmt.Sprintf("insert into d%d (v) values (1)", d))
			}
			ended <- err
		}()
	}
	t.Cleanup(func() {
		stop()
		for range domains {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	s := source(t, Config{URL: raw, Tables: []string{db.Name + ".*"}})
	told := 0
	for range 30 {
		if begins(t, s, domains, func() {}) {
			told++
		}
	}
	t.Logf("%d times by offset", told)
	stop()
	for range domains {
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		ended <- nil
	}
	// Others use the server too, so this asks until it was so once, and reads from there what comes next.
	in := within(t)
	next := func() {
		for _, d := range domains {
			c.do(fmt.Sprintf("set gtid_domain_id=%d", d), fmt.Sprintf("insert into d%d (v) values (2)", d))
		}
	}
	for !begins(t, s, domains, next) {
		if in.Err() != nil {
			t.Fatal("never told by offset")
		}
	}
}

// begins opens a stream now, then calls write, and looks at how each domain goes on; it returns whether the place was told
// by offset.
func begins(t *testing.T, s *Source, domains []uint32, write func()) bool {
	t.Helper()
	ctx := within(t)
	c, err := s.connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	v, _, err := c.inspect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.first(ctx, c, v, s.start)
	if err != nil {
		t.Fatal(err)
	}
	at, seen := *p.at.last, map[uint32]bool{}
	at.Last = slices.Clone(at.Last)
	if err := errors.Join(c.register(ctx, v, s.cfg.ServerID, s.cfg.Name), c.dump(ctx, s.cfg.ServerID, p)); err != nil {
		t.Fatal(err)
	}
	st, err := newStream(s, c, v, p, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	write()
	for len(seen) < len(domains) {
		b, err := st.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Txs {
			id, err := gtid.ParseMaria(string(b.Bytes(b.Txs[i].ID)))
			if err != nil {
				t.Fatal(err)
			}
			was, is := uint64(0), id.Last[0]
			for _, g := range at.Last {
				if g.Domain == is.Domain {
					was = g.Seq
				}
			}
			if is.Seq != was+1 {
				t.Fatalf("%s comes behind %s (by offset: %v)", is, &at, p.found)
			}
			at.Set(is)
			seen[is.Domain] = true
		}
		b.Release()
	}
	return p.found
}

// A stream that is closed leaves no dump on its server, which would end it only at its next heartbeat, or, slowly, when
// the next one begins. The user may do no more than a reader needs.
func TestCloseEndsTheDump(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		c := login(t, base(db.URL), "")
		c.do("create user leaving@'%' identified by 'secret-pw'", "grant replication slave, replication client on *.* to leaving@'%'")
		t.Cleanup(func() { c.do("drop user leaving@'%'") })
		u, err := url.Parse(base(db.URL))
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword("leaving", "secret-pw")
		s := source(t, Config{URL: u.String(), Silence: time.Hour}) // a heartbeat each ten minutes
		ctx := within(t)
		st, err := s.Open(ctx, pipeline.Position{})
		if err != nil {
			t.Fatal(err)
		}
		dumps := func() int {
			return len(c.rows("select id from information_schema.processlist where user='leaving' and command like 'Binlog Dump%'"))
		}
		for dumps() == 0 {
			if ctx.Err() != nil {
				t.Fatal("no dump began")
			}
		}
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		for dumps() > 0 {
			if ctx.Err() != nil {
				t.Fatal("the dump stays")
			}
		}
	})
}

// Another MariaDB may have the same server_id: who has our connection's id there comes from elsewhere.
func TestWhoseDumpItIs(t *testing.T) {
	tcp, unix := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 4711}, &net.UnixAddr{Net: "unix"}
	for host, want := range map[string][2]bool{"10.0.0.1:4711": {true, false}, "client.example:4711": {true, false}, "[::1]:4711": {true, false}, "10.0.0.1:4712": {false, false}, "localhost": {false, true}} {
		if got := [2]bool{listsAs(host, tcp), listsAs(host, unix)}; got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
}
