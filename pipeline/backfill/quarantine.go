package backfill

import (
	"context"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// Quarantined returns, by table, the quarantines in force.
func (s *Jobs) Quarantined() map[string]pipeline.Notice {
	s.mu.Lock()
	log := s.log
	s.mu.Unlock()
	if log == nil {
		return nil
	}
	return quarantined(log)
}

func quarantined(log pipeline.Log) map[string]pipeline.Notice {
	var all map[string]pipeline.Notice
	for _, n := range log.Notices() {
		if n.Kind != pipeline.NoticeQuarantined {
			continue
		}
		if all == nil {
			all = map[string]pipeline.Notice{}
		}
		all[n.Table] = n
	}
	return all
}

// faulted returns a job's tables, those with a fault whose rows were read but did not enter the log. A quarantine of a
// shape may end with the job's own rows: it counts at the job's end.
func faulted(tables []pipeline.TableProgress, quar map[string]pipeline.Notice, ended bool) []pipeline.TableProgress {
	if len(quar) == 0 {
		return tables
	}
	tables = slices.Clone(tables)
	for i := range tables {
		if n, ok := quar[tables[i].Table]; ok && tables[i].Fault == "" && (ended || !n.OfShape()) {
			tables[i].Done, tables[i].Fault, tables[i].Cure = false, "quarantined: "+n.Reason, n.Cure
		}
	}
	return tables
}

// release ends the quarantines of the tables that a person asks for. While a prepared transaction waits, rows of such a
// table may be missing in it: no snapshot sees those, and its commit would not bring them.
func (s *Jobs) release(ctx context.Context, globs []string) error {
	var tables []string
	for table := range s.Quarantined() {
		if schema, name, ok := schemas.ParseSubject(table); ok && named(globs, schema, name) {
			tables = append(tables, table)
		}
	}
	if len(tables) == 0 {
		return nil
	}
	slices.Sort(tables)
	s.mu.Lock()
	keeper, ok := s.log.(pipeline.PreparedKeeper)
	s.mu.Unlock()
	if ok && len(keeper.Prepared()) > 0 {
		return refuse("the quarantine of %s cannot end yet: transactions are prepared (%s), and of their rows in it some may not have entered the log: "+
			"XA COMMIT or XA ROLLBACK them first (XA RECOVER lists them)", strings.Join(tables, ", "), strings.Join(keeper.Prepared(), ", "))
	}
	return s.cfg.Release(ctx, tables)
}

// named reports whether globs, some of which may exclude (!), mean the table.
func named(globs []string, schema, name string) bool {
	in, any := false, false
	for _, g := range globs {
		if out, negative := strings.CutPrefix(g, "!"); negative {
			if schemas.MatchTable(out, schema, name) {
				return false
			}
			continue
		}
		any = true
		in = in || schemas.MatchTable(g, schema, name)
	}
	return in || !any
}

// Lacking lists the subscriptions that take a notice's table and have not got it whole since then.
func (s *Jobs) Lacking(ctx context.Context, n pipeline.Notice) []string {
	takers := s.cfg.Takers(n.Table)
	if len(takers) == 0 || n.Kind != pipeline.NoticeGap {
		return takers
	}
	all, err := s.cfg.Store.Snapshots(ctx, s.cfg.Source)
	if err != nil {
		return takers // rather one too many
	}
	return lacking(all, n, takers)
}

func lacking(all []pipeline.Snapshot, n pipeline.Notice, takers []string) []string {
	return slices.DeleteFunc(takers, func(name string) bool {
		return slices.ContainsFunc(all, func(j pipeline.Snapshot) bool { return brought(&j, n, name) })
	})
}
