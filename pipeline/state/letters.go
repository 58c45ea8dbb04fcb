package state

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/leat-cdc/leat/pipeline"
)

// MaxEvent bounds the JSON that a dead letter keeps of its event, in bytes; of a larger one only the rest
// of the letter is kept: the event itself stays in the log as long as retention lets it.
const MaxEvent = 1 << 20

// PutDeadLetters keeps dead letters, all or none; one that is there already is replaced.
func (s *Store) PutDeadLetters(ctx context.Context, ds []pipeline.DeadLetter) error {
	return s.inTx(ctx, "keep dead letters", func(tx *sql.Tx) error { return putLetters(ctx, tx, ds) })
}

// Bury keeps a dead letter and the park of its key, as PutDeadLetters and PutParks do, both or none.
func (s *Store) Bury(ctx context.Context, d pipeline.DeadLetter, p pipeline.Park) error {
	return s.inTx(ctx, "keep a dead letter and a park", func(tx *sql.Tx) error {
		return errors.Join(putLetters(ctx, tx, []pipeline.DeadLetter{d}), putParks(ctx, tx, []pipeline.Park{p}))
	})
}

func putLetters(ctx context.Context, tx *sql.Tx, ds []pipeline.DeadLetter) error {
	put, err := tx.PrepareContext(ctx, "INSERT OR REPLACE INTO dead_letters (subscription, offset, id, tab, key, key_json, reason, attempts, event, time) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
	if err != nil {
		return fmt.Errorf("keep dead letters: %w", err)
	}
	defer put.Close()
	for i := range ds {
		d := &ds[i]
		attempts, err := json.Marshal(d.Attempts)
		if err != nil {
			return fmt.Errorf("keep dead letter %s: %w", d.ID, err)
		}
		event := d.Event
		if len(event) > MaxEvent {
			event = nil
		}
		if _, err := put.ExecContext(ctx, d.Subscription, int64(d.Offset), d.ID, d.Table, d.Key, d.KeyJSON, d.Reason, string(attempts), event, micros(d.Time)); err != nil {
			return fmt.Errorf("keep dead letter %s: %w", d.ID, err)
		}
	}
	return nil
}

// DeleteDeadLetters forgets those of a subscription at offsets, all or none; unknown ones are no error.
func (s *Store) DeleteDeadLetters(ctx context.Context, subscription string, offsets []pipeline.Offset) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("forget dead letters: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	stmt, err := tx.PrepareContext(ctx, "DELETE FROM dead_letters WHERE subscription = ? AND offset = ?")
	if err != nil {
		return fmt.Errorf("forget dead letters: %w", err)
	}
	defer stmt.Close()
	for _, o := range offsets {
		if _, err := stmt.ExecContext(ctx, subscription, int64(o)); err != nil {
			return fmt.Errorf("forget the dead letter of %q at %d: %w", subscription, o, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("forget dead letters: %w", err)
	}
	return nil
}

// DeadOffsets lists where a subscription's are, from an offset on, in order.
func (s *Store) DeadOffsets(ctx context.Context, subscription string, from pipeline.Offset) (all []pipeline.Offset, err error) {
	rows, err := s.read.QueryContext(ctx, "SELECT offset FROM dead_letters WHERE subscription = ? AND offset >= ? ORDER BY offset", subscription, int64(from))
	if err != nil {
		return nil, fmt.Errorf("list dead letters of %q: %w", subscription, err)
	}
	defer rows.Close()
	for rows.Next() {
		var o int64
		if err := rows.Scan(&o); err != nil {
			return nil, fmt.Errorf("list dead letters of %q: %w", subscription, err)
		}
		all = append(all, pipeline.Offset(o))
	}
	return all, rows.Err()
}

// DeadLetters lists a subscription's, the oldest first, at most limit, those above after. The events' JSON
// comes along only when full.
func (s *Store) DeadLetters(ctx context.Context, subscription string, after pipeline.Offset, limit int, full bool) ([]pipeline.DeadLetter, error) {
	event := "NULL"
	if full {
		event = "event"
	}
	rows, err := s.read.QueryContext(ctx, "SELECT offset, id, tab, key, key_json, reason, attempts, "+event+`, time FROM dead_letters
		WHERE subscription = ? AND offset > ? ORDER BY offset LIMIT ?`, subscription, int64(after), limit)
	if err != nil {
		return nil, fmt.Errorf("list dead letters of %q: %w", subscription, err)
	}
	defer rows.Close()
	var all []pipeline.DeadLetter
	for rows.Next() {
		d, err := scanLetter(rows)
		if err != nil {
			return nil, fmt.Errorf("list dead letters of %q: %w", subscription, err)
		}
		d.Subscription = subscription
		all = append(all, d)
	}
	return all, rows.Err()
}

func scanLetter(rows *sql.Rows) (d pipeline.DeadLetter, err error) {
	var offset, at int64
	var attempts string
	if err := rows.Scan(&offset, &d.ID, &d.Table, &d.Key, &d.KeyJSON, &d.Reason, &attempts, &d.Event, &at); err != nil {
		return d, err
	}
	d.Offset, d.Time = pipeline.Offset(offset), fromMicros(at)
	return d, json.Unmarshal([]byte(attempts), &d.Attempts)
}

// CountDeadLetters of a subscription.
func (s *Store) CountDeadLetters(ctx context.Context, subscription string) (n uint64, err error) {
	if err := s.read.QueryRowContext(ctx, "SELECT count(*) FROM dead_letters WHERE subscription = ?", subscription).Scan(&n); err != nil {
		return 0, fmt.Errorf("count dead letters of %q: %w", subscription, err)
	}
	return n, nil
}

// PutSkip lists what a subscription left out; ranges that are listed already are not listed twice.
func (s *Store) PutSkip(ctx context.Context, skip pipeline.Skip) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("list what is skipped: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	for _, r := range skip.Ranges {
		if _, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO skips (subscription, from_offset, to_offset, reason, time) VALUES (?, ?, ?, ?, ?)",
			skip.Subscription, int64(r.From), int64(r.To), skip.Reason, micros(skip.Time)); err != nil {
			return fmt.Errorf("list what is skipped: %w", err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("list what is skipped: %w", err)
	}
	return nil
}

// Skips lists what a subscription left out, the newest first, at most limit.
func (s *Store) Skips(ctx context.Context, subscription string, limit int) ([]pipeline.Skip, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT from_offset, to_offset, reason, time FROM skips WHERE subscription = ? ORDER BY id DESC LIMIT ?", subscription, limit)
	if err != nil {
		return nil, fmt.Errorf("list what %q skipped: %w", subscription, err)
	}
	defer rows.Close()
	var all []pipeline.Skip
	for rows.Next() {
		k := pipeline.Skip{Subscription: subscription}
		var from, to, at int64
		if err := rows.Scan(&from, &to, &k.Reason, &at); err != nil {
			return nil, fmt.Errorf("list what %q skipped: %w", subscription, err)
		}
		k.Ranges, k.Time = []pipeline.OffsetRange{{From: pipeline.Offset(from), To: pipeline.Offset(to)}}, fromMicros(at)
		all = append(all, k)
	}
	return all, rows.Err()
}
