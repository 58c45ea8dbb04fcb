package state

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/leat-cdc/leat/pipeline"
)

// PutSnapshot keeps a snapshot job; one of the same ID is replaced. Of each source the newest that ended are kept, and
// the initial one always: it is made once.
func (s *Store) PutSnapshot(ctx context.Context, j pipeline.Snapshot) error {
	tables, err := json.Marshal(j.Tables)
	if err != nil {
		return fmt.Errorf("keep snapshot %s: %w", j.ID, err)
	}
	progress, err := json.Marshal(j.Progress)
	if err != nil {
		return fmt.Errorf("keep snapshot %s: %w", j.ID, err)
	}
	var ended int64
	if !j.Ended.IsZero() {
		ended = micros(j.Ended)
	}
	err = s.exec(ctx, "keep snapshot "+j.ID, `INSERT OR REPLACE INTO snapshots (id, source, log, for_one, cause, tables, filter, after, state, reason, progress, created, ended, owner)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, j.ID, j.Source, j.Log, j.For, string(j.Cause), string(tables), j.Where, int64(j.After), string(j.State), j.Reason,
		string(progress), micros(j.Created), ended, j.Owner)
	if err != nil || ended == 0 {
		return err
	}
	return s.exec(ctx, "forget old snapshots", `DELETE FROM snapshots WHERE source = ?1 AND ended > 0 AND cause <> 'initial' AND id NOT IN
		(SELECT id FROM snapshots WHERE source = ?1 ORDER BY ended = 0 DESC, created DESC LIMIT ?2)`, j.Source, keptJobs)
}

// Snapshots lists a source's snapshot jobs, or all of them when it is empty, the oldest first.
func (s *Store) Snapshots(ctx context.Context, source string) ([]pipeline.Snapshot, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT id, source, log, for_one, cause, tables, filter, after, state, reason, progress, created, ended, owner
		FROM snapshots WHERE ?1 = '' OR source = ?1 ORDER BY created, id`, source)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	defer rows.Close()
	var all []pipeline.Snapshot
	for rows.Next() {
		var j pipeline.Snapshot
		var tables, progress string
		var after, created, ended int64
		if err := rows.Scan(&j.ID, &j.Source, &j.Log, &j.For, &j.Cause, &tables, &j.Where, &after, &j.State, &j.Reason, &progress, &created, &ended, &j.Owner); err != nil {
			return nil, fmt.Errorf("list snapshots: %w", err)
		}
		if err := json.Unmarshal([]byte(tables), &j.Tables); err != nil {
			return nil, fmt.Errorf("snapshot %s: tables: %w", j.ID, err)
		}
		if err := json.Unmarshal([]byte(progress), &j.Progress); err != nil {
			return nil, fmt.Errorf("snapshot %s: progress: %w", j.ID, err)
		}
		j.After = pipeline.Offset(after)
		if j.Created = fromMicros(created); ended != 0 {
			j.Ended = fromMicros(ended)
		}
		all = append(all, j)
	}
	return all, rows.Err()
}
