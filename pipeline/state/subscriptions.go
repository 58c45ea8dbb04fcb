package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Subscription as it was last named in the file.
type Subscription struct {
	Name, Source string
	// Spec is what the file said, without secrets.
	Spec    string
	Created time.Time
	Paused  bool
	// Reason for the pause.
	Reason string
}

// Source as it was last named in the file.
type Source struct {
	Name, Log, Spec string
	Seen            time.Time
}

// PutSubscription remembers a subscription; its pause stays as it is.
func (s *Store) PutSubscription(ctx context.Context, sub Subscription) error {
	return s.exec(ctx, "remember the subscription", `INSERT INTO subscriptions (name, source, spec, created) VALUES (?, ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET source = excluded.source, spec = excluded.spec`, sub.Name, sub.Source, sub.Spec, micros(time.Now()))
}

// Subscriptions lists all that are remembered, by name.
func (s *Store) Subscriptions(ctx context.Context) ([]Subscription, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT name, source, spec, created, paused, reason FROM subscriptions ORDER BY name")
	if err != nil {
		return nil, fmt.Errorf("list subscriptions: %w", err)
	}
	defer rows.Close()
	var all []Subscription
	for rows.Next() {
		var sub Subscription
		var created int64
		if err := rows.Scan(&sub.Name, &sub.Source, &sub.Spec, &created, &sub.Paused, &sub.Reason); err != nil {
			return nil, fmt.Errorf("list subscriptions: %w", err)
		}
		sub.Created = fromMicros(created)
		all = append(all, sub)
	}
	return all, rows.Err()
}

// DropSubscription forgets a subscription with its cursor, dead letters, parks, skips and jobs.
func (s *Store) DropSubscription(ctx context.Context, name string) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("drop subscription %q: %w", name, err)
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	for _, q := range []string{"DELETE FROM cursors WHERE subscription = ?", "DELETE FROM dead_letters WHERE subscription = ?",
		"DELETE FROM skips WHERE subscription = ?", "DELETE FROM parks WHERE subscription = ?", "DELETE FROM jobs WHERE subscription = ?", "DELETE FROM snapshots WHERE for_one = ?", "DELETE FROM throttles WHERE name = ?", "DELETE FROM subscriptions WHERE name = ?"} {
		if _, err := tx.ExecContext(ctx, q, name); err != nil {
			return fmt.Errorf("drop subscription %q: %w", name, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("drop subscription %q: %w", name, err)
	}
	return nil
}

// Paused returns whether the subscription is paused, and why; one that is not known is not.
func (s *Store) Paused(ctx context.Context, subscription string) (paused bool, reason string, err error) {
	err = s.read.QueryRowContext(ctx, "SELECT paused, reason FROM subscriptions WHERE name = ?", subscription).Scan(&paused, &reason)
	if errors.Is(err, sql.ErrNoRows) {
		return false, "", nil
	}
	if err != nil {
		return false, "", fmt.Errorf("read the state of %q: %w", subscription, err)
	}
	return paused, reason, nil
}

// SetPaused pauses or resumes.
func (s *Store) SetPaused(ctx context.Context, subscription string, paused bool, reason string) error {
	return s.exec(ctx, "save the state of a subscription", `INSERT INTO subscriptions (name, source, spec, created, paused, reason) VALUES (?, '', '', ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET paused = excluded.paused, reason = excluded.reason`, subscription, micros(time.Now()), paused, reason)
}

// PutSource remembers a source.
func (s *Store) PutSource(ctx context.Context, src Source) error {
	return s.exec(ctx, "remember the source", `INSERT INTO sources (name, log, spec, seen) VALUES (?, ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET log = excluded.log, spec = excluded.spec, seen = excluded.seen`, src.Name, src.Log, src.Spec, micros(time.Now()))
}

// Sources lists all that are remembered, by name.
func (s *Store) Sources(ctx context.Context) ([]Source, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT name, log, spec, seen FROM sources ORDER BY name")
	if err != nil {
		return nil, fmt.Errorf("list sources: %w", err)
	}
	defer rows.Close()
	var all []Source
	for rows.Next() {
		var src Source
		var seen int64
		if err := rows.Scan(&src.Name, &src.Log, &src.Spec, &seen); err != nil {
			return nil, fmt.Errorf("list sources: %w", err)
		}
		src.Seen = fromMicros(seen)
		all = append(all, src)
	}
	return all, rows.Err()
}

// DropSource forgets a source; its subscriptions are not touched.
func (s *Store) DropSource(ctx context.Context, name string) error {
	return errors.Join(s.exec(ctx, "drop the source", "DELETE FROM held_tables WHERE log IN (SELECT log FROM sources WHERE name = ?)", name),
		s.exec(ctx, "drop the source", "DELETE FROM snapshots WHERE source = ?", name),
		s.exec(ctx, "drop the source", "DELETE FROM sources WHERE name = ?", name), s.DropThrottle(ctx, name))
}
