package state

import (
	"context"
	"fmt"
	"time"
)

// Throttle that an operator has set on a source or subscription.
type Throttle struct {
	// Name of the source or subscription: it has at most one.
	Name string
	// Ratio of the full speed that is left, 0 (stopped) to 1.
	Ratio float64
	// Owner is who set it: the name of a token.
	Reason, Owner string
	// Until is when it ends; zero = when somebody ends it.
	Since, Until time.Time
}

// PutThrottle sets a throttle, instead of one of that name.
func (s *Store) PutThrottle(ctx context.Context, t Throttle) error {
	var until int64
	if !t.Until.IsZero() {
		until = micros(t.Until)
	}
	return s.exec(ctx, "set the throttle", "INSERT OR REPLACE INTO throttles (name, ratio, reason, owner, since, until) VALUES (?, ?, ?, ?, ?, ?)",
		t.Name, t.Ratio, t.Reason, t.Owner, micros(t.Since), until)
}

// DropThrottle ends the throttle of that name, if there is one.
func (s *Store) DropThrottle(ctx context.Context, name string) error {
	return s.exec(ctx, "end the throttle", "DELETE FROM throttles WHERE name = ?", name)
}

// Throttles lists all, by name, also those whose time is over.
func (s *Store) Throttles(ctx context.Context) ([]Throttle, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT name, ratio, reason, owner, since, until FROM throttles ORDER BY name")
	if err != nil {
		return nil, fmt.Errorf("list throttles: %w", err)
	}
	defer rows.Close()
	var all []Throttle
	for rows.Next() {
		var t Throttle
		var since, until int64
		if err := rows.Scan(&t.Name, &t.Ratio, &t.Reason, &t.Owner, &since, &until); err != nil {
			return nil, fmt.Errorf("list throttles: %w", err)
		}
		t.Since = fromMicros(since)
		if until != 0 {
			t.Until = fromMicros(until)
		}
		all = append(all, t)
	}
	return all, rows.Err()
}
