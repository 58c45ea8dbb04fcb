package postgres

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers/rough"
	"github.com/leat-cdc/leat/pipeline"
)

// wantTransient: what a silent network does is tried again, and said.
func wantTransient(t *testing.T, err error, codes ...string) {
	t.Helper()
	var se *pipeline.SourceError
	if !errors.As(err, &se) || se.Class != pipeline.Transient {
		t.Fatalf("%v", err)
	}
	for _, c := range codes {
		if se.Code == c {
			return
		}
	}
	t.Errorf("code %s, want one of %q: %v", se.Code, codes, err)
}

// Wherever a connection goes silent while a stream begins, Open ends; and what the catalogue's connection is asked
// later, too: the stream ends with it.
func TestSilentLookups(t *testing.T) {
	t.Parallel()
	d := newDB(t, 18)
	d.exec(`create table f (id int primary key)`)
	u, err := url.Parse(d.URL)
	if err != nil {
		t.Fatal(err)
	}
	for which := range 2 { // the catalogue's connection, the stream's
		opened := false
		for stall := int64(300); !opened && stall < 1<<22; stall *= 3 {
			proxy := rough.New(t, u.Host, func(n int) rough.Trouble {
				if n == which {
					return rough.Trouble{Stall: stall}
				}
				return rough.Trouble{}
			})
			to := *u
			to.Host = proxy.Addr
			to.RawQuery += "&connect_timeout=1"
			s := d.source(func(c *Config) {
				c.URL, c.LookupTimeout, c.Silence = to.String(), 250*time.Millisecond, 700*time.Millisecond
			})
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			st, err := s.Open(ctx, pipeline.Position{})
			if err != nil {
				wantTransient(t, err, CodeNoAnswer, CodeUnreachable, CodeSlotActive)
			} else {
				opened = true
				for err == nil && which == 0 {
					var b *pipeline.Batch
					if b, err = st.Next(ctx); err == nil {
						b.Release()
					}
				}
				if which == 0 {
					wantTransient(t, err, CodeNoAnswer, CodeConnectionLost)
				}
				if err := st.Close(); err != nil {
					t.Fatal(err)
				}
			}
			cancel()
		}
		if !opened {
			t.Errorf("connection %d: it never opened", which)
		}
	}
}

// A new slot waits for every transaction that runs, however long that takes, and ends when its backend is gone.
func TestANewSlotMayWait(t *testing.T) {
	t.Parallel()
	d := newDB(t, 18)
	d.exec(`create table f (id int primary key)`)
	other := d.connect()
	s := d.source(func(c *Config) { c.LookupTimeout = 5 * time.Second })
	for _, end := range []string{"select pg_terminate_backend(pid)", ""} {
		if _, err := other.Exec(t.Context(), "begin; insert into f values (1)"); err != nil {
			t.Fatal(err)
		}
		opened := make(chan error, 1)
		go func() {
			st, err := s.Open(t.Context(), pipeline.Position{})
			if err == nil {
				err = st.Close()
			}
			opened <- err
		}()
		const waiting = " from pg_stat_activity where backend_type = 'walsender' and query like 'CREATE_REPLICATION_SLOT%' and wait_event_type = 'Lock' and datname = current_database()"
		d.eventually("nobody makes a slot", func() bool {
			select {
			case err := <-opened:
				t.Fatalf("it did not wait: %v", err)
			default:
			}
			return d.text("select count(*)::text"+waiting) == "1"
		})
		if end != "" {
			d.exec(end + waiting)
			wantTransient(t, <-opened, CodeUnreachable, CodeConnectionLost)
		} else {
			asked := func() string { // by the catalogue's connection, whether the slot's is alive
				return d.text("select max(query_start)::text from pg_stat_activity where query like '%where pid = $1%' and datname = current_database() and pid <> pg_backend_pid()")
			}
			first := asked()
			d.eventually("it is not asked about", func() bool { return asked() > first })
		}
		if _, err := other.Exec(t.Context(), "rollback"); err != nil {
			t.Fatal(err)
		}
		if end == "" {
			if err := <-opened; err != nil {
				t.Error(err)
			}
		}
	}
}

// A table that somebody holds a lock on does not keep the others: it joins when it can.
func TestALockedTableJoinsLater(t *testing.T) {
	t.Parallel()
	d := newDB(t, 18)
	d.exec(`create table f (id int primary key)`, `create table g (id int primary key)`)
	only := func(tables ...string) *Source {
		return d.source(func(c *Config) { c.Tables, c.LookupTimeout = tables, 3*time.Second })
	}
	r := d.open(only("public.f"), pipeline.Position{})
	r.until(func() bool { return !r.last.Zero() })
	if err := r.stream.Close(); err != nil {
		t.Fatal(err)
	}
	d.free()
	other := d.connect()
	if _, err := other.Exec(t.Context(), "begin; lock table g in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	r = d.open(only("public.f", "public.g"), r.last)
	d.exec(`insert into f values (1)`)
	r.want("insert public.f - {id=1}")
	if _, err := other.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	d.eventually("g does not join", func() bool {
		return strings.Contains(d.text(`select string_agg(tablename, ',') from pg_publication_tables where pubname = 'leat_files'`), "g")
	})
	d.exec(`insert into g values (2)`)
	r.want("insert public.g - {id=2}")
}
