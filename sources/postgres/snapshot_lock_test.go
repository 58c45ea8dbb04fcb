package postgres

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// What ALTER TABLE rewrites while a read waits for its lock is not read as empty; and nobody's lock holds a read for long.
func TestSnapshotLocked(t *testing.T) {
	eachVersion(t, func(t *testing.T, d *db) {
		for name, key := range map[string][]string{"keyed": {"id"}, "loose": nil} {
			d.exec(`create table `+name+` (id int, v int)`, `insert into `+name+` select n, n from generate_series(1, 100) n`)
			if key != nil {
				d.exec(`alter table ` + name + ` add primary key (id)`)
			}
			reader, err := Plain("files", d.URL)
			if err != nil {
				t.Fatal(err)
			}
			session := func() snapshot.Session {
				s, err := reader.Session(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = s.Close() })
				return s
			}
			var c snapshot.Chunk
			q := snapshot.Query{Table: snapshot.Table{Schema: "public", Name: name, Key: key}, Limit: 1000}
			s := session()
			if err := s.Read(t.Context(), q, &c); err != nil || len(c.Rows) != 100 {
				t.Fatalf("%s: %d rows: %v", name, len(c.Rows), err)
			}
			waits := func() bool {
				return d.text(`select count(*)::text from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`) == "1"
			}
			read := func(s snapshot.Session) chan error {
				done := make(chan error, 1)
				c.Reset()
				go func() { done <- s.Read(t.Context(), q, &c) }()
				return done
			}
			d.exec(`begin`, `alter table `+name+` alter v type bigint`)
			done := read(s)
			d.eventually("the read waits", func() bool { return waits() || len(done) > 0 })
			d.exec(`commit`)
			if err = <-done; err != nil { // this machine was slow: it is tried again
				s = session()
				err = <-read(s)
			}
			if err != nil || len(c.Rows) != 100 || c.More {
				t.Errorf("%s: behind ALTER TABLE %d rows: %v", name, len(c.Rows), err)
			}
			d.exec(`begin`, `lock table `+name+` in access exclusive mode`)
			select {
			case err := <-read(s):
				var se *pipeline.SourceError
				if !errors.As(err, &se) || se.Class != pipeline.Transient {
					t.Errorf("%s: a read of a table that is locked: %v", name, err)
				}
				t.Log(err)
			case <-time.After(time.Minute):
				t.Error(fmt.Sprintf("%s: somebody's lock holds the read", name))
			}
			d.exec(`commit`)
		}
	})
}
