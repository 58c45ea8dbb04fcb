package deliver

import (
	"sync/atomic"
	"time"

	"github.com/leat-cdc/leat/pipeline/sched"
)

// turn is the session's place among all that share the process's CPU.
type turn struct {
	entry  *sched.Entry // nil: there is no gate
	behind atomic.Bool  // the reader's: it reads from the disk
	kind   sched.Kind
}

func newTurn(c *Config) *turn {
	t := &turn{kind: sched.Live}
	if c.window != nil {
		t.kind = sched.Replay
	}
	t.entry = c.Gate.Enter(c.Priority, t.kind)
	return t
}

// begin uses a grant for d.
func (t *turn) begin(d *delivery, now time.Time) {
	if t.entry == nil {
		return
	}
	t.entry.Begin(&d.grant, now)
	if d.handed == nil {
		d.handed = func() { d.grant.Done(d.Bytes, time.Now()) }
	}
	d.Handed = d.handed
}

// deliverable is about how many Deliveries could be cut now; 0: none.
func (s *session) deliverable(now time.Time) int {
	n := len(s.held.ready) + len(s.held.aside) + len(s.lanes.ready) - s.lanes.readyHead
	if due := s.held.nextDue(); !due.IsZero() && !due.After(now) {
		n++
	}
	if s.stream.ready > 0 {
		n += 1 + s.stream.ready/s.cfg.Batch.Events
	}
	return n
}

// place tells the gate what the session does: live, or catching up. A replay stays one.
func (t *turn) place(c *Config) {
	if t.entry == nil || c.window != nil {
		return
	}
	kind := sched.Live
	if t.behind.Load() {
		kind = sched.CatchUp
	}
	if kind != t.kind {
		t.kind = kind
		t.entry.Shift(c.Priority, kind)
	}
}
