package mysql

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
)

// load asks until ok, for what another session does shows with a delay.
func load(t *testing.T, s *Source, ok func(pipeline.SourceLoad) bool) pipeline.SourceLoad {
	t.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(patience); ; <-look.C {
		l, err := s.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if ok(l) {
			return l
		}
		if time.Now().After(deadline) {
			t.Fatalf("still %+v", l)
		}
	}
}

// busy lets n sessions sleep inside a statement until the returned func is called.
func busy(t *testing.T, raw string, n int) (end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, n)
	for range n {
		c := login(t, raw, "")
		go func() {
			_, _ = c.c.exec(ctx, "select sleep(3600)")
			_ = c.c.raw.Close()
			done <- struct{}{}
		}()
	}
	return func() {
		cancel()
		for range n {
			<-done
		}
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	run := func(t *testing.T, own *servers.Server) {
		raw := base(own.URL)
		c := login(t, raw, "")
		c.do("create database load_", "use load_", "create table files (id int primary key auto_increment, body longblob)",
			"create table signals (owner text, reason text, ratio real, until datetime)")
		s := source(t, Config{URL: raw, SignalTable: "load_.signals", StatusInterval: 50 * time.Millisecond})
		defer s.Rest()
		l := load(t, s, func(pipeline.SourceLoad) bool { return true })
		if l.Behind != pipeline.Unknown || l.Waiting != 0 || len(l.Findings) > 0 || l.Lost {
			t.Fatalf("before anything was read: %+v", l)
		}
		from := now(t, raw)
		st, err := s.Open(within(t), from)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = st.Close() }()
		load(t, s, func(l pipeline.SourceLoad) bool { return l.Active == 0 && l.Behind == 0 })
		end := busy(t, raw, 3)
		load(t, s, func(l pipeline.SourceLoad) bool { return l.Active >= 3 })
		end()
		// Nobody takes batches: what is written lies behind, over files, and its file is kept by age.
		for range 8 {
			c.do("insert into files (body) values (repeat('x', 1000000))")
		}
		c.do("flush binary logs", "insert into files (body) values (repeat('x', 1000000))")
		l = load(t, s, func(l pipeline.SourceLoad) bool { return l.Behind > 8e6 && l.Rate > 0 })
		if l.ToLoss <= 0 || l.ToLoss > time.Hour || l.Lost || l.Headroom != pipeline.Unknown {
			t.Fatalf("kept for an hour: %+v", l)
		}
		if l.Expiry != time.Hour || l.Age < 0 || l.Age+l.ToLoss != time.Hour {
			t.Fatalf("its age: %+v", l)
		}
		r := newReading(t)
		r.end = from
		_ = r.until(st, within(t), func() bool { return len(r.records) == 9 })
		l = load(t, s, func(l pipeline.SourceLoad) bool { return l.Behind == 0 })
		if l.ToLoss != pipeline.Unknown {
			t.Fatalf("the file that is written is not removed: %+v", l)
		}
		signals(t, s, c)
		// A file that we need and nobody keeps open is lost when the server removes it.
		_ = st.Close()
		c.do("flush binary logs")
		load(t, s, func(l pipeline.SourceLoad) bool {
			c.do("insert into files (body) values ('a dump finds out by writing that nobody listens')", "purge binary logs to "+quote(lastFile(c)))
			return l.Lost && l.ToLoss == 0
		})
	}
	o := servers.MySQLOptions{Params: map[string]string{"binlog-expire-logs-seconds": "3600"}}
	t.Run("mysql", func(t *testing.T) { t.Parallel(); run(t, servertest.ExclusiveMySQL(t, o)) })
	t.Run("mariadb", func(t *testing.T) { t.Parallel(); run(t, servertest.ExclusiveMariaDB(t, o)) })
}

func lastFile(c *sqlClient) string {
	rows := c.rows("show binary logs")
	return rows[len(rows)-1][0]
}

func signals(t *testing.T, s *Source, c *sqlClient) {
	c.do("insert into signals values ('ann', 'migration', 0.25, utc_timestamp() + interval 1 hour), ('bob', 'over', 0, utc_timestamp() - interval 1 second)")
	l := load(t, s, func(l pipeline.SourceLoad) bool { return len(l.Signals) > 0 })
	if g := l.Signals; len(g) != 1 || g[0].Owner != "ann" || g[0].Reason != "migration" || g[0].Ratio != 0.25 || time.Until(g[0].Until).Round(time.Minute) != time.Hour {
		t.Fatalf("%+v", g)
	}
	c.do("drop table signals")
	load(t, s, func(l pipeline.SourceLoad) bool {
		return len(l.Signals) == 0 && len(l.Findings) == 1 && strings.HasPrefix(l.Findings[0].Cure, "CREATE TABLE")
	})
}

// TestLoadWithLeastRights: for what is not seen the finding names the GRANT, and it cures.
func TestLoadWithLeastRights(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		c := login(t, base(db.URL), "")
		user := "least_" + db.Name
		if len(user) > 30 {
			user = user[:30]
		}
		c.do(fmt.Sprintf("create user `%s`@`%%` identified by 'secret'", user), "create table `"+db.Name+"`.signals (owner text, reason text, ratio real, until datetime)")
		t.Cleanup(func() { c.do("drop user `" + user + "`@`%`") })
		s := source(t, Config{URL: "mysql://" + user + ":secret@" + addr(t, db.URL) + "/", SignalTable: db.Name + ".signals"})
		defer s.Rest()
		l := load(t, s, func(pipeline.SourceLoad) bool { return true })
		if l.Active < 0 || len(l.Findings) != 3 {
			t.Fatalf("%+v", l)
		}
		for _, f := range l.Findings {
			if f.Level != "warning" {
				t.Fatalf("%+v", f)
			}
			c.do(f.Cure)
		}
		s.Rest() // rights of a session may be those of its beginning
		load(t, s, func(l pipeline.SourceLoad) bool { return len(l.Findings) == 0 && l.Active >= 0 })
	})
}

// TestLoadOfCappedBinlogs: MariaDB removes binlogs by size too.
func TestLoadOfCappedBinlogs(t *testing.T) {
	p := &prober{most: 1000, expiry: time.Hour}
	s := source(t, Config{URL: "mysql://nobody@localhost:1/"})
	s.at.note("b.000002", 50, uint32(time.Now().Unix()))
	l := pipeline.NewSourceLoad(time.Now())
	l.Rate = 10
	if i := p.place(s, &l, []binlogFile{{"b.000001", 500}, {"b.000002", 100}, {"b.000003", 200}}); i != 1 || l.Behind != 250 || l.Headroom != 700 || l.ToLoss != 70*time.Second {
		t.Fatalf("%d %+v", i, l)
	}
	if p.place(s, &l, []binlogFile{{"b.000003", 200}}); !l.Lost {
		t.Fatalf("%+v", l)
	}
}
