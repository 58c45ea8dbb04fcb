package backfill

import (
	"slices"
	"strings"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// routed is the code of a quarantine that ingest takes back by itself, with the next row that can be routed.
const routed = "route"

// Quarantined returns, by table, the quarantines in force behind which a snapshot would bring no row.
func (s *Jobs) Quarantined() map[string]pipeline.Notice {
	s.mu.Lock()
	log := s.log
	s.mu.Unlock()
	if log == nil {
		return nil
	}
	return quarantined(log, false)
}

// quarantined returns the quarantines in force, by table; at the end of a job also those that its rows could have ended.
func quarantined(log pipeline.Log, ended bool) map[string]pipeline.Notice {
	var all map[string]pipeline.Notice
	for _, n := range log.Notices() {
		if n.Kind != pipeline.NoticeQuarantined || n.Code == routed && !ended {
			continue
		}
		if all == nil {
			all = map[string]pipeline.Notice{}
		}
		all[n.Table] = n
	}
	return all
}

// faulted returns a job's tables, those with a fault whose rows were read but did not enter the log.
func faulted(tables []pipeline.TableProgress, quar map[string]pipeline.Notice) []pipeline.TableProgress {
	if len(quar) == 0 {
		return tables
	}
	tables = slices.Clone(tables)
	for i := range tables {
		if n, ok := quar[tables[i].Table]; ok && tables[i].Fault == "" {
			tables[i].Done, tables[i].Fault, tables[i].Cure = false, "quarantined: "+n.Reason, n.Cure
		}
	}
	return tables
}

// closed refuses a job all of whose tables are named, without wildcards, and quarantined.
func (s *Jobs) closed(globs []string) error {
	quar := s.Quarantined()
	var found []pipeline.Notice
	for _, g := range globs {
		if strings.HasPrefix(g, "!") {
			continue
		}
		n, ok := quar[g]
		if !ok && !strings.ContainsAny(g, "*?") {
			n, ok = s.noticeOf(g, quar)
		}
		if !ok {
			return nil
		}
		found = append(found, n)
	}
	if len(found) == 0 {
		return nil
	}
	return refuse("%s", Closed(found))
}

func (s *Jobs) noticeOf(glob string, quar map[string]pipeline.Notice) (pipeline.Notice, bool) {
	s.mu.Lock()
	log := s.log
	s.mu.Unlock()
	for _, t := range log.Tables() {
		if n, ok := quar[t.Subject()]; ok && schemas.MatchTable(glob, t.Schema, t.Name) {
			return n, true
		}
	}
	return pipeline.Notice{}, false
}

// Closed says why a snapshot of quarantined tables brings nothing, and what to do.
func Closed(found []pipeline.Notice) string {
	var all []string
	for _, n := range found {
		all = append(all, "table "+n.Table+" is quarantined: its rows would be read, but not enter the log ("+n.Reason+"); mend the cause first: "+
			strings.TrimSuffix(n.Cure, "; then "+pipeline.BringRows)+"; backfill it when leat status names it quarantined no more")
	}
	return strings.Join(all, "; ")
}
