package app

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	_ "github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// fill writes about 300 KB in one transaction of 50 rows, from an id on.
func (db *pg) fill(t *testing.T, id int) {
	t.Helper()
	db.exec(t, fmt.Sprintf("INSERT INTO files SELECT %d + i, (SELECT string_agg(md5((i*j)::text||random()::text), '') FROM generate_series(1,200) j) FROM generate_series(0,49) i", id))
}

// TestALaggardIsAnnouncedThenExpired: a subscription that stands still is told to be behind, then at risk, before
// retention passes it; what was left out is listed, and it goes on behind that.
func TestALaggardIsAnnouncedThenExpired(t *testing.T) {
	t.Parallel()
	db, h, slow, dir := newPG(t), newHook(t), newHook(t), t.TempDir()
	yaml := strings.Replace(db.yaml("well: {source: files, deliver: {"+toHook(h)+"}}", "slow: {source: files, laggard: hold, deliver: {"+toHook(slow)+"}}"),
		"sources:", "log: {retention: {age: 1h, size: 16MiB}}\nsources:", 1)
	in := install(t, dir, yaml)
	in.streaming(t, "files")
	if _, err := in.admin.Pause(t.Context(), connect.NewRequest(&leatv1.PauseRequest{Subscription: "slow", Reason: "index rebuild"})); err != nil {
		t.Fatal(err)
	}
	stage := func() *leatv1.Laggard { return in.subscription(t, "slow").Laggard }
	risk, rows := &leatv1.Laggard{}, 0
	look := time.NewTicker(100 * time.Millisecond) // the server looks once a second
	defer look.Stop()
	for l := stage(); l.GetStage() != "expired"; l = stage() {
		if l.GetStage() == "at risk" {
			risk = l
		}
		db.fill(t, rows)
		db.fill(t, rows+50)
		rows += 100
		h.waits(t, rows)
		<-look.C
	}
	if risk.GetTimeToLoss() == nil || risk.Policy != "hold" || !strings.Contains(risk.Why, "until retention removes") {
		t.Errorf("not announced before it was lost: %v", risk)
	}
	lines := in.log.String()
	announced, expired := strings.Index(lines, "subscription is at risk"), strings.Index(lines, "subscription is expired")
	if announced < 0 || expired < announced {
		t.Error("expired without an announcement before")
	}
	if st := in.subscription(t, "well"); st.Laggard.GetStage() != "live" {
		t.Errorf("the other one: %v", st.Laggard)
	}
	skipped := func() []*leatv1.Skipped {
		r, err := in.admin.Parked(t.Context(), connect.NewRequest(&leatv1.ParkedRequest{Subscription: "slow"}))
		if err != nil {
			t.Fatal(err)
		}
		return r.Msg.Skipped
	}
	oldest := in.source(t, "files").Oldest
	if lost := skipped(); len(lost) != 1 || lost[0].To != oldest || !strings.Contains(lost[0].Reason, "has not come to it yet") {
		t.Errorf("while it stands still is listed %v, the log begins at %d", lost, oldest)
	}
	if _, err := in.admin.Resume(t.Context(), connect.NewRequest(&leatv1.ResumeRequest{Subscription: "slow"})); err != nil {
		t.Fatal(err)
	}
	var listed []*leatv1.Skipped
	until(t, "what was left out to be listed", func() bool {
		listed = skipped()
		return len(listed) > 0 && listed[0].Time != nil
	})
	n := listed[0].To - listed[0].From
	if n == 0 || listed[0].To != oldest || !strings.Contains(listed[0].Reason, "retention") || stage().ExpiredEvents != n {
		t.Errorf("listed %v, the log begins at %d: %v", listed, oldest, stage())
	}
	if got := slow.waits(t, rows-int(n)); len(got) != rows-int(n) {
		t.Errorf("%d events, want %d", len(got), rows-int(n))
	}
}

// TestAFullDisk: 90 % keeps the log from growing, 95 % stops reading, each named in status and ended with room; a
// lower retention is obeyed at once.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	db, h, dir := newPG(t), newHook(t), t.TempDir()
	yaml := strings.Replace(db.yaml("a: {source: files, deliver: {"+toHook(h)+"}}"), "sources:", "log: {retention: {age: 1h, size: 64MiB}}\nsources:", 1)
	var free atomic.Uint64
	free.Store(50)
	in := install(t, dir, yaml, func(o *Options) {
		o.Space = func(string) (uint64, uint64, error) { return free.Load(), 100, nil }
	})
	in.streaming(t, "files")
	is := func(stage string) {
		t.Helper()
		until(t, "the disk's stage to be "+stage, func() bool { return in.source(t, "files").Disk == stage })
	}
	rows := 0
	more := func(n int) {
		for range n {
			db.fill(t, rows)
			rows += 50
		}
		h.waits(t, rows)
	}
	more(80)
	free.Store(19)
	is("replays")
	free.Store(9)
	is("laggards")
	bound := in.source(t, "files").LogBytes
	for rows <= 6500 || in.source(t, "files").LogBytes > bound+8<<20 {
		if more(3); rows > 16000 {
			t.Fatal("it grew")
		}
	}
	free.Store(4)
	is("reading")
	until(t, "the source not to be read, and why", func() bool {
		p := in.source(t, "files").Pressure
		return p.Reading == 0 && strings.Contains(p.Why, "95 %")
	})
	free.Store(6) // hysteresis
	db.exec(t, "INSERT INTO files VALUES (10000000)")
	until(t, "a warning", func() bool { return strings.Contains(in.log.String(), "full to 90 %") })
	if in.source(t, "files").Disk != "reading" {
		t.Error("no hysteresis")
	}
	free.Store(50)
	is("")
	rows++
	h.waits(t, rows)
	for in.source(t, "files").LogBytes <= 32<<20 {
		more(10)
	}
	in.apply(t, strings.Replace(yaml, "64MiB}", "16MiB}", 1))
	until(t, "the lower retention to be obeyed", func() bool { return in.source(t, "files").LogBytes <= 24<<20 })
}

