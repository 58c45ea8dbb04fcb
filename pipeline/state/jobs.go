package state

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/leat-cdc/leat/pipeline"
)

// keptJobs of a subscription: beyond them those that ended first are forgotten.
const keptJobs = 1000

// PutJob keeps a job; one of the same ID is replaced.
func (s *Store) PutJob(ctx context.Context, j pipeline.Job) error {
	scope, err := json.Marshal(j.Scope)
	if err != nil {
		return fmt.Errorf("keep job %s: %w", j.ID, err)
	}
	pending, err := pairs(j.Pending)
	if err != nil {
		return fmt.Errorf("keep job %s: %w", j.ID, err)
	}
	var ended int64
	if !j.Ended.IsZero() {
		ended = micros(j.Ended)
	}
	err = s.exec(ctx, "keep job "+j.ID, `INSERT OR REPLACE INTO jobs (id, subscription, source, log, kind, from_offset, to_offset, scope, state, reason,
		at, high, pending, live, stop, done, total, dead, bytes, created, ended, owner) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		j.ID, j.Subscription, j.Source, j.Log, string(j.Kind), int64(j.From), int64(j.To), string(scope), string(j.State), j.Reason,
		int64(j.At), int64(j.High), pending, int64(j.Live), int64(j.Stop), int64(j.Done), int64(j.Total), int64(j.Dead), int64(j.Bytes), micros(j.Created), ended, j.Owner)
	if err != nil || ended == 0 {
		return err
	}
	return s.exec(ctx, "forget old jobs", `DELETE FROM jobs WHERE subscription = ?1 AND ended > 0 AND id NOT IN
		(SELECT id FROM jobs WHERE subscription = ?1 ORDER BY ended = 0 DESC, created DESC LIMIT ?2)`, j.Subscription, keptJobs)
}

// Jobs lists a subscription's jobs, or all of them when it is empty, the oldest first.
func (s *Store) Jobs(ctx context.Context, subscription string) ([]pipeline.Job, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT id, subscription, source, log, kind, from_offset, to_offset, scope, state, reason,
		at, high, pending, live, stop, done, total, dead, bytes, created, ended, owner FROM jobs WHERE ?1 = '' OR subscription = ?1 ORDER BY created, id`, subscription)
	if err != nil {
		return nil, fmt.Errorf("list jobs: %w", err)
	}
	defer rows.Close()
	var all []pipeline.Job
	for rows.Next() {
		var j pipeline.Job
		var scope, pending string
		var from, to, at, high, live, stop, done, total, dead, bytes, created, ended int64
		if err := rows.Scan(&j.ID, &j.Subscription, &j.Source, &j.Log, &j.Kind, &from, &to, &scope, &j.State, &j.Reason,
			&at, &high, &pending, &live, &stop, &done, &total, &dead, &bytes, &created, &ended, &j.Owner); err != nil {
			return nil, fmt.Errorf("list jobs: %w", err)
		}
		if err := json.Unmarshal([]byte(scope), &j.Scope); err != nil {
			return nil, fmt.Errorf("job %s: scope: %w", j.ID, err)
		}
		if j.Pending, err = ranges(pending); err != nil {
			return nil, fmt.Errorf("job %s: pending: %w", j.ID, err)
		}
		j.From, j.To, j.At, j.High, j.Live, j.Stop = pipeline.Offset(from), pipeline.Offset(to), pipeline.Offset(at), pipeline.Offset(high), pipeline.Offset(live), pipeline.Offset(stop)
		j.Done, j.Total, j.Dead, j.Bytes = uint64(done), uint64(total), uint64(dead), uint64(bytes)
		if j.Created = fromMicros(created); ended != 0 {
			j.Ended = fromMicros(ended)
		}
		all = append(all, j)
	}
	return all, rows.Err()
}
