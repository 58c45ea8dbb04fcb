package postgres

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// What ALTER TABLE rewrites while a read waits for its lock is not read as empty; and nobody's lock holds a read for long.
func TestSnapshotLocked(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, d *db) {
		role := "some_" + d.Name // may read columns only, so that it may not lock
		d.exec(`create role ` + role + ` login password 'pw'`)
		for name, key := range map[string][]string{"keyed": {"id"}, "loose": nil, "keyed_some": {"id"}, "loose_some": nil, "parted_some": {"id"}} {
			parted := ""
			if strings.HasPrefix(name, "parted") {
				parted = ` partition by range (id)`
			}
			d.exec(`create table ` + name + ` (id int, v int, w int)` + parted)
			if parted != "" {
				d.exec(`create table `+name+`_1 partition of `+name+` for values from (0) to (50)`, `create table `+name+`_2 partition of `+name+` for values from (50) to (1000)`)
			}
			d.exec(`insert into ` + name + ` select n, n from generate_series(1, 100) n`)
			if key != nil {
				d.exec(`alter table ` + name + ` add primary key (id)`)
			}
			at := d.URL
			if strings.HasSuffix(name, "_some") {
				d.exec(`grant select (id, v, w) on ` + name + ` to ` + role)
				u, err := url.Parse(d.URL)
				if err != nil {
					t.Fatal(err)
				}
				u.User = url.UserPassword(role, "pw")
				at = u.String()
			}
			reader, err := Plain("files", at)
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
