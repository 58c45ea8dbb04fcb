package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/rough"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
)

// Each committed row comes exactly once and in order, however often the connection is cut, with positions that
// were handed out and confirmed at random.
func TestResumeUnderCuts(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, d *db) {
		d.through(func(_, _ int) rough.Trouble { return rough.Trouble{Reset: 20_000 + rand.Int64N(60_000)} }, 5, 0)
	})
}

// The same when connections also stand without a word, or are slow: those that do are found dead, and the slot is
// had again when the server has found so too.
func TestResumeUnderStalls(t *testing.T) {
	t.Parallel()
	d := &db{Database: servertest.Postgres(t, servers.PostgresOptions{Params: map[string]string{"wal_sender_timeout": "1s"}}), t: t}
	d.conn = d.connect()
	d.through(func(_, stalled int) rough.Trouble {
		tr := rough.Trouble{Delay: time.Duration(rand.IntN(2)) * time.Millisecond, Reset: 60_000 + rand.Int64N(60_000)}
		if stalled < 3 && rand.IntN(2) == 0 {
			tr.Reset, tr.Stall = 0, tr.Reset
		}
		return tr
	}, 1, 1)
}

// through reads what is being written through a network that makes trouble (for its nth connection, after so many
// stalls), and wants each row once, in order, and so many resets and stalls at least.
func (d *db) through(trouble func(n, stalled int) rough.Trouble, resets, stalls int) {
	t := d.t
	d.exec(`create table f (id int primary key, v text)`)
	u, err := url.Parse(d.URL)
	if err != nil {
		t.Fatal(err)
	}
	var known atomic.Pointer[rough.Proxy]
	proxy := rough.New(t, u.Host, func(n int) rough.Trouble {
		stalled := 0
		if p := known.Load(); p != nil { // connections that end before their stall do not count
			_, _, stalled = p.Counts()
		}
		return trouble(n, stalled)
	})
	known.Store(proxy)
	u.Host = proxy.Addr
	s := d.source(func(c *Config) { c.URL, c.BatchBytes, c.Silence = u.String(), 1000, 700*time.Millisecond })
	const rows = 8000
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	writer := make(chan error, 1)
	started := make(chan struct{})
	conn := d.connect()
	go func() {
		<-started
		n := 0
		for n < rows {
			size := 1 + rand.IntN(60)
			q := fmt.Sprintf(`insert into f select n, repeat('x', 10 + n %% 50) from generate_series(%d, %d) n`, n, min(n+size, rows)-1)
			if _, err := conn.Exec(ctx, q); err != nil {
				writer <- err
				return
			}
			n += size
		}
		writer <- nil
	}()
	after, lines := pipeline.Position{}, []string(nil)
	var once sync.Once
	for len(lines) < rows {
		st, err := s.Open(ctx, after)
		var se *pipeline.SourceError
		if errors.As(err, &se) && se.Class == pipeline.Transient {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		open := map[string][]string{}
		for len(lines) < rows {
			b, err := st.Next(ctx)
			if errors.As(err, &se) && se.Class == pipeline.Transient {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			switch got := linesOf(t, b); b.Kind {
			case pipeline.BatchRows:
				lines = append(lines, got...)
			case pipeline.BatchChunk:
				open[b.Open] = append(open[b.Open], got...)
			case pipeline.BatchCommit:
				lines = append(lines, open[b.Open]...)
			}
			if !b.End.Zero() {
				after = b.End
				once.Do(func() { close(started) })
				if rand.IntN(3) > 0 {
					st.Confirm(after)
				}
			}
			b.Release()
		}
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-writer; err != nil {
		t.Fatal(err)
	}
	for i, l := range lines {
		if !strings.HasPrefix(l, fmt.Sprintf("insert public.f - {id=%d ", i)) {
			t.Fatalf("line %d of %d is %q", i, len(lines), l)
		}
	}
	if _, r, s := proxy.Counts(); len(lines) != rows || r < resets || s < stalls {
		t.Errorf("%d rows, %d resets, %d stalls", len(lines), r, s)
	}
}

// An idle or filtered-out stream moves the slot, but only after our own record of it is confirmed.
func TestIdleAdvances(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, d *db) {
		d.exec(`create table f (id int primary key)`, `create table other (id int primary key)`)
		r := d.open(d.source(func(c *Config) { c.Tables = []string{"public.f"} }), pipeline.Position{})
		r.until(func() bool { return !r.last.Zero() })
		confirmed := func() string {
			return d.text(`select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1`, d.Name)
		}
		before := confirmed()
		d.exec(`insert into other select generate_series(1, 1000)`)
		target := d.text(`select pg_current_wal_lsn()::text`)
		lsn := func(s string) uint64 { return uint64(lsnOf(s)) }
		r.until(func() bool { return lsnOf(r.last.Token) >= lsnOf(target) })
		// Nor does a database that is idle as a whole hold the slot, while another one of the server writes.
		if err := d.Server.Exec(t.Context(), `select pg_logical_emit_message(true, 'leat test', repeat('x', 1000000))`); err != nil {
			t.Fatal(err)
		}
		target = d.text(`select pg_current_wal_lsn()::text`)
		r.until(func() bool { return lsnOf(r.last.Token) >= lsnOf(target) })
		if now := confirmed(); now != before {
			t.Errorf("the slot moved from %s to %s before anything was confirmed", before, now)
		}
		r.stream.Confirm(r.last)
		d.eventually("the slot stays behind "+target, func() bool { return lsn(confirmed()) >= lsn(target) })
	})
}

// Without its connection for the catalogue a stream ends rather than going on without new tables.
func TestCatalogueLost(t *testing.T) {
	t.Parallel()
	d := newDB(t, 18)
	d.exec(`create table f (id int primary key)`)
	r := d.open(d.source(), pipeline.Position{})
	r.until(func() bool { return !r.last.Zero() })
	d.exec(`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'leat files' and backend_type = 'client backend'`)
	var err error
	for err == nil {
		err = r.next()
	}
	var se *pipeline.SourceError
	if !errors.As(err, &se) || se.Class != pipeline.Transient {
		t.Errorf("%v", err)
	}
}
