package mysql

import (
	"fmt"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// replicate makes standby a replica of primary, by GTID.
func replicate(t *testing.T, standby *sqlClient, primary *servers.Server) {
	t.Helper()
	if primary.Kind == servers.KindMariaDB {
		standby.do(fmt.Sprintf("change master to master_host='127.0.0.1', master_port=%d, master_user='repl', master_password='repl', master_use_gtid=slave_pos", primary.Port),
			"start slave")
		return
	}
	standby.do(fmt.Sprintf("change replication source to source_host='127.0.0.1', source_port=%d, source_user='repl', source_password='repl', source_auto_position=1, get_source_public_key=1", primary.Port),
		"start replica")
}

// executed is what a server has of transactions, as GTIDs.
func executed(c *sqlClient, kind servers.Kind) string {
	if kind == servers.KindMariaDB {
		return c.rows("select @@global.gtid_binlog_pos")[0][0]
	}
	return strings.Join(strings.Fields(c.rows("select @@global.gtid_executed")[0][0]), "")
}

// failover: a reader that moves to a replica, or to one that was promoted, goes on exactly; one that has read
// what the promoted server never got stops and names it.
func failover(t *testing.T, own, standby *servers.Server) {
	a, b := login(t, base(own.URL), ""), login(t, base(standby.URL), "")
	a.do("create database fail", "use fail", "create table a (id int primary key, v varchar(20))", "create table b (id int primary key)")
	replicate(t, b, own)
	replicaRead(t, own, standby)
	onA := source(t, Config{URL: base(own.URL), Tables: []string{"fail.*"}})
	onB := source(t, Config{URL: base(standby.URL), Tables: []string{"fail.*"}})
	r := newReading(t)
	r.end = now(t, base(own.URL))
	whole := newReading(t)
	whole.end = r.end
	for id := 1; id <= 20; id++ {
		if id == 12 {
			r.follow(onA, "id=11 v=y")
		}
		a.do("begin", fmt.Sprintf("insert into a values (%d,'x')", id), fmt.Sprintf("update a set v='y' where id<=%d", id), "commit")
		if id%5 == 0 {
			a.do(fmt.Sprintf("alter table a comment '%d'", id), fmt.Sprintf("insert into b values (%d)", id))
		}
	}
	at := r.end
	synced(t, a, b, own.Kind)
	r.follow(onB, "fail.b - -> id=20")
	whole.follow(onA, "fail.b - -> id=20")
	compare(t, whole, r)
	if at == r.end {
		t.Fatal("nothing was read from the replica")
	}

	if own.Kind == servers.KindMariaDB {
		b.do("stop slave", "reset slave all")
	} else {
		b.do("stop replica", "reset replica all")
	}
	a.do("insert into fail.b values (21)") // never reaches the one that is promoted
	ahead := newReading(t)
	ahead.end = r.end
	ahead.follow(onA, "id=21")
	b.do("insert into fail.b values (22)")
	missing := strings.TrimPrefix(ahead.end.Token, "mariadb gtid ")
	if own.Kind == servers.KindMySQL {
		missing = b.rows("select gtid_subtract('" + executed(a, own.Kind) + "', @@global.gtid_executed)")[0][0]
	}
	refused := failure(t, onB, ahead.end)
	wantStop(t, refused, "gtids_missing", missing)
	if !strings.HasSuffix(refused.What, ": "+missing) || !strings.Contains(refused.Cure, "leat source accept") {
		t.Errorf("%s (%s), want just %s to be named", refused.What, refused.Cure, missing)
	}
	r.follow(onB, "fail.b - -> id=22")
	if r.has("id=21") {
		t.Fatal("the promoted server has what it never got")
	}
	// The server that was left has not got what came after it either.
	wantStop(t, failure(t, onA, r.end), "gtids_missing", strings.TrimPrefix(r.records[len(r.records)-1].tx, "gtid "))
	// Where the old server is to be used again, it goes on exactly.
	a.do("insert into fail.b values (23)")
	ahead.follow(onA, "id=23")
}

// replicaRead: tables are read from a replica once it has replayed the watermark, and not before.
func replicaRead(t *testing.T, own, standby *servers.Server) {
	a, b := login(t, base(own.URL), ""), login(t, base(standby.URL), "")
	a.do("create database rep", "use rep", "create table a (id int primary key)", "insert into a values (1)")
	synced(t, a, b, own.Kind)
	for _, watermarks := range []string{"rep.watermark", "-"} {
		w := watch(t, Config{URL: base(own.URL), ReplicaURL: base(standby.URL), Tables: []string{"rep.*"}, WatermarkTable: watermarks}, now(t, base(own.URL)))
		word := "replica"
		if own.Kind == servers.KindMariaDB {
			word = "slave"
		}
		s := w.session()
		b.do("stop " + word + " sql_thread")
		a.do("insert into a select max(id) + 1 from a")
		want := len(a.rows("select * from a"))
		w.marking("low")
		type result struct {
			rows int
			err  error
		}
		read, ctx := make(chan result, 1), within(t)
		go func() {
			c := &snapshot.Chunk{}
			err := s.Read(ctx, snapshot.Query{Table: snapshot.Table{Schema: "rep", Name: "a", Key: []string{"id"}}}, c)
			read <- result{len(c.Rows), err}
		}()
		for len(b.rows("select id from information_schema.processlist where info like 'select %gtid%wait%' or info like 'select wait%'")) < 2 { // ours, and this one
			if len(read) > 0 || ctx.Err() != nil {
				t.Fatalf("the read did not wait for the replica: %+v", <-read)
			}
		}
		b.do("start " + word + " sql_thread")
		if r := <-read; r.err != nil || r.rows != want {
			t.Fatalf("%d rows, want %d: %v", r.rows, want, r.err)
		}
	}
}

// synced waits until b has all of a.
func synced(t *testing.T, a, b *sqlClient, kind servers.Kind) {
	t.Helper()
	for ctx := within(t); executed(a, kind) != executed(b, kind); {
		if ctx.Err() != nil {
			t.Fatalf("%s does not reach %s", executed(b, kind), executed(a, kind))
		}
	}
}
