package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// cutter is a TCP proxy that cuts each connection after a random number of the server's bytes, within a
// message as well as between two.
type cutter struct {
	cuts     atomic.Int32
	listener net.Listener
	target   string
	mu       sync.Mutex
	conns    map[net.Conn]bool
	wg       sync.WaitGroup
}

func newCutter(t *testing.T, target string) *cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{listener: l, target: target, conns: map[net.Conn]bool{}}
	c.wg.Go(func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", target)
			if err != nil {
				_ = a.Close()
				continue
			}
			c.mu.Lock()
			c.conns[a], c.conns[b] = true, true
			c.mu.Unlock()
			c.wg.Go(func() { c.pipe(a, b, 20_000+rand.Int64N(60_000)) })
			c.wg.Go(func() { c.pipe(b, a, 1<<62) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); c.cut(); c.wg.Wait() })
	return c
}

func (c *cutter) pipe(a, b net.Conn, limit int64) {
	if n, _ := io.CopyN(a, b, limit); n == limit {
		c.cuts.Add(1)
	}
	_, _ = a.Close(), b.Close()
	c.mu.Lock()
	delete(c.conns, a)
	delete(c.conns, b)
	c.mu.Unlock()
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		_ = conn.Close()
	}
}

// Each committed row comes exactly once and in order, however often the connection is cut, with positions that
// were handed out and confirmed at random.
func TestResumeUnderCuts(t *testing.T) {
	eachVersion(t, func(t *testing.T, d *db) {
		d.exec(`create table f (id int primary key, v text)`)
		u, err := url.Parse(d.URL)
		if err != nil {
			t.Fatal(err)
		}
		proxy := newCutter(t, u.Host)
		u.Host = proxy.listener.Addr().String()
		s := d.source(func(c *Config) { c.URL, c.BatchBytes = u.String(), 1000 })
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
		if n := proxy.cuts.Load(); len(lines) != rows || n < 5 {
			t.Errorf("%d rows, %d cuts", len(lines), n)
		}
	})
}

// An idle or filtered-out stream moves the slot, but only after our own record of it is confirmed.
func TestIdleAdvances(t *testing.T) {
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
		if now := confirmed(); now != before {
			t.Errorf("the slot moved from %s to %s before anything was confirmed", before, now)
		}
		r.stream.Confirm(r.last)
		for end := time.Now().Add(patience); lsn(confirmed()) < lsn(target); {
			if time.Now().After(end) {
				t.Fatalf("the slot stays at %s, want %s", confirmed(), target)
			}
		}
	})
}

// Without its connection for the catalogue a stream ends rather than going on without new tables.
func TestCatalogueLost(t *testing.T) {
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
