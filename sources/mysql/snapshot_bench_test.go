package mysql

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// BenchmarkSnapshotRead reads a table of rows of some 180 bytes in chunks, and beside it as MariaDB's own client does
// with --quick; each round does both, so that the ratio means something on a busy machine.
func BenchmarkSnapshotRead(b *testing.B) {
	b.Run("mysql", func(b *testing.B) { readSpeed(b, servertest.MySQL(b, servers.MySQLOptions{})) })
	b.Run("mariadb", func(b *testing.B) { readSpeed(b, servertest.MariaDB(b, servers.MySQLOptions{})) })
}

func readSpeed(b *testing.B, db *servertest.Database) {
	const rows = 1 << 19
	raw := base(db.URL) + "?tls=disable"
	c := login(b, raw, db.Name)
	c.do(`create table files (id bigint unsigned primary key, parent bigint unsigned not null, name varchar(80) not null, size bigint not null,
		mode int not null, owner int not null, mtime datetime(6) not null, digest binary(20) not null, tag enum('a','b','c') not null, note varchar(100))`,
		"insert into files values (1, 1, 'file-name-number-1.parquet', 1234567890, 420, 1000, '2026-11-21 10:15:30.123456', x'0102030405060708090a0b0c0d0e0f1011121314', 'b', 'a note of some length about what this file is for, and why')")
	for n := 1; n < rows; n *= 2 {
		c.do(fmt.Sprintf("insert into files select id + %d, parent, concat('file-name-number-', id + %d, '.parquet'), size, mode, owner, mtime, digest, tag, note from files", n, n))
	}
	c.do("analyze table files")
	client := servertest.MariaDB(b, servers.MySQLOptions{}).Server // MySQL's package has no client
	u, err := url.Parse(raw)
	if err != nil {
		b.Fatal(err)
	}
	password, _ := u.User.Password()
	src := source(b, Config{URL: raw, Tables: []string{db.Name + ".*"}})
	snap := src.Snapshots()
	b.Cleanup(func() { _ = snap.Close() })
	s, err := snap.Session(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	table := snapshot.Table{Schema: db.Name, Name: "files", Key: []string{"id"}}
	var ours, theirs time.Duration
	chunk := &snapshot.Chunk{}
	for b.Loop() {
		began := time.Now()
		cmd, err := client.Command(b.Context(), "mariadb", "--no-defaults", "--quick", "--skip-ssl", "-h", u.Hostname(), "-P", u.Port(), "-u", u.User.Username(), "--password="+password, db.Name, "-e", "select * from files")
		if err != nil {
			b.Fatal(err)
		}
		cmd.Stdout = nil // /dev/null
		if err := cmd.Run(); err != nil {
			b.Fatal(err)
		}
		theirs += time.Since(began)
		began = time.Now()
		read, bytes := 0, 0
		for q := (snapshot.Query{Table: table, Limit: 50000}); ; {
			if err := s.Read(b.Context(), q, chunk); err != nil {
				b.Fatal(err)
			}
			read, bytes = read+len(chunk.Rows), bytes+len(chunk.Arena)
			if !chunk.More {
				break
			}
			if q.After, err = snap.Key(chunk.Shape, chunk.Row(len(chunk.Rows)-1)); err != nil {
				b.Fatal(err)
			}
		}
		ours += time.Since(began)
		if read != rows {
			b.Fatalf("%d rows", read)
		}
		b.SetBytes(int64(bytes))
	}
	b.ReportMetric(float64(rows)*float64(b.N)/ours.Seconds(), "rows/s")
	b.ReportMetric(float64(rows)*float64(b.N)/theirs.Seconds(), "client-rows/s")
	b.ReportMetric(theirs.Seconds()/ours.Seconds(), "ratio")
}
