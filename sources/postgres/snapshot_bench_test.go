//go:build unix

package postgres

import (
	"context"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// BenchmarkSnapshot reads a table of rows of some 180 bytes with pace max, by turns with COPY … TO STDOUT into
// nothing, and reports the medians and the ratio. LEAT_BENCH_ROWS sets the number of rows (default 2,000,000),
// LEAT_BENCH_RUNS the number of turns (default 5).
//
//	go test -run - -bench Snapshot -benchtime 1x ./sources/postgres
func BenchmarkSnapshot(b *testing.B) {
	rows, runs := setting64("LEAT_BENCH_ROWS", 2_000_000), setting64("LEAT_BENCH_RUNS", 5)
	d := servertest.Postgres(b, servers.PostgresOptions{Version: 15})
	conn, err := pgx.Connect(b.Context(), d.URL)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, q := range []string{
		`create table files (id bigint primary key, namespace_id bigint, path text, size bigint, owner text, digest text, at timestamptz)`,
		fmt.Sprintf(`insert into files select n, n/100, '/some/where/in/the/tree/' || n, n*1000, 'owner' || n, md5(n::text) || md5((n+1)::text), now() from generate_series(1, %d) n`, rows),
		`vacuum analyze files`, `checkpoint`,
	} {
		if _, err := conn.Exec(b.Context(), q); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		var ours, theirs, ratios, cpu []float64
		for i := range runs {
			began := time.Now()
			if _, err := conn.PgConn().CopyTo(b.Context(), io.Discard, "copy files to stdout"); err != nil {
				b.Fatal(err)
			}
			theirs = append(theirs, float64(rows)/time.Since(began).Seconds())
			before := cpuSeconds()
			ours = append(ours, float64(rows)/snapshotOnce(b, d, rows).Seconds())
			cpu = append(cpu, (cpuSeconds()-before)/float64(rows)*1e6)
			ratios = append(ratios, ours[i]/theirs[i])
			b.Logf("turn %d: copy %.0f rows/s, leat %.0f rows/s (%.2f), CPU %.2f s per million", i, theirs[i], ours[i], ratios[i], cpu[i])
		}
		b.ReportMetric(median(ours), "rows/s")
		b.ReportMetric(median(theirs), "copy-rows/s")
		b.ReportMetric(median(ratios), "ratio")
		b.ReportMetric(slices.Min(ratios), "ratio-min")
		b.ReportMetric(median(cpu), "CPUs/M")
	}
}

func snapshotOnce(b *testing.B, d *servertest.Database, rows int) time.Duration {
	s, err := New(Config{Name: "files", URL: d.URL, Slot: d.Name, Create: true, Tables: []string{"public.files"}})
	if err != nil {
		b.Fatal(err)
	}
	reader, err := s.Snapshots("")
	if err != nil {
		b.Fatal(err)
	}
	st, err := snapshot.New(s, reader, snapshot.Config{Max: true, Workers: setting64("LEAT_BENCH_WORKERS", 2)}).Open(b.Context(), pipeline.Position{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = st.Close()
		if err := s.Remove(b.Context()); err != nil {
			b.Error(err)
		}
	}()
	began := time.Now()
	st.(pipeline.Snapshotter).Start(pipeline.SnapshotJob{ID: "bench", Tables: []string{"public.files"}})
	for n := 0; ; {
		batch, err := st.Next(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		done := false
		if m := batch.Snapshot; m != nil {
			n += len(batch.Events)
			done = m.State.Ended()
			if m.State == pipeline.JobFailed {
				b.Fatal(m.Reason)
			}
		}
		batch.Release()
		if done {
			if n != rows {
				b.Fatalf("%d rows of %d came", n, rows)
			}
			return time.Since(began)
		}
	}
}
