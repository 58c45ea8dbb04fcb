package mysql

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// events runs statements and returns what comes of them, up to a marker that is inserted last.
func events(t *testing.T, db *servertest.Database, cfg Config, statements ...string) *reading {
	t.Helper()
	raw := base(db.URL)
	c := login(t, raw, db.Name)
	c.do("create table marker (id int primary key)")
	from := now(t, raw)
	c.do(statements...)
	c.do("insert into marker values (4711)")
	cfg.URL = raw
	if cfg.Tables == nil {
		cfg.Tables = []string{db.Name + ".*"}
	}
	r := newReading(t)
	r.end = from
	r.follow(source(t, cfg), "insert "+db.Name+".marker")
	r.records = r.records[:len(r.records)-1]
	return r
}

func expect(t *testing.T, r *reading, db string, want ...string) {
	t.Helper()
	got := r.texts()
	for i := range got {
		got[i] = strings.ReplaceAll(got[i], db+".", "")
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func expectNotices(t *testing.T, r *reading, db string, want ...string) {
	t.Helper()
	var got []string
	for _, n := range r.notices {
		got = append(got, fmt.Sprintf("%d %s %s", n.Kind, n.Code, strings.TrimPrefix(n.Table, db+".")))
		if n.Reason == "" || n.Cure == "" && n.Kind != pipeline.NoticeReleased || n.Position == "" {
			t.Errorf("a notice lacks something: %+v", n)
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestDefinitions(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		r := events(t, db, Config{},
			"create table a (id int primary key, v int)",
			"insert into a values (1,1)",
			"flush tables", // a new table id, the same shape
			"insert into a values (2,2)",
			"alter table a add column w varchar(9) not null default 'x'",
			"insert into a (id) values (3)",
			"truncate table a",
			"create table b as select 5 as id, 6 as v",
			"rename table a to c, b to a",
			"insert into a values (8,9)",
			"drop table a, c",
		)
		expect(t, r, db.Name,
			"insert a - -> id=1 v=1",
			"insert a - -> id=2 v=2",
			"schema a (id,v,w) rewrites",
			"insert a - -> id=3 v=NULL w=x",
			"truncate a",
			"insert b - -> id=5 v=6",
			"schema a ()", "schema c (id,v,w) rewrites",
			"schema b ()", "schema a (id,v) rewrites",
			"insert a - -> id=8 v=9",
			"schema a ()", "schema c ()")
		expectNotices(t, r, db.Name, "3 renamed c", "3 renamed a")
	})
}

// What a statement does to rows that exist is told where the shapes do not show it, and only there.
func TestRewrites(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		r := events(t, db, Config{},
			"create table a (id int primary key, v int, w int)", "insert into a values (1,1,1)",
			"alter table a add x int null, add key (v)", "insert into a values (2,2,2,2)",
			"alter table a rename column v to w, rename column w to v", "insert into a values (3,3,3,3)",
			"alter table a drop x", "alter table a add x int first", "insert into a values (4,4,4,4)",
			"alter table a drop x, modify w bigint", "insert into a values (5,5,5)",
			"alter table a drop w, add w bigint", "insert into a values (6,6,6)",
			"alter table a add y int default 7", "alter table a add z int", "insert into a values (7,7,7,7,7)",
			"alter table a modify v smallint", "insert into a values (8,8,8,8,8)",
			"create table p (id int primary key) partition by range (id) (partition p0 values less than (10), partition p1 values less than (20))",
			"insert into p values (1),(11)", "alter table p drop partition p0", "create or replace view v as select * from p", "insert into p values (12)",
			"drop table p", "create table p (id int primary key)", "insert into p values (1)",
			"create table f (id int primary key, v int)", "insert into f values (1,1)", "alter table f connection='mysql://u:secret@h/d/t', drop v", "insert into f values (2)")
		if text := fmt.Sprint(r.statements); !strings.Contains(text, "partition p0") || strings.Contains(text, "secret") {
			t.Error(text)
		}
		r.records = slices.DeleteFunc(r.records, func(x record) bool { return strings.HasPrefix(x.what, "insert") })
		expect(t, r, db.Name,
			"schema a (id,v,w,x)",
			"schema a (id,w,v,x) rewrites",             // with the statement
			"schema a (id,w,v)", "schema a (x,id,w,v)", // dropped and added
			"schema a (id,w,v)", "schema a (id,w,v)", // widened
			"schema a (id,v)", "schema a (id,v,w)", // dropped and added at once
			"schema a (id,v,w,y,z) rewrites",
			"schema a (id,v,w,y,z) rewrites",
			"schema p (id) rewrites",
			"schema p ()", "schema p (id)", "schema f (id)")
	})
}

// The tables by which gh-ost and pt-online-schema-change work are not delivered, and the swap at their end
// leaves the table the same one, in its new shape.
func TestGhosts(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		r := events(t, db, Config{Tables: []string{db.Name + ".*", db.Name + "._kept_new"}},
			"create table t (id int primary key, v int)", "insert into t values (1,1)",
			"create /* gh-ost */ table _t_ghc (id int primary key)", "insert into _t_ghc values (1)",
			"create /* gh-ost */ table _t_gho like t", "alter /* gh-ost */ table _t_gho add column w int default 5",
			"insert into _t_gho (id,v) select id,v from t", "insert into t values (2,2)", "insert into _t_gho (id,v) values (2,2)",
			"create table _t_del (id int primary key)", "drop table _t_del",
			"rename /* gh-ost */ table t to _t_del, _t_gho to t", "insert into t values (3,3,3)", "drop table _t_ghc", "drop table _t_del",
			"create table _t_new (id int not null primary key, v int default null, w int default 5)", "alter table _t_new add column x int",
			"insert into _t_new (id,v) select id,v from t", "rename table t to _t_old, _t_new to t", "drop table _t_old", "insert into t values (4,4,4,4)",
			"create table _lone_old (id int primary key)", "insert into _lone_old values (1)",
			"create table kept (id int primary key)", "create table _kept_new (id int primary key)", "insert into _kept_new values (1)")
		expect(t, r, db.Name,
			"insert t - -> id=1 v=1", "insert t - -> id=2 v=2",
			"schema t (id,v,w) rewrites", "insert t - -> id=3 v=3 w=3",
			"schema t (id,v,w,x)", "insert t - -> id=4 v=4 w=4 x=4",
			"insert _lone_old - -> id=1", "insert _kept_new - -> id=1")
		expectNotices(t, r, db.Name)
		// Check says so, and a snapshot leaves it out.
		login(t, base(db.URL), db.Name).do("create table _t_gho like t")
		s := source(t, Config{URL: base(db.URL), Tables: []string{db.Name + ".*"}})
		if !slices.ContainsFunc(s.Check(within(t)), func(f pipeline.Finding) bool { return f.Code == "ghost" && f.Place == db.Name+"._t_gho" }) {
			t.Error("check does not say that there is a ghost")
		}
		tables, err := s.Snapshots().Tables(within(t), []string{db.Name + ".*"})
		if err != nil || slices.ContainsFunc(tables, func(x snapshot.Table) bool { return x.Name == "_t_gho" }) || len(tables) < 2 {
			t.Errorf("%v, %v", tables, err)
		}
	})
}

