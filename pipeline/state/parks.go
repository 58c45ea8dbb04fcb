package state

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/leat-cdc/leat/pipeline"
)

// PutParks keeps parks, all or none; one of the same subscription and ID is replaced, save that what was copied of
// it stays copied.
func (s *Store) PutParks(ctx context.Context, parks []pipeline.Park) error {
	return s.inTx(ctx, "keep parks", func(tx *sql.Tx) error { return putParks(ctx, tx, parks) })
}

func putParks(ctx context.Context, tx *sql.Tx, parks []pipeline.Park) error {
	return eachPark(ctx, tx, "keep parks", `INSERT OR REPLACE INTO parks
		(subscription, hash, single, log, from_offset, space, key, key_json, pair, reason, attempts, since, redrive, spent, of_range, until, copied)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?15, ?16, ?17,
			max(?14, coalesce((SELECT copied FROM parks WHERE subscription = ?1 AND hash = ?2 AND single = ?3 AND log = ?4), 0)))`, parks, func(p *pipeline.Park) []any {
		id := p.ID()
		pair := sql.NullInt64{Int64: int64(p.PairHash), Valid: p.Paired}
		return []any{p.Subscription, int64(id.Hash), int64(id.Single), p.Log, int64(p.From), p.Space, p.Key, p.KeyJSON, pair, p.Reason, p.Attempts, micros(p.Since), p.Redrive, int64(p.Copied), p.Spent, p.Interval, p.Until}
	})
}

// DeleteParks forgets parks, and the copies of what they hold, by subscription and ID, all or none; unknown ones
// are no error.
func (s *Store) DeleteParks(ctx context.Context, parks []pipeline.Park) error {
	return s.inTx(ctx, "forget parks", func(tx *sql.Tx) error {
		return eachPark(ctx, tx, "forget parks", "DELETE FROM parks WHERE subscription = ? AND hash = ? AND single = ?", parks, func(p *pipeline.Park) []any {
			id := p.ID()
			return []any{p.Subscription, int64(id.Hash), int64(id.Single)}
		})
	})
}

// inTx runs f in a transaction, whose writes are durable when it returns nil.
func (s *Store) inTx(ctx context.Context, doing string, f func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	if err := f(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

func eachPark(ctx context.Context, tx *sql.Tx, doing, query string, parks []pipeline.Park, args func(*pipeline.Park) []any) error {
	stmt, err := tx.PrepareContext(ctx, query)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer stmt.Close()
	for i := range parks {
		if _, err := stmt.ExecContext(ctx, args(&parks[i])...); err != nil {
			return fmt.Errorf("%s: %q at %d: %w", doing, parks[i].Subscription, parks[i].From, err)
		}
	}
	return nil
}

// EachPark calls f with each of a subscription's parks of a log, in no order, without what only people read: KeyJSON,
// Reason and Attempts. Key and Until are f's only as long as it runs.
func (s *Store) EachPark(ctx context.Context, subscription, log string, f func(*pipeline.Park)) error {
	rows, err := s.read.QueryContext(ctx, `SELECT hash, single, from_offset, space, key, pair, since, redrive, spent, of_range, until, copied
		FROM parks WHERE subscription = ? AND log = ?`, subscription, log)
	if err != nil {
		return fmt.Errorf("list parks of %q: %w", subscription, err)
	}
	defer rows.Close()
	var hash, single, from, since, redrive, spent, ofRange, copied int64
	var pair sql.NullInt64
	var space, key, until sql.RawBytes
	into := []any{&hash, &single, &from, &space, &key, &pair, &since, &redrive, &spent, &ofRange, &until, &copied}
	p := pipeline.Park{Subscription: subscription, Log: log}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return fmt.Errorf("list parks of %q: %w", subscription, err)
		}
		if p.Space != string(space) {
			p.Space = string(space)
		}
		p.Key, p.Hash, p.From, p.Single, p.Since, p.Redrive = key, uint64(hash), pipeline.Offset(from), single != 0, fromMicros(since), redrive != 0
		p.Copied, p.Paired, p.PairHash, p.Spent = pipeline.Offset(copied), pair.Valid, uint64(pair.Int64), spent != 0
		p.Interval, p.Until = ofRange != 0, until
		f(&p)
	}
	return rows.Err()
}

// Parks lists a subscription's, the oldest From first.
func (s *Store) Parks(ctx context.Context, subscription string) ([]pipeline.Park, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT hash, single, log, from_offset, space, key, key_json, pair, reason, attempts, since, redrive, spent, of_range, until, copied
		FROM parks WHERE subscription = ? ORDER BY from_offset`, subscription)
	if err != nil {
		return nil, fmt.Errorf("list parks of %q: %w", subscription, err)
	}
	defer rows.Close()
	var all []pipeline.Park
	for rows.Next() {
		p := pipeline.Park{Subscription: subscription}
		var hash, single, from, since, copied int64
		var pair sql.NullInt64
		if err := rows.Scan(&hash, &single, &p.Log, &from, &p.Space, &p.Key, &p.KeyJSON, &pair, &p.Reason, &p.Attempts, &since, &p.Redrive, &p.Spent, &p.Interval, &p.Until, &copied); err != nil {
			return nil, fmt.Errorf("list parks of %q: %w", subscription, err)
		}
		p.Hash, p.From, p.Single, p.Since = uint64(hash), pipeline.Offset(from), single != 0, fromMicros(since)
		p.Copied = pipeline.Offset(copied)
		p.Paired, p.PairHash = pair.Valid, uint64(pair.Int64)
		all = append(all, p)
	}
	return all, rows.Err()
}
