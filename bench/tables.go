package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/leat-cdc/leat/bench/process"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// tables measures a source of so many tables beside one of a single table: how long a start takes, with an empty log
// and with one that knows them all, and the memory while a row of each table goes to a subscriber.
func (b *bench) tables(ctx context.Context, _ *workload, run string) error {
	for _, n := range []int{1, b.o.tables} {
		schema := fmt.Sprintf("many%d", n)
		process.Say("%s: making %d tables", b.name, n)
		yaml, insert, undo, err := b.db.tables(ctx, schema, n)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%d tables", n)
		folder := filepath.Join(b.o.dir, b.name+"-"+run+"-"+schema)
		err = b.ofTables(ctx, name, folder, yaml, insert, n)
		if err = errors.Join(err, os.RemoveAll(folder), undo(context.WithoutCancel(ctx))); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) ofTables(ctx context.Context, name, folder, yaml string, insert func(context.Context) error, n int) error {
	const subs = "  rows:\n    source: bench\n    batch: {events: 500}\n    deliver: {pull: {}}\n"
	for _, life := range []string{"first start", "start again"} {
		s, err := b.launch(ctx, strings.ReplaceAll(name+" "+life, " ", "-"), folder, yaml, subs)
		if err != nil {
			return err
		}
		err = s.WaitFor(ctx, "the source to stream", func(st *leatv1.StatusResponse) bool {
			return len(st.Sources) == 1 && st.Sources[0].State == "streaming" && len(st.Subscriptions) == 1
		})
		took, at := time.Since(s.Started), s.Anonymous()
		if err == nil {
			err = b.oneOfEach(ctx, s, insert, n)
		}
		cpu := s.CPU()
		peak, stopErr := s.Stop()
		if err = errors.Join(err, stopErr); err != nil {
			return err
		}
		b.record(name+", "+life, firstEvent, float64(took.Milliseconds()))
		b.record(name+", "+life, peakMemory, float64(peak)/(1<<20))
		process.Say("%s: %s, %s: streams after %.2f s with %d MiB; a row of each: %d MiB at most, %.1f s of CPU in all, with %s", b.name, name, life, took.Seconds(), at>>20, peak>>20, cpu.Seconds(), b.o.memory)
	}
	return nil
}

// oneOfEach inserts a row into each table and waits until a subscriber has them.
func (b *bench) oneOfEach(ctx context.Context, s *process.Server, insert func(context.Context) error, n int) error {
	rows, err := process.StartChild(ctx, "pull-subscribers", "-addr", s.Addr, "-subscriptions", "rows", "-events", fmt.Sprint(n))
	if err != nil {
		return err
	}
	err = insert(ctx)
	var h heard
	if err == nil {
		err = rows.Next(&h)
	}
	return errors.Join(err, rows.Stop(nil))
}

// manyTables is how many tables one statement makes or fills.
const manyTables = 100

func (p *postgres) tables(ctx context.Context, schema string, n int) (string, func(context.Context) error, func(context.Context) error, error) {
	each := func(ctx context.Context, what string) error {
		for from := 0; from < n; from += manyTables {
			q := fmt.Sprintf("do $$ begin for i in %d..%d loop execute format('%s', i); end loop; end $$", from, min(n, from+manyTables)-1, strings.ReplaceAll(what, "'", "''"))
			if err := p.s.Exec(ctx, q); err != nil {
				return err
			}
		}
		return nil
	}
	err := p.s.Exec(ctx, "create schema "+schema)
	if err == nil {
		err = each(ctx, "create table "+schema+".t%s (id bigint generated always as identity primary key, path text, size bigint, hash text, deleted boolean, modified timestamptz default now())")
	}
	if err == nil {
		err = p.s.Exec(ctx, "create publication leat_"+schema+" for tables in schema "+schema, "select pg_create_logical_replication_slot('"+schema+"', 'pgoutput')")
	}
	yaml := fmt.Sprintf("    postgres: {url: %q, slot: %s, publication: leat_%s, create: false}\n    tables: [\"%s.*\"]\n", p.s.URL, schema, schema, schema)
	insert := func(ctx context.Context) error {
		return each(ctx, "insert into "+schema+".t%s (path, size) values (repeat('x', 100), 1)")
	}
	undo := func(ctx context.Context) error {
		return p.s.Exec(ctx, "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots where slot_name = '"+schema+"' and active", "select pg_drop_replication_slot('"+schema+"')")
	}
	return yaml, insert, undo, err
}

func (m *maria) tables(ctx context.Context, schema string, n int) (string, func(context.Context) error, func(context.Context) error, error) {
	each := func(ctx context.Context, what string) error {
		for i := range n {
			if _, err := m.db.ExecContext(ctx, fmt.Sprintf(what, i)); err != nil {
				return err
			}
		}
		return nil
	}
	err := m.s.Exec(ctx, "create database "+schema, "set global innodb_flush_log_at_trx_commit = 2, global sync_binlog = 0")
	if err == nil {
		err = each(ctx, "create table "+schema+".t%d (id bigint primary key auto_increment, path varchar(200), size bigint, hash char(64), deleted boolean, modified timestamp default current_timestamp)")
	}
	yaml := fmt.Sprintf("    mysql: {url: %q}\n    tables: [\"%s.*\"]\n    start: now\n", m.s.URL+"?tls=disable", schema)
	insert := func(ctx context.Context) error {
		return each(ctx, "insert into "+schema+".t%d (path, size) values (repeat('x', 100), 1)")
	}
	return yaml, insert, nothing, err
}
