package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/leat-cdc/leat/pipeline"
)

// PutHeld keeps copies of what parks hold and the table versions that they refer to, all or none. Of parks that are
// gone nothing is kept; the same copy again replaces itself.
func (s *Store) PutHeld(ctx context.Context, held []pipeline.Held, tables []pipeline.HeldTable) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("copy what parks hold: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	for _, t := range tables {
		if _, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO held_tables (log, id, version, shape) VALUES (?, ?, ?, ?)", t.Log, t.ID, t.Version, t.Shape); err != nil {
			return fmt.Errorf("copy what parks hold: table %d: %w", t.ID, err)
		}
	}
	put, err := tx.PrepareContext(ctx, `INSERT OR REPLACE INTO held (subscription, offset, hash, single, log, block)
		SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM parks WHERE subscription = ?1 AND hash = ?3 AND single = ?4)`)
	if err != nil {
		return fmt.Errorf("copy what parks hold: %w", err)
	}
	defer put.Close()
	for _, h := range held {
		if _, err := put.ExecContext(ctx, h.Subscription, int64(h.Offset), int64(h.Park.Hash), int64(h.Park.Single), h.Log, h.Block); err != nil {
			return fmt.Errorf("copy what parks hold: offset %d: %w", h.Offset, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("copy what parks hold: %w", err)
	}
	return nil
}

// PutCopied keeps the Copied of parks, all or none; of those that are gone, or begin elsewhere by now, nothing.
func (s *Store) PutCopied(ctx context.Context, parks []pipeline.Park) error {
	return s.inTx(ctx, "note what is copied", func(tx *sql.Tx) error {
		return eachPark(ctx, tx, "note what is copied", "UPDATE parks SET copied = max(copied, ?1) WHERE subscription = ?2 AND hash = ?3 AND single = ?4 AND from_offset = ?5",
			parks, func(p *pipeline.Park) []any {
				id := p.ID()
				return []any{int64(p.Copied), p.Subscription, int64(id.Hash), int64(id.Single), int64(p.From)}
			})
	})
}

// Held lists a subscription's copies of a log's events in [from, to), in order, at most limit.
func (s *Store) Held(ctx context.Context, subscription, log string, from, to pipeline.Offset, limit int) ([]pipeline.Held, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT offset, hash, single, block FROM held
		WHERE subscription = ? AND offset >= ? AND offset < ? AND log = ? ORDER BY offset LIMIT ?`, subscription, int64(from), int64(to), log, limit)
	if err != nil {
		return nil, fmt.Errorf("list copies of %q: %w", subscription, err)
	}
	defer rows.Close()
	var all []pipeline.Held
	for rows.Next() {
		h := pipeline.Held{Subscription: subscription, Log: log}
		var offset, hash, single int64
		if err := rows.Scan(&offset, &hash, &single, &h.Block); err != nil {
			return nil, fmt.Errorf("list copies of %q: %w", subscription, err)
		}
		h.Offset, h.Park = pipeline.Offset(offset), pipeline.ParkID{Hash: uint64(hash), Single: pipeline.Offset(single)}
		all = append(all, h)
	}
	return all, rows.Err()
}

// HeldTable returns a table version that copies refer to; ok is false when there is none.
func (s *Store) HeldTable(ctx context.Context, log string, id, version uint32) (t pipeline.HeldTable, ok bool, err error) {
	t = pipeline.HeldTable{Log: log, ID: id, Version: version}
	err = s.read.QueryRowContext(ctx, "SELECT shape FROM held_tables WHERE log = ? AND id = ? AND version = ?", log, id, version).Scan(&t.Shape)
	if errors.Is(err, sql.ErrNoRows) {
		return t, false, nil
	}
	if err != nil {
		return t, false, fmt.Errorf("read a table of copies: %w", err)
	}
	return t, true, nil
}

// HeldBytes is how large a subscription's copies are together, in bytes, and how many there are.
func (s *Store) HeldBytes(ctx context.Context, subscription string) (bytes int64, events uint64, err error) {
	err = s.read.QueryRowContext(ctx, "SELECT coalesce(sum(length(block)), 0), count(*) FROM held WHERE subscription = ?", subscription).Scan(&bytes, &events)
	if err != nil {
		return 0, 0, fmt.Errorf("count copies of %q: %w", subscription, err)
	}
	return bytes, events, nil
}

// HeldCounts is how many events of each park have copies below an offset, itself from the park's first on.
func (s *Store) HeldCounts(ctx context.Context, subscription string, below pipeline.Offset) (map[pipeline.ParkID]uint64, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT h.hash, h.single, count(*) FROM held h JOIN parks p ON p.subscription = h.subscription AND p.hash = h.hash AND p.single = h.single
		WHERE h.subscription = ? AND h.offset < ? AND h.offset >= p.from_offset GROUP BY h.hash, h.single`, subscription, int64(below))
	if err != nil {
		return nil, fmt.Errorf("count copies of %q: %w", subscription, err)
	}
	defer rows.Close()
	all := map[pipeline.ParkID]uint64{}
	for rows.Next() {
		var hash, single int64
		var n uint64
		if err := rows.Scan(&hash, &single, &n); err != nil {
			return nil, fmt.Errorf("count copies of %q: %w", subscription, err)
		}
		all[pipeline.ParkID{Hash: uint64(hash), Single: pipeline.Offset(single)}] = n
	}
	return all, rows.Err()
}
