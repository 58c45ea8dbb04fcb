package deliver

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

const (
	saveEvery      = time.Second
	saveFirst      = 20 * time.Millisecond // the first interval of a session
	saveDeliveries = 1000
	// maxPending ranges of a cursor; beyond it the last one covers the rest.
	maxPending  = 4096
	saveTimeout = 30 * time.Second
	// tellFirst is the wait before what is resolved is told again, doubling up to tellMax.
	tellFirst = time.Second
	tellMax   = time.Minute
)

// saving is the loop's side of the saver: a goroutine that makes cursors durable. What is resolved is
// told to the subscriber only once that is durable, so that it never goes back; a second goroutine
// does that, so that a slow subscriber does not hold up the cursor.
type saving struct {
	sub        *Subscription
	dirty      bool
	due        time.Time // when the cursor is to be saved; zero = nothing to save
	deliveries int
	saves      int // of this session, begun
	busy       bool
	last       pipeline.Cursor // handed to the saver last
	warned     bool

	resolver    pipeline.Resolver // nil = no resolved events
	resolved    pipeline.Offset   // durable, or about to be
	resolvedAt  time.Time
	resolvedDue time.Time

	work  chan pipeline.Cursor
	saved chan error
	tell  chan pipeline.Offset
	stop  context.CancelFunc
	wg    sync.WaitGroup
}

func (v *saving) begin(s *Subscription, start pipeline.Cursor) {
	v.sub, v.resolved, v.last = s, start.Resolved, start
	if s.cfg.Resolved > 0 {
		v.resolver, _ = s.cfg.Sink.(pipeline.Resolver)
		v.dirty = start.Low > start.Resolved // parks may be gone since
	}
	v.work, v.saved, v.tell = make(chan pipeline.Cursor, 1), make(chan error, 1), make(chan pipeline.Offset, 1)
	var ctx context.Context
	ctx, v.stop = context.WithCancel(context.Background())
	told := start.Resolved
	if v.resolver != nil && told > s.told {
		v.tell <- told // durable, and perhaps the process ended before it was told
	}
	v.wg.Go(func() {
		for c := range v.work {
			err := v.store(c)
			if err == nil && c.Resolved > told {
				told = c.Resolved
				select {
				case <-v.tell: // an older one that nobody was told yet
				default:
				}
				v.tell <- told
			}
			v.saved <- err
		}
		close(v.tell)
	})
	v.wg.Go(func() { v.teller(ctx) })
}

// teller tells the subscriber what is resolved: again until it is taken, or there is a newer one, which says it
// all. What was not taken before the session ended the next one tells.
func (v *saving) teller(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for o := range v.tell {
		for wait := tellFirst; ctx.Err() == nil; wait = min(2*wait, tellMax) {
			one, cancel := context.WithTimeout(ctx, saveTimeout)
			err := v.resolver.Resolve(one, o, time.Now())
			cancel()
			if err == nil {
				v.sub.told = o
				break
			}
			timer.Reset(wait)
			select {
			case newer, ok := <-v.tell:
				if !ok {
					return
				}
				o, wait = newer, tellFirst/2
			case <-timer.C:
			case <-ctx.Done():
			}
		}
	}
}

// store makes a cursor durable.
func (v *saving) store(c pipeline.Cursor) error {
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
	defer cancel()
	if err := v.sub.cfg.Cursors.Save(ctx, v.sub.cfg.Name, c); err != nil {
		return fmt.Errorf("save the cursor: %w", err)
	}
	v.sub.persisted.Store(uint64(c.Low))
	return v.sub.storeHold(ctx)
}

// finish saves a last time and joins.
func (v *saving) finish(c pipeline.Cursor) error {
	v.stop()
	if v.busy {
		v.noted(<-v.saved)
	}
	close(v.work)
	v.wg.Wait()
	if slices.Equal(c.Pending, v.last.Pending) && c.Low == v.last.Low && c.High == v.last.High && !v.dirty {
		return nil
	}
	return v.store(c)
}

// noted takes the saver's answer.
func (v *saving) noted(err error) {
	v.busy = false
	v.sub.mu.Lock()
	v.sub.status.SaveError = ""
	if err != nil {
		v.sub.status.SaveError = err.Error()
	} else {
		v.sub.status.Resolved = v.last.Resolved
	}
	v.sub.mu.Unlock()
	if err != nil {
		v.dirty = true
		if !v.warned {
			v.sub.cfg.Observer.Warned("subscription "+v.sub.cfg.Name, err.Error()+"; delivery goes on and a crash would deliver more again", "see that the data folder has space and can be written")
		}
	}
	v.warned = err != nil
}

// persist hands the cursor to the saver each second, or after many Deliveries.
func (s *session) persist(now time.Time) {
	v := &s.save
	if v.dirty && v.due.IsZero() {
		if v.due = now.Add(s.saveInterval()); s.saveInterval() == saveEvery {
			v.due = v.due.Truncate(saveEvery) // all subscriptions at the same moment: one sync is enough for all
		}
	}
	due := !v.due.IsZero() && (!now.Before(v.due) || v.deliveries >= saveDeliveries)
	if v.busy || !due && (v.resolvedDue.IsZero() || now.Before(v.resolvedDue)) {
		return
	}
	if s.lanes.windowed {
		s.settleWindow(now)
	}
	c := s.cursor()
	v.resolvedDue = time.Time{}
	resolved := c.Low
	if o, ok := s.sub.parks.floor(); ok {
		resolved = min(resolved, o)
	}
	if h := s.sub.hold; h != nil {
		s.progress()
		resolved = min(resolved, h.resolvedTo())
	}
	if v.resolver != nil && resolved > v.resolved {
		if next := v.resolvedAt.Add(s.cfg.Resolved); now.Before(next) {
			v.resolvedDue = next
		} else {
			v.resolved, v.resolvedAt = resolved, now
		}
	}
	c.Resolved = v.resolved
	v.work <- c
	v.saves++
	v.busy, v.dirty, v.due, v.deliveries, v.last = true, false, time.Time{}, 0, c
}

// saveInterval is short at first and doubles: a process that is killed again and again within its first
// second gets on all the same, and delivers a bounded part again. The interval of resolved events bounds it
// too.
func (s *session) saveInterval() time.Duration {
	if early := saveFirst << min(s.save.saves, 10); early < saveEvery {
		return early
	}
	if r := s.cfg.Resolved; r > 0 && r < saveEvery {
		return r
	}
	return saveEvery
}

// cursor is the frontier as it is to be kept. What the cursor that this session began from says about
// offsets that were not read again yet still holds.
func (s *session) cursor() pipeline.Cursor {
	low := s.low()
	high := max(low, s.stream.pos, s.start.High)
	pending := s.pending(low, high)
	pending = append(pending, clip(s.start.Pending, s.front.End(), high)...)
	return pipeline.Cursor{Log: s.start.Log, Low: low, High: high, Pending: pending, Resolved: s.save.resolved, Worked: s.sub.worked}
}
