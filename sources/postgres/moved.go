package postgres

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// Codes of gaps that the stream does not tell: in WAL, a rename and an ATTACH PARTITION are changes of the
// catalogue alone.
const (
	codeRenamed   = "renamed"   // a table came under this name with its rows
	codePartition = "partition" // rows came or went with a partition
)

// carried tells under which name the rows of a table travel, "" when they are not read.
type carried struct {
	name, under string
	partition   bool // under is a table above it
}

// places maps the tables that hold rows, by oid, to where their rows travel.
func (s *Source) places(all []*table, viaRoot bool) map[uint32]carried {
	now := make(map[uint32]carried, len(all))
	for _, t := range all {
		if t.kind == "r" && t.readable() == "" {
			now[t.oid] = s.carries(t, viaRoot)
		}
	}
	return now
}

func (s *Source) carries(t *table, viaRoot bool) carried {
	c := carried{name: schemas.Subject(t.schema, t.name)}
	if s.reads(t.schema, t.name, t.ancestors) {
		c.under = c.name
	}
	for i := 0; viaRoot && i+1 < len(t.ancestors); i += 2 { // nearest first: the topmost that is wanted stays
		if s.tables.match(t.ancestors[i], t.ancestors[i+1]) {
			c.under, c.partition = schemas.Subject(t.ancestors[i], t.ancestors[i+1]), true
		}
	}
	return c
}

// moved compares where rows travel with where they did when the catalogue was last looked at, also by an
// earlier stream of this Source, and tells of rows that came or went so.
func (w *watcher) moved(ctx context.Context, made *ensured) {
	if made.all == nil {
		return
	}
	all, now := made.all, w.s.places(made.all, made.viaRoot)
	w.s.mu.Lock()
	before := w.s.placed
	w.s.placed = now
	w.s.mu.Unlock()
	if before == nil {
		return
	}
	names := map[string]bool{}
	for _, t := range all {
		names[schemas.Subject(t.schema, t.name)] = true
	}
	for _, t := range all {
		c, ok := now[t.oid]
		was, known := before[t.oid]
		if !ok || known && was.under == c.under {
			continue
		}
		joins := slices.ContainsFunc(made.joined, func(j joined) bool { return j.oid == t.oid }) // see gaps
		if c.under != "" && (known || c.partition) && !joins {
			w.came(ctx, t, c, was.partition)
		}
	}
	for oid, was := range before {
		if c := now[oid]; was.partition && c.under != was.under && names[was.under] {
			w.gap(was.under, codePartition, "the partition "+was.name+" was taken away, and its rows with it, without events")
		}
	}
}

func (w *watcher) came(ctx context.Context, t *table, c carried, detached bool) {
	code, reason := codeRenamed, "another table took this name, with its rows"
	switch {
	case c.partition:
		code, reason = codePartition, "rows came with the partition "+c.name+", without events"
	case detached:
		code, reason = codePartition, "it was a partition, and has kept its rows"
	}
	rows, err := w.c.older(ctx, t)
	switch {
	case err == nil && !rows || ctx.Err() != nil:
		return
	case err != nil: // not ours to read
		reason += "; whether it had any cannot be seen: " + w.s.mask.text(err.Error())
	}
	w.gap(c.under, code, reason)
}

func (w *watcher) gap(subject, code, reason string) {
	w.send(pipeline.Notice{Kind: pipeline.NoticeGap, Code: code, Table: subject, Reason: reason, Cure: pipeline.BringRows, Time: time.Now().UTC()})
}

// older reports whether the table has rows that are no younger than its present name, or than the newest
// of the partitions that it is (in): rows of the same transaction count as such.
func (c *catalog) older(ctx context.Context, t *table) (rows bool, err error) {
	ctx, end := c.begin(ctx, "look for old rows")
	defer end(&err)
	err = c.patiently(ctx, "statement_timeout", func(tx pgx.Tx) error { // it may have to read the whole table
		return tx.QueryRow(ctx, `select exists (select from `+quoteTable(t.schema, t.name)+` where age(xmin) >= (
		select coalesce((select min(age(xmin)) from pg_inherits where inhrelid in (select relid from pg_partition_ancestors($1))),
			(select age(xmin) from pg_class where oid = $1))))`, t.oid).Scan(&rows)
	})
	return rows, err
}
