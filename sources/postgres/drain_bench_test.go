//go:build unix

package postgres

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
)

// BenchmarkDrain drains a backlog of rows of some 180 bytes in transactions of 100, by turns with
// pg_recvlogical to /dev/null, and reports the medians and the ratio. LEAT_BENCH_ROWS sets the
// number of rows (default 1,000,000), LEAT_BENCH_RUNS the number of turns (default 5).
//
//	go test -run - -bench Drain -benchtime 1x ./sources/postgres
func BenchmarkDrain(b *testing.B) {
	rows, runs := setting64("LEAT_BENCH_ROWS", 1_000_000), setting64("LEAT_BENCH_RUNS", 5)
	d := servertest.Postgres(b, servers.PostgresOptions{Version: 15})
	conn, err := pgx.Connect(b.Context(), d.URL)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	exec := func(q string) {
		if _, err := conn.Exec(b.Context(), q); err != nil {
			b.Fatal(err)
		}
	}
	exec(`create table files (id bigint primary key, namespace_id bigint, path text, size bigint, owner text, digest text, at timestamptz)`)
	exec(`create publication leat_files for table files`)
	exec(`select pg_create_logical_replication_slot('` + d.Name + `', 'pgoutput')`)
	load(b, conn, rows)
	for b.Loop() {
		var ours, theirs, cpu []float64
		for i := range runs {
			theirs = append(theirs, turn(b, d, conn, exec, i, func(slot string) int { return recvlogical(b, d, slot, rows) }))
			before := cpuSeconds()
			ours = append(ours, turn(b, d, conn, exec, i, func(slot string) int { return drain(b, d, slot, rows) }))
			cpu = append(cpu, (cpuSeconds()-before)/float64(rows)*1e6)
			b.Logf("turn %d: pg_recvlogical %.0f rows/s, leat %.0f rows/s (%.2f), CPU %.2f s per million", i, theirs[i], ours[i], ours[i]/theirs[i], cpu[i])
		}
		ratios := make([]float64, runs)
		for i := range ratios {
			ratios[i] = ours[i] / theirs[i]
		}
		b.ReportMetric(median(ours), "rows/s")
		b.ReportMetric(median(theirs), "recvlogical-rows/s")
		b.ReportMetric(median(ratios), "ratio")
		b.ReportMetric(slices.Min(ratios), "ratio-min")
		b.ReportMetric(median(cpu), "CPUs/M")
	}
}

func load(b *testing.B, conn *pgx.Conn, rows int) {
	if _, err := conn.Exec(b.Context(), fmt.Sprintf(`do $$ begin
		for i in 0..%d loop
			insert into files select i*100+n, n, '/some/where/in/the/tree/' || n, n*1000, 'owner' || n, md5(n::text) || md5((n+1)::text), now()
				from generate_series(1, 100) n;
			commit;
		end loop; end $$`, rows/100-1)); err != nil {
		b.Fatal(err)
	}
}

// turn runs f on a copy of the slot and returns rows a second.
func turn(b *testing.B, d *servertest.Database, conn *pgx.Conn, exec func(string), i int, f func(slot string) int) float64 {
	slot := d.Name + "_" + strconv.Itoa(i)
	exec(fmt.Sprintf(`select pg_copy_logical_replication_slot('%s', '%s')`, d.Name, slot))
	began := time.Now()
	n := f(slot)
	took := time.Since(began)
	exec(`select pg_terminate_backend(active_pid, 5000) from pg_replication_slots where active and slot_name = '` + slot + `'`)
	exec(`select pg_drop_replication_slot('` + slot + `')`)
	return float64(n) / took.Seconds()
}

func recvlogical(b *testing.B, d *servertest.Database, slot string, rows int) int {
	end := lastLSN(b, d)
	cmd, err := servers.PostgresCommand(b.Context(), nil, "pg_recvlogical", "-d", d.URL, "--slot", slot, "--start", "-f", "/dev/null",
		"-o", "proto_version=1", "-o", "publication_names=leat_files", "--endpos", end)
	if err != nil {
		b.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("pg_recvlogical: %v\n%s", err, out)
	}
	return rows
}

func lastLSN(b *testing.B, d *servertest.Database) string {
	conn, err := pgx.Connect(b.Context(), d.URL)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var lsn string
	if err := conn.QueryRow(b.Context(), "select pg_current_wal_lsn()::text").Scan(&lsn); err != nil {
		b.Fatal(err)
	}
	return lsn
}

func drain(b *testing.B, d *servertest.Database, slot string, rows int) int {
	s, err := New(Config{Name: "files", URL: d.URL, Slot: slot, Publication: "leat_files", Tables: []string{"public.files"},
		Pause: time.Duration(setting64("LEAT_BENCH_PAUSE_US", 600)) * time.Microsecond})
	if err != nil {
		b.Fatal(err)
	}
	st, err := s.Open(b.Context(), pipeline.Position{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	n, batches := 0, 0
	for n < rows {
		batch, err := st.Next(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		n += len(batch.Events)
		batches++
		st.Confirm(batch.End)
		batch.Release()
	}
	b.Logf("%d batches", batches)
	return n
}

func setting64(name string, def int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return def
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}