// TestAnIdleTransactionIsLeftToTheServer: one that holds more of the log than half of its bound, and does not end, is
// given up and read at its commit; the log keeps to its bound, and others go on meanwhile.
func TestAnIdleTransactionIsLeftToTheServer(t *testing.T) {
	t.Parallel()
	db, h, dir := newPGWith(t, servers.PostgresOptions{Params: map[string]string{"logical_decoding_work_mem": "64kB"}}), newHook(t), t.TempDir()
	in := install(t, dir, strings.Replace(db.yaml("a: {source: files, deliver: {"+toHook(h)+"}}"), "sources:", "log: {retention: {age: 1h, size: 16MiB}}\nsources:", 1))
	in.streaming(t, "files")
	idle := &pg{Database: db.Database}
	var err error
	if idle.conn, err = pgx.Connect(t.Context(), db.URL); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = idle.conn.Close(context.Background()) }() // the server ends what is open
	idle.exec(t, "BEGIN")
	large := 0
	for ; large < 40*50; large += 50 {
		idle.fill(t, 1_000_000+large)
	}
	until(t, "it to be read while it runs", func() bool {
		o := in.source(t, "files").Open
		return o.GetRunningBytes() > 8<<20 && o.BoundBytes == 8<<20
	})
	rows := 0
	for ; !strings.Contains(in.log.String(), "opened again without running transactions"); rows += 50 {
		if rows > 20_000 {
			t.Fatalf("the log takes %d MiB: %v", in.source(t, "files").LogBytes>>20, in.source(t, "files").Open)
		}
		db.fill(t, rows)
		h.waits(t, rows+50)
	}
	for more := rows + 1000; rows < more; rows += 50 {
		db.fill(t, rows)
		h.waits(t, rows+50)
	}
	until(t, "the log to keep to its bound", func() bool {
		s := in.source(t, "files")
		return s.LogBytes <= 24<<20 && s.Open == nil
	})
	idle.exec(t, "COMMIT")
	h.waits(t, rows+large)
}

// TestAForgottenXALetsTheLogShrink: what was prepared outlives what retention takes and a restart, and comes at its
// commit; status names what it holds.
func TestAForgottenXALetsTheLogShrink(t *testing.T) {
	t.Parallel()
	db, h, dir := servertest.MariaDB(t, servers.MySQLOptions{}), newHook(t), t.TempDir()
	at, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := sql.Open("mysql", fmt.Sprintf("%s@tcp(%s)%s", at.User.Username(), at.Host, at.Path))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	conn.SetMaxOpenConns(1) // XA belongs to its session
	conn.SetMaxIdleConns(1)
	do := func(q string) {
		t.Helper()
		if _, err := conn.ExecContext(t.Context(), q); err != nil {
			t.Fatalf("%.40s: %v", q, err)
		}
	}
	fill := func(from int) { // 50 rows of 6 kB
		q := make([]byte, 3000)
		for i := range q {
			q[i] = byte(i * (from + 1))
		}
		var all []string
		for i := range 50 {
			all = append(all, fmt.Sprintf("(%d, '%x')", from+i, q))
		}
		do("insert into files values " + strings.Join(all, ","))
	}
	do("create table files (id bigint primary key, name mediumtext)")
	yaml := top + "log: {retention: {age: 1h, size: 16MiB}}\nsources:\n  files:\n    mysql: {url: '" + db.URL + "'}\n    tables: ['" + db.Name + ".*']\n    start: now\nsubscriptions:\n  a: {source: files, deliver: {" + toHook(h) + "}}\n"
	in := install(t, dir, yaml)
	in.streaming(t, "files")
	xa, large := "'"+db.Name+"'", 0
	do("xa start " + xa)
	for ; large < 500; large += 50 {
		fill(1_000_000 + large)
	}
	do("xa end " + xa)
	do("xa prepare " + xa)
	ended := false
	defer func() {
		if !ended { // its locks would outlive the test
			_, _ = conn.ExecContext(context.Background(), "xa rollback "+xa)
		}
	}()
	conn.SetMaxIdleConns(-1) // others than this session go on
	until(t, "it to be prepared", func() bool { return in.source(t, "files").Open.GetPreparedBytes() > 1<<20 })
	rows := 0
	more := func(n int) {
		for end := rows + n; rows < end; rows += 50 {
			fill(rows)
			h.waits(t, rows+50)
		}
	}
	for oldest := in.source(t, "files").Oldest; in.source(t, "files").Oldest < oldest+1000; more(500) {
		if rows > 30_000 {
			t.Fatalf("retention takes nothing: %v", in.source(t, "files"))
		}
	}
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	in = install(t, dir, yaml)
	in.streaming(t, "files")
	more(2500)
	until(t, "the log to keep to its bound", func() bool { return in.source(t, "files").LogBytes <= 24<<20 })
	do("xa commit " + xa)
	ended = true
	h.waits(t, rows+large)
	until(t, "nothing to be open", func() bool { return in.source(t, "files").Open == nil })
}
