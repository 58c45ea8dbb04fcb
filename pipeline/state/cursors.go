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
	var pairs [][2]uint64
	if err := json.Unmarshal([]byte(pending), &pairs); err != nil {
		return c, false, fmt.Errorf("load the cursor of %q: pending: %w", subscription, err)
	}
	for _, p := range pairs {
		c.Pending = append(c.Pending, pipeline.OffsetRange{From: pipeline.Offset(p[0]), To: pipeline.Offset(p[1])})
	}
	return c, true, nil
}

// ErrBackwards: a cursor of the same log would go back.
var ErrBackwards = errors.New("a cursor never goes back")

// Save implements pipeline.Cursors.
func (s *Store) Save(ctx context.Context, subscription string, c pipeline.Cursor) error {
	pairs := make([][2]uint64, len(c.Pending))
	for i, r := range c.Pending {
		pairs[i] = [2]uint64{uint64(r.From), uint64(r.To)}
	}
	pending, err := json.Marshal(pairs)
	if err != nil {
		return fmt.Errorf("save the cursor of %q: %w", subscription, err)
	}
	res, err := s.write.ExecContext(ctx, `INSERT INTO cursors (subscription, log, low, high, resolved, pending, saved) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (subscription) DO UPDATE SET log = excluded.log, low = excluded.low, high = excluded.high, resolved = excluded.resolved,
			pending = excluded.pending, saved = excluded.saved
		WHERE cursors.log <> excluded.log OR (cursors.low <= excluded.low AND cursors.resolved <= excluded.resolved)`,
		subscription, c.Log, int64(c.Low), int64(c.High), int64(c.Resolved), string(pending), micros(time.Now()))
	if err != nil {
		return fmt.Errorf("save the cursor of %q: %w", subscription, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return fmt.Errorf("save the cursor of %q at %d: %w", subscription, c.Low, errors.Join(ErrBackwards, err))
	}
	return nil
}