// Who archives a table may use the tools' names: then its rows are gone, and subscribers hear of that.
func TestArchives(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		r := events(t, db, Config{},
			"create table t (id int primary key)", "insert into t values (1)",
			"rename table t to _t_old", "create table t (id int primary key)", "insert into t values (2)",
			"drop table _t_old", "create table _t_new like t", "rename table t to _t_old, _t_new to t", "insert into t values (3)",
			"drop table _t_old", "alter table t rename to _t_old", "create table t like _t_old", "insert into t values (4)",
			"create table _t_del like t", "drop table _t_del", "create table _t_gho like t", "insert into _t_gho values (9)",
			"drop table _t_gho", "create table _t_gho like t", "rename table t to _t_del, _t_gho to t")
		expect(t, r, db.Name,
			"insert t - -> id=1",
			"schema t ()", "schema t (id)", "insert t - -> id=2",
			"schema t ()", "schema t (id) rewrites", "insert t - -> id=3",
			"schema t ()", "schema t (id)", "insert t - -> id=4",
			"schema t ()")
		expectNotices(t, r, db.Name, "3 renamed t", "3 renamed t")
	})
}

// The tools' tables need not be among those that are read, and gh-ost signs its swap also where there are no rows.
func TestSwapsOfTools(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		r := events(t, db, Config{Tables: []string{db.Name + ".t", db.Name + ".e", db.Name + ".marker"}},
			"create table t (id int primary key)", "insert into t values (1)",
			"create table _t_new like t", "alter table _t_new add column x int", "insert into _t_new (id) select id from t",
			"rename table t to _t_old, _t_new to t", "drop table _t_old", "insert into t values (2,2)",
			"create table e (id int primary key)", "insert into e values (1)", "delete from e",
			"create /* gh-ost */ table _e_gho like e", "alter /* gh-ost */ table _e_gho add column x int",
			"rename /* gh-ost */ table e to _e_del, _e_gho to e", "insert into e values (3,3)")
		expect(t, r, db.Name,
			"insert t - -> id=1", "schema t (id,x)", "insert t - -> id=2 x=2",
			"insert e - -> id=1", "delete e id=1 -> -", "schema e (id,x)", "insert e - -> id=3 x=3")
		expectNotices(t, r, db.Name)
	})
}

