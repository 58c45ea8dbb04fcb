package state

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// Load implements pipeline.Cursors.
func (s *Store) Load(ctx context.Context, subscription string) (c pipeline.Cursor, ok bool, err error) {
	var pending string
	var low, high, resolved int64
	err = s.read.QueryRowContext(ctx, "SELECT log, low, high, resolved, pending FROM cursors WHERE subscription = ?", subscription).
		Scan(&c.Log, &low, &high, &resolved, &pending)
	if errors.Is(err, sql.ErrNoRows) {
		return c, false, nil
	}
	if err != nil {
		return c, false, fmt.Errorf("load the cursor of %q: %w", subscription, err)
	}
	c.Low, c.High, c.Resolved = pipeline.Offset(low), pipeline.Offset(high), pipeline.Offset(resolved)
	if c.Pending, err = ranges(pending); err != nil {
		return c, false, fmt.Errorf("load the cursor of %q: pending: %w", subscription, err)
	}
	return c, true, nil
}

// pairs writes ranges as JSON: [[from,to],…].
func pairs(ranges []pipeline.OffsetRange) (string, error) {
	pairs := make([][2]uint64, len(ranges))
	for i, r := range ranges {
		pairs[i] = [2]uint64{uint64(r.From), uint64(r.To)}
	}
	b, err := json.Marshal(pairs)
	return string(b), err
}

// ranges reads what pairs wrote.
func ranges(text string) ([]pipeline.OffsetRange, error) {
	var pairs [][2]uint64
	if err := json.Unmarshal([]byte(text), &pairs); err != nil {
		return nil, err
	}
	var all []pipeline.OffsetRange
	for _, p := range pairs {
		all = append(all, pipeline.OffsetRange{From: pipeline.Offset(p[0]), To: pipeline.Offset(p[1])})
	}
	return all, nil
}

// ErrBackwards: a cursor of the same log would go back.
var ErrBackwards = errors.New("a cursor never goes back")

// Save implements pipeline.Cursors.
func (s *Store) Save(ctx context.Context, subscription string, c pipeline.Cursor) error {
	pending, err := pairs(c.Pending)
	if err != nil {
		return fmt.Errorf("save the cursor of %q: %w", subscription, err)
	}
	res, err := s.write.ExecContext(ctx, `INSERT INTO cursors (subscription, log, low, high, resolved, pending, saved) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (subscription) DO UPDATE SET log = excluded.log, low = excluded.low, high = excluded.high, resolved = excluded.resolved,
			pending = excluded.pending, saved = excluded.saved
		WHERE cursors.log <> excluded.log OR (cursors.low <= excluded.low AND cursors.resolved <= excluded.resolved)`,
		subscription, c.Log, int64(c.Low), int64(c.High), int64(c.Resolved), pending, micros(time.Now()))
	if err != nil {
		return fmt.Errorf("save the cursor of %q: %w", subscription, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return fmt.Errorf("save the cursor of %q at %d: %w", subscription, c.Low, errors.Join(ErrBackwards, err))
	}
	return nil
}
