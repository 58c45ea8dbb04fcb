package ingest

import (
	"fmt"
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// defaultMaxEvent leaves room in a block of the log (1 GiB) for all that shares one with the event: a
// source cuts its batches at about a MiB, behind the event that fills them.
const defaultMaxEvent = 1<<30 - 64<<20

// LargeError: the images of one event are more than a block of the log can hold.
type LargeError struct {
	// Bytes of both images, and how many they may be.
	Bytes, Max int
}

// Error says how large and why that is refused.
func (e *LargeError) Error() string {
	return fmt.Sprintf("a row of %d bytes is more than the log holds in one event (%d)", e.Bytes, e.Max)
}

// messages stands for the logical messages of a source where a notice has a table: a table's subject has a dot.
const messages = "messages"

// leftOut tells of a logical message that cannot be kept. Those behind it are no less for its lack.
func (c *catalog) leftOut(position string, prefix []byte, size int) {
	const shown = 64
	c.pending = append(c.pending, pipeline.Notice{Kind: pipeline.NoticeGap, Code: codeLarge, Table: messages, Position: position, Time: time.Now().UTC(),
		Reason: fmt.Sprintf("a logical message (prefix %q) of %d bytes is more than the log holds in one event (%d): it did not enter the log", prefix[:min(len(prefix), shown)], size, c.cfg.MaxEvent),
		Cure:   "send less in one message, and tell those who wait for this one by other means"})
}

// large reports whether an event cannot be kept; its table, if it has one, is quarantined then (p is nil for a
// message), and its images are to be cut out of the arena.
func (r *rows) large(b *pipeline.Batch, e *pipeline.Event, p *plan) bool {
	size := len(b.Bytes(e.Before)) + len(b.Bytes(e.After))
	if size <= r.cfg.MaxEvent {
		return false
	}
	switch {
	case p == nil:
		r.catalog.leftOut(txPosition(b, e), b.Bytes(e.Before), size)
	case p.quarantined:
		r.open.leaveOut(p)
	default:
		r.fault(b, e, p, &LargeError{size, r.cfg.MaxEvent})
	}
	for _, s := range []pipeline.Span{e.Before, e.After} {
		if s.Present() && s.Len > 0 {
			r.cuts = append(r.cuts, s)
		}
	}
	return true
}

// cut takes what no event holds any longer out of the arena. No other span overlaps it.
func (r *rows) cut(b *pipeline.Batch) {
	slices.SortFunc(r.cuts, func(x, y pipeline.Span) int { return int(int64(y.Off) - int64(x.Off)) })
	for _, c := range r.cuts { // from the last to the first: what is before stays where it is
		b.Arena = slices.Delete(b.Arena, int(c.Off), int(c.Off+c.Len))
		back := func(s *pipeline.Span) {
			if s.Present() && s.Off >= c.Off+c.Len {
				s.Off -= c.Len
			}
		}
		for i := range b.Events {
			e := &b.Events[i]
			back(&e.Key)
			back(&e.Before)
			back(&e.After)
		}
		for i := range b.Txs {
			back(&b.Txs[i].ID)
			back(&b.Txs[i].Position)
		}
	}
	r.cuts = r.cuts[:0]
}