func TestImagesWithAbsentColumns(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		c := login(t, base(db.URL), db.Name)
		c.do("create table m (id int primary key, a int, b text, c varchar(5))")
		r := events(t, db, Config{},
			"set session binlog_row_image=minimal",
			"insert into m (id,a,b,c) values (1,2,'t','u'),(2,3,null,'w')",
			"update m set a=9 where id=1",
			"delete from m where id=2",
			"set session binlog_row_image=noblob",
			"update m set a=10 where id=1",
			"set session binlog_row_image=full",
			"update m set c=null where id=1")
		expect(t, r, db.Name,
			"insert m - -> id=1 a=2 b=t c=u",
			"insert m - -> id=2 a=3 b=NULL c=w",
			"update m id=1 a=~ b=~ c=~ -> id=~ a=9 b=~ c=~",
			"delete m id=2 a=~ b=~ c=~ -> -",
			"update m id=1 a=9 b=~ c=u -> id=1 a=10 b=~ c=u",
			"update m id=1 a=10 b=t c=u -> id=1 a=10 b=t c=NULL")
	})
}

func TestPartialJSON(t *testing.T) {
	t.Parallel()
	db := servertest.MySQL(t, servers.MySQLOptions{})
	r := events(t, db, Config{},
		"create table j (id int primary key, doc json, other int)",
		`insert into j values (1, '{"a": 1, "b": [1, 2, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"], "c": "cccccccccccccccccccccccccccc"}', 1)`,
		"set session binlog_row_value_options='PARTIAL_JSON'",
		`update j set doc = json_set(doc, '$.a', 12)`,
		"update j set other = 2",
		"set session binlog_row_image=minimal",
		`update j set doc = json_set(doc, '$.a', 13)`)
	got := r.texts()
	if len(got) != 3 || !strings.Contains(got[1], `-> id=1 doc={"a": 12, "b": [1, 2, "aaa`) || !strings.HasSuffix(got[2], "other=2") {
		t.Fatalf("got\n%s", strings.Join(got, "\n"))
	}
	expectNotices(t, r, db.Name, "1 partial_json j")
}

func TestXA(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		xid := "'" + db.Name + "'"
		r := events(t, db, Config{BatchEvents: 2},
			"create table x (id int primary key)", "create table y (id int primary key)",
			"insert into x values (1)",
			"xa start "+xid, "insert into x values (2)", "xa end "+xid, "xa commit "+xid+" one phase",
			"xa start "+xid, "insert into x values (3),(4),(5),(6),(7)", "xa end "+xid, "xa prepare "+xid, "xa commit "+xid,
			"insert into x values (9)", "insert into y values (1)")
		expect(t, r, db.Name, "insert x - -> id=1", "insert x - -> id=2", "insert x - -> id=3", "insert x - -> id=4", "insert x - -> id=5",
			"insert x - -> id=6", "insert x - -> id=7", "insert x - -> id=9", "insert y - -> id=1")
		expectNotices(t, r, db.Name)
	})
}

