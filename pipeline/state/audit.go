package state

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Outcomes of what somebody tried.
const (
	OutcomeDone = "done"
	// OutcomeRefused: nothing was changed.
	OutcomeRefused = "refused"
	// OutcomeFailed: part of it may be done.
	OutcomeFailed = "failed"
)

// MaxAudit bounds the audit log, in entries: the oldest give way.
const MaxAudit = 100_000

// Entry of the audit log.
type Entry struct {
	Time time.Time
	// Actor is the name of a token; Name that of a source or subscription.
	Actor, Action, Name string
	// Arguments is a JSON object, without secrets.
	Arguments string
	// Outcome: done, refused, failed; Detail: what was done, or the error.
	Outcome, Detail string
}

// Audit remembers who changed, or tried to change, what.
func (s *Store) Audit(ctx context.Context, e Entry) error {
	return s.auditUpTo(ctx, e, MaxAudit)
}

func (s *Store) auditUpTo(ctx context.Context, e Entry, most int64) error {
	if e.Arguments == "" {
		e.Arguments = "{}"
	}
	if e.Outcome == "" {
		e.Outcome = OutcomeDone
	}
	r, err := s.write.ExecContext(ctx, "INSERT INTO audit (time, actor, action, name, arguments, outcome, detail) VALUES (?, ?, ?, ?, ?, ?, ?)",
		micros(e.Time), e.Actor, e.Action, e.Name, e.Arguments, e.Outcome, e.Detail)
	if err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	if id, err := r.LastInsertId(); err == nil && id > most {
		return s.exec(ctx, "shorten the audit log", "DELETE FROM audit WHERE id <= ?", id-most)
	}
	return nil
}

// AuditQuery narrows AuditLog.
type AuditQuery struct {
	// Since: entries at or after; zero = all.
	Since time.Time
	// Name of a source or subscription; empty = all.
	Name string
	// Limit: the newest so many.
	Limit int
}

// AuditLog lists entries, the oldest first.
func (s *Store) AuditLog(ctx context.Context, q AuditQuery) ([]Entry, error) {
	var since int64
	if !q.Since.IsZero() {
		since = micros(q.Since)
	}
	rows, err := s.read.QueryContext(ctx, `SELECT time, actor, action, name, arguments, outcome, detail FROM audit
		WHERE time >= ? AND (? = '' OR name = ?) ORDER BY id DESC LIMIT ?`, since, q.Name, q.Name, q.Limit)
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	defer rows.Close()
	var all []Entry
	for rows.Next() {
		var e Entry
		var at int64
		if err := rows.Scan(&at, &e.Actor, &e.Action, &e.Name, &e.Arguments, &e.Outcome, &e.Detail); err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		e.Time = fromMicros(at)
		all = append(all, e)
	}
	slices.Reverse(all)
	return all, rows.Err()
}
