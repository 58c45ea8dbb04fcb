package state

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// Load implements pipeline.Cursors.
func (s *Store) Load(ctx context.Context, subscription string) (c pipeline.Cursor, ok bool, err error) {
	var pending string
	var low, high, resolved, worked int64
	err = s.read.QueryRowContext(ctx, "SELECT log, low, high, resolved, pending, worked FROM cursors WHERE subscription = ?", subscription).
		Scan(&c.Log, &low, &high, &resolved, &pending, &worked)
	if errors.Is(err, sql.ErrNoRows) {
		return c, false, nil
	}
	if err != nil {
		return c, false, fmt.Errorf("load the cursor of %q: %w", subscription, err)
	}
	c.Low, c.High, c.Resolved = pipeline.Offset(low), pipeline.Offset(high), pipeline.Offset(resolved)
	if worked != 0 {
		c.Worked = fromMicros(worked)
	}
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

// saves are cursors on their way to the disk. Those that come while others are being synced go together, by the
// first of them: a sync of its own for each of many subscriptions would keep the disk from the log.
type saves struct {
	mu      sync.Mutex
	waiting []*save
	turn    chan struct{} // holds one while somebody commits
}

type save struct {
	ctx          context.Context
	subscription string
	cursor       pipeline.Cursor
	pending      string
	done         chan error
}

// Save implements pipeline.Cursors. When ctx ends first, the cursor may be saved all the same.
func (s *Store) Save(ctx context.Context, subscription string, c pipeline.Cursor) error {
	pending, err := pairs(c.Pending)
	if err != nil {
		return fmt.Errorf("save the cursor of %q: %w", subscription, err)
	}
	x := &save{ctx, subscription, c, pending, make(chan error, 1)}
	s.saves.mu.Lock()
	s.saves.waiting = append(s.saves.waiting, x)
	s.saves.mu.Unlock()
	select {
	case err = <-x.done:
	case s.saves.turn <- struct{}{}:
		s.saveWaiting()
		<-s.saves.turn
		err = <-x.done
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("save the cursor of %q at %d: %w", subscription, c.Low, err)
	}
	return nil
}

// saveWaiting commits all that wait.
func (s *Store) saveWaiting() {
	s.saves.mu.Lock()
	all := s.saves.waiting
	s.saves.waiting = nil
	s.saves.mu.Unlock()
	if len(all) == 0 {
		return
	}
	backwards, err := s.saveTogether(all)
	for i, x := range all {
		if err == nil && backwards[i] {
			x.done <- ErrBackwards
			continue
		}
		x.done <- err
	}
}

// saveTimeout bounds a commit: whoever waits gives up by its own context.
const saveTimeout = 30 * time.Second

// saveTogether commits cursors, in their order; backwards says which of them were left out.
func (s *Store) saveTogether(all []*save) (backwards []bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
	defer cancel()
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	backwards = make([]bool, len(all))
	for i, x := range all {
		if x.ctx.Err() != nil {
			continue // nobody waits for it any more
		}
		c, worked := &x.cursor, int64(0)
		if !c.Worked.IsZero() {
			worked = micros(c.Worked)
		}
		res, err := tx.ExecContext(ctx, `INSERT INTO cursors (subscription, log, low, high, resolved, pending, worked, saved) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (subscription) DO UPDATE SET log = excluded.log, low = excluded.low, high = excluded.high, resolved = excluded.resolved,
			pending = excluded.pending, worked = excluded.worked, saved = excluded.saved
		WHERE cursors.log <> excluded.log OR (cursors.low <= excluded.low AND cursors.resolved <= excluded.resolved)`,
			x.subscription, c.Log, int64(c.Low), int64(c.High), int64(c.Resolved), x.pending, worked, micros(time.Now()))
		if err != nil {
			return nil, err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return nil, err
		}
		backwards[i] = n == 0
	}
	return backwards, tx.Commit()
}