// Who accepts that the position was lost gives up what was prepared: the log drops it, and its commit is told as a gap.
func TestAnAcceptedPositionGivesUpWhatIsPrepared(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		raw, xid := base(db.URL), "'"+db.Name+"-1'"
		c := login(t, raw, db.Name)
		c.do("create table x (id int primary key)")
		from := now(t, raw)
		other := login(t, raw, db.Name)
		other.do("xa start "+xid, "insert into x values (1)", "xa end "+xid, "xa prepare "+xid)
		_ = other.c.Close() // who prepared it is gone: anybody may end it
		s := source(t, Config{URL: raw, Tables: []string{db.Name + ".*"}})
		// read hands what a stream brings to look, until that has seen enough.
		read := func(after pipeline.Position, look func(*pipeline.Batch) bool) {
			t.Helper()
			ctx := within(t)
			st, err := s.Open(ctx, after)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = st.Close() }()
			for enough := false; !enough; {
				b, err := st.Next(ctx)
				if err != nil {
					t.Fatal(err)
				}
				enough = look(b)
				b.Release()
			}
		}
		var open string
		var end pipeline.Position
		read(from, func(b *pipeline.Batch) bool {
			if b.Kind == pipeline.BatchPrepared {
				open, end = b.Open, b.End
			}
			return open != ""
		})
		dropped, anew := "", pipeline.Position{}
		read(end.Anew(), func(b *pipeline.Batch) bool {
			if b.Kind == pipeline.BatchAbort {
				dropped = b.Open
			}
			anew = b.End
			return !anew.Zero()
		})
		if dropped != open || strings.Contains(anew.Token, xaMark) {
			t.Fatalf("dropped %q, prepared is %q; the position is %q", dropped, open, anew.Token)
		}
		c.finish("commit", db.Name, -1)
		read(anew, func(b *pipeline.Batch) bool {
			if len(b.Events) > 0 || b.Kind == pipeline.BatchCommit {
				t.Fatalf("%+v", b)
			}
			return len(b.Notices) == 1 && b.Notices[0].Code == codeXA
		})
	})
}

func TestStatementFormat(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		r := events(t, db, Config{},
			"create table s (id int primary key)", "create table k (id int primary key)", "create table o (id int primary key)",
			"insert into s values (1)",
			"set session binlog_format=statement",
			"create temporary table tmp (id int)", "insert into tmp values (1)",
			"insert into s values (2)", "update /*!50000 low_priority */ k, `s` set k.id=3 where k.id=s.id+100",
			"drop temporary table tmp",
			"set session binlog_format=row",
			"insert into s values (4)", "insert into o values (5)")
		expect(t, r, db.Name, "insert s - -> id=1", "insert o - -> id=5")
		expectNotices(t, r, db.Name, "1 statement s", "1 statement k")
	})
}

func TestEngineWithoutTransactions(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		r := events(t, db, Config{},
			"create table i (id int primary key) engine=MyISAM",
			"insert into i values (1),(2)", "update i set id=3 where id=1", "begin", "delete from i where id=2", "rollback")
		expect(t, r, db.Name, "insert i - -> id=1", "insert i - -> id=2", "update i id=1 -> id=3", "delete i id=2 -> -")
		expectNotices(t, r, db.Name)
	})
}

// Columns that are left out never enter a batch, not even as bytes.
func TestColumnsLeftOut(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		raw := base(db.URL)
		c := login(t, raw, db.Name)
		from := now(t, raw)
		c.do("create table p (id int primary key, a varchar(20), password varchar(50), b text, Pin int)",
			"insert into p values (1,'a1','SECRET1','b1',null),(2,null,null,null,7)", "update p set a='a3', password='SECRET2' where id=1",
			"set session binlog_row_image=minimal", "update p set password='SECRET3' where id=2", "update p set b='b9', pin=5 where id=1", "delete from p where id=2")
		s := source(t, Config{URL: raw, Tables: []string{db.Name + ".p"}, Columns: map[string][]string{db.Name + ".*": {"!PASSWORD", "!pin"}}})
		r := newReading(t)
		ctx := within(t)
		st, err := s.Open(ctx, from)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = st.Close() }()
		for !r.has("delete") {
			b, err := st.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(b.Arena[:cap(b.Arena)], []byte("SECRET")) {
				t.Fatal("a left out value is in the batch")
			}
			r.take(b)
		}
		expect(t, r, db.Name,
			"insert p - -> id=1 a=a1 password=~ b=b1 Pin=~",
			"insert p - -> id=2 a=NULL password=~ b=NULL Pin=~",
			"update p id=1 a=a1 password=~ b=b1 Pin=~ -> id=1 a=a3 password=~ b=b1 Pin=~",
			"update p id=2 a=~ password=~ b=~ Pin=~ -> id=~ a=~ password=~ b=~ Pin=~",
			"update p id=1 a=~ password=~ b=~ Pin=~ -> id=~ a=~ password=~ b=b9 Pin=~",
			"delete p id=2 a=~ password=~ b=~ Pin=~ -> -")
	})
}

// Without names in the binlog a table is read when the catalogue proves to be of the rows' version, and
// quarantined when a statement came between, until the rows behind it.
func TestWithoutMetadata(t *testing.T) {
	t.Parallel()
	value := map[string]string{"binlog-row-metadata": "MINIMAL"}
	flavors(t, servers.MySQLOptions{Params: value}, func(t *testing.T, db *servertest.Database) {
		r := events(t, db, Config{},
			"create table g (id int primary key, e enum('ä','b') character set latin1, s varchar(9) character set latin1, u int unsigned)",
			"insert into g values (1,'ä','ö',4000000000)",
			"create table h (id int primary key)", "insert into h values (1)", "alter table h add column v int", "insert into h (id) values (2)")
		expect(t, r, db.Name, "insert g - -> id=1 e=ä s=ö u=4000000000", "insert h - -> id=2 v=NULL")
		expectNotices(t, r, db.Name, "1 metadata h", "2 metadata h", "3 metadata h")
	})
}

// MariaDB's types that look like bytes in the binlog are what the catalogue declares, as long as no
// statement about them came between.
func TestDeclaredTypes(t *testing.T) {
	t.Parallel()
	db := servertest.MariaDB(t, servers.MySQLOptions{})
	r := events(t, db, Config{},
		"create table d (id int primary key, u uuid, i inet6, b binary(3))",
		"insert into d values (1,'123e4567-e89b-12d3-a456-426614174000','::1','abc')",
		"alter table d add column x int",
		"insert into d (id) values (2)",
		"create table f (id int primary key, u uuid)", "insert into f values (1,null)", "alter table f modify u binary(16)", "insert into f values (2,null)")
	expect(t, r, db.Name,
		"insert d - -> id=1 u=123e4567-e89b-12d3-a456-426614174000 i=::1 b=abc",
		"schema d (id,u,i,b,x)",
		"insert d - -> id=2 u=NULL i=NULL b=NULL x=NULL",
		"insert f - -> id=2 u=NULL")
	expectNotices(t, r, db.Name, "1 metadata f", "2 metadata f", "3 metadata f")
}

// A change that fell between two streams is told by the second, which knows what the log has.
func TestChangeBetweenStreams(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		raw := base(db.URL)
		c := login(t, raw, db.Name)
		c.do("create table z (id int primary key)")
		r := newReading(t)
		r.end = now(t, raw)
		c.do("insert into z values (1)")
		cfg := Config{URL: raw, Tables: []string{db.Name + ".*"}}
		r.follow(source(t, cfg), "id=1")
		c.do("alter table z add column y int")
		r.end = now(t, raw)
		c.do("insert into z values (2,3)")
		cfg.Known = func() []*schemas.Table {
			return []*schemas.Table{{ID: 7, Version: 1, Schema: db.Name, Name: "z", Wire: schemas.WireBinlog, Identity: []int{0}, Routing: []int{0}, KeySpace: "k",
				Columns: r.tables[db.Name+".z"].Columns}}
		}
		r.follow(source(t, cfg), "id=2")
		expect(t, r, db.Name, "insert z - -> id=1", "schema z (id,y) rewrites", "insert z - -> id=2 y=3")
	})
}
